"""What the log keeps of documents that were deleted: the id, so that it takes no records any more. And whose a
document is, so that a subject's bytes can be counted.

A deletion takes effect in one transaction; the rows of the log go later, a few at a time (``sweep``). The row in
``documents`` stays, so neither the id nor the number that rows are kept under is ever used again.
"""

from __future__ import annotations

import sqlite3

SCHEMA = (
    "ALTER TABLE documents ADD COLUMN owner TEXT NOT NULL DEFAULT ''",
    # 0: there; 1: deleted, and rows of it remain; 2: deleted; 3: deleted, and it was never there
    "ALTER TABLE documents ADD COLUMN gone INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX documents_by_owner ON documents (owner) WHERE owner != ''",
    "CREATE INDEX documents_to_sweep ON documents (number) WHERE gone = 1",
)

UNKNOWN = "CREATE INDEX documents_unknown ON documents (owner) WHERE gone = 3"


def is_gone(db: sqlite3.Connection, document: bytes) -> bool:
    return db.execute("SELECT 1 FROM documents WHERE id = ? AND gone > 0", (document,)).fetchone() is not None


def all_gone(db: sqlite3.Connection) -> list[bytes]:
    """The ids of all documents that were deleted."""
    return [id_ for (id_,) in db.execute("SELECT id FROM documents WHERE gone > 0 ORDER BY id")]


def bury(db: sqlite3.Connection, document: bytes, asked: str) -> None:
    """Delete a document. Where it was never there its tombstone counts for who ``asked``."""
    db.execute(
        "INSERT INTO documents (id, kind, log, gone, owner) VALUES (?, '', x'', 3, ?) ON CONFLICT (id) DO UPDATE"
        " SET gone = 1, kind = '', log = x'', size = 0, wanted = 0, owner = '' WHERE gone = 0",
        (document, asked),
    )


def unknown(db: sqlite3.Connection, asked: str) -> int:
    """How many documents were deleted for somebody that were never there."""
    (count,) = db.execute("SELECT count(*) FROM documents WHERE gone = 3 AND owner = ?", (asked,)).fetchone()
    return int(count)


def unswept(db: sqlite3.Connection) -> list[int]:
    """Deleted documents of which rows remain."""
    return [number for (number,) in db.execute("SELECT number FROM documents WHERE gone = 1")]


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


def held(db: sqlite3.Connection, owner: str) -> int:
    """Bytes of data in all logs of one subject, snapshots included."""
    sql = (
        "SELECT coalesce(sum(documents.size), 0) + coalesce(sum(folds.size), 0) FROM documents"
        " LEFT JOIN folds ON folds.document = number WHERE owner = ? AND owner != ''"
    )
    (size,) = db.execute(sql, (owner,)).fetchone()
    return int(size)
