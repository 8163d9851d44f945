"""Snapshots in SQLite: each in parts, with marks that tell the cursors before it from those of another history.

A snapshot takes effect with its commit: it is there, and readers before its position get it. The records that it stands
for go later, a few at a time (``sweep``), so that no reader waits for it. Of each the first bytes of its chain hash
stay: a client whose cursor stands there is told apart from one whose cursor is of another history.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from math import inf

from llmcrdt.sync.chain import START
from llmcrdt.sync.messages import Cursor

from . import rejected
from .admin import Part, StoredSnapshot, cut
from .base import LogError
from .database import Document, SqliteDatabase, load_snapshot
from .file import explaining, key

MARK = 8
"""Bytes of a chain hash that are kept. They tell a restored backup from the log it came from; nobody is kept out by
them who could not have read the log anyway."""
_COUNTED = 1_024
"""Records whose bytes are counted at a time."""


class SqliteSnapshots:
    """SnapshotStore in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._db = database

    def get(self, document: bytes) -> StoredSnapshot | None:
        doc = self._db.document(document)
        return doc.snapshot if doc else None

    def part(self, document: bytes, index: int) -> Part:
        doc = self._db.existing(document)
        sql = "SELECT n, count, size, start, data FROM parts WHERE key = ?"
        with self._db.errors():
            row = self._db.connection.execute(sql, (doc.base + index,)).fetchone()
        if row is None:
            raise LogError(f"{self._db.path} lacks a part of a snapshot.", hint="Restore it from a backup.")
        return Part(*row)

    def put(self, document: bytes, upto: Cursor, session: bytes, records: Sequence[bytes], part_size: int) -> bool:
        database = self._db
        doc = database.document(document)
        if doc is None or upto.position <= doc.compacted or not holds(database, doc, upto):
            return False
        database.stage(document)
        with database.errors():
            database.flush()
            database.write_sizes()
            db = database.write()
            doc.snapshot = _put(db, doc, upto, session, records, part_size)
            rejected.clear(db, document)
            (doc.tail_size,) = db.execute("SELECT size FROM documents WHERE number = ?", (doc.number,)).fetchone()
        database.used.pop(doc.owner, None)
        if doc.number not in database.compacted:
            database.compacted.append(doc.number)
        return True

    def tail_size(self, document: bytes) -> int:
        doc = self._db.document(document)
        return doc.tail_size if doc else 0

    def tail_start(self, document: bytes, max_bytes: int) -> Cursor:
        doc = self._db.existing(document)
        self._db.flush()
        position, size = doc.cursor.position, 0
        sql = "SELECT length(data) FROM records WHERE key > ? AND key <= ? ORDER BY key DESC"
        between = (doc.base + doc.compacted, doc.base + position)
        with self._db.errors(), closing(self._db.connection.execute(sql, between)) as rows:
            for (length,) in rows:
                size += length
                if size > max_bytes:
                    break
                position -= 1
        if position == doc.cursor.position:
            return doc.cursor
        return Cursor(doc.cursor.log, position, self._db.chain(doc, position) or START)

    def bytes_between(self, document: bytes, after: int, upto: int, enough: float = inf) -> int:
        doc = self._db.existing(document)
        self._db.flush()
        sql = "SELECT coalesce(sum(length(data)), 0) FROM records WHERE key > ? AND key <= ?"
        size, start = 0, max(after, doc.compacted)
        with self._db.errors():
            while start < upto and size < enough:
                end = min(start + _COUNTED, upto)
                size += self._db.connection.execute(sql, (doc.base + start, doc.base + end)).fetchone()[0]
                start = end
        return size

    def contents(self, document: bytes, upto: int) -> Iterator[bytes]:
        with explaining(self._db.path), closing(sqlite3.connect(self._db.path, isolation_level=None)) as db:
            db.execute("BEGIN")
            found = db.execute("SELECT number FROM documents WHERE id = ?", (document,)).fetchone()
            if found:
                yield from _contents(db, found[0], upto)

    def contents_around(self, document: bytes, after: int, upto: int) -> Iterator[bytes]:
        with explaining(self._db.path), closing(sqlite3.connect(self._db.path, isolation_level=None)) as db:
            db.execute("BEGIN")
            found = db.execute("SELECT number FROM documents WHERE id = ? AND gone = 0", (document,)).fetchone()
            if found:
                yield from _contents_around(db, found[0], after, upto)

    def request(self, document: bytes) -> None:
        doc = self._db.existing(document)
        self._db.stage(document)
        sql = "UPDATE documents SET wanted = ? WHERE number = ?"
        with self._db.errors():
            self._db.write().execute(sql, (doc.cursor.position, doc.number))

    def requested(self) -> Sequence[bytes]:
        with self._db.errors():
            sql = "SELECT id FROM documents WHERE wanted > 0"
            return [id_ for (id_,) in self._db.connection.execute(sql)]


def holds(database: SqliteDatabase, doc: Document, cursor: Cursor) -> bool:
    """Whether a cursor is a place in the log of a document, also where the snapshot stands for its record."""
    if cursor.log != doc.cursor.log or not 0 <= cursor.position <= doc.cursor.position:
        return False
    if cursor.position == doc.cursor.position:
        return cursor.chain == doc.cursor.chain
    chain = database.chain(doc, cursor.position)
    if chain is None:
        with database.errors():
            return mark_at(database.connection, doc.base, cursor.position) == cursor.chain[:MARK]
    return chain == cursor.chain


def snapshot_records(db: sqlite3.Connection, base: int, parts: int) -> Iterator[bytes]:
    """The records of a snapshot, put together. ``base`` is the key of position 0."""
    pieces: list[bytes] = []
    have = 0
    sql = "SELECT size, data FROM parts WHERE key >= ? AND key < ? ORDER BY key"
    for size, data in db.execute(sql, (base, base + parts)):
        pieces.append(data)
        have += len(data)
        if have == size:
            yield b"".join(pieces)
            pieces, have = [], 0


def mark_at(db: sqlite3.Connection, base: int, position: int) -> bytes | None:
    """The first bytes of the chain hash at a position that was swept; None where no mark is kept."""
    row = db.execute(
        "SELECT substr(chains, (? - key) * ? + 1, ?) FROM marks WHERE key > ? AND key <= ? ORDER BY key DESC LIMIT 1",
        (base + position, MARK, MARK, base, base + position),
    ).fetchone()
    return row[0] if row and len(row[0]) == MARK else None


def sweep(db: sqlite3.Connection, document: int, base: int, rows: int) -> bool:
    """Take away at most ``rows`` records that the snapshot stands for. Whether there are more."""
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


def _contents(db: sqlite3.Connection, document: int, upto: int) -> Iterator[bytes]:
    base, snapshot = key(document, 0), load_snapshot(db, document)
    if snapshot:
        yield from snapshot_records(db, base, snapshot.parts)
    sql = "SELECT data FROM records WHERE key > ? AND key <= ? ORDER BY key"
    for (data,) in db.execute(sql, (base + (snapshot.position if snapshot else 0), base + upto)):
        yield data


def _contents_around(db: sqlite3.Connection, document: int, after: int, upto: int) -> Iterator[bytes]:
    base, snapshot = key(document, 0), load_snapshot(db, document)
    compacted = snapshot.position if snapshot else 0
    if not compacted <= after < upto:
        return
    yield from snapshot_records(db, base, snapshot.parts if snapshot else 0)
    sql = "SELECT data FROM records WHERE key > ? AND key <= ? ORDER BY key"
    for start, end in ((compacted, after), (after, upto)):
        yield b""
        for (data,) in db.execute(sql, (base + start, base + end)):
            yield data


def _put(
    db: sqlite3.Connection, doc: Document, upto: Cursor, session: bytes, records: Sequence[bytes], most: int
) -> StoredSnapshot:
    """Let a snapshot stand for all up to ``upto``, which is a place after the one there is."""
    base, before = doc.base, doc.snapshot
    parts = list(cut(records, most))
    digest = hashlib.sha256(b"".join(len(r).to_bytes(8, "big") + r for r in records)).digest()
    if before:
        db.execute("DELETE FROM parts WHERE key >= ? AND key < ?", (base, base + before.parts))
    rows = [(base + index, *piece) for index, piece in enumerate(parts)]
    db.executemany("INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?)", rows)
    snapshot = StoredSnapshot(upto.position, upto.chain, session, len(parts), sum(map(len, records)))
    db.execute(
        "INSERT INTO folds VALUES (?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT (document) DO UPDATE SET"
        " position = excluded.position, chain = excluded.chain, session = excluded.session, parts = excluded.parts,"
        " size = excluded.size, digest = excluded.digest",
        (doc.number, *snapshot, digest),
    )
    replaced = "SELECT coalesce(sum(length(data)), 0) FROM records WHERE key > ? AND key <= ?"
    (size,) = db.execute(replaced, (base + doc.compacted, base + upto.position)).fetchone()
    db.execute(
        "UPDATE documents SET size = size - ?, wanted = CASE WHEN wanted <= ? THEN 0 ELSE wanted END WHERE number = ?",
        (size, upto.position, doc.number),
    )
    return snapshot
