"""Takes away rows that are no longer needed, some at a time: Sweeper in SQLite."""

from __future__ import annotations

from . import attachments, snapshots, tombstones
from .database import SqliteDatabase
from .file import TIMEOUT, key


class SqliteSweeper:
    """Deleted documents first, then removed attachments, then the records that snapshots stand for."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._db = database

    def sweep(self, rows: int) -> bool:
        database = self._db
        if not database.deleted and not database.doomed and not database.compacted:
            return False
        with database.transaction() as db:
            if database.deleted:
                number = database.deleted[0]
                if not tombstones.sweep(db, number, key(number, 0), key(number + 1, 0), rows):
                    database.deleted.pop(0)
            elif database.doomed:
                database.doomed = attachments.sweep(db, rows)
            else:
                number = database.compacted[0]
                if not snapshots.sweep(db, number, key(number, 0), rows):
                    database.compacted.pop(0)
                # They say up to where a session is compacted.
                database.sessions.clear()
        return bool(database.deleted or database.doomed or database.compacted)

    def scrub(self) -> bool:
        """Pages are zeroed when they are freed; the write-ahead log may still hold them, and is emptied here."""
        db = self._db.connection
        with self._db.errors():
            # Another process that reads the file just now is not waited for.
            db.execute("PRAGMA busy_timeout=0")
            try:
                (busy, _, _) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                db.execute(f"PRAGMA busy_timeout={TIMEOUT}")
        return not busy
