"""What the log keeps of records that were folded: the snapshot in parts, and marks to know a cursor by.

A fold takes effect in one transaction: the snapshot is there, and readers below its position get it. The records it
stands for go later, a few at a time (``sweep``), so that no reader waits for it. Of each the first bytes of its chain
hash stay: a client whose cursor stands there is told apart from one whose cursor is of another history.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from llmcrdt.sync.messages import Cursor

MARK = 8
"""Bytes of a chain hash that are kept. They tell a restored backup from the log it came from; nobody is kept out by
them who could not have read the log anyway."""

SCHEMA = (
    "ALTER TABLE documents ADD COLUMN size INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE documents ADD COLUMN wanted INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE sessions ADD COLUMN folded INTEGER NOT NULL DEFAULT 0",
    "CREATE TABLE folds (document INTEGER PRIMARY KEY, position INTEGER, chain BLOB, session BLOB, parts INTEGER,"
    " size INTEGER, digest BLOB, swept INTEGER) STRICT",
    "CREATE TABLE parts (key INTEGER PRIMARY KEY, n INTEGER, count INTEGER, size INTEGER, start INTEGER, data BLOB)"
    " STRICT",
    "CREATE TABLE marks (key INTEGER PRIMARY KEY, chains BLOB) STRICT",
    "UPDATE documents SET size = (SELECT coalesce(sum(length(data)), 0) FROM records"
    " WHERE key BETWEEN documents.number << 36 AND ((documents.number + 1) << 36) - 1)",
)


class StoredSnapshot(NamedTuple):
    """What stands for the records up to ``position``: ``parts`` parts of records of ``session``, ``size`` bytes."""

    position: int
    chain: bytes
    session: bytes
    parts: int
    size: int


class Part(NamedTuple):
    """Bytes of the ``n``-th of ``count`` records of a snapshot; that record has ``size`` bytes, these begin at
    ``offset``."""

    n: int
    of: int
    size: int
    offset: int
    data: bytes


def cut(records: Sequence[bytes], most: int) -> Iterator[Part]:
    """The records of a snapshot in parts of ``most`` bytes."""
    for n, data in enumerate(records, 1):
        for offset in range(0, len(data), most):
            yield Part(n, len(records), len(data), offset, data[offset : offset + most])


def load(db: sqlite3.Connection, document: int) -> StoredSnapshot | None:
    row = db.execute(
        "SELECT position, chain, session, parts, size FROM folds WHERE document = ?", (document,)
    ).fetchone()
    return StoredSnapshot(*row) if row else None


def part(db: sqlite3.Connection, base: int, place: int) -> Part | None:
    row = db.execute("SELECT n, count, size, start, data FROM parts WHERE key = ?", (base + place,)).fetchone()
    return Part(*row) if row else None


def new_session() -> bytes:
    """A name for the records of a snapshot."""
    return os.urandom(16)


def snapshot(db: sqlite3.Connection, base: int, parts: int) -> Iterator[bytes]:
    """The records of a snapshot, put together."""
    pieces: list[bytes] = []
    have = 0
    sql = "SELECT size, data FROM parts WHERE key >= ? AND key < ? ORDER BY key"
    for size, data in db.execute(sql, (base, base + parts)):
        pieces.append(data)
        have += len(data)
        if have == size:
            yield b"".join(pieces)
            pieces, have = [], 0


def stretch(db: sqlite3.Connection, document: int, base: int, after: int, upto: int) -> Iterator[bytes]:
    """The snapshot, what is behind it up to ``after``, and what is behind that up to ``upto``, with nothing between the
    three. ``base`` is the key of position 0."""
    fold = load(db, document)
    folded = fold.position if fold else 0
    if not folded <= after < upto:
        return
    yield from snapshot(db, base, fold.parts if fold else 0)
    sql = "SELECT data FROM records WHERE key > ? AND key <= ? ORDER BY key"
    for start, end in ((folded, after), (after, upto)):
        yield b""
        for (data,) in db.execute(sql, (base + start, base + end)):
            yield data


def contents(db: sqlite3.Connection, document: int, base: int, position: int) -> Iterator[bytes]:
    """The records of the snapshot, then those behind it up to ``position``. ``base`` is the key of position 0."""
    fold = load(db, document)
    if fold:
        yield from snapshot(db, base, fold.parts)
    sql = "SELECT data FROM records WHERE key > ? AND key <= ? ORDER BY key"
    for (data,) in db.execute(sql, (base + (fold.position if fold else 0), base + position)):
        yield data


def put(
    db: sqlite3.Connection, document: int, base: int, upto: Cursor, session: bytes, records: Sequence[bytes], most: int
) -> StoredSnapshot:
    """Let a snapshot stand for all up to ``upto``. The caller has checked that it belongs there."""
    before = load(db, document)
    parts = list(cut(records, most))
    digest = hashlib.sha256(b"".join(len(r).to_bytes(8, "big") + r for r in records)).digest()
    if before:
        db.execute("DELETE FROM parts WHERE key >= ? AND key < ?", (base, base + before.parts))
    rows = [(base + place, *piece) for place, piece in enumerate(parts)]
    db.executemany("INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?)", rows)
    fold = StoredSnapshot(upto.position, upto.chain, session, len(parts), sum(map(len, records)))
    db.execute(
        "INSERT INTO folds VALUES (?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT (document) DO UPDATE SET"
        " position = excluded.position, chain = excluded.chain, session = excluded.session, parts = excluded.parts,"
        " size = excluded.size, digest = excluded.digest",
        (document, *fold, digest),
    )
    gone = "SELECT coalesce(sum(length(data)), 0) FROM records WHERE key > ? AND key <= ?"
    (size,) = db.execute(gone, (base + (before.position if before else 0), base + upto.position)).fetchone()
    db.execute(
        "UPDATE documents SET size = size - ?, wanted = CASE WHEN wanted <= ? THEN 0 ELSE wanted END WHERE number = ?",
        (size, upto.position, document),
    )
    return fold


def unswept(db: sqlite3.Connection) -> list[int]:
    """Documents that still have records which a snapshot stands for."""
    return [number for (number,) in db.execute("SELECT document FROM folds WHERE swept < position")]


def sweep(db: sqlite3.Connection, document: int, base: int, rows: int) -> bool:
    """Take away at most ``rows`` of them. Whether there are more."""
    position, swept = db.execute("SELECT position, swept FROM folds WHERE document = ?", (document,)).fetchone()
    start, end = base + swept, min(base + position, base + swept + rows)
    found = db.execute(
        "SELECT session, n, chain FROM records WHERE key > ? AND key <= ? ORDER BY key", (start, end)
    ).fetchall()
    last = {session: n for session, n, _ in found}
    db.executemany("UPDATE sessions SET folded = max(folded, ?) WHERE number = ?", [(n, s) for s, n in last.items()])
    chains = b"".join(chain[:MARK] for _, _, chain in found)
    db.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", (start + 1, chains))
    db.execute("DELETE FROM records WHERE key > ? AND key <= ?", (start, end))
    db.execute("UPDATE folds SET swept = ? WHERE document = ?", (end - base, document))
    return bool(end < base + position)


def mark_at(db: sqlite3.Connection, base: int, position: int) -> bytes | None:
    """What is kept of the chain hash at a position that was swept."""
    row = db.execute(
        "SELECT substr(chains, (? - key) * ? + 1, ?) FROM marks WHERE key > ? AND key <= ? ORDER BY key DESC LIMIT 1",
        (base + position, MARK, MARK, base, base + position),
    ).fetchone()
    return row[0] if row and len(row[0]) == MARK else None
