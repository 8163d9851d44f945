"""The SQLite file of a repo: documents as snapshots and updates, outboxes and cursors per relay, and the listing.

It handles bytes; it knows no CRDT and no conversation. WAL and synchronous=FULL: what a method wrote is on disk when
it returns. Several processes may have the same file open. One connection per process, used under ``lock``.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from sqlite_utils import Database

from ..exceptions import ConversationNotFound, NewerDatabase, NotADatabase, RepoClosed, StoreError
from ..ids import NO_LOG, Random, new_session_id
from .entry_index import Tables, forget_rows, last_place
from .migrations import APPLICATION_ID, NAMES, migrations

SMALL = 256 << 10  # below this many bytes of updates, a snapshot is not worth its writing
_PATIENCE_MS = 30_000  # how long a write waits for another process that writes
_MAKING = 1.0  # seconds that another process may take from making a file to its tables
_HEADER = b"SQLite format 3\0"
_BATCH = 1 << 20  # bytes of an outbox in memory, unless one update has more
_LAST_DELETED = 8  # documents whose deletion a relay is asked about with each connection
_SCRUB = "scrub"  # the setting that says what was dropped may still be in the write-ahead log


class Row(NamedTuple):
    """One update in an outbox: a record's name, and its bytes."""

    place: int
    session: str
    n: int
    data: bytes


class Kept(NamedTuple):
    """What is kept of a document: a snapshot, updates beside it, and the last place it reaches to."""

    snapshot: bytes | None
    updates: list[bytes]
    place: int


class Listed(NamedTuple):
    """What the listing says of one conversation; ``created_at`` in seconds since 1970."""

    id: str
    title: str
    created_at: float
    archived: bool
    deleted: bool


class Store:
    """One open file. Raises NotADatabase, NewerDatabase, StoreError. ``cut`` makes several updates of one that no relay
    would take as one record; what they say together is the same. ``redact`` is given a document and some updates: what
    these say of it without what it has deleted, or None where they hold nothing of that."""

    def __init__(
        self,
        path: str | Path,
        *,
        lock: threading.RLock,
        random: Random = os.urandom,
        cut: Callable[[bytes], Sequence[bytes]] = lambda update: [update],
        redact: Callable[[bytes, Sequence[bytes]], Sequence[bytes] | None] = lambda whole, updates: [whole],
    ) -> None:
        self.path = Path(path)
        self.lock = lock
        self._random, self._cut, self._redact = random, cut, redact
        self._names: dict[tuple[str, str], tuple[int, str, int]] = {}
        _refuse_other_files(self.path)
        self._lacks_log = _lacks_log(self.path)
        try:
            _make_private(self.path)
            connection = sqlite3.connect(
                self.path,
                timeout=_PATIENCE_MS / 1000,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=256,
            )
        except (sqlite3.OperationalError, OSError) as error:
            raise StoreError(
                f"{self.path} can't be opened: {error}.", hint="Check that its folder exists and may be written."
            ) from None
        self._db = Database(connection)
        self._closed = False
        self._access = _Reading(self)
        try:
            with self._reading():
                self._prepare()
        except BaseException:
            self.close()
            raise
        self.tables = Tables(self._reading, self._writing, self._one_view)

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        owner = self._one("PRAGMA application_id")  # a first look, at once, puts the log beside the file
        for pragma in ("synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
            self._db.execute(f"PRAGMA {pragma}")
        tables = self._one("SELECT count(*) FROM sqlite_master")
        if owner != APPLICATION_ID and tables:
            raise NotADatabase(
                f"{self.path} is another program's SQLite file.", hint="Give a new file name, or one made by llmcrdt."
            )
        if not tables and self._lacks_log and not self._made_meanwhile():
            raise NotADatabase(
                f"{self.path} is empty without the file {self.path.name}-wal: it was copied alone while it was in use.",
                hint="Close it first, then copy; or copy both files. Where nothing was ever in it, delete it.",
            )
        known = {migration.name for migration in migrations.pending(self._db)}
        done = {migration.name for migration in migrations.applied(self._db)}
        newer = done - known - set(NAMES)
        if newer:
            raise NewerDatabase(
                f"{self.path} was made by a newer llmcrdt ({min(newer)}).", hint="Update llmcrdt; nothing was changed."
            )
        if known:
            self._db.execute(f"PRAGMA application_id={APPLICATION_ID}")
            migrations.apply(self._db)

    def _made_meanwhile(self) -> bool:
        """Whether another process is just making the file, and has come to the tables."""
        deadline = time.monotonic() + _MAKING
        while not (made := bool(self._one("SELECT count(*) FROM sqlite_master"))) and time.monotonic() < deadline:
            time.sleep(0.05)
        return made

    def close(self) -> None:
        """Twice is harmless."""
        with self.lock:
            if not self._closed:
                self._closed = True
                self._db.close()

    @property
    def closed(self) -> bool:
        return self._closed

    def data_version(self) -> int:
        """Changes whenever another connection has committed to the file."""
        return int(self._one("PRAGMA data_version"))

    # settings and documents

    def setting(self, name: str) -> str | None:
        value = self._one("SELECT value FROM settings WHERE name = ?", name)
        return None if value is None else str(value)

    def set_setting(self, name: str, value: str) -> str:
        """Set it unless another process was faster; what it is now."""
        with self._writing() as db:
            db.execute("INSERT OR IGNORE INTO settings VALUES (?, ?)", [name, value])
        return str(self.setting(name))

    def put_setting(self, name: str, value: str) -> None:
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", [name, value])

    def add_document(self, document: str, kind: str) -> None:
        with self._writing() as db:
            db.execute("INSERT OR IGNORE INTO documents VALUES (?, ?)", [document, kind])

    def documents(self, kind: str) -> list[str]:
        """The documents of this kind, deleted ones too."""
        with self._reading() as db:
            return [row[0] for row in db.execute("SELECT id FROM documents WHERE kind = ? ORDER BY id", [kind])]

    def document_kind(self, document: str) -> str | None:
        value = self._one("SELECT kind FROM documents WHERE id = ?", document)
        return None if value is None else str(value)

    # a document's bytes

    def since(self, document: str, place: int, except_writer: str | None = None) -> Kept:
        """What was kept behind ``place`` (0: everything), other than by one writer. Where some of it was folded into
        a snapshot meanwhile, the snapshot too."""
        with self._one_view() as db:
            query = "SELECT data, place, size FROM snapshots WHERE document = ? AND place > ?"
            found = db.execute(query, [document, place]).fetchone()
            query = "SELECT place, writer, data FROM updates WHERE document = ? AND place > ? ORDER BY place"
            rows = db.execute(query, [document, place]).fetchall()
        last = max([place, found[1] if found else 0, *(row[0] for row in rows)])
        updates = [row[2] for row in rows if except_writer is None or row[1] != except_writer]
        return Kept(zlib.decompress(found[0], bufsize=found[2] + 1) if found else None, updates, last)

    def append(
        self,
        document: str,
        data: bytes,
        writer: str,
        keys: Iterable[str],
        also: Callable[[Database, int], None] = lambda db, place: None,
    ) -> None:
        """Keep a local update, and queue it for every relay that knows the document. ``also`` is called with the place
        it got, in the same transaction. Raises ConversationNotFound for a document that the listing has as deleted."""
        with self._writing() as db:
            if self._one("SELECT count(*) FROM listing WHERE id = ? AND deleted", document):
                # Another process may have deleted it: what is kept now would be dropped without a word.
                raise ConversationNotFound(f"{document} was deleted from the library.", hint="Nothing was kept.")
            places = self._keep(document, data, keys, writer)
            query = "SELECT relay, refills FROM cursors WHERE document = ?"
            for relay, refills in db.execute(query, [document]).fetchall():
                self._queue(relay, document, refills, places)
            also(db, places[-1])

    def last_place(self, document: str) -> int:
        """The place of the last update that is kept of a document."""
        with self._reading() as db:
            return last_place(db, document)

    def derive(self, document: str, also: Callable[[Database, int], None]) -> None:
        """Call ``also`` in a transaction, with the last place of a document."""
        with self._writing() as db:
            also(db, last_place(db, document))

    def compact(
        self, document: str, seen: int, writer: str | None, snapshot: Callable[[], tuple[bytes, Sequence[bytes]]]
    ) -> int | None:
        """Fold updates into a new snapshot if they have outgrown the old one. The last place afterwards, or None.

        The caller's replica holds all up to place ``seen``, and all that ``writer`` wrote; if there is anything else by
        now, nothing is done."""
        with self._writing() as db:
            sizes = db.execute(
                "SELECT coalesce(sum(length(data)), 0) FROM updates WHERE document = ?"
                " AND place NOT IN (SELECT place FROM outbox WHERE outbox.document = updates.document)",
                [document],
            ).fetchone()
            old = self._one("SELECT size FROM snapshots WHERE document = ?", document) or 0
            last = self._one("SELECT max(place) FROM updates WHERE document = ?", document) or 0
            if sizes[0] <= max(SMALL, old) or self.unseen(document, seen, writer):
                return None
            whole, pending = snapshot()
            self._put_snapshot(document, last, whole)
            db.execute(
                "DELETE FROM updates WHERE document = ?"
                " AND place NOT IN (SELECT place FROM outbox WHERE outbox.document = updates.document)",
                [document],
            )
            place = int(last)
            for update in pending:
                place = self._insert(document, update)
            db.execute("UPDATE tables SET place = ? WHERE document = ? AND place = ?", [place, document, last])
            return place

    def set_aside(self, document: str, data: bytes, reason: str) -> None:
        """Take an update out of the document, and keep it apart."""
        with self._writing() as db:
            # Who loads the document again finds it there before whoever merged it says so.
            known = "SELECT 1 FROM set_aside WHERE document = ? AND data = ?"
            if db.execute(known, [document, data]).fetchone() is None:
                db.execute("INSERT INTO set_aside (document, reason, data) VALUES (?, ?, ?)", [document, reason, data])
            doomed = "SELECT place FROM updates WHERE document = ? AND data = ?"
            db.execute(f"DELETE FROM outbox WHERE document = ? AND place IN ({doomed})", [document, document, data])
            db.execute("DELETE FROM updates WHERE document = ? AND data = ?", [document, data])

    def purge(
        self,
        document: str,
        seen: int,
        writer: str | None,
        erased: int,
        snapshot: Callable[[], tuple[bytes, Sequence[bytes]]],
    ) -> bool:
        """Keep the snapshot and nothing older of a document: no update, nothing set aside, and nothing deleted that is
        still to be sent; and note that every relay which knows it is to fold it. What holds nothing deleted goes on
        waiting under its name: were it all replaced, two devices that send each other erased words would never come to
        the end. Afterwards the old bytes are in no file.

        Where another reader stands in the way of that, or a crash, ``purged`` is -1 until a later purge gets through.
        ``seen`` and ``writer`` as in ``compact``: False, and nothing done, if the caller's replica lacks something."""
        with self._writing() as db:
            if self.unseen(document, seen, writer):
                return False
            whole, pending = snapshot()
            last = self._one("SELECT max(place) FROM updates WHERE document = ?", document) or 0
            left = self._redact_outbox(document, whole)
            db.execute("DELETE FROM set_aside WHERE document = ?", [document])
            waiting = "SELECT place FROM outbox WHERE outbox.document = updates.document"
            db.execute(f"DELETE FROM updates WHERE document = ? AND place NOT IN ({waiting})", [document])
            forget_rows(db, document)
            self._put_snapshot(document, int(last), whole)
            kept = [(self._insert(document, update), update) for update in pending]
            places = [place for place, update in kept if self._redact(whole, [update]) is None] if left else []
            for relay, pieces, keys in left:
                refills = self.refills(relay, document)
                self._queue(relay, document, refills, [*self._keep_pieces(document, pieces, keys), *places])
            db.execute("INSERT OR REPLACE INTO settings VALUES (?, '-1')", [f"purged:{document}"])
            relays = db.execute("SELECT relay FROM cursors WHERE document = ?", [document]).fetchall()
            for (relay,) in relays:
                db.execute("INSERT OR REPLACE INTO settings VALUES (?, '')", [f"fold:{document}:{relay}"])
        if self._empty_wal():
            self.put_setting(f"purged:{document}", str(erased))
        return True

    def _redact_outbox(self, document: str, whole: bytes) -> list[tuple[str, Sequence[bytes], str]]:
        """Empty each outbox that holds something deleted: the relay, what is to wait for it instead, and the entries in
        that."""
        out: list[tuple[str, Sequence[bytes], str]] = []
        db = self._db
        query = "SELECT DISTINCT relay FROM outbox WHERE document = ?"
        for (relay,) in db.execute(query, [document]).fetchall():
            query = "SELECT data, keys FROM outbox JOIN updates USING (place) WHERE relay = ? AND outbox.document = ?"
            rows = db.execute(query, [relay, document]).fetchall()
            pieces = self._redact(whole, [data for data, _ in rows])
            if pieces is not None:
                out.append((relay, pieces, " ".join(sorted({key for _, keys in rows for key in keys.split()}))))
                db.execute("DELETE FROM outbox WHERE relay = ? AND document = ?", [relay, document])
                db.execute(
                    "UPDATE cursors SET refills = refills + 1 WHERE relay = ? AND document = ?", [relay, document]
                )
        return out

    def _empty_wal(self) -> bool:
        """secure_delete zeroed the pages; the log beside the file still has them. False while somebody reads it."""
        with self._reading() as db:
            db.execute("PRAGMA busy_timeout=100")
            try:
                busy = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            except sqlite3.OperationalError:
                busy = 1
            finally:
                db.execute(f"PRAGMA busy_timeout={_PATIENCE_MS}")
        return not busy

    def purged(self, document: str) -> int:
        """How many entries were erased when ``purge`` was called last."""
        return int(self.setting(f"purged:{document}") or 0)

    def _put_snapshot(self, document: str, place: int, whole: bytes) -> None:
        self._db.execute(
            "INSERT INTO snapshots VALUES (?, ?, ?, ?) ON CONFLICT (document) DO UPDATE"
            " SET place = max(place, excluded.place), size = excluded.size, data = excluded.data",
            [document, place, len(whole), zlib.compress(whole, 6)],
        )

    def unseen(self, document: str, seen: int, writer: str | None) -> bool:
        """Whether there are updates that a replica which holds all up to ``seen``, and all by ``writer``, lacks."""
        query = "SELECT 1 FROM updates WHERE document = ? AND place > ? AND writer IS NOT ? LIMIT 1"
        return self._one(query, document, seen, writer) is not None

    def set_aside_count(self, document: str) -> int:
        return int(self._one("SELECT count(*) FROM set_aside WHERE document = ?", document))

    # towards a relay

    def cursor(self, relay: str, document: str) -> tuple[bytes, int, bytes] | None:
        query = "SELECT log, position, chain FROM cursors WHERE relay = ? AND document = ?"
        with self._reading() as db:
            found = db.execute(query, [relay, document]).fetchone()
        return (bytes(found[0]), int(found[1]), bytes(found[2])) if found else None

    def outbox(self, relay: str, document: str, after: int, limit: int) -> list[Row]:
        """Updates that this relay has not acknowledged, in order, behind place ``after``: one if there is one, and no
        more than make some ``_BATCH`` bytes."""
        query = (
            "SELECT outbox.place, outbox.session, outbox.n, data FROM outbox JOIN updates USING (place)"
            " WHERE relay = ? AND outbox.document = ? AND outbox.place > ? ORDER BY outbox.place LIMIT ?"
        )
        out: list[Row] = []
        size = 0
        with self._reading() as db, closing(db.execute(query, [relay, document, after, limit])) as rows:
            for row in rows:
                out.append(Row(*row))
                size += len(out[-1].data)
                if size > _BATCH:
                    break
        return out

    def waiting(self, relay: str) -> list[str]:
        """Documents with updates that this relay has not acknowledged."""
        with self._reading() as db:
            return [row[0] for row in db.execute("SELECT DISTINCT document FROM outbox WHERE relay = ?", [relay])]

    def outbox_end(self, relay: str, document: str) -> int:
        query = "SELECT max(place) FROM outbox WHERE relay = ? AND document = ?"
        return int(self._one(query, relay, document) or 0)

    def refills(self, relay: str, document: str) -> int:
        """How often the outbox towards this relay gave way to new records that cover it."""
        query = "SELECT refills FROM cursors WHERE relay = ? AND document = ?"
        return int(self._one(query, relay, document) or 0)

    def unacknowledged(self, document: str) -> dict[str, int] | None:
        """The entries in updates that wait for a relay, and the last place where each does; None where no relay knows
        the document."""
        with self._reading() as db:
            if self._one("SELECT count(*) FROM cursors WHERE document = ?", document) == 0:
                return None
            query = (
                "SELECT keys, place FROM updates WHERE document = ?"
                " AND place IN (SELECT place FROM outbox WHERE document = ?) ORDER BY place"
            )
            return {key: place for keys, place in db.execute(query, [document, document]) for key in keys.split()}

    def waiting_size(self, relay: str) -> tuple[int, int]:
        """How many records wait for a relay, and their bytes."""
        query = "SELECT count(*), coalesce(sum(length(data)), 0) FROM outbox JOIN updates USING (place) WHERE relay = ?"
        with self._reading() as db:
            records, size = db.execute(query, [relay]).fetchone()
        return int(records), int(size)

    def acknowledged(
        self, relay: str, document: str, names: Sequence[tuple[str, int]], cursor: tuple[bytes, int, bytes]
    ) -> None:
        with self._writing() as db:
            self._move_cursor(relay, document, cursor)
            for session, n in names:
                query = "DELETE FROM outbox WHERE relay = ? AND document = ? AND session = ? AND n = ?"
                db.execute(query, [relay, document, session, n])

    def received(
        self,
        relay: str,
        document: str,
        records: Sequence[tuple[str, int, bytes]],
        refused: Sequence[tuple[bytes, str]],
        cursor: tuple[bytes, int, bytes] | None,
        *,
        stale: bool = False,
    ) -> None:
        """Keep records of the relay, and set the ``refused`` ones aside with their reason; all in one transaction.
        ``stale``: they may hold words that were erased, so a purge is owed."""
        with self._writing() as db:
            for session, n, data in records:
                self._insert(document, data, name=(session, n))
            for data, reason in refused:
                db.execute("INSERT INTO set_aside (document, reason, data) VALUES (?, ?, ?)", [document, reason, data])
            if stale:
                db.execute("INSERT OR REPLACE INTO settings VALUES (?, '-1')", [f"purged:{document}"])
            if cursor is None or not self._move_cursor(relay, document, cursor):
                # A relay that is put back may know the old cursor again, and none of these records.
                query = "UPDATE cursors SET log = ? WHERE relay = ? AND document = ?"
                db.execute(query, [NO_LOG, relay, document])

    def refill(
        self,
        relay: str,
        document: str,
        data: bytes | None,
        cursor: tuple[bytes, int, bytes],
        keys: Iterable[str] = (),
    ) -> None:
        """Drop what waits for this relay; queue ``data``, which covers it, as the first records of a new session. Names
        of later records begin anew, in every process that has the file open. ``keys``: the entries in ``data``."""
        with self._writing() as db:
            db.execute("DELETE FROM outbox WHERE relay = ? AND document = ?", [relay, document])
            query = (
                "INSERT INTO cursors (relay, document, log, position, chain, refills) VALUES (?, ?, ?, ?, ?, 1)"
                " ON CONFLICT (relay, document) DO UPDATE SET refills = refills + 1,"
                " log = excluded.log, position = excluded.position, chain = excluded.chain"
            )
            db.execute(query, [relay, document, *cursor])
            if data is not None:
                self._queue(relay, document, self.refills(relay, document), self._keep(document, data, sorted(keys)))

    def refused(self, relay: str, document: str, session: str, n: int, why: str) -> None:
        """Take a record from the outbox that this relay will never take. It stays in the document, and a copy of it is
        set aside; those behind it in its session get names in a new one."""
        with self._writing() as db:
            behind = "relay = ? AND outbox.document = ? AND outbox.session = ? AND outbox.n"
            query = f"SELECT place, data FROM outbox JOIN updates USING (place) WHERE {behind} = ?"
            found = db.execute(query, [relay, document, session, n]).fetchone()
            if found is None:
                return
            place, data = found
            key = "relay = ? AND document = ? AND place = ?"
            db.execute(f"DELETE FROM outbox WHERE {key}", [relay, document, place])
            db.execute("INSERT INTO set_aside (document, reason, data) VALUES (?, ?, ?)", [document, why, data])
            db.execute("UPDATE cursors SET refills = refills + 1 WHERE relay = ? AND document = ?", [relay, document])
            refills = self.refills(relay, document)
            query = f"SELECT place FROM outbox WHERE {behind} > ? ORDER BY place"
            for (place,) in db.execute(query, [relay, document, session, n]).fetchall():
                name = self._name(relay, document, refills)
                db.execute(f"UPDATE outbox SET session = ?, n = ? WHERE {key}", [*name, relay, document, place])

    def owed_folds(self, relay: str) -> list[str]:
        """Documents that this relay is still to fold."""
        return list(self._owed("fold", relay))

    def folded(self, relay: str, document: str) -> None:
        with self._writing() as db:
            db.execute("DELETE FROM settings WHERE name = ?", [f"fold:{document}:{relay}"])

    # deleted conversations

    def doomed(self) -> list[str]:
        """Conversations that the listing calls deleted, and of which something is kept all the same."""
        query = """
            SELECT id FROM listing WHERE deleted AND (
                EXISTS (SELECT 1 FROM updates WHERE updates.document = listing.id)
                OR EXISTS (SELECT 1 FROM snapshots WHERE snapshots.document = listing.id)
                OR EXISTS (SELECT 1 FROM cursors WHERE cursors.document = listing.id))
        """
        with self._reading() as db:
            return [row[0] for row in db.execute(query)]

    def drop(self, document: str) -> None:
        """Keep nothing of a deleted conversation, and note for every relay that knows it, or the library, that it is to
        delete it too: a copy of this file may have sent it there. Its bytes are in no file after ``scrub``."""
        with self._writing() as db:
            library = "SELECT value FROM settings WHERE name = 'library'"
            query = f"SELECT DISTINCT relay FROM cursors WHERE document IN (?, ({library}))"
            for (relay,) in db.execute(query, [document]).fetchall():
                db.execute("INSERT OR REPLACE INTO settings VALUES (?, '')", [f"delete:{document}:{relay}"])
            for table in ("outbox", "updates", "set_aside", "snapshots", "cursors"):
                db.execute(f"DELETE FROM {table} WHERE document = ?", [document])
            forget_rows(db, document)
            begins = f"fold:{document}:%"
            db.execute("DELETE FROM settings WHERE name = ? OR name LIKE ?", [f"purged:{document}", begins])
            db.execute("INSERT OR REPLACE INTO settings VALUES (?, '')", [_SCRUB])

    def scrub(self) -> bool:
        """Take what was dropped out of the write-ahead log, where it is still there. False while somebody reads it."""
        if self.setting(_SCRUB) is None:
            return True
        if not self._empty_wal():
            return False
        with self._writing() as db:
            db.execute("DELETE FROM settings WHERE name = ?", [_SCRUB])
        return True

    def owed_deletions(self, relay: str, credential: str = "") -> list[str]:
        """Documents that this relay is still to delete; without those that it refused to this ``credential``."""
        owed = self._owed("delete", relay)
        return [document for document, refused in owed.items() if not credential or refused != credential]

    def deletion_refused(self, relay: str, document: str, credential: str) -> None:
        """The relay does not delete a document for this credential. It is owed still: another one may be allowed to."""
        with self._writing() as db:
            name = f"delete:{document}:{relay}"
            db.execute("UPDATE settings SET value = ? WHERE name = ?", [credential, name])

    def owe_deletion_again(self, document: str) -> bool:
        """Forget that relays refused to delete a document; whether any did."""
        with self._writing() as db:
            query = "UPDATE settings SET value = '' WHERE name LIKE ? AND value != ''"
            return bool(db.execute(query, [f"delete:{document}:%"]).rowcount)

    def owe_deletions(self, relay: str) -> None:
        """This relay lost something, and may have forgotten what was deleted: it is to hear of all of it again."""
        with self._writing() as db:
            for (document,) in db.execute("SELECT id FROM listing WHERE deleted").fetchall():
                db.execute("INSERT OR REPLACE INTO settings VALUES (?, '')", [f"delete:{document}:{relay}"])

    def deleted_there(self, relay: str, document: str) -> None:
        with self._writing() as db:
            db.execute("DELETE FROM settings WHERE name = ?", [f"delete:{document}:{relay}"])
            name = f"deleted-last:{relay}"
            last = db.execute("SELECT value FROM settings WHERE name = ?", [name]).fetchone()
            documents = [d for d in (last[0].split() if last else ()) if d != document][1 - _LAST_DELETED :]
            db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", [name, " ".join((*documents, document))])

    def deleted_last(self, relay: str) -> list[str]:
        """The documents that this relay was the last to delete, as it said."""
        return (self.setting(f"deleted-last:{relay}") or "").split()

    # the listing

    def put_listing(self, rows: Iterable[Listed]) -> None:
        with self._writing() as db:
            for row in rows:
                db.execute("INSERT OR REPLACE INTO listing VALUES (?, ?, ?, ?, ?)", list(row))

    def listing(self, limit: int, before: str | None) -> list[Listed]:
        """Conversations that are not deleted, youngest first; ``before``: the last id of the page before."""
        query = "SELECT * FROM listing WHERE NOT deleted"
        values: list[Any] = []
        if before is not None:
            query += " AND (created_at, id) < (SELECT created_at, id FROM listing WHERE id = ?)"
            values.append(before)
        with self._reading() as db:
            found = db.execute(query + " ORDER BY created_at DESC, id DESC LIMIT ?", [*values, limit]).fetchall()
        return [_listed(row) for row in found]

    def listing_all(self) -> set[Listed]:
        """Every row, deleted ones too."""
        with self._reading() as db:
            return {_listed(row) for row in db.execute("SELECT * FROM listing").fetchall()}

    def listed(self, document: str) -> Listed | None:
        with self._reading() as db:
            found = db.execute("SELECT * FROM listing WHERE id = ?", [document]).fetchone()
        return _listed(found) if found else None

    # inside

    def _owed(self, what: str, relay: str) -> dict[str, str]:
        """What a relay is still to do: the documents, and what is noted of each."""
        with self._reading() as db:
            rows = db.execute("SELECT name, value FROM settings WHERE name LIKE ?", [f"{what}:%"]).fetchall()
        return {name.split(":", 2)[1]: value for name, value in rows if name.split(":", 2)[2] == relay}

    def _insert(
        self,
        document: str,
        data: bytes,
        *,
        keys: str = "",
        writer: str | None = None,
        name: tuple[str, int] | tuple[None, None] = (None, None),
    ) -> int:
        """A record that is here already is left as it is. The place of the row inserted last."""
        done = self._db.execute(
            "INSERT OR IGNORE INTO updates (document, writer, session, n, keys, data) VALUES (?, ?, ?, ?, ?, ?)",
            [document, writer, *name, keys, data],
        )
        return int(done.lastrowid or 0)

    def _keep(self, document: str, data: bytes, keys: Iterable[str], writer: str | None = None) -> list[int]:
        """Keep an update, in pieces where it is longer than a record is to be; their places."""
        return self._keep_pieces(document, self._cut(data), " ".join(keys), writer)

    def _keep_pieces(self, document: str, pieces: Sequence[bytes], keys: str, writer: str | None = None) -> list[int]:
        """``keys`` go with the last."""
        *parts, last = pieces
        places = [self._insert(document, part, writer=writer) for part in parts]
        return [*places, self._insert(document, last, keys=keys, writer=writer)]

    def _queue(self, relay: str, document: str, refills: int, places: Iterable[int]) -> None:
        """Have updates wait for a relay, named as the next records."""
        for place in places:
            row = [relay, document, place, *self._name(relay, document, refills)]
            self._db.execute("INSERT INTO outbox VALUES (?, ?, ?, ?, ?)", row)

    def _name(self, relay: str, document: str, refills: int) -> tuple[str, int]:
        """The next record name of this process towards a relay. Sessions live in memory only, so that no copy of the
        file goes on with a name that the original uses too."""
        known = self._names.get((relay, document))
        session, n = known[1:] if known and known[0] == refills else (new_session_id(self._random), 0)
        self._names[relay, document] = (refills, session, n + 1)
        return session, n + 1

    def _move_cursor(self, relay: str, document: str, cursor: tuple[bytes, int, bytes]) -> bool:
        """Move a cursor on within its log; whether it is one into this log. It never goes back but at a refill: two
        processes with the file open have a link each, and one may be behind the other. Should the relay lose what
        stands behind a cursor, that cursor doesn't show it."""
        log, position, chain = cursor
        if self._one("SELECT log FROM cursors WHERE relay = ? AND document = ?", relay, document) != log:
            return False
        query = "UPDATE cursors SET position = ?, chain = ? WHERE relay = ? AND document = ? AND position < ?"
        self._db.execute(query, [position, chain, relay, document, position])
        return True

    def _one(self, query: str, *values: object) -> Any:
        with self._reading() as db:
            found = db.execute(query, list(values)).fetchone()
        return found[0] if found else None

    def _reading(self) -> _Reading:
        return self._access

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything that is written inside is kept together, or not at all."""
        with self._writing():
            yield

    @contextmanager
    def _one_view(self) -> Iterator[Database]:
        """Several queries that see the file at one moment."""
        with self._reading() as db:
            if db.conn.in_transaction:
                yield db
                return
            db.execute("BEGIN")
            try:
                yield db
            finally:
                if db.conn.in_transaction:
                    db.execute("ROLLBACK")  # nothing was written

    @contextmanager
    def _writing(self) -> Iterator[Database]:
        with self._reading() as db:
            if db.conn.in_transaction:  # inside ``transaction``: that one commits
                yield db
                return
            # IMMEDIATE: a transaction that reads first and writes later fails at once when another process wrote
            # between.
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                self._names.clear()  # a name that was given and not kept would leave a gap
                if db.conn.in_transaction:
                    db.execute("ROLLBACK")
                raise


class _Reading:
    """The connection of a store, under its lock; what SQLite raises becomes an error of ours.

    It holds nothing of one use, so one object serves them all, inside each other too: a write asks for it ten times,
    and a generator would cost each of them more than its query."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __enter__(self) -> Database:
        self._store.lock.acquire()
        if self._store._closed:
            self._store.lock.release()
            raise RepoClosed(f"{self._store.path} is closed.", hint="Open the repo again.")
        return self._store._db

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._store.lock.release()
        if not isinstance(error, sqlite3.DatabaseError):
            return
        text = str(error)
        if "not a database" in text or "malformed" in text or "encrypted" in text:
            raise NotADatabase(
                f"{self._store.path} is not a database that can be read: {text}.",
                hint="Restore it from a backup, or give another file name.",
            ) from None
        raise StoreError(f"{self._store.path}: {text}.", hint="Nothing of this change was kept; try again.") from error


def _listed(row: Sequence[Any]) -> Listed:
    return Listed(str(row[0]), str(row[1]), float(row[2]), bool(row[3]), bool(row[4]))


def _make_private(path: Path) -> None:
    """A new file is for its owner only: it holds what people say. SQLite gives the files beside it the same mode."""
    if str(path) != ":memory:" and not path.exists():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def _lacks_log(path: Path) -> bool:
    """Whether the file has a write-ahead log by what it says itself, and none lies beside it: so it is after every
    orderly close. Where it holds no tables either, they are in the log."""
    if not path.exists() or Path(f"{path}-wal").exists():
        return False
    with path.open("rb") as file:
        return file.read(20)[18:] == b"\2\2"


def _refuse_other_files(path: Path) -> None:
    """Look before SQLite does: it would treat a short file as an empty database and write into it."""
    if path.is_dir():
        raise NotADatabase(f"{path} is a folder.", hint="Give a file name.")
    if path.exists():
        with path.open("rb") as file:
            start = file.read(len(_HEADER))
        if start and start != _HEADER:
            raise NotADatabase(
                f"{path} is not a SQLite database.", hint="Give a new file name, or one made by llmcrdt."
            )
