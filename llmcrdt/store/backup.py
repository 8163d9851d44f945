"""A copy of a repo's files that is one moment's, made while the repo is in use.

The database comes first, as one snapshot (``VACUUM INTO``): keys and attachments are on disk before an entry names
them, so whatever the snapshot names is there when these are copied. The database gets its name last: a backup that can
be opened is whole.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from ..exceptions import NotADatabase, StoreError
from ..files import aside_name, replace_file, sync_folder
from .blobs import BlobStore
from .file_version import APPLICATION_ID

_SECRETS = (".keys", ".relay")
"""The files beside a database that only its owner may read."""


def copy_repo(
    source: Path, target: Path, *, secrets: bool = True, on_bytes: Callable[[int, int], None] = lambda done, of: None
) -> None:
    """Copy the database of a repo, the files of its keys and its relay (``secrets``), and its attachments, so that
    ``target`` can be opened as ``source`` was. All of it is on disk when this returns.

    ``on_bytes``: told how many bytes are done, of how many. If it raises, or anything fails, no database is left at
    ``target``. Raises StoreError where something is there already or can't be written, NotADatabase where ``source`` is
    no database of this library.
    """
    for file in (target, Path(f"{target}-wal")):
        if file.exists():
            raise StoreError(f"There is a file at {file} already.", hint="Give a new file name; nothing was written.")
    attachments = _attachments(source)
    total = source.stat().st_size + sum(file.stat().st_size for file in attachments)
    done = 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        on_bytes(done, total)

    try:
        aside = Path(aside_name(target.parent))
        os.close(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            _copy_database(source, aside)
            count(source.stat().st_size)
            for name in _SECRETS if secrets else ():
                with contextlib.suppress(FileNotFoundError):
                    replace_file(Path(f"{target}{name}"), Path(f"{source}{name}").read_bytes())
            kept = BlobStore(_folder(target))
            for file in attachments:
                with contextlib.suppress(FileNotFoundError), file.open("rb") as content:  # collected: not named then
                    count(kept.put(content)[1])
            os.replace(aside, target)
            sync_folder(target.parent)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"{target} can't be written: {error.strerror or error}.",
            hint="Check its folder, and the room on its disk; then try again.",
        ) from None


def _copy_database(source: Path, target: Path) -> None:
    """One snapshot, while others read and write ``source``. Raises NotADatabase, StoreError."""
    try:
        with contextlib.closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=rw", uri=True, timeout=30)) as db:
            if db.execute("PRAGMA application_id").fetchone() != (APPLICATION_ID,):
                raise NotADatabase(f"{source} is no database of this library.", hint="Give the file that backup made.")
            db.execute("VACUUM INTO ?", (str(target),))
        with contextlib.closing(sqlite3.connect(target)) as db:
            ((answer, *_), *_) = db.execute("PRAGMA quick_check(1)").fetchall()
    except sqlite3.OperationalError as error:
        raise StoreError(f"{source} can't be copied: {error}.", hint="Check the room on the disk; try again.") from None
    except sqlite3.DatabaseError as error:
        raise NotADatabase(f"{source} can't be read: {error}.", hint="Use another backup.") from None
    if answer != "ok":
        raise NotADatabase(f"{source} is damaged: {answer}.", hint="Use another backup.")
    with target.open("rb+") as file:
        os.fsync(file.fileno())


def _folder(database: Path) -> Path:
    return Path(f"{database}.blobs")


def _attachments(source: Path) -> list[Path]:
    """The whole attachments of a repo, without those that are being written or were set aside."""
    return sorted(_folder(source).glob("[0-9a-f][0-9a-f]/[0-9a-f][0-9a-f]/*"))
