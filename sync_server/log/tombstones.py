"""Tombstones in SQLite: the id of a deleted document stays, so that nothing is appended to it any more.

A deletion takes effect with its commit; the rows of the log go later, a few at a time (``sweep``). The row in
``documents`` stays, so neither the id nor the number that rows are kept under is ever used again.
"""

from __future__ import annotations

import sqlite3

from . import attachments, rejected
from .database import SqliteDatabase


class SqliteTombstones:
    """Tombstones in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._db = database

    def is_deleted(self, document: bytes) -> bool:
        if document in self._db.documents:
            return False
        sql = "SELECT 1 FROM documents WHERE id = ? AND gone > 0"
        with self._db.errors():
            return self._db.connection.execute(sql, (document,)).fetchone() is not None

    def delete(self, document: bytes, subject: str = "") -> None:
        database = self._db
        doc = database.document(document)
        database.stage(document)
        with database.errors():
            database.flush()
            database.write_sizes()
            db = database.write()
            _mark(db, document, subject)
        database.documents.forget(document)
        database.unknown_tombstones.pop(subject, None)
        database.doomed = database.doomed or attachments.some_doomed(db)
        if doc is not None:
            database.sessions.clear()
            database.used.pop(doc.owner, None)
            database.deleted.append(doc.number)
            if doc.number in database.compacted:
                database.compacted.remove(doc.number)


def _mark(db: sqlite3.Connection, document: bytes, subject: str) -> None:
    found = db.execute("SELECT number FROM documents WHERE id = ? AND gone = 0", (document,)).fetchone()
    if found is not None:
        attachments.doom(db, "document", found[0])
    db.execute(
        "INSERT INTO documents (id, kind, log, gone, owner) VALUES (?, '', x'', 3, ?) ON CONFLICT (id)"
        " DO UPDATE SET gone = 1, kind = '', log = x'', size = 0, wanted = 0, owner = '' WHERE gone = 0",
        (document, subject),
    )
    rejected.forget(db, document)


def carry(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """All documents that were deleted in one database are deleted in another."""
    for document, owner in source.execute("SELECT id, owner FROM documents WHERE gone > 0 ORDER BY id"):
        _mark(target, document, owner)


def sweep(db: sqlite3.Connection, document: int, first: int, end: int, rows: int) -> bool:
    """Take away at most ``rows`` rows of a deleted document; its keys are ``first`` up to ``end``. Whether there are
    more."""
    for table in ("records", "parts", "marks"):
        keys = f"SELECT key FROM {table} WHERE key >= ? AND key < ? LIMIT ?"
        done = db.execute(f"DELETE FROM {table} WHERE key IN ({keys})", (first, end, rows)).rowcount
        rows -= done
        if rows <= 0:
            return True
    db.execute("DELETE FROM sessions WHERE document = ?", (document,))
    db.execute("DELETE FROM folds WHERE document = ?", (document,))
    db.execute("UPDATE documents SET gone = 2 WHERE number = ?", (document,))
    return False
