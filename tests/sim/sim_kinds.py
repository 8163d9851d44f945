"""Documents of each kind, written and read without the library's own readers: what the oracle and a stranger need."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import pycrdt

from llmcrdt.crdt.automerge.package import load_core
from llmcrdt.crdt.automerge.replica import AutomergeReplica
from llmcrdt.crdt.backend import Replica
from llmcrdt.crdt.yjs.replica import YjsReplica
from llmcrdt.document import schema

Plain = Mapping[str, Mapping[str, Any]]
"""Each root's keys. A node is a dict, a shared text a ``Letters``."""


class Letters(str):
    """A shared text."""


class Client(Protocol):
    """A document in the hands of somebody who knows no rules."""

    def plain(self) -> Plain: ...

    def put(self, root: str, key: str, value: Any) -> None:
        """A scalar, or a node: a dict of scalars and ``Letters``."""
        ...

    def put_field(self, root: str, key: str, name: str, value: Any) -> None: ...

    def news(self) -> bytes:
        """All that was written, as one update."""
        ...


class YjsClient:
    def __init__(self, doc: Any) -> None:
        self._doc, self._before = doc, doc.get_state()
        self._roots = {root: doc.get(root, type=pycrdt.Map) for root in schema.ROOTS}

    def plain(self) -> Plain:
        return {root: {key: self._read(value) for key, value in keys.items()} for root, keys in self._roots.items()}

    def _read(self, value: Any) -> Any:
        if isinstance(value, pycrdt.Map):
            return {name: self._read(value[name]) for name in value}
        return Letters(value) if isinstance(value, pycrdt.Text) else value

    def put(self, root: str, key: str, value: Any) -> None:
        self._roots[root][key] = self._made(value)

    def _made(self, value: Any) -> Any:
        if isinstance(value, dict):
            return pycrdt.Map({name: self._made(field) for name, field in value.items()})
        return pycrdt.Text(value) if isinstance(value, Letters) else value

    def put_field(self, root: str, key: str, name: str, value: Any) -> None:
        self._roots[root][key][name] = value

    def news(self) -> bytes:
        update: bytes = self._doc.get_update(self._before)
        return update


class AutomergeClient:
    def __init__(self, doc: Any) -> None:
        self._core, self._doc, self._before = load_core(), doc, doc.get_heads()
        found = {root: doc.get(self._core.ROOT, root) for root in schema.ROOTS}
        self._roots = {root: value[1] for root, value in found.items() if value is not None}

    def plain(self) -> Plain:
        return {root: self._read(self._core.ObjType.Map, id_) for root, id_ in self._roots.items()}

    def _read(self, kind: Any, id_: bytes) -> Any:
        if kind == self._core.ObjType.Map:
            found = ((name, self._doc.get(id_, name)) for name in self._doc.keys(id_))
            return {name: self._read(*value) for name, value in found}
        return Letters(self._doc.text(id_)) if kind == self._core.ObjType.Text else kind[1]

    def put(self, root: str, key: str, value: Any) -> None:
        with self._doc.transaction() as transaction:
            self._put(transaction, self._roots[root], key, value)

    def put_field(self, root: str, key: str, name: str, value: Any) -> None:
        with self._doc.transaction() as transaction:
            self._put(transaction, self._doc.get(self._roots[root], key)[1], name, value)

    def _put(self, transaction: Any, inside: bytes, key: str, value: Any) -> None:
        objects, scalars = self._core.ObjType, self._core.ScalarType
        if isinstance(value, dict):
            node = transaction.put_object(inside, key, objects.Map)
            for name, field in value.items():
                self._put(transaction, node, name, field)
        elif isinstance(value, Letters):
            transaction.splice_text(transaction.put_object(inside, key, objects.Text), 0, 0, value)
        else:
            kinds = {str: scalars.Str, bytes: scalars.Bytes, float: scalars.F64, int: scalars.Int}
            kinds |= {bool: scalars.Boolean, type(None): scalars.Null}
            transaction.put(inside, key, kinds[type(value)], value)

    def news(self) -> bytes:
        return b"".join(change.raw_bytes for change in self._doc.get_changes(self._before))


class Kind(NamedTuple):
    """``replica``: an empty one; ``reader``: of what a replica has; ``stranger``: of an update; ``history``: all that a
    replica still says, with nothing deflated and in an order of its own."""

    replica: Callable[[random.Random], Replica]
    reader: Callable[[Any], Client]
    stranger: Callable[[bytes, random.Random | None], Client]
    history: Callable[[Any], bytes]


def _yjs_stranger(update: bytes, ids: random.Random | None) -> Client:
    doc: Any = pycrdt.Doc(client_id=ids.getrandbits(32)) if ids else pycrdt.Doc()
    doc.apply_update(update)
    return YjsClient(doc)


def _automerge_stranger(update: bytes, ids: random.Random | None) -> Client:
    replica = AutomergeReplica(schema.ROOTS, actor=ids.randbytes(8) if ids else None)
    replica.load(None, [update])
    return AutomergeClient(replica._core.doc)


KINDS = {
    "yjs": Kind(
        lambda ids: YjsReplica(schema.ROOTS, client_id=ids.getrandbits(32)),
        lambda replica: YjsClient(replica._doc),
        _yjs_stranger,
        lambda replica: replica.diff(),
    ),
    "automerge": Kind(
        lambda ids: AutomergeReplica(schema.ROOTS, actor=ids.randbytes(8)),
        lambda replica: AutomergeClient(replica._core.doc),
        _automerge_stranger,
        lambda replica: b"\0".join(sorted(change.raw for change in replica.changes())),
    ),
}
