"""Snapshots of documents in the file, as pieces; and rows of the entry index, whose fields lean on these.

The fields of an entry stand in the snapshot of its document, too. So a row need not hold them a second time: they are
deflated with that of the snapshot in which they stand as zlib's dictionary, a block of one of its pieces, and take some
50 bytes in place of 800. A row is written with its fields as they are, and leans on a piece from the next compaction
on, or never.

In ``short_fields`` the number of the block stands before them, in one byte. It does not where the piece is one of an
older version, which has no blocks: such a row leans on all of it.

Invariants, at the end of any transaction:

* A piece never changes, and its number is never used again.
* Of each piece that a row leans on there is a row here. A piece that its snapshot needs no more stays until no row
  leans on it, but for a purge: that moves all such rows at once.

Each function is part of its caller's transaction.
"""

from __future__ import annotations

import json
import zlib
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import accumulate
from sqlite3 import Connection as Database
from typing import NamedTuple

from .deflate import Blocks, Leaning, cut, deflate, inflate, inflate_leaning

Locate = Callable[[bytes], Mapping[str, int]]
"""Of a piece of a snapshot: which entries seem to begin in it, and where. It may leave some out, and be wrong of
others."""
Place = tuple[int, int]
"""A piece, and a place in it."""

_AT_HAND = 64
"""Pieces that are kept as they stand in the file, some 10 KB each: more than the hits of a search stand in, for the
next search finds most of them again."""
_INFLATED = 128
"""Blocks that are kept inflated, some 7 KB each; 32 KB at most."""
_LAST = 4  # rows whose fields are kept: a search needs those of a hit twice
_KNOWN = "FROM pieces WHERE document = ? AND substr(data, 1, 1) != x'78'"
"""Those of older versions, which are in one block, give way to others when a snapshot is put."""
_LEFT = """
    SELECT number FROM pieces WHERE document = ? AND number NOT IN (SELECT value FROM json_each(coalesce(
        (SELECT data FROM snapshots WHERE document = ? AND typeof(data) = 'text'), '[]')))
"""


class Pieces:
    """The pieces of one open file. Called under the lock of its connection."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.blocks = lru_cache(_AT_HAND)(self._read)
        """A piece by its number."""
        self._block = lru_cache(_INFLATED)(self._inflate)
        self.fields = lru_cache(_LAST)(self._fields)
        """The fields of a row that leans on a piece: what the row has of them, and the number of the piece."""

    def forget(self) -> None:
        """Keep nothing at hand."""
        for cache in (self.blocks, self._block, self.fields):
            cache.cache_clear()

    def _read(self, number: int) -> Blocks:
        return Blocks(self._db.execute("SELECT data FROM pieces WHERE number = ?", [number]).fetchone()[0])

    def _inflate(self, number: int, block: int) -> bytes:
        return self.blocks(number).read(block)

    def _fields(self, short: bytes, piece: int) -> bytes:
        if self.blocks(piece).named:
            return inflate_leaning(short[1:], self._block(piece, short[0]))
        return inflate_leaning(short, self._block(piece, 0))


class Snapshot(NamedTuple):
    """A snapshot that is ready to be stored: its bytes, and for each piece the digest, and what it deflates to unless
    that is in the file. ``places``: by entry the index of the piece in which it begins, and where in it."""

    size: int
    pieces: list[tuple[bytes, bytes | None]]
    places: Mapping[str, Place]

    def places_in(self, numbers: Sequence[int]) -> dict[str, Place]:
        """``places`` with the numbers that the pieces have."""
        return {entry: (numbers[index], at) for entry, (index, at) in self.places.items()}


def known(db: Database, document: str) -> set[bytes]:
    """The digests of the pieces of a document that are in the file."""
    return {row[0] for row in db.execute(f"SELECT digest {_KNOWN}", [document])}


def prepare(whole: bytes, known: Collection[bytes], locate: Locate, *, only_new: bool) -> Snapshot:
    """Do what takes long. ``known``: what need not be deflated again. ``only_new``: ``places`` says nothing of what
    stands in these."""
    ready: list[tuple[bytes, bytes | None]] = []
    places: dict[str, Place] = {}
    for index, piece in enumerate(cut(whole)):
        digest = blake2b(piece, digest_size=16).digest()
        begins = {} if digest in known and only_new else locate(piece)
        places |= {entry: (index, at) for entry, at in begins.items()}
        ready.append((digest, None if digest in known else deflate(piece, begins.values())))
    return Snapshot(len(whole), ready, places)


def read(db: Database, document: str, after: int = 0) -> tuple[bytes, int] | None:
    """The snapshot of a document, and its seq, if that is greater than ``after``."""
    query = "SELECT data, place, size FROM snapshots WHERE document = ? AND place > ?"
    found = db.execute(query, [document, after]).fetchone()
    if found is None:
        return None
    data, seq, size = found
    if isinstance(data, bytes):  # as older versions kept it: in one
        return zlib.decompress(data, bufsize=size + 1), seq
    rows = dict(db.execute("SELECT number, data FROM pieces WHERE document = ?", [document]).fetchall())
    return b"".join(inflate(rows[number]) for number in json.loads(data)), seq


def put(db: Database, document: str, seq: int, snapshot: Snapshot) -> list[int]:
    """Keep a snapshot of all up to ``seq``, in place of the one before; the numbers of its pieces. Pieces that it does
    not need are left in the file."""
    numbers = dict(db.execute(f"SELECT digest, number {_KNOWN}", [document]).fetchall())
    for digest, data in snapshot.pieces:
        if digest not in numbers:
            query = "INSERT INTO pieces (document, digest, data) VALUES (?, ?, ?)"
            numbers[digest] = db.execute(query, [document, digest, data]).lastrowid
    used = [numbers[digest] for digest, _ in snapshot.pieces]
    db.execute(
        "INSERT INTO snapshots VALUES (?, ?, ?, ?) ON CONFLICT (document) DO UPDATE"
        " SET place = max(place, excluded.place), size = excluded.size, data = excluded.data",
        [document, seq, snapshot.size, json.dumps(used)],
    )
    return used


def stands(db: Database, document: str, numbers: list[int]) -> bool:
    """Whether the snapshot of a document is the one of these pieces."""
    query = "SELECT 1 FROM snapshots WHERE document = ? AND data = ?"
    return db.execute(query, [document, json.dumps(numbers)]).fetchone() is not None


def unsettled(db: Database, document: str) -> list[int]:
    """The numbers of the rows of a document that lean on no piece."""
    query = "SELECT number FROM entries WHERE document = ? AND number IN (SELECT number FROM fields) ORDER BY number"
    return [row[0] for row in db.execute(query, [document])]


def settle(db: Database, pieces: Pieces, document: str, places: Mapping[str, Place], rows: Sequence[int]) -> None:
    """Have rows lean on the places of their entries, where that makes them shorter. They may be gone by now."""
    query = """
        SELECT fields.number, entry, fields FROM json_each(?) AS these
        CROSS JOIN fields ON fields.number = these.value CROSS JOIN entries ON entries.number = these.value
        WHERE document = ?
    """
    found = db.execute(query, [json.dumps(rows), document]).fetchall()
    shorter = [row for row in _lean(pieces, places, found) if row[1] is not None]
    settled = json.dumps([number for number, _, _ in shorter])
    db.execute("DELETE FROM fields WHERE number IN (SELECT value FROM json_each(?))", [settled])
    db.executemany("INSERT INTO short_fields VALUES (?, ?, ?)", shorter)


def release(db: Database, pieces: Pieces, document: str, places: Mapping[str, Place], most: int = -1) -> bool:
    """Take pieces that were left out of the file, when no row leans on them any more: rows lean on others, by
    ``places``, or have their fields as they are. Of ``most`` rows (-1: all); whether there may be more."""
    query = f"""
        SELECT number, entry, fields_of(fields, piece) FROM short_fields JOIN entries USING (number)
        WHERE piece IN ({_LEFT}) ORDER BY number LIMIT ?
    """
    rows = db.execute(query, [document, document, most]).fetchall()
    for number, place, fields in _lean(pieces, places, rows):
        if place is not None:
            db.execute("UPDATE short_fields SET piece = ?, fields = ? WHERE number = ?", [place, fields, number])
        else:
            db.execute("DELETE FROM short_fields WHERE number = ?", [number])
            db.execute("INSERT INTO fields VALUES (?, ?)", [number, fields])
    if len(rows) == most:
        return True
    db.execute(f"DELETE FROM pieces WHERE number IN ({_LEFT})", [document, document])
    return False


def _lean(
    pieces: Pieces, places: Mapping[str, Place], rows: Iterable[tuple[int, str, bytes]]
) -> Iterator[tuple[int, int | None, bytes]]:
    """Of rows (number, entry, fields) the pieces that they lean on, and their fields deflated with them; None, and as
    they are, where that is no shorter."""
    piece, leaning = -1, None
    for number, entry, fields in rows:
        if (place := places.get(entry)) is None:
            yield number, None, fields
            continue
        if leaning is None or place[0] != piece:
            piece, leaning = place[0], _LeaningOnBlocks(pieces.blocks(place[0]))
        short = leaning.deflate(fields, place[1])
        yield (number, piece, short) if len(short) < len(fields) else (number, None, fields)


class _LeaningOnBlocks:
    """Deflates what leans on the blocks of one piece, and says on which of them."""

    def __init__(self, blocks: Blocks) -> None:
        self._named, self._blocks = blocks.named, list(blocks)
        self._ends = list(accumulate(map(len, self._blocks)))
        self._leaning: dict[int, Leaning] = {}

    def deflate(self, data: bytes, at: int) -> bytes:
        """``data``, which begins at this place of the piece."""
        block = min(bisect_right(self._ends, at), len(self._blocks) - 1)
        if block not in self._leaning:
            self._leaning[block] = Leaning(self._blocks[block])
        short = self._leaning[block].deflate(data)
        return bytes([block]) + short if self._named else short
