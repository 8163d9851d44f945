"""How long a CRDT core will take for a Yjs update, told from its structure before it gets it.

An item is put between its left and its right neighbour. If the two do not touch any more, the core (yrs 0.28) goes
through all that stands between them, so n items that name the right neighbours badly cost n²/2 steps: 48 kB take 7 s.
Measured with texts of 1,000 to 8,000 letters on one core of a server, for each step:

    one client, no left neighbour, right neighbours from the first letter to the last    0.23 to 0.39 µs
    the same with the first letter as left neighbour                                     0.22 to 0.27 µs
    as many clients, right neighbours from the last letter to the first                  0.24 to 0.28 µs
    one client, left neighbours from the last letter to the first, no right neighbour    0.44 to 0.51 µs
    a document of 40,000 blocks, 10 to 100 items before its last letter                  0.35 µs
    the same items between two letters that touch, deletes, appended words               no more than their structs

So an item counts as many steps as there are blocks that may stand between its neighbours. How many a document has is
known from the updates that it took, from above: the core joins many of them.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import NamedTuple

from ...exceptions import MalformedUpdate
from ..backend import Work
from .update import _WORD, _read_content, _Reader

STEP = 0.4e-6
"""Seconds for one block that an item is held against."""
STRUCT = 4e-6
"""Seconds for one struct or deleted range, reading it included."""
MOST = 20_000
"""Structs and deleted ranges that are looked at; what an update has beyond is guessed from its bytes."""
_KEPT_APART = 0x80, 0x40, 0x20  # it has a left neighbour, a right one, a key
_JOINED = frozenset({1, 4, 8})  # kinds of content that the core joins with what comes before


_APPENDED = Work(STRUCT, 0)
"""A word after what its client wrote."""
_OF_A_WORD = 2


def estimate_work(update: bytes, blocks: int) -> Work:
    """The cost of an update to a document that has so many blocks. A malformed one costs what was read of it.
    Takes some 3 µs for each struct, and no more than 0.1 s."""
    if (word := _WORD.match(update)) is not None and (end := word.end()) + update[end - 1] + 1 == len(update):
        return _APPENDED if word[1] == word[3] else Work(STRUCT + blocks * STEP, _OF_A_WORD)
    count = _Count(blocks)
    reader = _Reader(update)
    with suppress(MalformedUpdate):
        _read(reader, count)
    seen = reader.place or 1
    share = len(update) / seen if count.structs >= MOST else 1.0
    return Work(share * (count.structs * STRUCT + share * count.steps * STEP), int(share * count.added))


class _Count:
    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.structs = self.steps = self.added = 0
        self.beside: Counter[object] = Counter()
        """Items of this update that stand at one place."""

    def item(self, client: int, clock: int, kind: int, place: _Place) -> None:
        left, right = place.left, place.right
        if left == (client, clock - 1):
            # Items after what its client wrote just before were not made for it.
            self.added += kind not in _JOINED
            self.steps += 1
            return
        touching = left and right and left[0] == right[0] and left[1] + 1 == right[1]
        if touching or place.own:
            at = place.own or left
            self.steps += self.beside[at] + 1
            self.beside[at] += 1
        else:
            self.steps += self.blocks + self.added + 1
        self.added += 0 if place.keyed else 1 if place.own else 2


class _Place(NamedTuple):
    """Neighbours; ``own``: what names a place that needs no neighbours, a key (``keyed``) or the parent of a new text.
    An item at a key is held against nothing but that."""

    left: tuple[int, int] | None
    right: tuple[int, int] | None
    own: object = None
    keyed: bool = False


def _read(reader: _Reader, count: _Count) -> None:
    for _ in range(reader.count()):
        structs, client, clock = reader.count(), reader.client(), reader.uint()
        for _ in range(structs):
            info = reader.byte()
            kind = info & 0x1F
            count.structs += 1
            if count.structs >= MOST:
                return
            if kind in (0, 10):
                clock += reader.uint()
                continue
            place = _read_place(reader, info)
            count.item(client, clock, kind, place)
            clock += _read_content(reader, kind)
    for _ in range(reader.count()):
        reader.client()
        for _ in range(reader.count()):
            reader.uint()
            reader.uint()
            count.structs += 1
            count.added += 2
            if count.structs >= MOST:
                return


def _read_place(reader: _Reader, info: int) -> _Place:
    has_left, has_right, has_key = (info & bit for bit in _KEPT_APART)
    left = (reader.client(), reader.clock()) if has_left else None
    right = (reader.client(), reader.clock()) if has_right else None
    if has_left or has_right:
        return _Place(left, right)
    named = reader.uint()
    parent = reader.bytes() if named == 1 else (reader.client(), reader.clock())
    if has_key:
        return _Place(None, None, (parent, reader.bytes()), True)
    return _Place(None, None, None if named == 1 else (parent,))
