"""The changes that a document has, and those that wait for others.

The core keeps changes that wait too, but tells nobody which; here it gets only what it can apply at once, and what it
would trust is checked: that a change is the next one of its actor, and that its operations are numbered from the first
free number on.

A change is known by its name, which is its actor and its number: its hash is another one where something that it says,
or that it comes after, was erased. One that comes under an older hash is written anew, after the changes that are here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from ...exceptions import MalformedUpdate
from .chunks import Change, Name, read_change, write_names
from .derive import is_root_change
from .ends import NOWHERE, Ends
from .rewrite import after, is_same

Same = Callable[[Change], bool]
"""Whether a change of a known name says what the one that is here says."""


class Plan(NamedTuple):
    """``ready``: the changes that can be applied now, in order, as they are to be applied; ``waiting``: those of the
    update that nobody had, and that wait."""

    ready: list[Change]
    waiting: list[Change]


class History:
    """``heads``: the changes that no other follows; ``roots``: those that make root maps; by their hashes here.
    ``older``: of changes that are here, the hashes that they came with and have no more.
    ``erase``: takes out of a change what is erased, where it is told all changes in an order in which they can be
    applied."""

    def __init__(self, erase: Callable[[Change], Change] = lambda change: change) -> None:
        self._erase = erase
        self._last: dict[bytes, int] = {}
        self._seqs: dict[bytes, int] = {}
        self._names: dict[bytes, Name] = {}
        self._hashes: dict[Name, bytes] = {}
        self.older: dict[bytes, Name] = {}
        self._waiting: dict[bytes, Change] = {}
        # Per change that is not here, those that wait for it.
        self._waiters: dict[bytes | Name, list[bytes]] = {}
        self.heads: set[bytes] = set()
        self.roots: set[bytes] = set()

    def __contains__(self, key: bytes | Name) -> bool:
        """Whether a change is in the document, by its hash or its name."""
        return key in self._last if isinstance(key, bytes) else key in self._hashes

    def __len__(self) -> int:
        return len(self._last)

    @property
    def blank(self) -> bool:
        """Whether nothing is there but root maps."""
        return not self._seqs and not self._waiting

    @property
    def waiting(self) -> list[Change]:
        return list(self._waiting.values())

    def wanted(self, most: int) -> list[bytes]:
        """Changes that others wait for, and that are not here: so many at most."""
        here = (self._last, self.older, self._waiting)
        told = (dep for change in self._waiting.values() for dep in change.deps)
        return list(islice(dict.fromkeys(dep for dep in told if not any(dep in known for known in here)), most))

    def waits(self, hash_: bytes) -> bool:
        """Whether a change is here, and waits."""
        return hash_ in self._waiting

    @property
    def seqs(self) -> Mapping[bytes, int]:
        """How many changes there are of each actor, without those that make root maps."""
        return self._seqs

    def has(self, change: Change) -> bool:
        """Whether a change is here, under whatever hash."""
        return change.hash in self._last or change.name in self._hashes

    def begin_again(self, ends: Ends = NOWHERE) -> None:
        """Forget what was noted, but for where the document ends. Updates that wait stay, and so do older hashes."""
        self._last = {head.hash: head.last for head in ends.heads}
        self._names = {head.hash: head.name for head in ends.heads}
        self._hashes = {head.name: head.hash for head in ends.heads}
        self._seqs, self.heads, self.roots = {**ends.seqs}, {*self._last}, set()

    def erase_waiting(self) -> None:
        """Take out of what waits all that is erased, as far as one can tell before it is applied."""
        self._waiting = {came: self._erase(change) for came, change in self._waiting.items()}

    def note_older(self, hash_: bytes, name: Name) -> None:
        """A change that is here had this hash before."""
        self.older[hash_] = name

    def note(self, change: Change) -> None:
        """A change comes into the document. Raises MalformedUpdate for one that can't come next."""
        root = is_root_change(change)
        self.note_told(change.hash, change.deps, change.actor, change.seq, change.start, change.last, root)
        if change.came != change.hash:
            self.older[change.came] = change.name

    def note_told(
        self, hash_: bytes, deps: Iterable[bytes], actor: bytes, seq: int, start: int, last: int, root: bool = False
    ) -> None:
        """The same, from what a change says. ``root``: it makes a root map."""
        deps = list(deps)
        if seq != self._seqs.get(actor, 0) + 1:
            raise MalformedUpdate("A change is not the next one of its actor.")
        if start != max((self._last[dep] for dep in deps), default=0) + 1:
            raise MalformedUpdate("The operations of a change are not numbered from the first free number on.")
        if root:
            self.roots.add(hash_)
        else:
            self._seqs[actor] = seq
        self._last[hash_] = last
        self._names[hash_] = actor, seq
        self._hashes[actor, seq] = hash_
        self.heads.difference_update(deps)
        self.heads.add(hash_)

    def name_of(self, hash_: bytes) -> Name:
        """The name of a change that is here."""
        return self._names[hash_]

    def note_all(self, changes: Sequence[Any], trusted: bool) -> None:
        """Note all changes that the core tells of, in order, and nothing else. ``trusted``: they were noted before, in
        another process. Raises MalformedUpdate for one that can't come next."""
        self.begin_again()
        if not trusted:
            for each in changes:
                root = each.seq == 1 and not each.deps and is_root_change(read_change(each.raw_bytes))
                self.note_told(each.hash, each.deps, each.actor_id, each.seq, each.start_op, each.max_op, root)
            return
        followed = set[bytes]()
        for each in changes:
            hash_, actor, seq, deps = each.hash, each.actor_id, each.seq, each.deps
            self._last[hash_] = each.max_op
            self._names[hash_] = actor, seq
            followed.update(deps)
            if seq == 1 and not deps and is_root_change(read_change(each.raw_bytes)):
                self.roots.add(hash_)
            else:
                self._seqs[actor] = seq
        self._hashes = {name: hash_ for hash_, name in self._names.items()}
        self.heads = self._last.keys() - followed

    def tell(self, changes: Iterable[Change]) -> Iterator[bytes]:
        """Changes as an update tells them, with the names of those that they come after and that are none of these.
        Root maps need no names: they are the same everywhere."""
        told = set[bytes]()
        for change in changes:
            yield self.tell_names(change.deps, change.name, told, change.names)
            yield change.raw
            told |= {change.hash, change.came}

    def tell_names(
        self, deps: Sequence[bytes], name: Name, told: Iterable[bytes] = (), known: Sequence[Name | None] = ()
    ) -> bytes:
        """The names to stand before the change ``name`` that comes after ``deps``, but for those that are ``told``."""
        found: list[Name | None] = []
        for n, dep in enumerate(deps):
            if dep in told or dep in self.roots:
                found.append(None)
            else:
                found.append(self._names.get(dep) or self.older.get(dep) or (known[n] if known else None))
        return write_names(found, *name)

    def plan(self, changes: Iterable[Change], same: Same, *, stored: bool = False) -> Plan:
        """Take changes in: those that can be applied are noted, the rest waits. ``stored``: one that can't be a change
        of this document is passed over, for it was kept when it waited, and nobody could tell. Else MalformedUpdate:
        some are noted then that are not in the document; ``begin_again``."""
        new: dict[bytes, Change] = {}
        freed: list[bytes] = []
        for change in changes:
            if change.came in self._last or change.came in self._waiting:
                continue
            if change.name in self._hashes:
                if not self._is_here(change, same, stored):
                    continue
                freed.append(change.came)
            else:
                new[change.came] = change
        ready, gone = self._order(new, freed, same, stored)
        waiting = [change for change in new.values() if change.came not in gone]
        for change in waiting:
            self._waiting[change.came] = change
            for dep in self._missing(change):
                self._waiters.setdefault(dep, []).append(change.came)
        self.erase_waiting()
        return Plan(ready, [self._waiting[change.came] for change in waiting])

    def adds(self, changes: Iterable[Change]) -> bool:
        """Whether any of these changes is new and could be applied now."""
        return any(not self.has(change) and not self._missing(change) for change in changes)

    def _is_here(self, change: Change, same: Same, stored: bool) -> bool:
        """A change has the name of one that is here: it is that one under an older hash, or can't be one of this
        document."""
        if change.came in self.older:
            return False
        if change.hash in self._last or same(change):
            self.older[change.came] = change.name
            return True
        if not stored:
            raise MalformedUpdate("A change is not the next one of its actor.")
        return False

    def _order(
        self, new: Mapping[bytes, Change], freed: Iterable[bytes], same: Same, stored: bool
    ) -> tuple[list[Change], set[bytes]]:
        """Those that can be applied, and those that waited for them, in order; each is noted. And, by the hashes that
        they came with, all that wait no longer: those, and the ones that can't be changes of this document."""
        missing: dict[bytes, int] = {}
        waiters: dict[bytes | Name, list[Change]] = {}
        free: list[Change] = []
        held_back: dict[Name, list[Change]] = {}
        for change in self._waiting.values():
            held_back.setdefault(change.name, []).append(change)
        for change in new.values():
            lacking = self._missing(change)
            missing[change.came] = len(lacking)
            for dep in lacking:
                waiters.setdefault(dep, []).append(change)
            if lacking:
                held_back.setdefault(change.name, []).append(change)
            else:
                free.append(change)
        free.reverse()
        ready, gone = list[Change](), set[bytes]()

        def come(*keys: bytes | Name) -> None:
            """Something is here, under these names."""
            for key in dict.fromkeys(keys):
                for waiter in reversed(waiters.pop(key, ())):
                    missing[waiter.came] -= 1
                    if not missing[waiter.came]:
                        free.append(waiter)
                for hash_ in self._waiters.get(key, ()):
                    waited = self._waiting.get(hash_)
                    if waited is not None and not self._missing(waited):
                        free.append(waited)

        def is_here(change: Change) -> bool:
            """The same for one that may have come a moment ago, so that the core knows nothing of it."""
            return is_same(noted[change.name], change) if change.name in noted else same(change)

        noted: dict[Name, Change] = {}
        for hash_ in freed:
            come(hash_)
        while free:
            change = free.pop()
            if change.came in gone:
                continue
            gone.add(change.came)
            if self.has(change):
                if change.came not in self._last and self._is_here(change, is_here, stored or change.came not in new):
                    come(change.came)
                continue
            try:
                after_these = self._after_what_is_here(self._erase(change))
                self.note(after_these)
            except MalformedUpdate:
                if change.came in new and not stored:
                    raise
                continue
            ready.append(after_these)
            noted[after_these.name] = after_these
            # The same under another hash may wait for a change that nobody has under that hash any more.
            free += held_back.pop(after_these.name, ())
            come(after_these.hash, after_these.came, after_these.name)
        for hash_ in gone:
            self._waiting.pop(hash_, None)
            self._waiters.pop(hash_, None)
        return ready, gone

    def _after_what_is_here(self, change: Change) -> Change:
        """A change after the changes that it comes after, by the hashes that those have here."""
        deps = [self._find(change, n) for n in range(len(change.deps))]
        here = list(dict.fromkeys(dep for dep in deps if isinstance(dep, bytes)))
        return change if here == change.deps else after(change, here)

    def _find(self, change: Change, n: int) -> bytes | None:
        """The hash that a change has here after which this one comes."""
        name = change.names[n] if change.names else None
        if name is None:
            dep = change.deps[n]
            if dep in self._last:
                return dep
            name = self.older.get(dep)
        return None if name is None else self._hashes.get(name)

    def _missing(self, change: Change) -> list[bytes | Name]:
        names = change.names or [None] * len(change.deps)
        told = enumerate(zip(change.deps, names, strict=True))
        return [name or dep for n, (dep, name) in told if not self._find(change, n)]
