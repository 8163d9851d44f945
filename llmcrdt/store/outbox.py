"""Cursors, outboxes and the names of records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from sqlite3 import Connection as Database

from ..ids import NO_LOG, Random, new_session_id
from . import update_rows
from .base import Cursor, OutboxRow
from .connection import Connection

_BATCH = 1 << 20  # bytes of an outbox in memory, unless one update has more


class SqliteOutboxes:
    """Implements ``base.Outboxes``. ``cut`` makes of an update of a document several that are small enough to be
    records."""

    def __init__(self, connection: Connection, random: Random, cut: Callable[[str, bytes], Sequence[bytes]]) -> None:
        self._connection, self._random, self._cut = connection, random, cut
        # By relay and document: refills, session and n of the last name. In memory only, so that no copy of the file
        # goes on with a name that the original uses too.
        self._names: dict[tuple[str, str], tuple[int, str, int]] = {}
        # A name that was given and not kept would leave a gap.
        connection.rolled_back.append(self._names.clear)

    def cursor(self, relay: str, document: str) -> Cursor | None:
        query = "SELECT log, position, chain FROM cursors WHERE relay = ? AND document = ?"
        with self._connection.reading() as db:
            found = db.execute(query, [relay, document]).fetchone()
        return (bytes(found[0]), int(found[1]), bytes(found[2])) if found else None

    def cursors(self, relay: str) -> dict[str, Cursor]:
        query = "SELECT document, log, position, chain FROM cursors WHERE relay = ?"
        with self._connection.reading() as db:
            return {row[0]: (bytes(row[1]), int(row[2]), bytes(row[3])) for row in db.execute(query, [relay])}

    def rows(self, relay: str, document: str, after: int, limit: int) -> list[OutboxRow]:
        query = (
            "SELECT outbox.place, outbox.session, outbox.n, data FROM outbox JOIN updates USING (place)"
            " WHERE relay = ? AND outbox.document = ? AND outbox.place > ? ORDER BY outbox.place LIMIT ?"
        )
        out: list[OutboxRow] = []
        size = 0
        with self._connection.reading() as db, closing(db.execute(query, [relay, document, after, limit])) as rows:
            for row in rows:
                out.append(OutboxRow(*row))
                size += len(out[-1].data)
                if size > _BATCH:
                    break
        return out

    def end(self, relay: str, document: str) -> int:
        query = "SELECT max(place) FROM outbox WHERE relay = ? AND document = ?"
        return int(self._connection.one(query, relay, document) or 0)

    def ends(self, relay: str) -> dict[str, int]:
        query = "SELECT document, max(place) FROM outbox WHERE relay = ? GROUP BY document"
        with self._connection.reading() as db:
            return dict(db.execute(query, [relay]).fetchall())

    def documents(self, relay: str) -> list[str]:
        with self._connection.reading() as db:
            return [row[0] for row in db.execute("SELECT DISTINCT document FROM outbox WHERE relay = ?", [relay])]

    def size(self, relay: str) -> tuple[int, int]:
        query = "SELECT count(*), coalesce(sum(length(data)), 0) FROM outbox JOIN updates USING (place) WHERE relay = ?"
        with self._connection.reading() as db:
            records, size = db.execute(query, [relay]).fetchone()
        return int(records), int(size)

    def refills(self, relay: str, document: str) -> int:
        query = "SELECT refills FROM cursors WHERE relay = ? AND document = ?"
        return int(self._connection.one(query, relay, document) or 0)

    def unacknowledged(self, document: str) -> dict[str, int] | None:
        with self._connection.reading() as db:
            if self._connection.one("SELECT count(*) FROM cursors WHERE document = ?", document) == 0:
                return None
            query = (
                "SELECT keys, place FROM updates WHERE document = ?"
                " AND place IN (SELECT place FROM outbox WHERE document = ?) ORDER BY place"
            )
            return {key: seq for keys, seq in db.execute(query, [document, document]) for key in keys.split()}

    def acknowledge(self, relay: str, document: str, names: Sequence[tuple[str, int]], cursor: Cursor) -> None:
        with self._connection.writing() as db:
            self._move_cursor(db, relay, document, cursor)
            for session, n in names:
                query = "DELETE FROM outbox WHERE relay = ? AND document = ? AND session = ? AND n = ?"
                db.execute(query, [relay, document, session, n])

    def receive(
        self,
        relay: str,
        document: str,
        records: Sequence[tuple[str, int, bytes]],
        refused: Sequence[tuple[bytes, str]],
        cursor: Cursor | None,
        *,
        stale: bool = False,
    ) -> None:
        with self._connection.writing() as db:
            for session, n, data in records:
                update_rows.insert(db, document, data, name=(session, n))
            if refused:
                update_rows.set_aside(db, document, refused)
            if stale:
                update_rows.want_purge(db, document)
            if cursor is None or not self._move_cursor(db, relay, document, cursor):
                # A relay that is put back may know the old cursor again, and none of these records.
                query = "UPDATE cursors SET log = ? WHERE relay = ? AND document = ?"
                db.execute(query, [NO_LOG, relay, document])

    def refill(self, relay: str, document: str, data: bytes | None, cursor: Cursor, keys: Iterable[str] = ()) -> None:
        with self._connection.writing() as db:
            db.execute("DELETE FROM outbox WHERE relay = ? AND document = ?", [relay, document])
            query = (
                "INSERT INTO cursors (relay, document, log, position, chain, refills) VALUES (?, ?, ?, ?, ?, 1)"
                " ON CONFLICT (relay, document) DO UPDATE SET refills = refills + 1,"
                " log = excluded.log, position = excluded.position, chain = excluded.chain"
            )
            db.execute(query, [relay, document, *cursor])
            if data is not None:
                seqs = update_rows.insert_pieces(db, document, self._cut(document, data), sorted(keys))
                self.queue(db, relay, document, seqs)

    def refuse(self, relay: str, document: str, session: str, n: int, why: str) -> None:
        with self._connection.writing() as db:
            named = "relay = ? AND outbox.document = ? AND outbox.session = ? AND outbox.n"
            query = f"SELECT place, data FROM outbox JOIN updates USING (place) WHERE {named} = ?"
            found = db.execute(query, [relay, document, session, n]).fetchone()
            if found is None:
                return
            seq, data = found
            key = "relay = ? AND document = ? AND place = ?"
            db.execute(f"DELETE FROM outbox WHERE {key}", [relay, document, seq])
            update_rows.set_aside(db, document, [(data, why)])
            self.begin_names_anew(db, relay, document)
            refills = self.refills(relay, document)
            query = f"SELECT place FROM outbox WHERE {named} > ? ORDER BY place"
            for (later,) in db.execute(query, [relay, document, session, n]).fetchall():
                name = self._name(relay, document, refills)
                db.execute(f"UPDATE outbox SET session = ?, n = ? WHERE {key}", [*name, relay, document, later])

    # ---------------------------------------------------------------- inside a transaction of others

    def queue(self, db: Database, relay: str, document: str, seqs: Iterable[int]) -> None:
        """Have updates wait for a relay, named as the next records."""
        self._queue(db, relay, document, self.refills(relay, document), seqs)

    def queue_everywhere(self, db: Database, document: str, seqs: Sequence[int]) -> None:
        """The same for every relay that knows the document."""
        query = "SELECT relay, refills FROM cursors WHERE document = ?"
        for relay, refills in db.execute(query, [document]).fetchall():
            self._queue(db, relay, document, refills, seqs)

    def begin_names_anew(self, db: Database, relay: str, document: str) -> None:
        """Later records get names in a new session, in every process that has the file open."""
        db.execute("UPDATE cursors SET refills = refills + 1 WHERE relay = ? AND document = ?", [relay, document])

    def _queue(self, db: Database, relay: str, document: str, refills: int, seqs: Iterable[int]) -> None:
        for seq in seqs:
            row = [relay, document, seq, *self._name(relay, document, refills)]
            db.execute("INSERT INTO outbox VALUES (?, ?, ?, ?, ?)", row)

    def _name(self, relay: str, document: str, refills: int) -> tuple[str, int]:
        """The next record name of this process towards a relay."""
        known = self._names.get((relay, document))
        session, n = known[1:] if known and known[0] == refills else (new_session_id(self._random), 0)
        self._names[relay, document] = (refills, session, n + 1)
        return session, n + 1

    def _move_cursor(self, db: Database, relay: str, document: str, cursor: Cursor) -> bool:
        """Move a cursor on within its log; whether it is one into this log. It never goes back but at a refill: two
        processes with the file open have a link each, and one may lag. Should the relay lose what stands before a
        cursor of the other one, that cursor doesn't show it."""
        log, position, chain = cursor
        query = "SELECT log FROM cursors WHERE relay = ? AND document = ?"
        found = db.execute(query, [relay, document]).fetchone()
        if found is None or found[0] != log:
            return False
        query = "UPDATE cursors SET position = ?, chain = ? WHERE relay = ? AND document = ? AND position < ?"
        db.execute(query, [position, chain, relay, document, position])
        return True
