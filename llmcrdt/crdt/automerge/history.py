"""The changes that a document has, by hash, and those that wait for others.

The core keeps changes that wait too, but tells nobody which; here it gets only what it can apply at once, and what it
would trust is checked: that a change is the next one of its actor, and that its operations are numbered from the first
free number on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import NamedTuple

from ...exceptions import MalformedUpdate
from .chunks import Change
from .derive import is_root_change


class Plan(NamedTuple):
    """``ready``: the changes that can be applied now, in order; ``new``: those of the update that nobody had;
    ``waits``: whether some of those wait."""

    ready: list[Change]
    new: list[Change]
    waits: bool


class History:
    """``heads``: the changes that no other follows; ``roots``: those that make root maps."""

    def __init__(self) -> None:
        self._last: dict[bytes, int] = {}
        self._seqs: dict[bytes, int] = {}
        self._waiting: dict[bytes, Change] = {}
        # Per change that is not here, those that wait for it.
        self._waiters: dict[bytes, list[bytes]] = {}
        self.heads: set[bytes] = set()
        self.roots: set[bytes] = set()

    def __contains__(self, hash_: bytes) -> bool:
        return hash_ in self._last

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
        absent = (hash_ for hash_ in self._waiters if hash_ not in self._last and hash_ not in self._waiting)
        return list(islice(absent, most))

    def waits(self, hash_: bytes) -> bool:
        """Whether a change is here, and waits."""
        return hash_ in self._waiting

    @property
    def seqs(self) -> Mapping[bytes, int]:
        """How many changes there are of each actor, without those that make root maps."""
        return self._seqs

    def begin_again(self) -> None:
        """Forget what was noted. Updates that wait stay."""
        self._last, self._seqs, self.heads, self.roots = {}, {}, set(), set()

    def note(self, change: Change) -> None:
        """A change comes into the document. Raises MalformedUpdate for one that can't come next."""
        root = is_root_change(change)
        self.note_told(change.hash, change.deps, change.actor, change.seq, change.start, change.last, root)

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
        self.heads.difference_update(deps)
        self.heads.add(hash_)

    def plan(self, changes: Iterable[Change], *, stored: bool = False) -> Plan:
        """Take changes in: those that can be applied are noted, the rest waits. ``stored``: one that can't be a change
        of this document is passed over, for it was kept when it waited, and nobody could tell. Else MalformedUpdate:
        some are noted then that are not in the document; ``begin_again``."""
        new: dict[bytes, Change] = {}
        for change in changes:
            if change.hash not in self._last and change.hash not in self._waiting:
                new[change.hash] = change
        ready, wrong = self._order(new, stored)
        waits = False
        for change in new.values():
            if change.hash not in self._last and change.hash not in wrong:
                waits = True
                self._waiting[change.hash] = change
                for dep in self._missing(change):
                    self._waiters.setdefault(dep, []).append(change.hash)
        return Plan(ready, list(new.values()), waits)

    def adds(self, changes: Iterable[Change]) -> bool:
        """Whether any of these changes is new and could be applied now."""
        return any(change.hash not in self._last and not self._missing(change) for change in changes)

    def _order(self, new: Mapping[bytes, Change], stored: bool) -> tuple[list[Change], set[bytes]]:
        """Those that can be applied, and those that waited for them, in order; each is noted. And those that wait no
        longer, for they can't be changes of this document."""
        missing: dict[bytes, int] = {}
        waiters: dict[bytes, list[Change]] = {}
        free: list[Change] = []
        for change in new.values():
            lacking = self._missing(change)
            missing[change.hash] = len(lacking)
            for dep in lacking:
                waiters.setdefault(dep, []).append(change)
            if not lacking:
                free.append(change)
        free.reverse()
        ready, wrong = list[Change](), set[bytes]()
        while free:
            change = free.pop()
            if change.hash in self._last or change.hash in wrong:
                continue
            try:
                self.note(change)
            except MalformedUpdate:
                if change.hash in new and not stored:
                    raise
                wrong.add(change.hash)
                continue
            ready.append(change)
            for waiter in reversed(waiters.get(change.hash, ())):
                missing[waiter.hash] -= 1
                if not missing[waiter.hash]:
                    free.append(waiter)
            for hash_ in self._waiters.get(change.hash, ()):
                waited = self._waiting.get(hash_)
                if waited is not None and not self._missing(waited):
                    free.append(waited)
        for hash_ in (*(change.hash for change in ready), *wrong):
            self._waiting.pop(hash_, None)
            self._waiters.pop(hash_, None)
        return ready, wrong

    def _missing(self, change: Change) -> list[bytes]:
        return [dep for dep in change.deps if dep not in self._last]
