"""One SQLite file of a relay's log in use: its connection, the group of writes that shares a commit, and the ends of
documents and sessions that are held in memory."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from types import TracebackType

from llmcrdt.sync.chain import START
from llmcrdt.sync.messages import Cursor

from .admin import StoredSnapshot
from .base import LogError
from .file import clear_aside, explained, key, lock_file, open_file
from .generational_cache import GenerationalCache


@dataclass(slots=True)
class Document:
    """A row of documents, and the end of its log. ``tail_size``: bytes of data after the snapshot."""

    number: int
    kind: str
    cursor: Cursor
    tail_size: int
    snapshot: StoredSnapshot | None
    owner: str

    @property
    def base(self) -> int:
        """The key of position 0."""
        return key(self.number, 0)

    @property
    def compacted(self) -> int:
        """The position of the snapshot; 0 where there is none."""
        return self.snapshot.position if self.snapshot else 0


@dataclass(slots=True)
class Session:
    """A row of sessions. ``last``: the n of its last record; ``compacted``: that of its last record that was swept."""

    number: int
    last: int
    compacted: int


_TOGETHER = 64
"""Records that are written with one statement, where there are so many."""


@cache
def _insert(rows: int) -> str:
    return f"INSERT INTO records VALUES {', '.join(['(?, ?, ?, ?, ?)'] * rows)}"


class SqliteDatabase:
    """Write-ahead logged, ``synchronous=FULL``: a commit is an fsync. All writes that are staged are one transaction.

    A lock file beside it keeps a second relay out. ``cached``: documents whose ends are held in memory, and as many
    sessions, and as many subjects' sizes. Raises LogError where the file can't be used.

    ==========  ==================================  ==============================================
    the group   what happens                        then
    ==========  ==================================  ==============================================
    empty       ``stage``                           open
    open        ``stage``, ``write``                open
    open        an error of SQLite                  failed: ``stage`` raises that error
    open        ``commit``                          empty; all of it is on disk, or none is
    failed      ``commit``                          empty; none of it is on disk
    ==========  ==================================  ==============================================
    """

    def __init__(self, path: str | os.PathLike[str], cached: int) -> None:
        self.path = Path(path)
        self.documents: GenerationalCache[bytes, Document] = GenerationalCache(cached)
        self.sessions: GenerationalCache[tuple[int, bytes], Session] = GenerationalCache(cached)
        self.used: dict[str, int] = {}
        """Bytes of the logs of a subject."""
        self.unknown_tombstones: dict[str, int] = {}
        self.rows: list[tuple[int, int, int, bytes, bytes]] = []
        """Records of the group that are not written yet: rows of records."""
        self.grown: dict[int, Document] = {}
        """Documents of the group whose size isn't written yet, by number."""
        self.compacted: list[int] = []
        """Numbers of documents with records that a snapshot stands for."""
        self.deleted: list[int] = []
        """Numbers of deleted documents of which rows remain."""
        self.doomed = False
        """Whether pieces remain of attachments that were removed."""
        self._cached = cached
        self._staged: dict[bytes, None] = {}
        self._failure: LogError | None = None
        self._errors = _Errors(self)
        lock: sqlite3.Connection | None = None
        try:
            lock = self.lock = lock_file(self.path.with_name(self.path.name + "-lock"))
            clear_aside(self.path)
            self.connection = open_file(self.path)
            self.find_unswept()
        except (sqlite3.Error, OSError, LogError) as e:
            if lock is not None:
                lock.close()
            if isinstance(e, LogError):
                raise
            raise explained(self.path, e) from e

    def close(self) -> None:
        self.connection.close()
        self.lock.close()

    # ---------------------------------------------------------------- the group of writes

    def stage(self, document: bytes) -> None:
        """The document is part of the group. Raises LogError where the group failed."""
        self._staged[document] = None
        if self._failure is not None:
            raise self._failure

    def write(self) -> sqlite3.Connection:
        """The connection, in the transaction of the group."""
        if not self.connection.in_transaction:
            self.connection.execute("BEGIN")
        return self.connection

    def flush(self) -> None:
        """Write the records of the group, so that queries see them."""
        if self.rows:
            rows, self.rows = self.rows, []
            with self.errors():
                connection = self.write()
                single = len(rows) % _TOGETHER
                connection.executemany(_insert(1), rows[:single])
                # A statement for many rows takes less than one for each; and it lets other threads of Python go on
                # once, not between any two rows.
                for at in range(single, len(rows), _TOGETHER):
                    connection.execute(_insert(_TOGETHER), tuple(chain.from_iterable(rows[at : at + _TOGETHER])))

    def write_sizes(self) -> None:
        if self.grown:
            grown = [(doc.tail_size, doc.number) for doc in self.grown.values()]
            with self.errors():
                self.write().executemany("UPDATE documents SET size = ? WHERE number = ?", grown)
            self.grown.clear()

    def commit(self) -> dict[bytes, LogError]:
        """End the group. All its documents with the error, where it failed."""
        if self._staged and self._failure is None:
            with suppress(LogError), self.errors():
                self.flush()
                self.write_sizes()
                self._commit()
        staged, failure = self._staged, self._failure
        self._staged, self._failure = {}, None
        if failure is not None:
            self._roll_back()
        self.trim()
        return {} if failure is None else dict.fromkeys(staged, failure)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Writes that are on disk when the block ends; none are when it raises. Nothing may be staged."""
        try:
            with self.errors():
                yield self.write()
                self._commit()
        except BaseException:
            self._roll_back()
            raise

    def errors(self) -> _Errors:
        """Errors of SQLite are LogErrors, and the group has failed with the first of them."""
        return self._errors

    def fail(self, error: LogError) -> None:
        """The group, if there is one, has failed with this error, if not with one before."""
        if self._staged and self._failure is None:
            self._failure = error

    def _commit(self) -> None:
        if self.connection.in_transaction:
            self.connection.execute("COMMIT")

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):
            self.connection.rollback()
        # The caches may stand for rows that were rolled back.
        self.forget()
        with suppress(sqlite3.Error):
            self.find_unswept()

    # ---------------------------------------------------------------- the ends in memory

    def document(self, document: bytes) -> Document | None:
        """None where nothing was appended to it, or it was deleted."""
        found = self.documents.get(document) or self.documents.revive(document)
        if found is None:
            with self.errors():
                row = self.connection.execute(
                    "SELECT number, kind, log, size, owner FROM documents WHERE id = ? AND gone = 0", (document,)
                ).fetchone()
                if row is None:
                    return None
                number, kind, log, size, owner = row
                snapshot = load_snapshot(self.connection, number)
                last = self.connection.execute(
                    "SELECT key, chain FROM records WHERE key BETWEEN ? AND ? ORDER BY key DESC LIMIT 1",
                    (key(number, 0), key(number + 1, 0) - 1),
                ).fetchone()
            position, chain = (last[0] - key(number, 0), last[1]) if last else (0, START)
            if snapshot and snapshot.position > position:
                position, chain = snapshot.position, snapshot.chain
            cursor = Cursor(log, position, chain)
            found = self.documents[document] = Document(number, kind, cursor, size, snapshot, owner)
        return found

    def existing(self, document: bytes) -> Document:
        """Raises LogError where it isn't there."""
        found = self.document(document)
        if found is None:
            raise LogError(f"{self.path} has no document {document.hex()}.")
        return found

    def session(self, document: int, session: bytes) -> Session | None:
        found = self.sessions.get((document, session)) or self.sessions.revive((document, session))
        if found is None:
            with self.errors():
                row = self.connection.execute(
                    "SELECT number, (SELECT max(n) FROM records WHERE session = number), folded FROM sessions"
                    " WHERE document = ? AND id = ?",
                    (document, session),
                ).fetchone()
            if row is None:
                return None
            found = self.sessions[document, session] = Session(row[0], max(row[1] or 0, row[2]), row[2])
        return found

    def chain(self, doc: Document, position: int) -> bytes | None:
        """The chain hash at a position; None where the record was swept."""
        if position == 0:
            return START
        if doc.snapshot and position == doc.snapshot.position:
            return doc.snapshot.chain
        self.flush()
        with self.errors():
            sql = "SELECT chain FROM records WHERE key = ?"
            row = self.connection.execute(sql, (doc.base + position,)).fetchone()
        if row is None and position < doc.compacted:
            return None
        if row is None:
            raise LogError(f"{self.path} lacks a record inside a log.", hint="Restore it from a backup.")
        chain: bytes = row[0]
        return chain

    def find_unswept(self) -> None:
        """Look which documents have rows that are to be swept."""
        gone = self.connection.execute("SELECT number FROM documents WHERE gone = 1").fetchall()
        compacted = self.connection.execute("SELECT document FROM folds WHERE swept < position").fetchall()
        self.deleted = [number for (number,) in gone]
        self.doomed = self.connection.execute("SELECT 1 FROM doomed LIMIT 1").fetchone() is not None
        self.compacted = [number for (number,) in compacted if number not in self.deleted]

    def forget(self) -> None:
        """Hold nothing in memory."""
        self.documents.clear()
        self.sessions.clear()
        self.rows.clear()
        self.grown.clear()
        self.used.clear()
        self.unknown_tombstones.clear()

    def trim(self) -> None:
        """Hold no more in memory than ``cached`` says. Nothing may be staged."""
        self.documents.trim()
        self.sessions.trim()
        for counted in (self.used, self.unknown_tombstones):
            if len(counted) > self._cached:
                counted.clear()

    @property
    def cached(self) -> int:
        """How many documents, sessions and subjects are held in memory."""
        return self.documents.total + self.sessions.total + len(self.used) + len(self.unknown_tombstones)


class _Errors:
    """Implements ``SqliteDatabase.errors``. It holds nothing of one use: a record asks for it six times, and a
    generator would cost each of them more than its query."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if isinstance(error, LogError):
            self._database.fail(error)
        elif isinstance(error, sqlite3.Error):
            failure = explained(self._database.path, error)
            self._database.fail(failure)
            raise failure from error


def load_snapshot(db: sqlite3.Connection, document: int) -> StoredSnapshot | None:
    sql = "SELECT position, chain, session, parts, size FROM folds WHERE document = ?"
    row = db.execute(sql, (document,)).fetchone()
    return StoredSnapshot(*row) if row else None
