"""The work of an operator on the file of a log: look into it, check it, copy it, put a copy in its place."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from llmcrdt.files import make_folder, sync_folder

from . import attachments
from .base import LogError
from .file import DATABASE, check_age, explaining, is_log
from .sqlite import SqliteStorage
from .verify import faults

_LOOK = {True: "Is it the folder of a relay?", False: 'Give the file that "backup" made.'}


class Row(NamedTuple):
    """One document: the end of its log, the position of its snapshot, bytes of both, how many of its last records were
    rejected, and how many attachments it has, with their bytes."""

    document: bytes
    kind: str
    records: int
    folded: int
    tail_bytes: int
    snapshot_bytes: int
    owner: str
    refused: int
    attachments: int
    attachment_bytes: int


def open_storage(path: Path) -> SqliteStorage:
    """The storage of a relay that is stopped. Raises LogError, also where there is no file."""
    return SqliteStorage(_existing(path))


@contextmanager
def inspect(path: Path) -> Iterator[Iterator[Row]]:
    """All documents, but for those that were deleted. Raises LogError, also within the block."""
    sql = (
        "SELECT id, kind,"
        " max(coalesce((SELECT max(key) FROM records WHERE key BETWEEN number << 36 AND ((number + 1) << 36) - 1), 0)"
        "     - (number << 36), coalesce(folds.position, 0)),"
        " coalesce(folds.position, 0), documents.size, coalesce(folds.size, 0), owner,"
        " (SELECT count(*) FROM refused WHERE refused.document = documents.id), number"
        " FROM documents LEFT JOIN folds ON folds.document = number WHERE gone = 0 ORDER BY id"
    )
    with _reading(path) as db:
        attached = attachments.usage(db)
        yield (Row._make([*row, *attached.get(number, (0, 0))]) for *row, number in db.execute(sql))


def verify(path: Path) -> Sequence[str]:
    """The faults of a log, in words. Raises LogError."""
    with _reading(path) as db:
        return [*faults(db)]


def backup(path: Path, file: Path) -> None:
    """Copy a log to a new file, also while a relay runs. Raises LogError, OSError."""
    if file.exists():
        raise LogError(f"{file} is there already.", hint="Give the name of a new file.")
    aside = file.with_name(file.name + ".part")
    with _reading(path) as source:
        try:
            aside.unlink(missing_ok=True)  # what a killed backup left may have another mode, and another owner
            os.close(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # as closed to others as the log is
            with closing(sqlite3.connect(aside)) as target:
                source.backup(target, pages=256, sleep=0.001)
                target.execute("PRAGMA journal_mode=DELETE")
            aside.replace(file)
            sync_folder(file.parent)
        except BaseException as e:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            if isinstance(e, OSError):
                raise LogError(f"{file} can't be written: {e.strerror}.", hint="Name another file.") from e
            raise


def restore(file: Path, path: Path) -> None:
    """Put a copy in place of a log; documents that were deleted there since stay deleted. Raises LogError, OSError."""
    with _reading(file) as source:
        wrong = next(faults(source), None)
        if wrong:
            raise LogError(f"{file} is no sound copy: {wrong}.", hint="Try another one.")
        make_folder(path.parent)
        with closing(SqliteStorage(path)) as storage:
            storage.replace_with(source)


def assign(path: Path, subject: str, documents: Sequence[bytes] | None) -> int:
    """Give documents to a subject (None: all that belong to nobody), with the relay stopped. How many that were. Raises
    LogError."""
    where, given = ("id = ?", [(document,) for document in documents]) if documents else ("owner = ''", [()])
    count = 0
    with closing(open_storage(path)) as storage, storage.database.errors():
        connection = storage.database.connection
        connection.execute("BEGIN IMMEDIATE")
        for which in given:
            sql = f"UPDATE documents SET owner = ? WHERE gone = 0 AND {where}"
            count += connection.execute(sql, (subject, *which)).rowcount
        connection.execute("COMMIT")
    return count


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A relay's log, or a copy of one. Raises LogError, also for what goes wrong while it is read."""
    uri = _existing(path).absolute().as_uri()
    with explaining(path), closing(sqlite3.connect(f"{uri}?mode=ro", uri=True, isolation_level=None)) as db:
        if not is_log(db):
            raise LogError(f"{path} is no log of a relay.", hint=_LOOK[path.name == DATABASE])
        check_age(db, path)
        yield db


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise LogError(f"There is no {path}.", hint=_LOOK[path.name == DATABASE])
    return path
