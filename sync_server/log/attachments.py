"""Attachments in SQLite: a row for each, and its pieces in a table of their own.

They share the log's file, and so its commit, its copies and its checks: what a device was told is held is on disk as
its records are, and no half attachment is ever more than a row that says so. One that is removed leaves its number in
``doomed``, until the sweeper has taken its pieces, a few at a time.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence

from llmcrdt.sync.messages import PLAIN, AttachmentName

from .admin import PIECE, StoredAttachment
from .base import LogError
from .database import SqliteDatabase
from .file import key

_ROWS = 32
"""Rows of records that one piece counts for where rows are swept: each is zeroed as it goes."""


class SqliteAttachments:
    """AttachmentStore in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._db = database

    def get(self, document: bytes, name: AttachmentName) -> StoredAttachment | None:
        found = self._find(document, name)
        return found[1] if found else None

    def begin(self, document: bytes, name: AttachmentName, size: int) -> None:
        doc = self._db.existing(document)
        self._db.stage(document)
        with self._db.errors():
            sql = "INSERT INTO attachments (document, form, hash, size) VALUES (?, ?, ?, ?)"
            self._db.write().execute(sql, (doc.number, *name, size))
        self._count(doc.owner, size)

    def append(self, document: bytes, name: AttachmentName, data: bytes) -> None:
        number, stored = self._existing(document, name)
        with self._db.errors():
            connection = self._db.write()
            index, left = divmod(stored.held, PIECE)
            assert left == 0 and len(data) == min(PIECE, stored.size - stored.held)
            connection.execute("INSERT INTO pieces VALUES (?, ?)", (key(number, index), data))
            connection.execute("UPDATE attachments SET held = held + ? WHERE number = ?", (len(data), number))

    def finish(self, document: bytes, name: AttachmentName) -> None:
        number, _ = self._existing(document, name)
        with self._db.errors():
            self._db.write().execute("UPDATE attachments SET whole = 1 WHERE number = ?", (number,))

    def remove(self, document: bytes, name: AttachmentName) -> None:
        number, stored = self._existing(document, name)
        with self._db.errors():
            doom(self._db.write(), "number", number)
        self._count(self._db.existing(document).owner, -stored.size)
        self._db.doomed = True

    def piece(self, document: bytes, name: AttachmentName, index: int) -> bytes:
        found = self._find(document, name)
        if found is None:
            return b""
        with self._db.errors():
            sql = "SELECT data FROM pieces WHERE key = ?"
            row = self._db.connection.execute(sql, (key(found[0], index),)).fetchone()
        return bytes(row[0]) if row else b""

    def unfinished(self, document: bytes) -> Sequence[StoredAttachment]:
        doc = self._db.document(document)
        if doc is None:
            return []
        with self._db.errors():
            sql = "SELECT form, hash, size, held FROM attachments WHERE document = ? AND NOT whole ORDER BY number"
            rows = self._db.connection.execute(sql, (doc.number,)).fetchall()
        return [StoredAttachment(AttachmentName(form, hash_), size, held, False) for form, hash_, size, held in rows]

    def count(self, document: bytes) -> tuple[int, int]:
        doc = self._db.document(document)
        if doc is None:
            return 0, 0
        with self._db.errors():
            sql = "SELECT count(*), coalesce(sum(size), 0) FROM attachments WHERE document = ?"
            count, size = self._db.connection.execute(sql, (doc.number,)).fetchone()
        return int(count), int(size)

    # ---------------------------------------------------------------- inside

    def _find(self, document: bytes, name: AttachmentName) -> tuple[int, StoredAttachment] | None:
        doc = self._db.document(document)
        if doc is None:
            return None
        with self._db.errors():
            sql = "SELECT number, size, held, whole FROM attachments WHERE document = ? AND form = ? AND hash = ?"
            row = self._db.connection.execute(sql, (doc.number, *name)).fetchone()
        return (row[0], StoredAttachment(name, row[1], row[2], bool(row[3]))) if row else None

    def _existing(self, document: bytes, name: AttachmentName) -> tuple[int, StoredAttachment]:
        """To be changed. Raises LogError where it isn't there."""
        self._db.stage(document)
        found = self._find(document, name)
        if found is None:
            raise LogError(f"{self._db.path} has no such attachment.")
        return found

    def _count(self, owner: str, size: int) -> None:
        if owner in self._db.used:
            self._db.used[owner] += size


def doom(db: sqlite3.Connection, column: str, value: int) -> None:
    """Attachments are gone: the one of a number, or all of a document. Their pieces are to be swept."""
    assert column in ("number", "document")
    db.execute(f"INSERT INTO doomed SELECT number FROM attachments WHERE {column} = ?", (value,))
    db.execute(f"DELETE FROM attachments WHERE {column} = ?", (value,))


def some_doomed(db: sqlite3.Connection) -> bool:
    """Whether pieces are to be swept."""
    return db.execute("SELECT 1 FROM doomed LIMIT 1").fetchone() is not None


def sweep(db: sqlite3.Connection, rows: int) -> bool:
    """Take away some pieces of what was removed, at least one. Whether there may be more."""
    row = db.execute("SELECT number FROM doomed LIMIT 1").fetchone()
    if row is None:
        return False
    first, end, most = key(row[0], 0), key(row[0] + 1, 0), max(1, rows // _ROWS)
    keys = "SELECT key FROM pieces WHERE key >= ? AND key < ? LIMIT ?"
    if db.execute(f"DELETE FROM pieces WHERE key IN ({keys})", (first, end, most)).rowcount < most:
        db.execute("DELETE FROM doomed WHERE number = ?", (row[0],))
    return True


def faults(db: sqlite3.Connection, document: int) -> Iterator[str]:
    """The faults of the attachments of a document, in words."""
    if not _has_table(db):
        return
    sql = "SELECT number, form, hash, size, held, whole FROM attachments WHERE document = ?"
    for number, form, hash_, size, held, whole in db.execute(sql, (document,)).fetchall():
        digest, come = hashlib.sha256(), 0
        pieces = "SELECT key, data FROM pieces WHERE key >= ? AND key < ? ORDER BY key"
        for at, (found, data) in enumerate(db.execute(pieces, (key(number, 0), key(number + 1, 0)))):
            if found != key(number, at):
                break
            digest.update(data)
            come += len(data)
        if come != held or held > size or (whole and held < size):
            yield f"the attachment {hash_.hex()}: {come} of {held} bytes are there"
        elif whole and form == PLAIN and digest.digest() != hash_:
            yield f"the attachment {hash_.hex()} is not what its name says"


def usage(db: sqlite3.Connection) -> dict[int, tuple[int, int]]:
    """How many attachments each document has, by its number, and their bytes."""
    if not _has_table(db):
        return {}
    sql = "SELECT document, count(*), sum(size) FROM attachments GROUP BY document"
    return {number: (count, size) for number, count, size in db.execute(sql)}


def _has_table(db: sqlite3.Connection) -> bool:
    """A copy may be of an older relay."""
    return db.execute("SELECT 1 FROM sqlite_master WHERE name = 'attachments'").fetchone() is not None
