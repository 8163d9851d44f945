"""Deleted conversations leave the file."""

from __future__ import annotations

from . import snapshots
from .catalog import LOCAL
from .connection import Connection
from .entry_index import forget_rows
from .relay_tasks import SqliteRelayTasks

_SCRUB = "scrub"  # the setting that says what was dropped may still be in the write-ahead log


class SqliteDeletions:
    """Implements ``base.Deletions``."""

    def __init__(self, connection: Connection, relay_tasks: SqliteRelayTasks) -> None:
        self._connection, self._relay_tasks = connection, relay_tasks

    def left(self) -> list[str]:
        query = """
            SELECT id FROM listing WHERE deleted AND (
                EXISTS (SELECT 1 FROM updates WHERE updates.document = listing.id)
                OR EXISTS (SELECT 1 FROM snapshots WHERE snapshots.document = listing.id)
                OR EXISTS (SELECT 1 FROM cursors WHERE cursors.document = listing.id))
        """
        with self._connection.reading() as db:
            return [row[0] for row in db.execute(query)]

    def drop(self, document: str) -> None:
        with self._connection.writing() as db:
            library = "SELECT value FROM settings WHERE name = 'library'"
            shared = "NOT EXISTS (SELECT 1 FROM settings WHERE name = ?)"
            query = f"SELECT DISTINCT relay FROM cursors WHERE document IN (?, ({library})) AND {shared}"
            for (relay,) in db.execute(query, [document, LOCAL + document]).fetchall():
                self._relay_tasks.want_deletion(db, relay, document)
            for table in ("outbox", "updates", "set_aside", "snapshots", "cursors", "purges"):
                db.execute(f"DELETE FROM {table} WHERE document = ?", [document])
            forget_rows(db, document)
            snapshots.release(db, self._connection.pieces, document, {})  # rows of forks lean on its pieces
            self._relay_tasks.forget_compactions(db, document)
            db.execute("INSERT OR REPLACE INTO settings VALUES (?, '')", [_SCRUB])

    def scrub(self) -> bool:
        if self._connection.one("SELECT value FROM settings WHERE name = ?", _SCRUB) is None:
            return True
        if not self._connection.empty_wal():
            return False
        with self._connection.writing() as db:
            db.execute("DELETE FROM settings WHERE name = ?", [_SCRUB])
        return True
