"""Checks a log against its own hashes. Reads all of it; changes nothing."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator

from llmcrdt.ids import document_id
from llmcrdt.sync.chain import START, digest, next_chain
from llmcrdt.sync.messages import Record

from . import attachments, snapshots
from .admin import StoredSnapshot
from .database import load_snapshot
from .file import key

_GONE = 2
"""Deleted, and all of it swept; a smaller number means that the rest goes at the next start of the relay."""


def faults(db: sqlite3.Connection) -> Iterator[str]:
    """The faults, in words, one after the other. They are of the database as it is now; later changes are not read."""
    db.execute("BEGIN")
    try:
        for (text,) in db.execute("PRAGMA integrity_check").fetchall():
            if text != "ok":
                yield f"the file: {text}"
        for number, raw, gone in db.execute("SELECT number, id, gone FROM documents").fetchall():
            found = _deleted(db, number) if gone >= _GONE else () if gone else _document(db, number, raw)
            yield from (f"{document_id(raw)}: {fault}" for fault in found)
    finally:
        db.execute("ROLLBACK")


def _deleted(db: sqlite3.Connection, number: int) -> Iterator[str]:
    for table in ("records", "parts", "marks"):
        sql = f"SELECT 1 FROM {table} WHERE key >= ? AND key < ? LIMIT 1"
        if db.execute(sql, (key(number, 0), key(number + 1, 0))).fetchone():
            yield f"it was deleted, but has {table}"


def _document(db: sqlite3.Connection, number: int, raw: bytes) -> Iterator[str]:
    base = key(number, 0)
    snapshot = load_snapshot(db, number)
    compacted = snapshot.position if snapshot else 0
    if snapshot:
        yield from _snapshot(db, number, base, snapshot)
    sql = (
        "SELECT key, sessions.id, n, chain, data, sessions.folded FROM records JOIN sessions"
        " ON sessions.number = session WHERE key > ? AND key < ? ORDER BY key"
    )
    position, chain, size = compacted, snapshot.chain if snapshot else START, 0
    last: dict[bytes, int] = dict(
        db.execute("SELECT id, folded FROM sessions WHERE document = ?", (number,)).fetchall()
    )
    for row, session, n, stored, data, _ in db.execute(sql, (base, key(number + 1, 0))):
        if n != last.get(session, 0) + 1:
            yield f"position {row - base}: n = {n} stands after {last.get(session, 0)} of its session"
        last[session] = n
        if row - base <= compacted:
            continue  # it goes at the next start of the relay
        position, size = position + 1, size + len(data)
        chain = next_chain(chain, digest(raw, Record(session, n, data)))
        if row - base != position or stored != chain:
            yield f"position {position}: the record is not what its hash says"
            return
    (noted,) = db.execute("SELECT size FROM documents WHERE number = ?", (number,)).fetchone()
    if noted != size:
        yield f"{noted} bytes are noted, {size} are there"
    yield from attachments.faults(db, number)


def _snapshot(db: sqlite3.Connection, number: int, base: int, snapshot: StoredSnapshot) -> Iterator[str]:
    (noted, swept) = db.execute("SELECT digest, swept FROM folds WHERE document = ?", (number,)).fetchone()
    records = snapshots.snapshot_records(db, base, snapshot.parts)
    if hashlib.sha256(b"".join(len(r).to_bytes(8, "big") + r for r in records)).digest() != noted:
        yield "the snapshot is not what its hash says"
    for position in range(1, swept + 1):
        if snapshots.mark_at(db, base, position) is None:
            yield f"position {position}: no mark is kept"
            return
