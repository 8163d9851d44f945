"""The open SQLite file of a repo: one connection, its lock, its transactions.

WAL and synchronous=FULL: a transaction that has ended is on disk. Several processes may have the same file open. One
connection per process, used under ``lock``.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from ..exceptions import NewerDatabase, NotADatabase, RepoClosed, StoreError
from ..files import sync_folder
from .file_version import APPLICATION_ID, BACKUP_DIGEST, DONE, MIGRATION_SET, NAMES
from .new_file import make_tables
from .snapshots import Pieces

_PATIENCE_MS = 30_000  # how long a write waits for another process that writes
_CREATION = 1.0  # seconds that another process may take from a new file to its tables
_HEADER = b"SQLite format 3\0"


WordsOf = Callable[[bytes, str | None], str | None]


def _no_words(fields: bytes, pin: str | None) -> str:
    return ""


class Connection:
    """Raises NotADatabase, NewerDatabase, StoreError. ``reading``, ``writing`` and ``one_view`` are context managers
    that give the database; each may be entered inside of any other. ``words_of``: the words of an entry, from its
    fields and the version that is pinned."""

    def __init__(self, path: str | Path, lock: threading.RLock, words_of: WordsOf | None = None) -> None:
        self.path = Path(path)
        self.lock = lock
        self.rolled_back: list[Callable[[], None]] = []
        """Called when a transaction was rolled back: memory must not hold what the file does not."""
        try:
            _refuse_folders(self.path)
            self._creation = _CreationMark(self.path)
        except (OSError, ValueError) as error:  # a name may hold a null character
            raise _cannot_open(self.path, error) from None
        if not self._creation.begun:
            _refuse_other_files(self.path)
        self._lacks_log = _lacks_log(self.path) and not self._creation.begun
        self._is_new = not self.path.exists() or not self.path.stat().st_size
        try:
            self.db = sqlite3.connect(
                self.path,
                timeout=_PATIENCE_MS / 1000,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=256,
            )
        except sqlite3.OperationalError as error:
            raise _cannot_open(self.path, error) from None
        self.closed = False
        self.derives_words = words_of is not None
        self.pieces = Pieces(self.db)
        """Those that rows of the entry index lean on."""
        self.rolled_back.append(self.pieces.forget)  # a number is used again then
        self.db.create_function("words_of", 2, words_of or _no_words, deterministic=True)
        self.db.create_function("fields_of", 2, self.pieces.fields, deterministic=True)
        self._access = _Reading(self)
        try:
            with self.reading():
                self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        if self._is_new:
            self.db.execute("PRAGMA auto_vacuum=INCREMENTAL")  # it can't be had later
        self._use_wal()
        # A first look, at once, puts the log beside the file. The owner comes second: whoever makes the tables just now
        # writes it with them.
        tables, owner = self.one("SELECT count(*) FROM sqlite_master"), self.one("PRAGMA application_id")
        for pragma in ("synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
            self.db.execute(f"PRAGMA {pragma}")
        if owner != APPLICATION_ID and tables:
            raise NotADatabase(
                f"{self.path} is another program's SQLite file.", hint="Give a new file name, or one made by llmcrdt."
            )
        if not tables and self._lacks_log and not self._made_meanwhile():
            raise NotADatabase(
                f"{self.path} is empty without the file {self.path.name}-wal: it was copied alone while it was in use.",
                hint="Close it first, then copy; or copy both files. If nothing was ever in it, delete it.",
            )
        done = self._steps_done()
        newer = done - set(NAMES)
        if newer:
            raise NewerDatabase(
                f"{self.path} was made by a newer llmcrdt ({min(newer)}).", hint="Update llmcrdt; nothing was changed."
            )
        if done != set(NAMES):
            self._do_steps()
        if self.one("SELECT count(*) FROM settings WHERE name = ?", BACKUP_DIGEST):
            self.db.execute("DELETE FROM settings WHERE name = ?", [BACKUP_DIGEST])  # from now on rows change
        self._creation.end()

    def _steps_done(self) -> set[str]:
        if not self.one("SELECT count(*) FROM sqlite_master WHERE name = '_sqlite_migrations'"):
            return set()
        return {str(row[0]) for row in self.db.execute(DONE, [MIGRATION_SET])}

    def _do_steps(self) -> None:
        self.db.execute("BEGIN IMMEDIATE")  # waits for another process that is at it; nothing is done twice
        try:
            self.db.execute(f"PRAGMA application_id={APPLICATION_ID}")
            if self.one("SELECT count(*) FROM sqlite_master"):
                from sqlite_utils import Database  # slow to load, and rarely needed

                from .migrations import migrations

                migrations.apply(Database(self.db))
            else:
                make_tables(self.db)
            self.db.execute("COMMIT")
        except BaseException:
            self.db.rollback()
            raise

    def _use_wal(self) -> None:
        """SQLite doesn't wait by itself where another connection changes the mode of a new file at the same moment."""
        deadline = time.monotonic() + _PATIENCE_MS / 1000
        while True:
            try:
                self.db.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _made_meanwhile(self) -> bool:
        """Whether another process is just making the file, and has come to the tables."""
        deadline = time.monotonic() + _CREATION
        while not (made := bool(self.one("SELECT count(*) FROM sqlite_master"))) and time.monotonic() < deadline:
            time.sleep(0.05)
        return made

    def close(self) -> None:
        """Twice is harmless."""
        with self.lock:
            if not self.closed:
                self.closed = True
                self.pieces.forget()
                self.db.close()

    def data_version(self) -> int:
        """Changes whenever another connection has committed to the file."""
        return int(self.one("PRAGMA data_version"))

    def one(self, query: str, *values: object) -> Any:
        """The first column of the first row; None where there is no row."""
        with self.reading() as db:
            found = db.execute(query, list(values)).fetchone()
        return found[0] if found else None

    def reading(self) -> _Reading:
        """The database under the lock."""
        return self._access

    @contextmanager
    def one_view(self) -> Iterator[sqlite3.Connection]:
        """Several queries that see the file at one moment."""
        with self.reading() as db:
            if db.in_transaction:
                yield db
                return
            db.execute("BEGIN")
            try:
                yield db
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")  # nothing was written

    def writing(self) -> _Writing:
        """All that is written inside is kept together, or not at all. An inner one is part of the outer one."""
        return _Writing(self)

    def shrink(self, pages: int) -> bool:
        """Give so many free pages back to the disk; whether there are more. A file of before, which was not made for
        that, keeps them."""
        free = self.one("PRAGMA freelist_count")
        if not free or not self.one("PRAGMA auto_vacuum"):
            return False
        with self.reading() as db:
            if db.in_transaction:
                return False
            db.executescript(f"PRAGMA incremental_vacuum({pages})")  # a step for each page: execute makes one
        return int(free) > pages

    def empty_wal(self) -> bool:
        """Take what was deleted out of the write-ahead log: secure_delete zeroed its pages, and the log still has them.
        False while somebody reads it."""
        with self.reading() as db:
            db.execute("PRAGMA busy_timeout=100")
            try:
                busy = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            except sqlite3.OperationalError:
                busy = 1
            finally:
                db.execute(f"PRAGMA busy_timeout={_PATIENCE_MS}")
        return not busy


class _Reading:
    """The database of a connection, under its lock; what SQLite raises becomes an error of ours.

    It holds nothing of one use, so one object serves them all, inside each other too: a write asks for it ten times,
    and a generator would cost each of them more than its query."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __enter__(self) -> sqlite3.Connection:
        self._connection.lock.acquire()
        if self._connection.closed:
            self._connection.lock.release()
            raise RepoClosed(f"{self._connection.path} is closed.", hint="Open the repo again.")
        return self._connection.db

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._connection.lock.release()
        if not isinstance(error, sqlite3.DatabaseError):
            return
        text = str(error)
        if "not a database" in text or "malformed" in text or "encrypted" in text:
            raise NotADatabase(
                f"{self._connection.path} is not a database that can be read: {text}.",
                hint="Restore it from a backup, or give another file name.",
            ) from None
        raise StoreError(
            f"{self._connection.path}: {text}.", hint="Nothing of this change was kept; try again."
        ) from error


class _Writing:
    """A transaction of a connection, or a part of the one that is going on."""

    __slots__ = ("_access", "_connection", "_outermost")

    def __init__(self, connection: Connection) -> None:
        self._connection, self._access = connection, connection.reading()

    def __enter__(self) -> sqlite3.Connection:
        db = self._access.__enter__()
        self._outermost = not db.in_transaction
        if self._outermost:
            try:
                # IMMEDIATE: a transaction that reads first and writes later fails at once when another process wrote
                # between.
                db.execute("BEGIN IMMEDIATE")
            except BaseException as error:
                self._access.__exit__(type(error), error, error.__traceback__)
                raise
        return db

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if self._outermost:
                with self._access as db:
                    self._end(db, keep=error is None)
        finally:
            self._access.__exit__(kind, error, tb)

    def _end(self, db: sqlite3.Connection, *, keep: bool) -> None:
        try:
            if keep:
                db.execute("COMMIT")
        except BaseException:
            keep = False
            raise
        finally:
            if not keep:
                for forget in self._connection.rolled_back:
                    forget()
                if db.in_transaction:
                    db.execute("ROLLBACK")


class _CreationMark:
    """A file beside a database that says that this one is still being made; it is on disk before anything of the
    database is. A power failure may leave the database without its log, or with a part of its first page: nothing was
    kept in it then, and whoever finds the mark makes it again. ``begun``: the mark is there."""

    def __init__(self, path: Path) -> None:
        self._mark = path.with_name(f"{path.name}.making")
        self.begun = False
        if str(path) == ":memory:":
            return
        if not path.exists():
            # Both are for their owner only: the database holds what people say. SQLite gives the files beside it the
            # same mode.
            os.close(os.open(self._mark, os.O_RDWR | os.O_CREAT, 0o600))
            sync_folder(path.parent)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self.begun = self._mark.exists()

    def end(self) -> None:
        """Remove the mark: the tables are on disk, and so is the name of the log that they are in."""
        if self.begun:
            self._mark.unlink(missing_ok=True)


def _cannot_open(path: Path, error: Exception) -> StoreError:
    why = (isinstance(error, OSError) and error.strerror) or error
    return StoreError(f"{path} can't be opened: {why}.", hint="Check that its folder exists and may be written.")


def _lacks_log(path: Path) -> bool:
    """Whether the file has a write-ahead log by what it says itself, and none lies beside it: so it is after every
    orderly close. If it holds no tables either, they are in the log."""
    if not path.exists() or Path(f"{path}-wal").exists():
        return False
    with path.open("rb") as file:
        return file.read(20)[18:] == b"\2\2"


def _refuse_folders(path: Path) -> None:
    if path.is_dir():
        raise NotADatabase(f"{path} is a folder.", hint="Give a file name.")


def _refuse_other_files(path: Path) -> None:
    """Look before SQLite does: it would treat a short file as an empty database and write into it."""
    if path.exists():
        with path.open("rb") as file:
            start = file.read(len(_HEADER))
        if start and start != _HEADER:
            raise NotADatabase(
                f"{path} is not a SQLite database.", hint="Give a new file name, or one made by llmcrdt."
            )
