"""Is a log what its hashes say? Reads all of it; changes nothing."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator

from llmcrdt.ids import document_id
from llmcrdt.sync.chain import START, digest, next_chain
from llmcrdt.sync.messages import Record

from . import snapshots as folds

_BITS = 36
_GONE = 2
"""Deleted, and all of it taken away; what stands before that goes at the next start of the relay."""


def faults(db: sqlite3.Connection) -> Iterator[str]:
    """What is wrong, in words, one fault after the other. What the database is now is read, and no later change."""
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
        if db.execute(sql, (number << _BITS, (number + 1) << _BITS)).fetchone():
            yield f"it was deleted, but has {table}"


def _document(db: sqlite3.Connection, number: int, raw: bytes) -> Iterator[str]:
    base = number << _BITS
    fold = folds.load(db, number)
    folded = fold.position if fold else 0
    if fold:
        yield from _snapshot(db, number, base, fold)
    sql = (
        "SELECT key, sessions.id, n, chain, data, sessions.folded FROM records JOIN sessions"
        " ON sessions.number = session WHERE key > ? AND key < ? ORDER BY key"
    )
    position, chain, size = folded, fold.chain if fold else START, 0
    last: dict[bytes, int] = dict(
        db.execute("SELECT id, folded FROM sessions WHERE document = ?", (number,)).fetchall()
    )
    for key, session, n, stored, data, _ in db.execute(sql, (base, base + (1 << _BITS))):
        if n != last.get(session, 0) + 1:
            yield f"position {key - base}: n = {n} stands behind {last.get(session, 0)} of its session"
        last[session] = n
        if key - base <= folded:
            continue  # it goes at the next start of the relay
        position, size = position + 1, size + len(data)
        chain = next_chain(chain, digest(raw, Record(session, n, data)))
        if key - base != position or stored != chain:
            yield f"position {position}: the record is not what its hash says"
            return
    (noted,) = db.execute("SELECT size FROM documents WHERE number = ?", (number,)).fetchone()
    if noted != size:
        yield f"{noted} bytes are noted, {size} are there"


def _snapshot(db: sqlite3.Connection, number: int, base: int, fold: folds.StoredSnapshot) -> Iterator[str]:
    (noted, swept) = db.execute("SELECT digest, swept FROM folds WHERE document = ?", (number,)).fetchone()
    records = folds.snapshot(db, base, fold.parts)
    if hashlib.sha256(b"".join(len(r).to_bytes(8, "big") + r for r in records)).digest() != noted:
        yield "the snapshot is not what its hash says"
    for position in range(1, swept + 1):
        if folds.mark_at(db, base, position) is None:
            yield f"position {position}: no mark is kept"
            return
