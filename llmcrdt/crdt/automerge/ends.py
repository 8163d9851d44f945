"""The end of a document: its heads, and how many changes there are of each actor, read from the bytes that the core
saved. The core tells as much only with every change that there is, and that takes as long as loading the document."""

from __future__ import annotations

import zlib
from collections.abc import Collection
from typing import NamedTuple

from ...exceptions import MalformedUpdate
from .chunks import Name
from .columns import Reader, read_deltas, read_uints, spread, spread_deltas

_IS_DEFLATED = 0x08
_ACTORS, _SEQS, _LAST = 0x01, 0x03, 0x13


class Head(NamedTuple):
    """``last``: the number of its last operation."""

    hash: bytes
    name: Name
    last: int


class Ends(NamedTuple):
    heads: list[Head]
    seqs: dict[bytes, int]


NOWHERE = Ends([], {})
"""The ends of a document without changes."""


def read_ends(whole: bytes) -> Ends | None:
    """The ends of a whole document that the core has taken. None where it was saved by something that does not tell
    them."""
    try:
        return _read_ends(Reader(Reader(whole, 9).prefixed()))
    except (MalformedUpdate, zlib.error, IndexError, StopIteration):
        return None


def _read_ends(reader: Reader) -> Ends | None:
    actors = [reader.prefixed() for _ in range(reader.uint())]
    hashes = [reader.take(32) for _ in range(reader.uint())]
    specs, others = ([(reader.uint(), reader.uint()) for _ in range(reader.uint())] for _ in range(2))
    columns = dict[int, bytes]()
    for spec, length in specs:
        column = reader.take(length)
        columns[spec & ~_IS_DEFLATED] = zlib.decompress(column, -15) if spec & _IS_DEFLATED else column
    reader.take(sum(length for _, length in others))
    if not hashes or not reader.left:
        return None
    places = [reader.uint() for _ in hashes]
    told = [*spread(read_uints(columns[_ACTORS]))]
    seqs = [*spread_deltas(read_deltas(columns[_SEQS]))]
    lasts = _values_at(columns[_LAST], places)
    heads = [
        Head(hash_, (actors[told[place] or 0], seqs[place] or 0), lasts[place])
        for hash_, place in zip(hashes, places, strict=True)
    ]
    # Each change stands after the one before it of its actor.
    return Ends(heads, {actors[actor or 0]: seq or 0 for actor, seq in dict(zip(told, seqs, strict=True)).items()})


def _values_at(column: bytes, places: Collection[int]) -> dict[int, int]:
    """Some values of a column that is told by differences."""
    wanted, found, n = sorted(places), dict[int, int](), 0
    for count, value, step in read_deltas(column):
        while wanted and wanted[0] < n + count:
            place = wanted.pop(0)
            found[place] = value + (step or 0) * (place - n + 1)
        n += count
    return found
