"""The writes of one transaction on an Automerge document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..backend import Node, Scalar, Touched, check_value, is_named
from .core import Core, OwnChange, object_bytes, object_id
from .derive import root_object
from .places import Places

_FLUSH = 256 << 10
"""Bytes of values after which an edit goes on in a further change: a change can't be cut."""


class AutomergeEdit:
    """The writes of one transaction. They become one change, or several where they are large."""

    def __init__(self, core: Core, places: Places) -> None:
        self._core, self._places = core, places
        self._kinds, self._scalars = core.package.ObjType, core.package.ScalarType
        self._guard = core.guarded("The CRDT core refused the change.")
        self._open: Any = None
        self._size = 0
        self._touched: dict[str, set[str]] = {}
        self._nodes: dict[tuple[str, str], Node] = {}
        self.changes: list[OwnChange] = []
        self.erased: dict[tuple[str, str], frozenset[str]] = {}
        """The fields of nodes to erase when it ends."""
        self.update = b""

    def put(self, root: str, key: str, value: Scalar) -> None:
        check_value(value)
        self._touch(root, key)
        self._put(self._root(root), key, value)

    def put_node(self, root: str, key: str, fields: Mapping[str, Scalar]) -> None:
        for value in fields.values():
            check_value(value)
        self._touch(root, key)
        node = self._make(self._root(root), key, self._kinds.Map, (root, key))
        for name, value in fields.items():
            self._put(node, name, value)
        self._nodes[root, key] = {name: v if isinstance(v, bytes) else str(v) for name, v in fields.items()}

    def put_field(self, root: str, key: str, name: str, value: Scalar) -> None:
        check_value(value)
        self._touch(root, key)
        self._put(self._node(root, key), name, value)

    def put_text(self, root: str, key: str, name: str) -> None:
        self._touch(root, key)
        self._make(self._node(root, key), name, self._kinds.Text, (root, key))

    def append_text(self, root: str, key: str, name: str, text: str) -> bool:
        self._touch(root, key)
        with self._guard:
            field = self._field(root, key, name)
            if field is None or field[1] != self._kinds.Text:
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

    def erase_fields(self, root: str, key: str, names: Iterable[str]) -> None:
        names = frozenset(names)
        self._touch(root, key)
        node = self._node(root, key)
        with self._guard:
            transaction = self._transaction()
            for name in transaction.keys(node):
                if is_named(name, names):
                    transaction.delete(node, name)
        self.erased[root, key] = names | self.erased.get((root, key), frozenset())

    def _field(self, root: str, key: str, name: str) -> tuple[bytes, Any, bytes] | None:
        """The node, what stands in its field, and the id of that; None where there is none."""
        transaction = self._transaction()
        node = transaction.get(self._root(root), key)
        field = transaction.get(node[1], name) if node is not None and node[0] == self._kinds.Map else None
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
            made = self._core.own_change()
        if made is not None:
            self.changes.append(made)

    def _transaction(self) -> Any:
        if self._open is None:
            with self._guard:
                self._open = self._core.doc.transaction()
        return self._open

    def _root(self, root: str) -> bytes:
        return object_bytes(root_object(root))

    def _node(self, root: str, key: str) -> bytes:
        with self._guard:
            found = self._transaction().get(self._root(root), key)
        if found is None or found[0] != self._kinds.Map:
            raise KeyError(key)
        node: bytes = found[1]
        return node

    def _put(self, inside: bytes, key: str, value: Scalar) -> None:
        with self._guard:
            if isinstance(value, bytes):
                self._transaction().put(inside, key, self._scalars.Bytes, bytes(value))
            else:
                self._transaction().put(inside, key, self._scalars.Str, str(value))
        self._wrote(len(value))

    def _make(self, inside: bytes, key: str, kind: Any, place: tuple[str, str]) -> bytes:
        with self._guard:
            made: bytes = self._transaction().put_object(inside, key, kind)
        self._places.note(object_id(made), place)
        return made

    def _wrote(self, size: int) -> None:
        self._size += size
        if self._size >= _FLUSH:
            self.commit()

    def _touch(self, root: str, key: str) -> None:
        self._touched.setdefault(root, set()).add(key)
        self._nodes.pop((root, key), None)
