"""The table of records that a check refused: kept for the operator, never sent on.

``python -m sync_server inspect`` counts them. They may hold text that was erased, so a snapshot of their document
empties them; name, size and reason stay.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from llmcrdt.sync.chain import digest
from llmcrdt.sync.messages import Record

from .admin import REJECTED_KEPT, RejectedRecord
from .database import SqliteDatabase

MOST = 1 << 20
"""Bytes of one of them that are kept."""


class SqliteRejected:
    """RejectedRecords in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._db = database

    def keep(self, document: bytes, record: Record, reason: str) -> None:
        self._db.stage(document)
        with self._db.errors():
            db = self._db.write()
            db.execute(
                "INSERT OR REPLACE INTO refused (document, session, n, reason, digest, size, data)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    *(document, record.session, record.n, reason),
                    *(digest(document, record), len(record.data), record.data[:MOST]),
                ),
            )
            db.execute(
                "DELETE FROM refused WHERE document = ? AND number NOT IN"
                " (SELECT number FROM refused WHERE document = ? ORDER BY number DESC LIMIT ?)",
                (document, document, REJECTED_KEPT),
            )

    def read(self, document: bytes) -> Sequence[RejectedRecord]:
        sql = "SELECT session, n, reason, size, data FROM refused WHERE document = ? ORDER BY number"
        with self._db.errors():
            return [RejectedRecord(*row) for row in self._db.connection.execute(sql, (document,))]


def clear(db: sqlite3.Connection, document: bytes) -> None:
    """The bytes of a document's rejected records go."""
    db.execute("UPDATE refused SET data = NULL WHERE document = ?", (document,))


def forget(db: sqlite3.Connection, document: bytes) -> None:
    """A document is deleted, and so are its rejected records."""
    db.execute("DELETE FROM refused WHERE document = ?", (document,))
