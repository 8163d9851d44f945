"""The SQLite file of a relay's log: its tables and migrations, how it is opened and locked, what its errors mean."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlite_utils import Database, Migrations

from llmcrdt.files import sync_folder

from .base import LogError

DATABASE = "relay.db"
"""The name of the file in a relay's folder."""

TIMEOUT = 5_000
"""Milliseconds that a command waits for another process that has the file."""
_APPLICATION_ID = 0x4C4D5259
_POSITION_BITS = 36
_STEPS = {"m001_log", "m002_folds", "m003_tombstones", "m004_refused", "m005_unknown"}

migrations = Migrations("sync_server")


@migrations()
def m001_log(db: Database) -> None:
    db.conn.execute("CREATE TABLE documents (number INTEGER PRIMARY KEY, id BLOB UNIQUE, kind TEXT, log BLOB) STRICT")
    db.conn.execute(
        "CREATE TABLE sessions (number INTEGER PRIMARY KEY, document INTEGER, id BLOB, UNIQUE (document, id)) STRICT"
    )
    db.conn.execute(
        "CREATE TABLE records (key INTEGER PRIMARY KEY, session INTEGER, n INTEGER, chain BLOB, data BLOB) STRICT"
    )
    db.conn.execute("CREATE UNIQUE INDEX names ON records (session, n)")


@migrations()
def m002_folds(db: Database) -> None:
    for statement in (
        "ALTER TABLE documents ADD COLUMN size INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE documents ADD COLUMN wanted INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE sessions ADD COLUMN folded INTEGER NOT NULL DEFAULT 0",
        "CREATE TABLE folds (document INTEGER PRIMARY KEY, position INTEGER, chain BLOB, session BLOB, parts INTEGER,"
        " size INTEGER, digest BLOB, swept INTEGER) STRICT",
        "CREATE TABLE parts (key INTEGER PRIMARY KEY, n INTEGER, count INTEGER, size INTEGER, start INTEGER,"
        " data BLOB) STRICT",
        "CREATE TABLE marks (key INTEGER PRIMARY KEY, chains BLOB) STRICT",
        "UPDATE documents SET size = (SELECT coalesce(sum(length(data)), 0) FROM records"
        " WHERE key BETWEEN documents.number << 36 AND ((documents.number + 1) << 36) - 1)",
    ):
        db.conn.execute(statement)


@migrations()
def m003_tombstones(db: Database) -> None:
    for statement in (
        "ALTER TABLE documents ADD COLUMN owner TEXT NOT NULL DEFAULT ''",
        # 0: there; 1: deleted, and rows of it remain; 2: deleted; 3: deleted, and it was never there
        "ALTER TABLE documents ADD COLUMN gone INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX documents_by_owner ON documents (owner) WHERE owner != ''",
        "CREATE INDEX documents_to_sweep ON documents (number) WHERE gone = 1",
    ):
        db.conn.execute(statement)


@migrations()
def m004_refused(db: Database) -> None:
    db.conn.execute(
        "CREATE TABLE refused (number INTEGER PRIMARY KEY, document BLOB, session BLOB, n INTEGER, reason TEXT,"
        " digest BLOB, size INTEGER, data BLOB, UNIQUE (document, digest)) STRICT"
    )


@migrations()
def m005_unknown(db: Database) -> None:
    db.conn.execute("CREATE INDEX documents_unknown ON documents (owner) WHERE gone = 3")


def key(document: int, position: int) -> int:
    """A row's key holds both its document's number and its position, so one document is one range of a table's own
    tree."""
    return (document << _POSITION_BITS) + position


def lock_file(path: Path) -> sqlite3.Connection:
    """An exclusive lock for as long as the connection lives. The system drops it when the process dies."""
    lock = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as e:
        lock.close()
        if "locked" not in str(e):
            raise
        raise LogError(f"Another relay uses {path.parent}.", hint="Stop it, or choose another --data.") from e
    except sqlite3.Error:
        lock.close()
        raise
    return lock


def open_file(path: Path) -> Database:
    existed = path.exists()
    if not existed:  # it holds what people say, so for its owner only; SQLite gives the files beside it the same mode
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(path, timeout=TIMEOUT / 1000, isolation_level=None, check_same_thread=False)
    db = Database(connection)
    try:
        if not is_log(connection) and db.table_names():
            raise LogError(f"{path} is a database of something else.", hint="Choose another --data.")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        # On macOS a plain fsync does not reach the disk.
        connection.execute("PRAGMA fullfsync=ON")
        # Records that a snapshot replaced must not stay in free pages.
        connection.execute("PRAGMA secure_delete=ON")
        connection.execute("PRAGMA cache_size=-16384")
        connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
        check_age(connection, path)
        migrations.apply(db)
        if not existed:
            sync_folder(path.parent)
    except BaseException:
        connection.close()
        raise
    return db


@contextmanager
def aside(path: Path) -> Iterator[Database]:
    """An empty database beside a log, private to its owner, and gone when the block ends. ``clear_aside`` takes away
    what a process left that was killed within it."""
    file = clear_aside(path)
    os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=OFF")
            connection.execute("PRAGMA synchronous=OFF")
            yield Database(connection)
    finally:
        clear_aside(path)


def clear_aside(path: Path) -> Path:
    """Take away the database beside a log. Its name."""
    file = path.with_name(path.name + "-restoring")
    if file.exists():  # a disk that can't be written says so of what isn't there, too
        file.unlink()
    return file


def is_log(db: sqlite3.Connection) -> bool:
    (marked,) = db.execute("PRAGMA application_id").fetchone()
    return bool(marked == _APPLICATION_ID)


def check_age(db: sqlite3.Connection, path: Path) -> None:
    unknown = {m.name for m in migrations.applied(Database(db))} - _STEPS
    if unknown:
        raise LogError(f"{path} was made by a newer relay.", hint="Upgrade this one.")


_HINTS: dict[str, Callable[[Path], str]] = {
    "not a database": lambda p: f"Move {p.name} away, or choose another --data.",
    "malformed": lambda p: "Restore it from a backup.",
    "full": lambda p: "Free some space.",
    "unable to open": lambda p: "Check that the folder can be written.",
    "readonly": lambda p: "Check that the folder can be written.",
}


@contextmanager
def explaining(path: Path) -> Iterator[None]:
    """Errors of SQLite are LogErrors."""
    try:
        yield
    except sqlite3.Error as e:
        raise explained(path, e) from e


def explained(path: Path, error: Exception) -> LogError:
    """The LogError that says in words what went wrong with SQLite or the system."""
    text = str(error)
    hint = next((make(path) for piece, make in _HINTS.items() if piece in text), "")
    return LogError(f"{path}: {text}.", hint=hint)
