"""The records of documents: RecordLog in SQLite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import repeat

from llmcrdt.sync.chain import START, digest, extend_chain, next_chain
from llmcrdt.sync.messages import Cursor, Record

from .base import Conflict, Gap, Head, LogError, Notify, Origin, Stored
from .database import Document, Session, SqliteDatabase
from .snapshots import holds


class SqliteRecords:
    """All documents that are staged share one commit, which is one fsync."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._db = database
        self._subscribed: dict[bytes, Notify] = {}
        self._version = self._data_version()

    def head(self, document: bytes) -> Head | None:
        found = self._db.document(document)
        return Head(found.kind, found.cursor) if found else None

    def chain_at(self, document: bytes, position: int) -> bytes | None:
        found = self._db.document(document)
        if found is None or not 0 <= position <= found.cursor.position:
            return None
        if position == found.cursor.position:
            return found.cursor.chain
        return self._db.chain(found, position)

    def holds(self, document: bytes, cursor: Cursor) -> bool:
        found = self._db.document(document)
        return found is not None and holds(self._db, found, cursor)

    def last(self, document: bytes, session: bytes) -> int:
        doc = self._db.document(document)
        found = self._db.session(doc.number, session) if doc else None
        return found.last if found else 0

    def find(self, document: bytes, record: Record) -> int:
        """A repeat's bytes are checked through the chain, which holds their digest."""
        doc = self._db.document(document)
        session = self._db.session(doc.number, record.session) if doc else None
        if doc is None or session is None or record.n > session.last:
            raise Gap(session.last + 1 if session else 1)
        if record.n <= session.compacted:
            return 0
        self._db.flush()
        with self._db.errors():
            sql = "SELECT key, chain FROM records WHERE session = ? AND n = ?"
            found, chain = self._db.connection.execute(sql, (session.number, record.n)).fetchone()
        position: int = found - doc.base
        if position <= doc.compacted:
            return 0
        before = self._db.chain(doc, position - 1)
        assert before is not None
        if next_chain(before, digest(document, record)) != chain:
            raise Conflict
        return position

    def append(
        self, document: bytes, session: bytes, n: int, data: Sequence[bytes], origin: Origin
    ) -> Sequence[Stored]:
        database = self._db
        doc = database.document(document)
        known = database.session(doc.number, session) if doc else None
        expected = known.last + 1 if known else 1
        if n != expected:
            raise Gap(expected)
        database.stage(document)
        doc = doc or self._create(document, origin)
        known = known or self._create_session(doc.number, session)
        log, position, chain = doc.cursor
        chains = extend_chain(chain, document, session, n, data)
        numbers, positions = range(n, n + len(data)), range(position + 1, position + 1 + len(data))
        # By maps and zips: it costs half of what a loop over the records does.
        stored = list(map(Stored, positions, map(Record, repeat(session), numbers, data)))
        keys = range(doc.base + position + 1, doc.base + position + 1 + len(data))
        database.rows += zip(keys, repeat(known.number), numbers, chains, data, strict=False)
        size = sum(map(len, data))
        doc.cursor = Cursor(log, position + len(data), chains[-1] if chains else chain)
        known.last = n + len(data) - 1
        doc.tail_size += size
        if doc.owner in database.used:
            database.used[doc.owner] += size
        database.grown[doc.number] = doc
        return stored

    def read(self, document: bytes, after: int, max_bytes: int, max_records: int) -> Sequence[Stored]:
        doc = self._db.document(document)
        if doc is None:
            return []
        self._db.flush()
        # Ask for few rows at a time: SQLite reads a row's data only when the row is fetched.
        sql = (
            "SELECT key, sessions.id, n, data FROM records JOIN sessions ON sessions.number = session"
            " WHERE key > ? AND key <= ? ORDER BY key LIMIT ?"
        )
        start, end = doc.base + max(after, doc.compacted), doc.base + doc.cursor.position
        out: list[Stored] = []
        size = 0
        with self._db.errors(), closing(self._db.connection.execute(sql, (start, end, max_records))) as rows:
            for found, session, n, data in rows:
                size += len(data)
                if out and size > max_bytes:
                    break
                out.append(Stored(found - doc.base, Record(session, n, data)))
        return out

    def commit(self) -> Mapping[bytes, LogError]:
        return self._db.commit()

    # ---------------------------------------------------------------- changes of others

    def subscribe(self, document: bytes, notify: Notify) -> None:
        self._subscribed[document] = notify

    def unsubscribe(self, document: bytes) -> None:
        self._subscribed.pop(document, None)

    def poll(self) -> None:
        """SQLite counts the commits of other connections to the file."""
        with self._db.errors():
            version = self._data_version()
            if version == self._version:
                return
            self._version = version
            before = {document: self._db.documents.get(document) for document in self._subscribed}
            self._db.forget()
            self._db.find_unswept()
        for document, notify in tuple(self._subscribed.items()):
            known = before[document]
            if known is None or known != self._db.document(document):
                notify(document)

    def _data_version(self) -> int:
        (version,) = self._db.connection.execute("PRAGMA data_version").fetchone()
        return int(version)

    # ---------------------------------------------------------------- inside

    def _create(self, document: bytes, origin: Origin) -> Document:
        with self._db.errors():
            sql = "INSERT INTO documents (id, kind, log, owner) VALUES (?, ?, ?, ?)"
            row = (document, origin.kind, origin.log_id, origin.owner)
            number = self._db.write().execute(sql, row).lastrowid
        assert number is not None
        cursor = Cursor(origin.log_id, 0, START)
        made = self._db.documents[document] = Document(number, origin.kind, cursor, 0, None, origin.owner)
        return made

    def _create_session(self, document: int, session: bytes) -> Session:
        with self._db.errors():
            sql = "INSERT INTO sessions (document, id) VALUES (?, ?)"
            number = self._db.write().execute(sql, (document, session)).lastrowid
        assert number is not None
        made = self._db.sessions[document, session] = Session(number, 0, 0)
        return made
