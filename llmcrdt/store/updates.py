"""The bytes of documents: snapshots and updates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from sqlite3 import Connection as Database

from ..exceptions import ConversationDeleted
from . import base, snapshots, update_rows
from .compaction import SqliteCompaction
from .connection import Connection
from .entry_index import forget_rows, forget_words
from .outbox import SqliteOutboxes
from .relay_tasks import SqliteRelayTasks

Cut = Callable[[str, bytes], Sequence[bytes]]
"""Makes of one update of a document several that are small enough to be records; together they say the same."""
Redact = Callable[[str, bytes, Sequence[bytes]], Sequence[bytes] | None]
"""Of a document and some updates: what these say of it without what it has deleted; None where they hold nothing of
that."""


class SqliteUpdates:
    """Implements ``base.Updates``."""

    def __init__(
        self,
        connection: Connection,
        outboxes: SqliteOutboxes,
        relay_tasks: SqliteRelayTasks,
        cut: Cut,
        redact: Redact,
        locate: Callable[[str, bytes], Mapping[str, int]],
    ) -> None:
        self._connection, self._outboxes, self._relay_tasks = connection, outboxes, relay_tasks
        self._cut, self._redact, self._locate = cut, redact, locate

    def since(self, document: str, seq: int, except_writer: str | None = None) -> base.Kept:
        with self._connection.one_view() as db:
            found = snapshots.read(db, document, seq)
            query = "SELECT place, writer, data FROM updates WHERE document = ? AND place > ? ORDER BY place"
            rows = db.execute(query, [document, seq]).fetchall()
        last = max([seq, found[1] if found else 0, *(row[0] for row in rows)])
        updates = [row[2] for row in rows if except_writer is None or row[1] != except_writer]
        return base.Kept(found[0] if found else None, updates, last)

    def append(self, document: str, data: bytes, writer: str, keys: Iterable[str]) -> int:
        with self._connection.writing() as db:
            if db.execute("SELECT 1 FROM listing WHERE id = ? AND deleted", [document]).fetchone():
                # Another process may have deleted it: what is kept now would be dropped without a word.
                raise ConversationDeleted(document)
            seqs = update_rows.insert_pieces(db, document, self._cut(document, data), keys, writer)
            self._outboxes.queue_everywhere(db, document, seqs)
            return seqs[-1]

    def last_seq(self, document: str) -> int:
        with self._connection.reading() as db:
            return update_rows.last_seq(db, document)

    def news(self, seq: int) -> tuple[list[tuple[str, bytes | None]], int]:
        query = """
            SELECT place, document, data FROM updates WHERE place > ?
            UNION ALL SELECT place, document, NULL FROM snapshots WHERE place > ? ORDER BY place
        """
        if self.last() <= seq:
            return [], seq
        with self._connection.reading() as db:
            rows = db.execute(query, [seq, seq]).fetchall()
        return [(document, data) for _, document, data in rows], max([seq, *(row[0] for row in rows)])

    def last(self) -> int:
        return int(self._connection.one("SELECT seq FROM sqlite_sequence WHERE name = 'updates'") or 0)

    def unseen(self, document: str, seen: int, writer: str | None) -> bool:
        query = """
            SELECT 1 FROM updates WHERE document = ? AND place > ? AND writer IS NOT ?
            UNION ALL SELECT 1 FROM snapshots WHERE document = ? AND place > ? LIMIT 1
        """
        return self._connection.one(query, document, seen, writer, document, seen) is not None

    def compact(self, document: str, seen: int, writer: str | None, snapshot: base.Snapshot) -> SqliteCompaction | None:
        with self._connection.one_view() as db:
            sizes = db.execute(
                "SELECT coalesce(sum(length(data)), 0) FROM updates WHERE document = ?"
                " AND place NOT IN (SELECT place FROM outbox WHERE outbox.document = updates.document)",
                [document],
            ).fetchone()
            query = "SELECT place, size, typeof(data) = 'text' FROM snapshots WHERE document = ?"
            old, size, in_pieces = db.execute(query, [document]).fetchone() or (None, 0, False)
            enough = max(
                base.SMALL, size // base.GROWN if in_pieces else 0
            )  # one of an older version is worth replacing
            if sizes[0] <= enough or self.unseen(document, seen, writer):
                return None
            seq, known = update_rows.last_update(db, document), snapshots.known(db, document)
        whole, pending = snapshot()
        return SqliteCompaction(
            self._connection,
            document,
            writer=writer,
            seq=seq,
            old=old,
            known=known,
            snapshot=whole,
            pending=pending,
            locate=partial(self._locate, document),
        )

    def purge(self, document: str, seen: int, writer: str | None, erased: int, snapshot: base.Snapshot) -> bool:
        with self._connection.writing() as db:
            if self.unseen(document, seen, writer):
                return False
            whole, pending = snapshot()
            last = update_rows.last_seq(db, document)
            true = self._connection.one("SELECT place FROM tables WHERE document = ?", document) == last
            emptied = self._empty_outboxes(db, document, whole)
            db.execute("DELETE FROM set_aside WHERE document = ?", [document])
            update_rows.delete_unqueued(db, document, last)
            if true:  # the rows say what the document says now; the index of their words has what they said before
                forget_words(db)
            else:
                forget_rows(db, document)
            ready = snapshots.prepare(
                whole, snapshots.known(db, document), partial(self._locate, document), only_new=True
            )
            numbers = snapshots.put(db, document, last, ready)
            snapshots.release(db, self._connection.pieces, document, ready.places_in(numbers))
            kept = [(update_rows.insert(db, document, update), update) for update in pending]
            seqs = [seq for seq, update in kept if self._redact(document, whole, [update]) is None] if emptied else []
            for relay, pieces, keys in emptied:
                redacted = update_rows.insert_pieces(db, document, pieces, keys)
                self._outboxes.queue(db, relay, document, [*redacted, *seqs])
            place = update_rows.last_seq(db, document)
            db.execute("UPDATE tables SET place = ? WHERE document = ?", [place, document])
            update_rows.want_purge(db, document)
            self._relay_tasks.want_compaction(db, document)
        if self._connection.empty_wal():
            with self._connection.writing() as db:
                db.execute("INSERT OR REPLACE INTO purges VALUES (?, ?)", [document, erased])
        return True

    def purged(self, document: str) -> int:
        return int(self._connection.one("SELECT erased FROM purges WHERE document = ?", document) or 0)

    def set_aside(self, document: str, data: bytes, reason: str) -> None:
        with self._connection.writing() as db:
            # A process that loads the document again finds it there before the one that merged it says so.
            update_rows.set_aside(db, document, [(data, reason)])
            same = "SELECT place FROM updates WHERE document = ? AND data = ?"
            # One that was damaged in the file had been read before: the entry index says more than is there now.
            made_of_it = f"place >= (SELECT min(place) FROM ({same}))"
            db.execute(f"DELETE FROM tables WHERE document = ? AND {made_of_it}", [document, document, data])
            db.execute(f"DELETE FROM outbox WHERE document = ? AND place IN ({same})", [document, document, data])
            db.execute("DELETE FROM updates WHERE document = ? AND data = ?", [document, data])

    def set_aside_count(self, document: str) -> int:
        return int(self._connection.one("SELECT count(*) FROM set_aside WHERE document = ?", document))

    def _empty_outboxes(
        self, db: Database, document: str, whole: bytes
    ) -> list[tuple[str, Sequence[bytes], list[str]]]:
        """Empty each outbox that holds something deleted: the relay, what is to wait for it instead, and the entries in
        that."""
        out: list[tuple[str, Sequence[bytes], list[str]]] = []
        query = "SELECT DISTINCT relay FROM outbox WHERE document = ?"
        for (relay,) in db.execute(query, [document]).fetchall():
            query = "SELECT data, keys FROM outbox JOIN updates USING (place) WHERE relay = ? AND outbox.document = ?"
            rows = db.execute(query, [relay, document]).fetchall()
            pieces = self._redact(document, whole, [data for data, _ in rows])
            if pieces is not None:
                out.append((relay, pieces, sorted({key for _, keys in rows for key in keys.split()})))
                db.execute("DELETE FROM outbox WHERE relay = ? AND document = ?", [relay, document])
                self._outboxes.begin_names_anew(db, relay, document)
        return out
