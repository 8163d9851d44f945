"""The log of records in one SQLite file. How the file is opened is in log_file.py; the SQL of folds, deletions and
refused records in folds.py, tombstones.py and refused.py."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path

from llmcrdt.sync.chain import START, digest, next_chain
from llmcrdt.sync.messages import Cursor, Record

from . import rejected as refused
from . import snapshots as folds
from . import tombstones
from .base import Conflict, Gap, Head, LogError, Stored
from .file import TIMEOUT, explained, lock_file, migrations, open_file
from .generational_cache import GenerationalCache
from .snapshots import MARK, Part, StoredSnapshot

# A row's key holds both its document's number and its position, so one document is one range of the table's own tree.
_POSITION_BITS = 36
_CACHED = 10_000
_ROWS = 512
_WEIGHED = 1_024
"""Records whose bytes are counted at a time."""


@dataclass(slots=True)
class _Document:
    """``size``: bytes of data behind the fold."""

    number: int
    kind: str
    cursor: Cursor
    size: int
    fold: StoredSnapshot | None
    owner: str

    @property
    def base(self) -> int:
        return _key(self.number, 0)

    @property
    def folded(self) -> int:
        return self.fold.position if self.fold else 0


@dataclass(slots=True)
class _Session:
    number: int
    last: int
    folded: int


class SqliteLog:
    """RecordLog in one SQLite file, write-ahead logged, ``synchronous=FULL``: a commit is an fsync.

    A lock file beside it keeps a second relay out. ``cached``: documents whose ends are held in memory, and as many
    sessions, and as many subjects' sizes. Raises LogError where the file can't be used.
    """

    def __init__(self, path: str | os.PathLike[str], cached: int = _CACHED) -> None:
        self.path = Path(path)
        self._lock: sqlite3.Connection | None = None
        self._documents: GenerationalCache[bytes, _Document] = GenerationalCache(cached)
        self._sessions: GenerationalCache[tuple[int, bytes], _Session] = GenerationalCache(cached)
        self._rows: list[tuple[int, int, int, bytes, bytes]] = []
        self._grown: dict[int, _Document] = {}
        self._held: dict[str, int] = {}
        self._unknown: dict[str, int] = {}
        self._cached = cached
        try:
            self._lock = lock_file(self.path.with_name(self.path.name + "-lock"))
            self._db = open_file(self.path)
            self._find_unswept()
        except (sqlite3.Error, OSError) as e:
            if self._lock is not None:
                self._lock.close()
            raise explained(self.path, e) from e
        except LogError:
            if self._lock is not None:
                self._lock.close()
            raise

    @contextmanager
    def transaction(self) -> Iterator[None]:
        try:
            with self._db.atomic():
                yield
                self._flush()
                self._note_sizes()
        except BaseException as e:
            # What is cached may stand for rows that were rolled back.
            self._forget()
            with suppress(sqlite3.Error):
                self._find_unswept()
            if isinstance(e, sqlite3.Error):
                raise explained(self.path, e) from e
            raise
        self._documents.settle()
        self._sessions.settle()
        for counted in (self._held, self._unknown):
            if len(counted) > self._cached:
                counted.clear()

    def head(self, document: bytes) -> Head | None:
        found = self._document(document)
        return Head(found.kind, found.cursor) if found else None

    def chain_at(self, document: bytes, position: int) -> bytes | None:
        found = self._document(document)
        if found is None or not 0 <= position <= found.cursor.position:
            return None
        if position == found.cursor.position:
            return found.cursor.chain
        return self._chain(found, position)

    def holds(self, document: bytes, cursor: Cursor) -> bool:
        found = self._document(document)
        if found is None or cursor.log != found.cursor.log:
            return False
        chain = self.chain_at(document, cursor.position)
        if chain is None and 0 < cursor.position < found.folded:
            with self._errors():
                return folds.mark_at(self._db.conn, found.base, cursor.position) == cursor.chain[:MARK]
        return chain == cursor.chain

    def append(self, document: bytes, record: Record, kind: str, log_id: bytes, owner: str = "") -> tuple[int, bool]:
        doc = self._document(document)
        session = self._session(doc.number, record.session) if doc else None
        if doc and session and record.n <= session.last:
            return self._repeat(document, doc, session, record), False
        (stored,) = self.extend(document, record.session, record.n, (record.data,), kind, log_id, owner)
        return stored.position, True

    def extend(
        self, document: bytes, session: bytes, n: int, data: Sequence[bytes], kind: str, log_id: bytes, owner: str = ""
    ) -> Sequence[Stored]:
        doc = self._document(document)
        known = self._session(doc.number, session) if doc else None
        expected = known.last + 1 if known else 1
        if n != expected:
            raise Gap(expected)
        doc = doc or self._create(document, kind, log_id, owner)
        known = known or self._create_session(doc.number, session)
        first, chain, base, number = doc.cursor.position + 1, doc.cursor.chain, doc.base, known.number
        stored = [Stored(first + at, Record(session, n + at, piece)) for at, piece in enumerate(data)]
        for position, record in stored:
            chain = next_chain(chain, digest(document, record))
            self._rows.append((base + position, number, record.n, chain, record.data))
        size = sum(map(len, data))
        doc.cursor, known.last = Cursor(doc.cursor.log, doc.cursor.position + len(data), chain), n + len(data) - 1
        doc.size += size
        if doc.owner in self._held:
            self._held[doc.owner] += size
        self._grown[doc.number] = doc
        return stored

    def last(self, document: bytes, session: bytes) -> int:
        doc = self._document(document)
        found = self._session(doc.number, session) if doc else None
        return found.last if found else 0

    def set_aside(self, document: bytes, record: Record, why: str) -> None:
        with self._errors():
            refused.put(self._db.conn, document, record, why)

    def read(self, document: bytes, after: int, max_bytes: int, max_records: int) -> Sequence[Stored]:
        doc = self._document(document)
        if doc is None:
            return []
        self._flush()
        # Ask for few rows at a time: SQLite reads a row's data only when the row is fetched.
        sql = (
            "SELECT key, sessions.id, n, data FROM records JOIN sessions ON sessions.number = session"
            " WHERE key > ? AND key <= ? ORDER BY key LIMIT ?"
        )
        start, end = doc.base + max(after, doc.folded), doc.base + doc.cursor.position
        out: list[Stored] = []
        size = 0
        with self._errors(), closing(self._db.conn.execute(sql, (start, end, max_records))) as rows:
            for key, session, n, data in rows:
                size += len(data)
                if out and size > max_bytes:
                    break
                out.append(Stored(key - doc.base, Record(session, n, data)))
        return out

    # ---------------------------------------------------------------- folding

    def size(self, document: bytes) -> int:
        doc = self._document(document)
        return doc.size if doc else 0

    def fold(self, document: bytes) -> StoredSnapshot | None:
        doc = self._document(document)
        return doc.fold if doc else None

    def part(self, document: bytes, place: int) -> Part:
        doc = self._known(document)
        with self._errors():
            found = folds.part(self._db.conn, doc.base, place)
        if found is None:
            raise LogError(f"{self.path} lacks a part of a snapshot.", hint="Restore it from a backup.")
        return found

    def tail(self, document: bytes, most: int) -> Cursor:
        doc = self._known(document)
        self._flush()
        position, size = doc.cursor.position, 0
        sql = "SELECT length(data) FROM records WHERE key > ? AND key <= ? ORDER BY key DESC"
        with self._errors(), closing(self._db.conn.execute(sql, (doc.base + doc.folded, doc.base + position))) as rows:
            for (length,) in rows:
                size += length
                if size > most:
                    break
                position -= 1
        if position == doc.cursor.position:
            return doc.cursor
        return Cursor(doc.cursor.log, position, self._chain(doc, position) or START)

    def want_fold(self, document: bytes) -> None:
        doc = self._known(document)
        with self._errors():
            sql = "UPDATE documents SET wanted = ? WHERE number = ?"
            self._db.conn.execute(sql, (doc.cursor.position, doc.number))

    def wanted(self) -> Sequence[bytes]:
        with self._errors():
            return [id_ for (id_,) in self._db.conn.execute("SELECT id FROM documents WHERE wanted > 0")]

    def contents(self, document: bytes, position: int) -> Iterator[bytes]:
        with self._errors(), closing(sqlite3.connect(self.path, isolation_level=None)) as db:
            db.execute("BEGIN")
            found = db.execute("SELECT number FROM documents WHERE id = ?", (document,)).fetchone()
            if found:
                yield from folds.contents(db, found[0], _key(found[0], 0), position)

    def weigh(self, document: bytes, after: int, upto: int, enough: float = inf) -> int:
        doc = self._known(document)
        self._flush()
        sql = "SELECT coalesce(sum(length(data)), 0) FROM records WHERE key > ? AND key <= ?"
        size, place = 0, max(after, doc.folded)
        with self._errors():
            while place < upto and size < enough:
                end = min(place + _WEIGHED, upto)
                size += self._db.conn.execute(sql, (doc.base + place, doc.base + end)).fetchone()[0]
                place = end
        return size

    def stretch(self, document: bytes, after: int, upto: int) -> Iterator[bytes]:
        with self._errors(), closing(sqlite3.connect(self.path, isolation_level=None)) as db:
            db.execute("BEGIN")
            found = db.execute("SELECT number FROM documents WHERE id = ? AND gone = 0", (document,)).fetchone()
            if found:
                yield from folds.stretch(db, found[0], _key(found[0], 0), after, upto)

    def put_fold(self, document: bytes, upto: Cursor, session: bytes, records: Sequence[bytes], part: int) -> bool:
        doc = self._document(document)
        if doc is None or upto.position <= doc.folded or not self.holds(document, upto):
            return False
        self._flush()
        self._note_sizes()
        with self._errors():
            db = self._db.conn
            doc.fold = folds.put(db, doc.number, doc.base, upto, session, records, part)
            refused.clear(db, document)
            (doc.size,) = db.execute("SELECT size FROM documents WHERE number = ?", (doc.number,)).fetchone()
        self._held.pop(doc.owner, None)
        if doc.number not in self._unswept:
            self._unswept.append(doc.number)
        return True

    def sweep(self, rows: int) -> bool:
        if self._doomed:
            number = self._doomed[0]
            with self._errors():
                if not tombstones.sweep(self._db.conn, number, _key(number, 0), _key(number + 1, 0), rows):
                    self._doomed.pop(0)
            return bool(self._doomed or self._unswept)
        if not self._unswept:
            return False
        self._flush()
        number = self._unswept[0]
        with self._errors():
            if not folds.sweep(self._db.conn, number, _key(number, 0), rows):
                self._unswept.pop(0)
            # They say up to where a session is folded.
            self._sessions.clear()
        return bool(self._unswept)

    def scrub(self) -> bool:
        """Pages are zeroed when they are freed; what the write-ahead log still has of them goes here."""
        db = self._db.conn
        with self._errors():
            # Who reads the file just now is not waited for.
            db.execute("PRAGMA busy_timeout=0")
            try:
                (busy, _, _) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                db.execute(f"PRAGMA busy_timeout={TIMEOUT}")
        return not busy

    # ---------------------------------------------------------------- deleting, and whose it is

    def gone(self, document: bytes) -> bool:
        with self._errors():
            return document not in self._documents and tombstones.is_gone(self._db.conn, document)

    def delete(self, document: bytes, asked: str = "") -> None:
        doc = self._document(document)
        self._flush()
        with self._errors():
            self._note_sizes()
            tombstones.bury(self._db.conn, document, asked)
            refused.forget(self._db.conn, document)
        self._documents.forget(document)
        self._unknown.pop(asked, None)
        if doc is not None:
            self._sessions.clear()
            self._held.pop(doc.owner, None)
            self._doomed.append(doc.number)
            if doc.number in self._unswept:
                self._unswept.remove(doc.number)

    def unknown(self, asked: str) -> int:
        found = self._unknown.get(asked)
        if found is None:
            with self._errors():
                found = self._unknown[asked] = tombstones.unknown(self._db.conn, asked)
        return found

    def owner(self, document: bytes) -> str:
        doc = self._document(document)
        return doc.owner if doc else ""

    def held(self, owner: str) -> int:
        found = self._held.get(owner)
        if found is None:
            with self._errors():
                self._note_sizes()
                found = self._held[owner] = tombstones.held(self._db.conn, owner)
        return found

    def close(self) -> None:
        self._db.conn.close()
        if self._lock is not None:
            self._lock.close()

    @property
    def cached(self) -> int:
        """How many documents, sessions and subjects are held in memory."""
        return self._documents.held + self._sessions.held + len(self._held) + len(self._unknown)

    # ---------------------------------------------------------------- for operators

    def documents(self) -> Sequence[bytes]:
        """All documents of which something was written."""
        with self._errors():
            sql = "SELECT id FROM documents WHERE gone = 0 ORDER BY number"
            return [id_ for (id_,) in self._db.conn.execute(sql)]

    def vacuum(self) -> None:
        """Give free pages back to the file system. Takes as long as it takes to write the file anew."""
        with self._errors():
            self._db.conn.execute("VACUUM")
        self.scrub()

    def replace_with(self, source: sqlite3.Connection) -> None:
        """Become a copy of another database. What was deleted here stays so."""
        with self._errors():
            deleted = tombstones.all_gone(self._db.conn)
            source.backup(self._db.conn)
            # The copy may be of an older relay.
            migrations.apply(self._db)
            self._forget()
            self._find_unswept()
        with self.transaction():
            for document in deleted:
                self.delete(document)
        more = True
        while more:
            with self.transaction():
                more = self.sweep(_ROWS)
        self.scrub()

    # ---------------------------------------------------------------- inside

    def _document(self, document: bytes) -> _Document | None:
        found = self._documents.get(document) or self._documents.revive(document)
        if found is None:
            with self._errors():
                row = self._db.conn.execute(
                    "SELECT number, kind, log, size, owner FROM documents WHERE id = ? AND gone = 0", (document,)
                ).fetchone()
                if row is None:
                    return None
                number, kind, log, size, owner = row
                fold = folds.load(self._db.conn, number)
                last = self._db.conn.execute(
                    "SELECT key, chain FROM records WHERE key BETWEEN ? AND ? ORDER BY key DESC LIMIT 1",
                    (_key(number, 0), _key(number + 1, 0) - 1),
                ).fetchone()
            position, chain = (last[0] - _key(number, 0), last[1]) if last else (0, START)
            if fold and fold.position > position:
                position, chain = fold.position, fold.chain
            found = self._documents[document] = _Document(number, kind, Cursor(log, position, chain), size, fold, owner)
        return found

    def _known(self, document: bytes) -> _Document:
        found = self._document(document)
        if found is None:
            raise LogError(f"{self.path} has no document {document.hex()}.")
        return found

    def _create(self, document: bytes, kind: str, log_id: bytes, owner: str) -> _Document:
        with self._errors():
            sql = "INSERT INTO documents (id, kind, log, owner) VALUES (?, ?, ?, ?)"
            number = self._db.conn.execute(sql, (document, kind, log_id, owner)).lastrowid
        assert number is not None
        self._documents[document] = _Document(number, kind, Cursor(log_id, 0, START), 0, None, owner)
        return self._documents[document]

    def _session(self, document: int, session: bytes) -> _Session | None:
        found = self._sessions.get((document, session)) or self._sessions.revive((document, session))
        if found is None:
            with self._errors():
                row = self._db.conn.execute(
                    "SELECT number, (SELECT max(n) FROM records WHERE session = number), folded FROM sessions"
                    " WHERE document = ? AND id = ?",
                    (document, session),
                ).fetchone()
            if row is None:
                return None
            found = self._sessions[document, session] = _Session(row[0], max(row[1] or 0, row[2]), row[2])
        return found

    def _create_session(self, document: int, session: bytes) -> _Session:
        with self._errors():
            sql = "INSERT INTO sessions (document, id) VALUES (?, ?)"
            number = self._db.conn.execute(sql, (document, session)).lastrowid
        assert number is not None
        self._sessions[document, session] = _Session(number, 0, 0)
        return self._sessions[document, session]

    def _repeat(self, document: bytes, doc: _Document, session: _Session, record: Record) -> int:
        """The position of a record that is there. Its bytes are checked through the chain, which holds their digest."""
        if record.n <= session.folded:
            return 0
        self._flush()
        with self._errors():
            sql = "SELECT key, chain FROM records WHERE session = ? AND n = ?"
            key, chain = self._db.conn.execute(sql, (session.number, record.n)).fetchone()
        position: int = key - doc.base
        if position <= doc.folded:
            return 0
        before = self._chain(doc, position - 1)
        assert before is not None
        if next_chain(before, digest(document, record)) != chain:
            raise Conflict
        return position

    def _chain(self, doc: _Document, position: int) -> bytes | None:
        """None where the record was folded and swept."""
        if position == 0:
            return START
        if doc.fold and position == doc.fold.position:
            return doc.fold.chain
        self._flush()
        with self._errors():
            row = self._db.conn.execute("SELECT chain FROM records WHERE key = ?", (doc.base + position,)).fetchone()
        if row is None and position < doc.folded:
            return None
        if row is None:
            raise LogError(f"{self.path} lacks a record inside a log.", hint="Restore it from a backup.")
        chain: bytes = row[0]
        return chain

    def _flush(self) -> None:
        if self._rows:
            rows, self._rows = self._rows, []
            with self._errors():
                self._db.conn.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?)", rows)

    def _note_sizes(self) -> None:
        grown = [(doc.size, doc.number) for doc in self._grown.values()]
        self._db.conn.executemany("UPDATE documents SET size = ? WHERE number = ?", grown)
        self._grown.clear()

    def _forget(self) -> None:
        self._documents.clear()
        self._sessions.clear()
        self._rows.clear()
        self._grown.clear()
        self._held.clear()
        self._unknown.clear()

    def _find_unswept(self) -> None:
        self._doomed = tombstones.unswept(self._db.conn)
        self._unswept = [number for number in folds.unswept(self._db.conn) if number not in self._doomed]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as e:
            raise explained(self.path, e) from e


def _key(document: int, position: int) -> int:
    return (document << _POSITION_BITS) + position
