"""The bytes and tombstones that count for a subject: Quotas in SQLite."""

from __future__ import annotations

from .database import SqliteDatabase


class SqliteQuotas:
    """The sum of a subject is read once, and then kept up to date in memory."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._db = database

    def owner(self, document: bytes) -> str:
        doc = self._db.document(document)
        return doc.owner if doc else ""

    def used(self, owner: str) -> int:
        found = self._db.used.get(owner)
        if found is None:
            attached = (
                "SELECT coalesce(sum(attachments.size), 0) FROM documents"
                " JOIN attachments ON attachments.document = documents.number WHERE owner = ?1 AND owner != ''"
            )
            sql = (
                f"SELECT coalesce(sum(documents.size), 0) + coalesce(sum(folds.size), 0) + ({attached}) FROM documents"
                " LEFT JOIN folds ON folds.document = number WHERE owner = ?1 AND owner != ''"
            )
            with self._db.errors():
                self._db.write_sizes()
                (size,) = self._db.connection.execute(sql, (owner,)).fetchone()
            found = self._db.used[owner] = int(size)
        return found

    def unknown_tombstones(self, subject: str) -> int:
        found = self._db.unknown_tombstones.get(subject)
        if found is None:
            sql = "SELECT count(*) FROM documents WHERE gone = 3 AND owner = ?"
            with self._db.errors():
                (count,) = self._db.connection.execute(sql, (subject,)).fetchone()
            found = self._db.unknown_tombstones[subject] = int(count)
        return found
