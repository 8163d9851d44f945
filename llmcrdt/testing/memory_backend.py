"""A second backend, small and plain: a log of operations, and the map that they make. Nothing of it is stored by any
release; it is here so that ``BackendSuite`` speaks of more than one CRDT.

An update is a JSON list of operations ``[writer, n, clock, after, what, root, key, name, value]``:

* ``writer`` and ``n`` (1, 2, 3, ...) name an operation; ``clock`` is greater than all that its writer had seen.
* ``after`` says how many operations of each writer have to be there first. Until then it waits.
* ``what`` is node, set, field, text (a new shared text), add (to a shared text), delete, or gone: an operation whose
  content was deleted or written over since.

The document is the operations in the order of (clock, writer), the later one wins.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
from bisect import insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

from ..crdt.backend import (
    Applied,
    NewField,
    NewNode,
    Node,
    ParsedUpdate,
    Replica,
    Scalar,
    SharedText,
    Touched,
    Work,
    check_value,
    is_named,
)
from ..exceptions import MalformedUpdate
from ..ids import Random

RECORD = 1 << 20
"""Bytes of an update that ``cut`` leaves whole."""
_WHATS = frozenset({"node", "set", "field", "text", "add", "delete", "gone"})
_CONTENT = frozenset({"set", "field", "text", "add"})
_MOST = 1 << 53


class Operation(NamedTuple):
    writer: str
    n: int
    clock: int
    after: tuple[tuple[str, int], ...]
    what: str
    root: str
    key: str
    name: str = ""
    value: Scalar = ""

    @property
    def order(self) -> tuple[int, str, int]:
        return self.clock, self.writer, self.n

    @property
    def id(self) -> tuple[str, int]:
        return self.writer, self.n


class MemoryReplica:
    """One document. Implements ``crdt.backend.Replica``."""

    kind = "memory"
    broken = False

    def __init__(self, roots: Iterable[str], applying: AbstractContextManager[None], random: Random) -> None:
        self._applying = applying
        self._writer = random(8).hex()
        self._done: dict[str, list[Operation]] = {}
        self._waiting: dict[tuple[str, int], Operation] = {}
        self._ordered: list[Operation] = []
        self._maps: dict[str, dict[str, Scalar | dict[str, Scalar | list[Operation]]]] = {root: {} for root in roots}
        # The operation whose content stands in a root's key, or in a field of a node.
        self._owners: dict[tuple[str, str, str], tuple[str, int]] = {}

    def apply(self, update: bytes) -> Applied:
        with self._applying:
            return self._apply(_read(update))

    def _apply(self, operations: Sequence[Operation]) -> Applied:
        new = [operation for operation in operations if not self._has(operation)]
        self._waiting.update((operation.id, operation) for operation in new)
        done = self._drain()
        touched: dict[str, set[str]] = {}
        for operation in done:
            touched.setdefault(operation.root, set()).add(operation.key)
        pending = any(operation.id in self._waiting for operation in new)
        keys = {root: frozenset(keys) for root, keys in touched.items()}
        return Applied(Touched(keys), bool(done), pending, _write(new))

    def apply_together(self, updates: Sequence[ParsedUpdate]) -> None:
        self._apply([operation for update in updates for operation in update.structure])

    def merge(self, updates: Sequence[ParsedUpdate]) -> list[bytes]:
        every = [self._apply(update.structure) for update in updates]
        return [applied.update for applied in every if applied.news]

    def adds(self, update: bytes) -> bool:
        return any(operation.n > len(self._done.get(operation.writer, ())) for operation in _read(update))

    def foreign_key(self, update: bytes, root: str, prefix: str, own: str) -> str | None:
        return _foreign_key(_read(update), root, prefix, own)

    def load(self, snapshot: bytes | None, updates: Iterable[bytes]) -> None:
        with self._applying:
            parsed = [_read(update) for update in ([snapshot] if snapshot else []) + list(updates)]
            self._apply([operation for operations in parsed for operation in operations])

    def snapshot(self) -> tuple[bytes, list[bytes]]:
        return _write(self._redacted()), [_write([operation]) for operation in self._waiting.values()]

    def diff(self, since: bytes | None = None) -> bytes:
        version = {} if since is None else _read_version(since)
        new = [operation for operation in self._redacted() if operation.n > version.get(operation.writer, 0)]
        return _write([*new, *self._waiting.values()])

    def version(self) -> bytes:
        return json.dumps({writer: len(done) for writer, done in self._done.items()}).encode()

    @property
    def waits(self) -> bool:
        return bool(self._waiting)

    @contextmanager
    def edit(self) -> Iterator[MemoryEdit]:
        edit = MemoryEdit(self)
        yield edit
        edit.update = _write(edit.written) if edit.written else b""

    def keeps_deleted(self, root: str, key: str, names: Iterable[str]) -> bool:
        return False

    def keys(self, root: str) -> Iterator[str]:
        return iter(list(self._maps.get(root, ())))

    def get(self, root: str, key: str) -> Scalar | None:
        found = self._maps.get(root, {}).get(key)
        return None if isinstance(found, dict) else found

    def node(self, root: str, key: str) -> Node | None:
        found = self._maps.get(root, {}).get(key)
        if not isinstance(found, dict):
            return None
        return {
            name: SharedText("".join(str(operation.value) for operation in value)) if isinstance(value, list) else value
            for name, value in found.items()
        }

    def write(self, what: str, root: str, key: str, name: str = "", value: Scalar = "") -> Operation:
        """Do something here, as the next operation of this writer."""
        seen = tuple((writer, len(done)) for writer, done in self._done.items() if writer != self._writer)
        clock = self._ordered[-1].clock + 1 if self._ordered else 1
        n = len(self._done.get(self._writer, ())) + 1
        operation = Operation(self._writer, n, clock, seen, what, root, key, name, value)
        self._do(operation)
        return operation

    def _has(self, operation: Operation) -> bool:
        return operation.n <= len(self._done.get(operation.writer, ())) or operation.id in self._waiting

    def _drain(self) -> list[Operation]:
        """Do what need not wait any more; what was done."""
        done: list[Operation] = []
        while ready := [operation for operation in self._waiting.values() if self._is_next(operation)]:
            for operation in sorted(ready, key=lambda operation: operation.order):
                del self._waiting[operation.id]
                self._do(operation)
            done += ready
        return done

    def _is_next(self, operation: Operation) -> bool:
        needs = (*operation.after, (operation.writer, operation.n - 1))
        return all(n <= len(self._done.get(writer, ())) for writer, n in needs)

    def _do(self, operation: Operation) -> None:
        self._done.setdefault(operation.writer, []).append(operation)
        if not self._ordered or self._ordered[-1].order < operation.order:
            self._ordered.append(operation)
            self._play(operation)
            return
        insort(self._ordered, operation, key=lambda operation: operation.order)
        self._owners.clear()
        for keys in self._maps.values():
            keys.clear()
        for each in self._ordered:
            self._play(each)

    def _play(self, operation: Operation) -> None:
        _, _, _, _, what, root, key, name, value = operation
        keys = self._maps.setdefault(root, {})
        if what in ("set", "node"):
            keys[key] = {} if what == "node" else value
            self._owners[root, key, ""] = operation.id
            return
        node = keys.get(key)
        if not isinstance(node, dict):
            return
        grown = node.get(name)
        if what == "delete":
            node.pop(name, None)
        elif what == "field":
            node[name] = value
            self._owners[root, key, name] = operation.id
        elif what == "text":
            node[name] = []
            self._owners[root, key, name] = operation.id
        elif what == "add" and isinstance(grown, list):
            grown.append(operation)

    def _redacted(self) -> list[Operation]:
        """All that was done, without content that is not there any more."""
        return [o if o.what not in _CONTENT or self._shows(o) else _gone(o) for o in self._ordered]

    def _shows(self, operation: Operation) -> bool:
        found = self._maps[operation.root].get(operation.key)
        if operation.what == "set":
            return not isinstance(found, dict) and self._owners[operation.root, operation.key, ""] == operation.id
        content = found.get(operation.name) if isinstance(found, dict) else None
        if operation.what == "add":
            return isinstance(content, list) and operation in content
        owner = self._owners.get((operation.root, operation.key, operation.name))
        return content is not None and owner == operation.id


class MemoryEdit:
    """The writes of one transaction."""

    def __init__(self, replica: MemoryReplica) -> None:
        self._replica = replica
        self._touched: dict[str, set[str]] = {}
        self.written: list[Operation] = []
        self.update = b""

    def put(self, root: str, key: str, value: Scalar) -> None:
        check_value(value)
        self._write("set", root, key, value=value)

    def put_node(self, root: str, key: str, fields: Mapping[str, Scalar]) -> None:
        for value in fields.values():
            check_value(value)
        self._write("node", root, key)
        for name, value in fields.items():
            self._write("field", root, key, name, value)

    def put_field(self, root: str, key: str, name: str, value: Scalar) -> None:
        check_value(value)
        self._write("field", root, key, name, value)

    def put_text(self, root: str, key: str, name: str) -> None:
        self._write("text", root, key, name)

    def append_text(self, root: str, key: str, name: str, text: str) -> bool:
        node = self._replica.node(root, key)
        if node is None or not isinstance(node.get(name), SharedText):
            return False
        self._write("add", root, key, name, text)
        return True

    def delete_field(self, root: str, key: str, name: str) -> None:
        if name in (self._replica.node(root, key) or ()):
            self._write("delete", root, key, name)

    def erase_fields(self, root: str, key: str, names: Iterable[str]) -> None:
        for name in [*(self._replica.node(root, key) or ())]:
            if is_named(name, names):
                self._write("delete", root, key, name)

    def take_touched(self) -> Touched:
        touched, self._touched = self._touched, {}
        return Touched({root: frozenset(keys) for root, keys in touched.items()})

    def _write(self, what: str, root: str, key: str, name: str = "", value: Scalar = "") -> None:
        self.written.append(self._replica.write(what, root, key, name, str(value) if isinstance(value, str) else value))
        self._touched.setdefault(root, set()).add(key)


class MemoryBackend:
    """Implements ``crdt.backend.Backend``."""

    kind = "memory"
    empty = b"[]"
    forgets = True

    def __init__(self, random: Random = os.urandom) -> None:
        self._random = random

    def make_replica(self, roots: Iterable[str], applying: AbstractContextManager[None] | None = None) -> Replica:
        return self._make(roots, applying)

    def _make(self, roots: Iterable[str] = (), applying: AbstractContextManager[None] | None = None) -> MemoryReplica:
        return MemoryReplica(roots, nullcontext() if applying is None else applying, self._random)

    def reply(self, replica: Replica, question: bytes) -> bytes:
        return replica.diff(question)

    def mark(self, replica: Replica) -> bytes:
        return b""

    def derive(self, groups: Iterable[Sequence[NewNode]], fields: Iterable[NewField] = ()) -> bytes:
        made = [operation for nodes in groups for operation in _made(nodes)]
        for node, name, value in fields:
            base = _made([node])
            check_value(value)
            made += _named([_step(len(base) + 1, "field", node.root, node.key, name, value)], base[0].writer)
        return _write(made)

    def read(self, update: bytes) -> ParsedUpdate:
        return ParsedUpdate(update, _read(update))

    def touches(self, update: ParsedUpdate, prefix: str) -> bool:
        return any(operation.name.startswith(prefix) for operation in update.structure)

    def foreign_key(self, update: ParsedUpdate, root: str, prefix: str, own: str) -> str | None:
        return _foreign_key(update.structure, root, prefix, own)

    def repeats(self, updates: Iterable[ParsedUpdate], version: bytes) -> bool:
        known = _read_version(version)
        return any(o.n <= known.get(o.writer, 0) for update in updates for o in update.structure)

    def join(self, updates: Sequence[bytes], first: int, most: float) -> tuple[bytes, int]:
        return updates[first], 1

    def estimate_work(self, update: bytes, blocks: int) -> Work:
        return Work(len(update) * 1e-6, update.count(b"],["))

    def cut(self, update: bytes) -> list[bytes]:
        try:
            return [update] if len(update) <= RECORD else list(_pieces(_read(update), RECORD))
        except MalformedUpdate:
            return [update]

    def split(self, update: bytes, limit: int) -> list[bytes]:
        pieces = [update] if len(update) <= limit else list(_pieces(_read(update), limit))
        if any(len(piece) > limit for piece in pieces):
            raise MalformedUpdate("The update holds a value that is larger than a record may be.")
        return pieces

    def locate(self, piece: bytes, root: str) -> dict[str, int]:
        found = re.finditer(rb'"node",%s,"([\w-]*)"' % re.escape(json.dumps(root).encode()), piece)
        return {sign[1].decode(): sign.start() for sign in found}

    def redact(self, whole: bytes, updates: Sequence[bytes]) -> list[bytes] | None:
        there = {operation.id: operation for operation in _read(whole)}
        said = [operation for update in updates for operation in _read(update)]
        now = [there.get(operation.id, operation) for operation in said]
        return None if now == said else list(_pieces(now, RECORD))

    def compact(self, updates: Iterable[bytes]) -> list[bytes]:
        replica, aside = self.load_all(updates)
        whole, waiting = replica.snapshot()
        return [*([whole] if whole != self.empty else []), *waiting, *aside]

    def catch_up(self, snapshot: Sequence[bytes], before: Sequence[bytes], tail: Sequence[bytes]) -> bytes:
        replica = self._make()
        replica.load(None, [*snapshot, *before])
        version, waits = replica.version(), replica.waits
        replica.load(None, tail)
        if waits or replica.waits:
            raise MalformedUpdate("Updates wait for others.")
        return replica.diff(version)

    def begin(self, first: bytes) -> Replica:
        replica = self._make()
        replica.load(first, ())
        return replica

    def load_all(self, updates: Iterable[bytes]) -> tuple[Replica, list[bytes]]:
        replica, aside = self._make(), list[bytes]()
        for update in updates:
            try:
                replica.apply(update)
            except MalformedUpdate:
                aside.append(update)
        return replica, aside


def _foreign_key(operations: Sequence[Operation], root: str, prefix: str, own: str) -> str | None:
    keys = [o.key for o in operations if o.root == root and o.what == "set"]
    return None if own in keys else next((key for key in keys if key.startswith(prefix)), None)


def _made(nodes: Sequence[NewNode]) -> list[Operation]:
    """The operations that make a group of nodes."""
    made: list[Operation] = []
    for node in nodes:
        made.append(_step(len(made) + 1, "node", node.root, node.key))
        for name, value in sorted(node.fields.items()):
            if not node.copied:
                check_value(value)
            made.append(_step(len(made) + 1, "field", node.root, node.key, name, value))
    return _named(made)


def _step(clock: int, what: str, root: str, key: str, name: str = "", value: Scalar = "") -> Operation:
    return Operation("", 0, clock, (), what, root, key, name, value)


def _named(operations: Sequence[Operation], inside: str = "") -> list[Operation]:
    """The same by a writer whose name is a hash of them; after the node that ``inside`` made, if it is one's."""
    writer = hashlib.sha256(inside.encode() + _write(operations)).hexdigest()[:16]
    after = ((inside, 1),) if inside else ()
    return [o._replace(writer=writer, n=n, after=after) for n, o in enumerate(operations, 1)]


def _gone(operation: Operation) -> Operation:
    return operation._replace(what="gone", name="", value="")


def _pieces(operations: Sequence[Operation], limit: int) -> Iterator[bytes]:
    piece: list[Operation] = []
    size = 2
    for operation in operations:
        own = len(_write([operation]))
        if piece and size + own > limit:
            yield _write(piece)
            piece, size = [], 2
        piece.append(operation)
        size += own
    if piece:
        yield _write(piece)


def _write(operations: Iterable[Operation]) -> bytes:
    written = [[*o[:3], dict(o.after), *o[4:8], _value_to_json(o.value)] for o in operations]
    return json.dumps(written, separators=(",", ":")).encode()


def _value_to_json(value: Scalar) -> object:
    return {"bytes": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _read(update: bytes) -> list[Operation]:
    """Raises MalformedUpdate."""
    value = _json(update)
    if not isinstance(value, list):
        raise MalformedUpdate("The update is not a list.")
    return [_operation(item) for item in value]


def _operation(item: Any) -> Operation:
    if not isinstance(item, list) or len(item) != 9:
        raise MalformedUpdate("An operation has nine members.")
    writer, n, clock, after, what, root, key, name, value = item
    if not all(isinstance(text, str) for text in (writer, what, root, key, name)) or what not in _WHATS:
        raise MalformedUpdate("An operation's names are texts.")
    if not _is_count(n) or not _is_count(clock):
        raise MalformedUpdate("An operation's numbers are out of range.")
    if not isinstance(value, str):
        value = _bytes(value)
    return Operation(writer, n, clock, tuple(_version(after).items()), what, root, key, name, value)


def _bytes(value: Any) -> bytes:
    if not isinstance(value, dict) or value.keys() != {"bytes"} or not isinstance(value["bytes"], str):
        raise MalformedUpdate("A value is a text, or bytes in base64.")
    try:
        return base64.b64decode(value["bytes"], validate=True)
    except (binascii.Error, ValueError):
        raise MalformedUpdate("A value is not base64.") from None


def _read_version(version: bytes) -> dict[str, int]:
    """Raises MalformedUpdate."""
    return _version(_json(version))


def _version(value: Any) -> dict[str, int]:
    if not isinstance(value, dict) or not all(_is_count(n) for n in value.values()):
        raise MalformedUpdate("A version says how many operations there are of each writer.")
    return value


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MOST


def _json(data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise MalformedUpdate("These bytes are not JSON.") from None
