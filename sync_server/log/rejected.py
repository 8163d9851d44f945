"""The table of records that a check refused: kept for the operator, never sent on.

``python -m sync_server inspect`` counts them. What was erased may be in them, so a fold of their document empties them;
name, size and reason stay.
"""

from __future__ import annotations

import sqlite3

from llmcrdt.sync.chain import digest
from llmcrdt.sync.messages import Record

KEPT = 20
"""Refused records kept of one document."""
MOST = 1 << 20
"""Bytes of one of them that are kept."""

SCHEMA = (
    "CREATE TABLE refused (number INTEGER PRIMARY KEY, document BLOB, session BLOB, n INTEGER, reason TEXT,"
    " digest BLOB, size INTEGER, data BLOB, UNIQUE (document, digest)) STRICT",
)


def put(db: sqlite3.Connection, document: bytes, record: Record, why: str) -> None:
    """Keep one. The same one again takes no more room."""
    db.execute(
        "INSERT OR REPLACE INTO refused (document, session, n, reason, digest, size, data)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (document, record.session, record.n, why, digest(document, record), len(record.data), record.data[:MOST]),
    )
    db.execute(
        "DELETE FROM refused WHERE document = ? AND number NOT IN"
        " (SELECT number FROM refused WHERE document = ? ORDER BY number DESC LIMIT ?)",
        (document, document, KEPT),
    )


def clear(db: sqlite3.Connection, document: bytes) -> None:
    """Their bytes go."""
    db.execute("UPDATE refused SET data = NULL WHERE document = ?", (document,))


def forget(db: sqlite3.Connection, document: bytes) -> None:
    """A document is gone, and so are they."""
    db.execute("DELETE FROM refused WHERE document = ?", (document,))
