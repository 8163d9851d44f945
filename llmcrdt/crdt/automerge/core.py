"""A document of the package automerge, and the history of what it took.

The package has no call that applies changes (decision 0050), so they come to it as a message of Automerge's own sync
protocol, written here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple

from ...exceptions import LLMCRDTError, MalformedUpdate
from ...varint import write_uint
from ..backend import Other, ParsedUpdate
from .chunks import DOCUMENT, MAGIC, Change, ObjectId, Whole, read_change
from .columns import Reader
from .derive import is_root_change, root_change, root_object
from .history import History, Plan
from .package import load_core


class Taken(NamedTuple):
    """``news``: what has to be kept, b"" where there was nothing new; ``first``: the document was empty before."""

    ready: Sequence[Change]
    news: bytes
    waits: bool
    first: bool


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
        self._history, self._noted = History(), True
        self._own = 0  # how many changes were made here
        self._make_roots()

    @property
    def waiting(self) -> list[Change]:
        return self._history.waiting

    def known(self) -> History:
        """The history, told by the core where that is not known."""
        if not self._noted:
            history = self._history
            history.begin_again()
            with self.guarded("The CRDT core can't tell its changes."):
                for change in self.doc.get_changes([]):
                    root = change.seq == 1 and not change.deps and is_root_change(read_change(change.raw_bytes))
                    history.note_told(
                        change.hash, change.deps, change.actor_id, change.seq, change.start_op, change.max_op, root
                    )
            self._noted = True
        return self._history

    def take(self, updates: Sequence[ParsedUpdate], *, stored: bool = False) -> Taken:
        """Take in all that is new of some updates. ``stored``: they were taken before. Raises MalformedUpdate, and then
        took nothing, or is ``broken``."""
        [*chunks] = (chunk for update in updates for chunk in update.structure)
        blank = self.known().blank
        whole: Whole | None = None
        if blank and chunks and isinstance(chunks[0], Whole) and chunks[0].number:
            whole = chunks.pop(0)
            self._become(whole.raw)
        try:
            plan = self._feed(chunks, stored)
        except MalformedUpdate:
            self.broken = self.broken or whole is not None
            raise
        if whole is None and not plan.new:
            return Taken([], b"", False, False)
        told = [chunk for chunk in chunks if isinstance(chunk, Change) and chunk.hash in self.untold]
        for change in told:
            self.untold.pop(change.hash, None)
        news = b"".join((whole.raw if whole else b"", *(change.raw for change in (*told, *plan.new))))
        return Taken(plan.ready, news, plan.waits, blank and not self._history.blank and bool(whole or plan.ready))

    def start_with(self, snapshot: bytes) -> bool:
        """Be a document that is trusted. False, and nothing done, where the bytes are not one, or there is one here."""
        if not _is_one_document(snapshot) or not self._noted or not self._history.blank:
            return False
        self.doc, self._noted = self._load(snapshot), False
        self._make_roots()
        return True

    def new_changes(self, update: ParsedUpdate) -> list[Change]:
        """The changes of an update, but for those of whole documents that are here."""
        self.known()
        return [change for chunk in update.structure for change in self._changes_of(chunk)]

    def own_change(self) -> bytes:
        """The change that a transaction made; b"" where it wrote nothing new."""
        change = self.doc.get_last_local_change()
        if change is None or change.seq == self._own:
            return b""
        self._own = change.seq
        if self._noted:
            self._history.note_told(
                change.hash, change.deps, change.actor_id, change.seq, change.start_op, change.max_op
            )
        raw: bytes = change.raw_bytes
        return raw

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
        history = self.known()
        try:
            new = (change for chunk in chunks for change in self._changes_of(chunk))
            plan = history.plan(new, stored=stored)
        except MalformedUpdate:
            self._noted = False
            raise
        if plan.ready:
            with self.guarded("The changes broke the CRDT core."):
                self._apply_changes(plan.ready)
        return plan

    def _changes_of(self, chunk: Change | Whole) -> Iterable[Change]:
        if isinstance(chunk, Change):
            return (chunk,)
        if not chunk.number:
            return ()
        changes = self._load(chunk.raw).get_changes([])
        return [read_change(change.raw_bytes) for change in changes if change.hash not in self._history]

    def _apply_changes(self, changes: Sequence[Change]) -> None:
        parts = [b"\x42\x00\x00\x00", write_uint(len(changes))]  # no heads, needs nothing, has nothing
        for change in changes:
            parts += (write_uint(len(change.raw)), change.raw)
        before = self.doc.get_heads()
        message = self.package.Message.decode(b"".join(parts))
        self.doc.receive_sync_message(self.package.SyncState(), message)
        # The core takes changes that name what is not there, or that it would have written in other bytes, and then
        # saves a document that nobody can load.
        told = {change.raw_bytes for change in self.doc.get_changes(before)}
        if len(told) != len(changes) or not told.issuperset(change.raw for change in changes):
            raise RuntimeError("The core did not take the changes as they are.")

    def _become(self, whole: bytes) -> None:
        """Be a document, instead of one without content. Raises MalformedUpdate, and is what it was."""
        before, self.doc, self._noted = self.doc, self._load(whole), False
        try:
            self.known()
        except MalformedUpdate:
            self.doc, self._noted, self.broken = before, False, False
            raise
        self._make_roots()

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


def _is_one_document(data: bytes) -> bool:
    """Whether bytes that are trusted are one chunk with a whole document."""
    if not data.startswith(MAGIC) or data[8] != DOCUMENT:
        return False
    reader = Reader(data, 9)
    reader.prefixed()
    return not reader.left


def _refusal(error: BaseException) -> BaseException:
    """The error to raise for bytes that the core did not take."""
    if isinstance(error, (LLMCRDTError, KeyboardInterrupt, SystemExit, GeneratorExit)):
        return error
    return MalformedUpdate("The CRDT core can't read the document.")
