"""The places of the objects of an Automerge document: an operation names the object it writes to, not its place."""

from __future__ import annotations

from collections.abc import Iterable

from ..backend import Other, Touched
from .chunks import LIST, MAP, TEXT, Change, ObjectId, Operation
from .core import Core, object_bytes, object_id

Place = tuple[str, str]
"""A root and a key in it."""


class Places:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._roots = {object_: root for root, object_ in core.roots.items()}
        # Of each object that was met; None for one that stands nowhere, or deeper than anybody reads.
        self._places: dict[ObjectId, Place | None] = {}

    def note(self, object_: ObjectId, place: Place) -> None:
        """An object was made there."""
        self._places[object_] = place

    def touched(self, changes: Iterable[Change], objects: Iterable[ObjectId] = ()) -> Touched:
        """The places that changes write at, and those of some objects, where they are known."""
        keys: dict[str, set[str]] = {}
        for change in changes:
            for number, operation in enumerate(change.operations(), change.start):
                place = self._place(operation)
                if operation.action in (MAP, LIST, TEXT):
                    self._places[change.actor, number] = place
                if place is not None:
                    keys.setdefault(place[0], set()).add(place[1])
        for place in map(self._place_of, objects):
            if place is not None:
                keys.setdefault(place[0], set()).add(place[1])
        return Touched({root: frozenset(touched) for root, touched in keys.items()})

    def _place(self, operation: Operation) -> Place | None:
        """The root and key at which an operation writes; None where nobody reads."""
        inside = operation.object
        if inside is None:
            return None
        root = self._roots.get(inside)
        if root is not None:
            return None if operation.key is None else (root, operation.key)
        return self._place_of(inside)

    def _place_of(self, object_: ObjectId) -> Place | None:
        if object_ not in self._places:
            self._find_places(object_)
        return self._places.setdefault(object_, None)

    def _find_places(self, wanted: ObjectId) -> None:
        """Look for the place of an object that was made before this replica was loaded."""
        nodes: list[tuple[bytes, Place]] = []
        for root, object_ in self._core.roots.items():
            for key in self._core.doc.keys(object_bytes(object_)):
                kind, node = self._core.read(object_bytes(object_), key)
                if kind is not None and kind is not Other:
                    self._places.setdefault(object_id(node), (root, key))
                    nodes.append((node, (root, key)))
        for node, place in reversed(nodes):
            if wanted in self._places:
                return
            for value, field in self._core.doc.values(node):
                if not isinstance(value, tuple):
                    self._places.setdefault(object_id(field), place)
