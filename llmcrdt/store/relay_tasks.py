"""Tasks left for relays, as rows: they outlive the process, and are asked for on every link until answered."""

from __future__ import annotations

from sqlite3 import Connection as Database

from .catalog import LOCAL
from .connection import Connection

_LAST_DELETED = 8  # documents whose deletion a relay is asked about with each connection


class SqliteRelayTasks:
    """Implements ``base.RelayTasks``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def compactions(self, relay: str) -> list[str]:
        with self._connection.reading() as db:
            query = "SELECT document FROM relay_compactions WHERE relay = ? ORDER BY document"
            return [row[0] for row in db.execute(query, [relay])]

    def compacted(self, relay: str, document: str) -> None:
        with self._connection.writing() as db:
            db.execute("DELETE FROM relay_compactions WHERE document = ? AND relay = ?", [document, relay])

    def deletions(self, relay: str, credential: str = "") -> list[str]:
        query = "SELECT document FROM relay_deletions WHERE relay = ? AND (? = '' OR refused != ?) ORDER BY document"
        with self._connection.reading() as db:
            return [row[0] for row in db.execute(query, [relay, credential, credential])]

    def deletion_refused(self, relay: str, document: str, credential: str) -> None:
        with self._connection.writing() as db:
            query = "UPDATE relay_deletions SET refused = ? WHERE document = ? AND relay = ?"
            db.execute(query, [credential, document, relay])

    def ask_again(self, document: str) -> bool:
        with self._connection.writing() as db:
            query = "UPDATE relay_deletions SET refused = '' WHERE document = ? AND refused != ''"
            return bool(db.execute(query, [document]).rowcount)

    def delete_all_again(self, relay: str) -> None:
        with self._connection.writing() as db:
            local = "SELECT 1 FROM settings WHERE name = ? || listing.id"
            query = f"SELECT id FROM listing WHERE deleted AND NOT EXISTS ({local})"
            for (document,) in db.execute(query, [LOCAL]).fetchall():
                self.want_deletion(db, relay, document)

    def deleted(self, relay: str, document: str) -> None:
        with self._connection.writing() as db:
            db.execute("DELETE FROM relay_deletions WHERE document = ? AND relay = ?", [document, relay])
            db.execute("DELETE FROM relay_deleted WHERE document = ? AND relay = ?", [document, relay])
            db.execute("INSERT INTO relay_deleted (relay, document) VALUES (?, ?)", [relay, document])
            kept = "SELECT number FROM relay_deleted WHERE relay = ? ORDER BY number DESC LIMIT ?"
            db.execute(
                f"DELETE FROM relay_deleted WHERE relay = ? AND number NOT IN ({kept})", [relay, relay, _LAST_DELETED]
            )

    def deleted_last(self, relay: str) -> list[str]:
        with self._connection.reading() as db:
            query = "SELECT document FROM relay_deleted WHERE relay = ? ORDER BY number"
            return [row[0] for row in db.execute(query, [relay])]

    # ---------------------------------------------------------------- inside a transaction of others

    def want_compaction(self, db: Database, document: str) -> None:
        """Every relay that knows a document is to compact it."""
        query = "INSERT OR IGNORE INTO relay_compactions SELECT document, relay FROM cursors WHERE document = ?"
        db.execute(query, [document])

    def want_deletion(self, db: Database, relay: str, document: str) -> None:
        """A relay is to delete a document, whatever it refused before."""
        db.execute("INSERT OR REPLACE INTO relay_deletions VALUES (?, ?, '')", [document, relay])

    def forget_compactions(self, db: Database, document: str) -> None:
        """No relay need compact a document any more."""
        db.execute("DELETE FROM relay_compactions WHERE document = ?", [document])
