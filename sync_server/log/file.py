"""The SQLite file of a relay's log: how it is opened, brought up to date and locked, what its errors mean."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from llmcrdt.files import sync_folder

from .base import LogError
from .file_version import DONE, MIGRATION_SET, NAMES
from .new_file import make_tables

DATABASE = "relay.db"
"""The name of the file in a relay's folder."""

TIMEOUT = 5_000
"""Milliseconds that a command waits for another process that has the file."""
_APPLICATION_ID = 0x4C4D5259
_POSITION_BITS = 36


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


def open_file(path: Path) -> sqlite3.Connection:
    existed = path.exists()
    if not existed:  # it holds what people say, so for its owner only; SQLite gives the files beside it the same mode
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(path, timeout=TIMEOUT / 1000, isolation_level=None, check_same_thread=False)
    try:
        if not is_log(connection) and _has_tables(connection):
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
        bring_up_to_date(connection)
        if not existed:
            sync_folder(path.parent)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def aside(path: Path) -> Iterator[sqlite3.Connection]:
    """An empty database beside a log, private to its owner, and gone when the block ends. ``clear_aside`` takes away
    what a process left that was killed within it."""
    file = clear_aside(path)
    os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=OFF")
            connection.execute("PRAGMA synchronous=OFF")
            yield connection
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
    if _steps_done(db) - set(NAMES):
        raise LogError(f"{path} was made by a newer relay.", hint="Upgrade this one.")


def bring_up_to_date(db: sqlite3.Connection) -> None:
    """Make the tables, or what is missing of them."""
    if _steps_done(db) == set(NAMES):
        return
    if _has_tables(db):
        from sqlite_utils import Database  # slow to load, and rarely needed

        from .migrations import migrations

        migrations.apply(Database(db))
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        make_tables(db)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _steps_done(db: sqlite3.Connection) -> set[str]:
    if not db.execute("SELECT count(*) FROM sqlite_master WHERE name = '_sqlite_migrations'").fetchone()[0]:
        return set()
    return {str(name) for (name,) in db.execute(DONE, [MIGRATION_SET])}


def _has_tables(db: sqlite3.Connection) -> bool:
    return bool(db.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()[0])


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
