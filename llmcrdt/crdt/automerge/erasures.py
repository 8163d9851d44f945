"""The fields of an Automerge document whose values are erased: a set that only grows, beside the document's own bytes.

Automerge forgets nothing, and a change is part of the hash of all that follow it. So what is erased is told apart, by
place, and everybody who knows it writes the same history anew: with nothing in the place of each value that ever stood
there, under the same numbers, which is all that operations name each other by (decision 0059). A value that comes later
is left out where it arrives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping

from ...exceptions import MalformedUpdate
from ...varint import write_uint
from ..backend import is_named
from .chunks import ERASURES, LIST, MAP, TEXT, Change, Erased, Name, ObjectId, read_erasures
from .rewrite import without_values

_PIECE = 64 << 10
"""Bytes of a set that are told as one: an update can be cut between two."""
_ALL: frozenset[str] = frozenset()


class Erasures:
    """By object, the fields of it that are erased: a name that ends with ``:`` stands for all that begin with it, and
    no names for all that there is, as in a text that stood in such a field."""

    def __init__(self, fields: Mapping[ObjectId, frozenset[str]] | None = None) -> None:
        self._fields = dict(fields or {})
        self._actors = {actor for actor, _ in self._fields}

    def __bool__(self) -> bool:
        return bool(self._fields)

    def __iter__(self) -> Iterator[ObjectId]:
        return iter(self._fields)

    def copy(self) -> Erasures:
        return Erasures(self._fields)

    def lacks(self, other: Erasures) -> bool:
        """Whether the other one has more than this one."""
        return any(
            self._joined(object_, names) != self._fields.get(object_) for object_, names in other._fields.items()
        )

    def add(self, other: Erasures) -> None:
        for object_, names in other._fields.items():
            self.put(object_, names)

    def put(self, object_: ObjectId, names: frozenset[str] = _ALL) -> None:
        self._fields[object_] = self._joined(object_, names)
        self._actors.add(object_[0])

    def without(self, other: Erasures) -> Erasures:
        """The part of this one that the other one lacks."""
        return Erasures({o: names for o, names in self._fields.items() if other._fields.get(o) != names})

    def covers(self, object_: ObjectId | None, key: str | None) -> bool:
        names = None if object_ is None else self._fields.get(object_)
        if names is None:
            return False
        return not names or (key is not None and is_named(key, names))

    def covers_all(self, object_: ObjectId, names: Iterable[str]) -> bool:
        here = self._fields.get(object_)
        return here is not None and (not here or here.issuperset(names))

    def concerns(self, raw: bytes) -> bool:
        """Whether a change may write to one of the objects. False is certain."""
        return any(actor in raw for actor in self._actors)

    def blank(self, change: Change) -> Change:
        """The change without the values that are erased; itself if it has none. Objects that it makes there
        are erased as well: give changes in an order in which they can be applied."""
        if not self._fields or not self.concerns(change.raw):
            return change
        gone = [n for n, operation in enumerate(change.operations()) if self._erases(change, n, operation)]
        return without_values(change, gone) if gone else change

    def _erases(self, change: Change, n: int, operation: tuple[ObjectId | None, str | None, int]) -> bool:
        object_, key, action = operation
        if not self.covers(object_, key):
            return False
        if action in (MAP, LIST, TEXT):
            self.put((change.actor, change.start + n))
        return True

    def write(self, after: Iterable[Name] = ()) -> bytes:
        return b"".join(self.pieces(after))

    def pieces(self, after: Iterable[Name] = ()) -> list[bytes]:
        """The set as updates of some size, which say it together. ``after``: the changes that whoever reads it has to
        have first: it erases nothing of which nobody can tell yet why."""
        head = _names(after)
        pieces, piece = list[bytes](), list[bytes]()
        size = 0
        for (actor, number), names in sorted(self._fields.items(), key=lambda item: item[0]):
            told = b"".join((_prefixed(actor), write_uint(number), write_uint(len(names)), *map(_text, sorted(names))))
            if piece and size + len(told) > _PIECE:
                pieces.append(_write_piece([head, *piece]))
                piece, size = [], 0
            piece.append(told)
            size += len(told)
        return [*pieces, *([_write_piece([head, *piece])] if piece else [])]

    def _joined(self, object_: ObjectId, names: frozenset[str]) -> frozenset[str]:
        here = self._fields.get(object_)
        if here is None:
            return names
        return here | names if here and names else _ALL


def erasures_of(pieces: Iterable[Erased]) -> Erasures:
    """All that these say."""
    found = Erasures()
    for piece in pieces:
        for object_, names in piece.fields:
            found.put(object_, names)
    return found


def last_of(changes: Iterable[Change]) -> list[Name]:
    """Of each actor the last of these changes."""
    last: dict[bytes, int] = {}
    for change in changes:
        last[change.actor] = max(change.seq, last.get(change.actor, 0))
    return [*last.items()]


def tell_held(piece: Erased) -> bytes:
    """An erasure that waits for other changes, as an update."""
    return erasures_of([piece]).write(piece.after)


def split_snapshot(snapshot: bytes, end: int) -> Erasures | None:
    """The erasures after the document in trusted bytes; None if something else stands there."""
    try:
        pieces = read_erasures(snapshot, end)
    except MalformedUpdate:
        return None
    return None if any(piece.after for piece in pieces) else erasures_of(pieces)


def _names(names: Iterable[Name]) -> bytes:
    told = sorted(names)
    return b"".join((write_uint(len(told)), *(_prefixed(actor) + write_uint(number) for actor, number in told)))


def _write_piece(told: list[bytes]) -> bytes:
    body = b"".join(told)
    return b"".join((bytes((ERASURES,)), write_uint(len(body) + 4), hashlib.sha256(body).digest()[:4], body))


def _prefixed(data: bytes) -> bytes:
    return write_uint(len(data)) + data


def _text(text: str) -> bytes:
    return _prefixed(text.encode())
