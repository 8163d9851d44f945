"""Attachments that relays are to be given or to take away, as rows: they outlive the process.

A row without a relay says that every relay is to have it; one with a relay, that this one has it, or is to take it
away.
"""

from __future__ import annotations

from collections.abc import Iterable

from .connection import Connection

_SEND, _SENT, _DISCARD = "send", "sent", "discard"


class SqliteAttachmentTasks:
    """Implements ``base.AttachmentTasks``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def want(self, document: str, hashes: Iterable[str]) -> None:
        with self._connection.writing() as db:
            for hash_ in hashes:
                query = "DELETE FROM relay_attachments WHERE document = ? AND hash = ? AND state = ?"
                db.execute(query, [document, hash_, _DISCARD])
                db.execute("INSERT OR IGNORE INTO relay_attachments VALUES (?, ?, '', ?)", [document, hash_, _SEND])

    def to_send(self, relay: str) -> list[tuple[str, str]]:
        query = """
            SELECT document, hash FROM relay_attachments AS wanted WHERE relay = '' AND NOT EXISTS (
                SELECT 1 FROM relay_attachments AS done
                WHERE done.document = wanted.document AND done.hash = wanted.hash AND done.relay = ?
            ) ORDER BY document, hash
        """
        with self._connection.reading() as db:
            return [(str(document), str(hash_)) for document, hash_ in db.execute(query, [relay])]

    def sent(self, relay: str, document: str, hash: str) -> None:
        with self._connection.writing() as db:
            db.execute("INSERT OR IGNORE INTO relay_attachments VALUES (?, ?, ?, ?)", [document, hash, relay, _SENT])

    def send_again(self, relay: str, document: str) -> None:
        with self._connection.writing() as db:
            query = "DELETE FROM relay_attachments WHERE relay = ? AND document = ? AND state = ?"
            db.execute(query, [relay, document, _SENT])

    def unwant(self, document: str, hashes: Iterable[str]) -> None:
        with self._connection.writing() as db:
            for hash_ in hashes:
                db.execute("DELETE FROM relay_attachments WHERE document = ? AND hash = ?", [document, hash_])
                query = "INSERT INTO relay_attachments SELECT document, ?, relay, ? FROM cursors WHERE document = ?"
                db.execute(query, [hash_, _DISCARD, document])

    def to_discard(self, relay: str) -> list[tuple[str, str]]:
        query = "SELECT document, hash FROM relay_attachments WHERE relay = ? AND state = ? ORDER BY document, hash"
        with self._connection.reading() as db:
            return [(str(document), str(hash_)) for document, hash_ in db.execute(query, [relay, _DISCARD])]

    def discarded(self, relay: str, document: str, hash: str) -> None:
        with self._connection.writing() as db:
            query = "DELETE FROM relay_attachments WHERE relay = ? AND document = ? AND hash = ? AND state = ?"
            db.execute(query, [relay, document, hash, _DISCARD])

    def forget(self, document: str) -> None:
        with self._connection.writing() as db:
            db.execute("DELETE FROM relay_attachments WHERE document = ?", [document])
