"""Replica over the package automerge: an Automerge document, which any Automerge client can read.

The package has no call that applies changes (decision 0050), so they come to the core as a message of Automerge's own
sync protocol, written here. Root maps are found by the operations that make them (``derive.root_change``), so nobody
can hide one behind another map of its name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import Any, NamedTuple

from ...exceptions import LLMCRDTError, MalformedUpdate
from ...varint import write_uint
from ..backend import Applied, Node, Other, ParsedUpdate, Scalar, SharedText, Touched, check_value
from .chunks import DOCUMENT, LIST, MAGIC, MAP, TEXT, Change, ObjectId, Operation, Whole, read_change, read_update
from .columns import Reader
from .derive import is_root_change, root_change, root_object
from .foreign import foreign_key
from .history import History, Plan
from .package import load_core
from .version import read_version, write_version

EMPTY = bytes.fromhex("856f4a83b81a9544000400000000")
"""A document without changes, as Automerge saves it."""

_ACTOR = 8
"""Bytes of a drawn actor. Each change tells its own, and those of the objects that it writes to."""
_FLUSH = 256 << 10
"""Bytes of values after which an edit goes on in a further change: a change can't be cut."""


class _Taken(NamedTuple):
    """``news``: what has to be kept, b"" where there was nothing new; ``first``: the document was empty before."""

    ready: Sequence[Change]
    news: bytes
    waits: bool
    first: bool


class AutomergeReplica:
    """One Automerge document. ``roots`` names its root maps; ``actor`` None draws a fresh one. ``applying`` is entered
    while bytes are applied or loaded. Raises CRDTMissing."""

    kind = "automerge"

    def __init__(
        self,
        roots: Iterable[str],
        *,
        actor: bytes | None = None,
        applying: AbstractContextManager[None] | None = None,
    ) -> None:
        self.core = load_core()
        self._applying = nullcontext() if applying is None else applying
        self._actor = os.urandom(_ACTOR) if actor is None else actor
        self._roots = {root: root_object(root) for root in roots}
        self._by_object = {object_: root for root, object_ in self._roots.items()}
        self._history, self._noted = History(), True
        # Changes that make root maps and that no bytes have told of: the first edit tells of them.
        self._untold: dict[bytes, Change] = {}
        # The root and key of each object that was met; None for one that stands nowhere or deeper.
        self._places: dict[ObjectId, tuple[str, str] | None] = {}
        self._doc: Any = self.core.Document(self._actor)
        self._own = 0  # how many changes were made here
        self.broken = False
        self._make_roots()

    # bytes in

    def apply(self, update: bytes) -> Applied:
        with self._applying:
            taken = self._take([read_update(update)])
        if not taken.news:
            return Applied(Touched(), False, False, EMPTY)
        if taken.first:
            touched = Touched({root: frozenset(self.keys(root)) for root in self._roots})
        else:
            touched = self._touched(taken.ready)
        return Applied(touched, taken.first or bool(taken.ready), taken.waits, taken.news)

    def apply_together(self, updates: Sequence[ParsedUpdate]) -> None:
        self._take(updates)

    def merge(self, updates: Sequence[ParsedUpdate]) -> list[bytes]:
        news = self._take(updates).news
        return [news] if news else []

    def adds(self, update: bytes) -> bool:
        history = self._known()
        return history.adds([change for chunk in read_update(update).structure for change in self._changes_of(chunk)])

    def foreign_key(self, update: bytes, root: str, prefix: str, own: str) -> str | None:
        return foreign_key(read_update(update), root, prefix, own)

    def load(self, snapshot: bytes | None, updates: Iterable[bytes]) -> None:
        with self._applying:
            if snapshot and _is_one_document(snapshot) and self._noted and self._history.blank:
                self._doc, self._noted = self._load_core(snapshot), False
                self._make_roots()
                snapshot = None
            parsed = [read_update(update) for update in ([snapshot] if snapshot else []) + list(updates)]
            if parsed:
                self._take(parsed, stored=True)

    def _take(self, updates: Sequence[ParsedUpdate], *, stored: bool = False) -> _Taken:
        """Take in all that is new of some updates. ``stored``: they were taken before. Raises MalformedUpdate, and then
        took nothing, or is ``broken``."""
        [*chunks] = (chunk for update in updates for chunk in update.structure)
        blank = self._known().blank
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
            return _Taken([], b"", False, False)
        told = [chunk for chunk in chunks if isinstance(chunk, Change) and chunk.hash in self._untold]
        for change in told:
            self._untold.pop(change.hash, None)
        news = b"".join((whole.raw if whole else b"", *(change.raw for change in (*told, *plan.new))))
        return _Taken(plan.ready, news, plan.waits, blank and not self._history.blank and bool(whole or plan.ready))

    def _feed(self, chunks: Sequence[Change | Whole], stored: bool = False) -> Plan:
        history = self._known()
        try:
            new = (change for chunk in chunks for change in self._changes_of(chunk))
            plan = history.plan(new, stored=stored)
        except MalformedUpdate:
            self._noted = False
            raise
        if plan.ready:
            with self._guarded("The changes broke the CRDT core."):
                self._apply_changes(plan.ready)
        return plan

    def _changes_of(self, chunk: Change | Whole) -> Iterable[Change]:
        if isinstance(chunk, Change):
            return (chunk,)
        if not chunk.number:
            return ()
        changes = self._load_core(chunk.raw).get_changes([])
        return [read_change(change.raw_bytes) for change in changes if change.hash not in self._history]

    def _apply_changes(self, changes: Sequence[Change]) -> None:
        parts = [b"\x42\x00\x00\x00", write_uint(len(changes))]  # no heads, needs nothing, has nothing
        for change in changes:
            parts += (write_uint(len(change.raw)), change.raw)
        before = self._doc.get_heads()
        message = self.core.Message.decode(b"".join(parts))
        self._doc.receive_sync_message(self.core.SyncState(), message)
        # The core takes changes that name what is not there, or that it would have written in other bytes, and then
        # saves a document that nobody can load.
        told = {change.raw_bytes for change in self._doc.get_changes(before)}
        if len(told) != len(changes) or not told.issuperset(change.raw for change in changes):
            raise RuntimeError("The core did not take the changes as they are.")

    def _become(self, whole: bytes) -> None:
        """Be a document, instead of one without content. Raises MalformedUpdate, and is what it was."""
        before, self._doc, self._noted = self._doc, self._load_core(whole), False
        try:
            self._known()
        except MalformedUpdate:
            self._doc, self._noted, self.broken = before, False, False
            raise
        self._make_roots()

    def _load_core(self, whole: bytes) -> Any:
        try:
            doc = self.core.Document.load(whole)
            doc.set_actor(self._actor)
        except BaseException as error:
            raise _refusal(error) from None
        return doc

    def _make_roots(self) -> None:
        """Make the root maps that the document lacks."""
        missing = []
        for root, object_ in self._roots.items():
            try:
                self._doc.object_type(_object_bytes(object_))
            except Exception:
                missing.append(root_change(root))
        self._untold = {change.hash: change for change in missing}
        if missing:
            with self._guarded("The CRDT core can't make the root maps."):
                self._feed(missing)

    def _known(self) -> History:
        """The history, told by the core where that is not known."""
        if not self._noted:
            history = self._history
            history.begin_again()
            with self._guarded("The CRDT core can't tell its changes."):
                for change in self._doc.get_changes([]):
                    root = change.seq == 1 and not change.deps and is_root_change(read_change(change.raw_bytes))
                    history.note_told(
                        change.hash, change.deps, change.actor_id, change.seq, change.start_op, change.max_op, root
                    )
            self._noted = True
        return self._history

    # bytes out

    def snapshot(self) -> tuple[bytes, list[bytes]]:
        with self._guarded("The CRDT core could not encode the document."):
            return bytes(self._doc.save()), [change.raw for change in self._history.waiting]

    def diff(self, since: bytes | None = None) -> bytes:
        waiting = [change.raw for change in self._history.waiting]
        if since is None:
            whole, _ = self.snapshot()
            return b"".join((whole, *waiting))
        version, history = read_version(since), self._known()
        had = [hash_ for hash_ in version.heads if hash_ in history]
        if version.seqs:
            had += history.roots
        with self._guarded("The CRDT core could not encode the document."):
            changes = [
                change.raw_bytes
                for change in self._doc.get_changes(had)
                if change.hash in history.roots or change.seq > version.seqs.get(change.actor_id, 0)
            ]
        return b"".join((*changes, *waiting)) or EMPTY

    @property
    def waits(self) -> bool:
        return bool(self._history.waiting)

    @property
    def has_changes(self) -> bool:
        return bool(self._known().heads)

    def changes(self) -> list[Change]:
        """All changes, in an order in which they can be applied, those that wait last."""
        with self._guarded("The CRDT core can't tell its changes."):
            raws = [change.raw_bytes for change in self._doc.get_changes([])]
        return [*map(read_change, raws), *self._history.waiting]

    def version(self) -> bytes:
        history = self._known()
        return write_version(history.heads - history.roots, history.seqs)

    # reading and writing

    @contextmanager
    def edit(self) -> Iterator[AutomergeEdit]:
        edit = AutomergeEdit(self)
        try:
            yield edit
        finally:
            edit.commit()
        if edit.changes:
            untold, self._untold = self._untold, {}
            edit.update = b"".join((*(change.raw for change in untold.values()), *edit.changes))

    def keys(self, root: str) -> Iterator[str]:
        try:
            return iter(self._doc.keys(_object_bytes(self.root(root))))
        except Exception:
            return iter(())  # nobody made that root

    def get(self, root: str, key: str) -> Scalar | None:
        kind, value = self._read(_object_bytes(self.root(root)), key)
        return value if kind is None else None

    def node(self, root: str, key: str) -> Node | None:
        kind, node = self._read(_object_bytes(self.root(root)), key)
        if kind != self.core.ObjType.Map:
            return None
        fields: dict[str, Scalar | SharedText] = {}
        for name in self._doc.keys(node):
            kind, value = self._read(node, name)
            if kind is None:
                fields[name] = value
            else:
                fields[name] = SharedText(self._doc.text(value)) if kind == self.core.ObjType.Text else Other()
        return fields

    def root(self, root: str) -> ObjectId:
        return self._roots.get(root) or root_object(root)

    def _read(self, inside: bytes, key: str) -> tuple[Any, Any]:
        """What stands under a key: (None, a scalar), (a kind of object, its id), or (Other, b"")."""
        try:
            found = self._doc.get(inside, key)
        except Exception:
            return Other, b""  # a date that Python can't hold, say
        if found is None:
            return Other, b""
        value, object_ = found
        if not isinstance(value, tuple):
            return value, object_
        return (None, value[1]) if value[0] in (self.core.ScalarType.Str, self.core.ScalarType.Bytes) else (Other, b"")

    def place_of(self, object_: ObjectId, place: tuple[str, str] | None) -> None:
        """An object was made here."""
        self._places[object_] = place

    def _touched(self, changes: Iterable[Change]) -> Touched:
        keys: dict[str, set[str]] = {}
        for change in changes:
            for number, operation in enumerate(change.operations(), change.start):
                place = self._place(operation)
                if operation.action in (MAP, LIST, TEXT):
                    self._places[change.actor, number] = place
                if place is not None:
                    keys.setdefault(place[0], set()).add(place[1])
        return Touched({root: frozenset(touched) for root, touched in keys.items()})

    def _place(self, operation: Operation) -> tuple[str, str] | None:
        """The root and key at which an operation writes; None where nobody reads."""
        inside = operation.object
        if inside is None:
            return None
        root = self._by_object.get(inside)
        if root is not None:
            return None if operation.key is None else (root, operation.key)
        if inside not in self._places:
            self._find_places(inside)
        return self._places.setdefault(inside, None)

    def _find_places(self, wanted: ObjectId) -> None:
        """Look for the place of an object that was made before this replica was loaded."""
        nodes: list[tuple[bytes, tuple[str, str]]] = []
        for root, object_ in self._roots.items():
            for key in self.keys(root):
                kind, node = self._read(_object_bytes(object_), key)
                if kind is not None and kind is not Other:
                    self._places.setdefault(_object_id(node), (root, key))
                    nodes.append((node, (root, key)))
        for node, place in reversed(nodes):
            if wanted in self._places:
                return
            for value, field in self._doc.values(node):
                if not isinstance(value, tuple):
                    self._places.setdefault(_object_id(field), place)

    def transaction(self) -> Any:
        return self._doc.transaction()

    def own_change(self) -> bytes:
        """The change that a transaction made; b"" where it wrote nothing new."""
        change = self._doc.get_last_local_change()
        if change is None or change.seq == self._own:
            return b""
        self._own = change.seq
        if self._noted:
            self._history.note_told(
                change.hash, change.deps, change.actor_id, change.seq, change.start_op, change.max_op
            )
        raw: bytes = change.raw_bytes
        return raw

    def _guarded(self, message: str) -> _Guard:
        return _Guard(self, message)


class _Guard:
    """Errors of the core become MalformedUpdate, and the replica is broken: nobody knows how far it came."""

    def __init__(self, replica: AutomergeReplica, message: str) -> None:
        self._replica, self._message = replica, message

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if error is None or isinstance(error, (LLMCRDTError, KeyboardInterrupt, SystemExit, GeneratorExit)):
            return
        self._replica.broken = True
        raise MalformedUpdate(self._message, hint="It was not kept; the document is loaded again.") from None


class AutomergeEdit:
    """The writes of one transaction. They become one change, or several where they are large."""

    def __init__(self, replica: AutomergeReplica) -> None:
        self._replica = replica
        self._core = replica.core
        self._guard = replica._guarded("The CRDT core refused the change.")
        self._open: Any = None
        self._size = 0
        self._touched: dict[str, set[str]] = {}
        self._nodes: dict[tuple[str, str], Node] = {}
        self.changes: list[bytes] = []
        self.update = b""

    def put(self, root: str, key: str, value: Scalar) -> None:
        check_value(value)
        self._touch(root, key)
        self._put(self._root(root), key, value)

    def put_node(self, root: str, key: str, fields: Mapping[str, Scalar]) -> None:
        for value in fields.values():
            check_value(value)
        self._touch(root, key)
        node = self._make(self._root(root), key, self._core.ObjType.Map, (root, key))
        for name, value in fields.items():
            self._put(node, name, value)
        self._nodes[root, key] = {name: v if isinstance(v, bytes) else str(v) for name, v in fields.items()}

    def put_field(self, root: str, key: str, name: str, value: Scalar) -> None:
        check_value(value)
        self._touch(root, key)
        self._put(self._node(root, key), name, value)

    def put_text(self, root: str, key: str, name: str) -> None:
        self._touch(root, key)
        self._make(self._node(root, key), name, self._core.ObjType.Text, (root, key))

    def append_text(self, root: str, key: str, name: str, text: str) -> bool:
        self._touch(root, key)
        with self._guard:
            field = self._field(root, key, name)
            if field is None or field[1] != self._core.ObjType.Text:
                return False
            if text:
                _, _, grown = field
                transaction = self._transaction()
                transaction.splice_text(grown, transaction.length(grown), 0, str(text))
        self._wrote(len(text))
        return True

    def delete_field(self, root: str, key: str, name: str) -> None:
        self._touch(root, key)
        with self._guard:
            field = self._field(root, key, name)
            if field is not None:
                self._transaction().delete(field[0], name)

    def _field(self, root: str, key: str, name: str) -> tuple[bytes, Any, bytes] | None:
        """The node, what stands in its field, and the id of that; None where there is none."""
        transaction = self._transaction()
        node = transaction.get(self._root(root), key)
        field = transaction.get(node[1], name) if node is not None and node[0] == self._core.ObjType.Map else None
        return None if field is None else (node[1], *field)

    def take_touched(self) -> Touched:
        touched = Touched({root: frozenset(keys) for root, keys in self._touched.items()}, self._nodes)
        self._touched, self._nodes = {}, {}
        return touched

    def commit(self) -> None:
        """End what was written since the last time."""
        if self._open is None:
            return
        transaction, self._open, self._size = self._open, None, 0
        with self._guard:
            transaction.commit()
            made = self._replica.own_change()
        if made:
            self.changes.append(made)

    def _transaction(self) -> Any:
        if self._open is None:
            with self._guard:
                self._open = self._replica.transaction()
        return self._open

    def _root(self, root: str) -> bytes:
        return _object_bytes(self._replica.root(root))

    def _node(self, root: str, key: str) -> bytes:
        with self._guard:
            found = self._transaction().get(self._root(root), key)
        if found is None or found[0] != self._core.ObjType.Map:
            raise KeyError(key)
        node: bytes = found[1]
        return node

    def _put(self, inside: bytes, key: str, value: Scalar) -> None:
        with self._guard:
            if isinstance(value, bytes):
                self._transaction().put(inside, key, self._core.ScalarType.Bytes, bytes(value))
            else:
                self._transaction().put(inside, key, self._core.ScalarType.Str, str(value))
        self._wrote(len(value))

    def _make(self, inside: bytes, key: str, kind: Any, place: tuple[str, str]) -> bytes:
        with self._guard:
            made: bytes = self._transaction().put_object(inside, key, kind)
        self._replica.place_of(_object_id(made), place)
        return made

    def _wrote(self, size: int) -> None:
        self._size += size
        if self._size >= _FLUSH:
            self.commit()

    def _touch(self, root: str, key: str) -> None:
        self._touched.setdefault(root, set()).add(key)
        self._nodes.pop((root, key), None)


def _object_bytes(object_: ObjectId) -> bytes:
    """An object's id as the package has it; the zero is the place of the actor, which it looks up."""
    actor, number = object_
    return b"".join((b"\x10", write_uint(len(actor)), actor, b"\x00", write_uint(number)))


def _object_id(data: bytes) -> ObjectId:
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
