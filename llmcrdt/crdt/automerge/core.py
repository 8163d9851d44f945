"""A document of the package automerge, and the history of what it took.

The package has no call that applies changes (decision 0050), so they come to it as a message of Automerge's own sync
protocol, written here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple

from ...exceptions import LLMCRDTError, MalformedUpdate
from ...varint import write_uint
from ..backend import Other, ParsedUpdate
from .chunks import DOCUMENT, MAGIC, MAP, Change, Erased, Name, ObjectId, Whole, read_change, trusted_change
from .columns import Reader
from .derive import root_change, root_object
from .erasures import Erasures, erasures_of, split_snapshot, tell_held
from .history import History, Plan
from .lazy_history import LazyHistory
from .package import load_core
from .rewrite import is_same, with_deps

Place = tuple[str, str]
"""A root and a key in it."""


class Taken(NamedTuple):
    """``news``: what has to be kept, b"" where there was nothing new; ``first``: the document was empty before;
    ``erased``: the objects of which something is erased from now on."""

    ready: Sequence[Change]
    news: bytes
    waits: bool
    first: bool
    erased: Sequence[ObjectId] = ()


class Core:
    """``roots``: its root maps, by name; ``untold``: changes that make root maps and that no bytes have told of: the
    first edit tells of them. Raises CRDTMissing."""

    def __init__(self, roots: Iterable[str], actor: bytes) -> None:
        self.package = load_core()
        self.roots = {root: root_object(root) for root in roots}
        self._scalars = (self.package.ScalarType.Str, self.package.ScalarType.Bytes)
        self.untold: dict[bytes, Change] = {}
        self.doc: Any = self.package.Document(actor)
        self.broken = False
        self._actor = actor
        self._own = 0  # how many changes were made here
        self.erasures = Erasures()
        self.held: list[Erased] = []
        """Erasures that wait for other changes."""
        self._history = History(self.erasures.blank)
        self.history = LazyHistory(self._history, self._tell_all)
        self._make_roots()

    @property
    def waiting(self) -> list[Change]:
        return self._history.waiting

    def take(self, updates: Sequence[ParsedUpdate], *, stored: bool = False) -> Taken:
        """Take in all that is new of some updates. ``stored``: they were taken before. Raises MalformedUpdate, and then
        took nothing, or is ``broken``."""
        [*chunks] = (chunk for update in updates for chunk in update.structure)
        pieces = dict.fromkeys(piece for update in updates for piece in update.structure.erased)
        blank = (self.history.all() if pieces or self.held else self.history.enough_for(chunks)).blank
        whole: Whole | None = None
        if blank and chunks and isinstance(chunks[0], Whole) and chunks[0].number:
            whole = chunks.pop(0)
            self._become(whole.raw)
        try:
            ready, waiting = self._feed(chunks, stored)
        except MalformedUpdate:
            self.broken = self.broken or whole is not None
            raise
        told = [chunk for chunk in chunks if isinstance(chunk, Change) and chunk.hash in self.untold]
        for change in told:
            self.untold.pop(change.hash, None)
        held = [piece for piece in pieces if not self.can_erase(piece) and piece not in self.held]
        due = [piece for piece in (*pieces, *self.held) if self.can_erase(piece)]
        told_erased = erasures_of(due)
        self.held = [piece for piece in (*self.held, *held) if not self.can_erase(piece)]
        erased = told_erased.without(self.erasures) if self.erasures.lacks(told_erased) else Erasures()
        anew: Mapping[Name, Change] = {}
        self.erasures.add(erased)
        if erased or (whole and self.erasures):
            anew = self.erase()
        ready = [anew.get(change.name, change) for change in ready]
        waiting = [self.erasures.blank(change) for change in waiting]
        after = {name for piece in due for name in piece.after}
        news = b"".join((*self._history.tell((*told, *ready, *waiting)), erased.write(after), *map(tell_held, held)))
        if whole:
            with self.guarded("The CRDT core could not encode the document."):
                kept = bytes(self.doc.save()) if anew else whole.raw
            news = kept + news
        first = blank and not self._history.blank and bool(whole or ready)
        return Taken(ready, news, bool(waiting or held), first, [*erased])

    def can_erase(self, piece: Erased) -> bool:
        """Whether all is here that something is erased after."""
        return all(name in self._history for name in piece.after)

    def start_with(self, snapshot: bytes) -> bool:
        """Be a document that is trusted. False, and nothing done, where the bytes are not one, or there is one here."""
        end = _end_of_document(snapshot)
        erasures = split_snapshot(snapshot, end) if end else None
        if erasures is None or self.erasures or not self.history.noted or not self._history.blank:
            return False
        whole = snapshot[:end]
        self.doc = self._load(whole)
        self.history.begin(whole, (actor for actor, _ in self.roots.values()))
        self.erasures.add(erasures)
        self._make_roots()
        return True

    def new_changes(self, update: ParsedUpdate) -> list[Change]:
        """The changes of an update, but for those of whole documents that are here."""
        self.history.all()
        return [change for chunk in update.structure for change in self._changes_of(chunk)]

    def own_change(self) -> OwnChange | None:
        """The change that a transaction made; None where it wrote nothing new."""
        change = self.doc.get_last_local_change()
        if change is None or change.seq == self._own:
            return None
        history = self.history.ends()  # which may have found this one too
        if change.hash not in history:
            history.note_told(change.hash, change.deps, change.actor_id, change.seq, change.start_op, change.max_op)
        self._own = change.seq
        return OwnChange(change.hash, change.raw_bytes, change.deps, (self._actor, change.seq))

    def tell(self, changes: Iterable[Change]) -> bytes:
        """Changes of this document as an update tells them."""
        return b"".join(self.history.all().tell(changes))

    def tell_own(self, changes: Iterable[OwnChange]) -> bytes:
        """The same for changes that were made here, one after another."""
        history, told, out = self.history.ends(), {*self.untold}, list[bytes]()
        for change in changes:
            out += (history.tell_names(change.deps, change.name, told), change.raw)
            told.add(change.hash)
        return b"".join(out)

    def erase(self, places: Mapping[Place, frozenset[str]] | None = None) -> Mapping[Name, Change]:
        """Write the history anew without the values that ``erasures`` name, and without those that ever stood in these
        fields of the nodes of a place; what is another change now."""
        erasures = self.erasures
        wanted = {(root_object(root), key): names for (root, key), names in (places or {}).items()}
        keys = [key.encode() for _, key in wanted]
        hashes: dict[bytes, bytes] = {}
        raws: list[bytes] = []
        anew: dict[Name, Change] = {}
        told = [(each.hash, each.raw_bytes, each.deps) for each in self._tell_all()]
        for hash_, raw, deps in told:
            change: Change | None = None
            if any(key in raw for key in keys):
                change = trusted_change(hash_, raw)
                for n, operation in enumerate(change.operations(), change.start):
                    names = wanted.get((operation.object, operation.key))  # type: ignore[arg-type]
                    if names is not None and operation.action == MAP:
                        erasures.put((change.actor, n), names)
            if erasures and erasures.concerns(raw):
                change = change or trusted_change(hash_, raw)
                blank = erasures.blank(change)
                raw, change = blank.raw, (None if blank is change else blank)
                here = hash_ if change is None else change.hash
            else:
                here, change = hash_, None
            if not hashes.keys().isdisjoint(deps):
                here, raw = with_deps(raw, [hashes.get(dep, dep) for dep in deps])
            if here != hash_:
                hashes[hash_] = here
                made = trusted_change(here, raw)
                anew[made.name] = made
            raws.append(raw)
        if hashes:
            self._write_anew(raws)
            for hash_, here in hashes.items():
                self._history.note_older(hash_, self._history.name_of(here))
        self._history.erase_waiting()
        return anew

    def _write_anew(self, raws: Sequence[bytes]) -> None:
        with self.guarded("The changes broke the CRDT core."):
            self.doc = self.package.Document(self._actor)
            self._receive(raws)
        self.history.forget()
        self.history.all()

    def read(self, inside: bytes, key: str) -> tuple[Any, Any]:
        """The value under a key: (None, a scalar), (a kind of object, its id), or (Other, b"")."""
        try:
            found = self.doc.get(inside, key)
        except Exception:
            return Other, b""  # a date that Python can't hold, say
        return (Other, b"") if found is None else self._told(found)

    def read_all(self, inside: bytes) -> Iterator[tuple[str, tuple[Any, Any]]]:
        """The keys of a map, and what stands under each."""
        keys = self.doc.keys(inside)
        try:
            values = self.doc.values(inside)
        except Exception:
            values = ()
        if len(keys) == len(values):  # in the same order
            return zip(keys, map(self._told, values), strict=True)
        return ((key, self.read(inside, key)) for key in keys)

    def _told(self, found: tuple[Any, bytes]) -> tuple[Any, Any]:
        value, object_ = found
        if not isinstance(value, tuple):
            return value, object_
        return (None, value[1]) if value[0] in self._scalars else (Other, b"")

    def guarded(self, message: str) -> Guard:
        return Guard(self, message)

    def _feed(self, chunks: Sequence[Change | Whole], stored: bool = False) -> Plan:
        history = self.history.enough_for(chunks)
        try:
            new = (change for chunk in chunks for change in self._changes_of(chunk))
            plan = history.plan(new, _Same(self), stored=stored)
        except MalformedUpdate:
            self.history.forget()
            raise
        if plan.ready:
            with self.guarded("The changes broke the CRDT core."):
                self._receive([change.raw for change in plan.ready])
        return plan

    def _changes_of(self, chunk: Change | Whole) -> Iterable[Change]:
        if isinstance(chunk, Change):
            return (chunk,)
        if not chunk.number:
            return ()
        changes = self._load(chunk.raw).get_changes([])
        return [read_change(change.raw_bytes) for change in changes if change.hash not in self._history]

    def _receive(self, raws: Sequence[bytes]) -> None:
        parts = [b"\x42\x00\x00\x00", write_uint(len(raws))]  # no heads, needs nothing, has nothing
        for raw in raws:
            parts += (write_uint(len(raw)), raw)
        before = self.doc.get_heads()
        message = self.package.Message.decode(b"".join(parts))
        self.doc.receive_sync_message(self.package.SyncState(), message)
        # The core takes changes that name what is not there, or that it would have written in other bytes, and then
        # saves a document that nobody can load.
        told = {change.raw_bytes for change in self.doc.get_changes(before)}
        if len(told) != len(raws) or not told.issuperset(raws):
            raise RuntimeError("The core did not take the changes as they are.")

    def _become(self, whole: bytes) -> None:
        """Be a document, instead of one without content. Raises MalformedUpdate, and is what it was."""
        before, self.doc = self.doc, self._load(whole)
        self.history.forget(trusted=False)
        try:
            self.history.all()
        except MalformedUpdate:
            self.doc, self.broken = before, False
            self.history.forget()
            raise
        self._make_roots()

    def _tell_all(self) -> Sequence[Any]:
        with self.guarded("The CRDT core can't tell its changes."):
            told: Sequence[Any] = self.doc.get_changes([])
        return told

    def _load(self, whole: bytes) -> Any:
        try:
            doc = self.package.Document.load(whole)
            doc.set_actor(self._actor)
        except BaseException as error:
            raise _refusal(error) from None
        return doc

    def _make_roots(self) -> None:
        """Make the root maps that the document lacks."""
        missing = []
        for root, object_ in self.roots.items():
            try:
                self.doc.object_type(object_bytes(object_))
            except Exception:
                missing.append(root_change(root))
        self.untold = {change.hash: change for change in missing}
        if missing:
            with self.guarded("The CRDT core can't make the root maps."):
                self._feed(missing)


class OwnChange(NamedTuple):
    hash: bytes
    raw: bytes
    deps: Sequence[bytes]
    name: Name


class _Same:
    """Whether a change says what the one of its name says that is in the document."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._raws: dict[Name, bytes] | None = None

    def __call__(self, change: Change) -> bool:
        if self._raws is None:
            changes = self._core.doc.get_changes([])
            self._raws = {(each.actor_id, each.seq): each.raw_bytes for each in changes}
        raw = self._raws.get(change.name)
        return raw is not None and is_same(read_change(raw), change)


class Guard:
    """Errors of the core become MalformedUpdate, and the replica is broken: nobody knows how far it came."""

    def __init__(self, core: Core, message: str) -> None:
        self._core, self._message = core, message

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if error is None or isinstance(error, (LLMCRDTError, KeyboardInterrupt, SystemExit, GeneratorExit)):
            return
        self._core.broken = True
        raise MalformedUpdate(self._message, hint="It was not kept; the document is loaded again.") from None


def object_bytes(object_: ObjectId) -> bytes:
    """An object's id as the package has it; the zero is the place of the actor, which it looks up."""
    actor, number = object_
    return b"".join((b"\x10", write_uint(len(actor)), actor, b"\x00", write_uint(number)))


def object_id(data: bytes) -> ObjectId:
    reader = Reader(data, 1)
    actor = reader.prefixed()
    reader.uint()
    return actor, reader.uint()


def _end_of_document(data: bytes) -> int:
    """The end of the whole document with which trusted bytes begin; 0 if they begin with something else."""
    if not data.startswith(MAGIC) or data[8] != DOCUMENT:
        return 0
    reader = Reader(data, 9)
    reader.prefixed()
    return reader.place


def _refusal(error: BaseException) -> BaseException:
    """The error to raise for bytes that the core did not take."""
    if isinstance(error, (LLMCRDTError, KeyboardInterrupt, SystemExit, GeneratorExit)):
        return error
    return MalformedUpdate("The CRDT core can't read the document.")
