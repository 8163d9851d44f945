"""A copy of a repo's files that is one moment's, made while the repo is in use.

The database comes first, as one snapshot (``VACUUM INTO``): keys and attachments are on disk before an entry names
them, so whatever the snapshot names is there when these are copied. The database gets its name last: a backup that can
be opened is whole.

A copy holds a digest of all of its rows. SQLite has no checksums: of bits that flipped in what a row holds, its own
checks say nothing. The digest is compared when the copy is copied in its turn, and goes when a repo opens it, which may
write there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from ..exceptions import NotADatabase, StoreError
from ..files import aside_name, replace_file, sync_folder
from .blobs import BlobStore
from .file_version import APPLICATION_ID, BACKUP_DIGEST

_SECRETS = (".keys", ".relay")
"""The files beside a database that only its owner may read."""


def copy_repo(
    source: Path, target: Path, *, secrets: bool = True, on_bytes: Callable[[int, int], None] = lambda done, of: None
) -> None:
    """Copy the database of a repo, the files of its keys and its relay (``secrets``), and its attachments, so that
    ``target`` can be opened as ``source`` was. All of it is on disk when this returns.

    ``on_bytes``: told how many bytes are done, of how many. If it raises, or anything fails, no database is left at
    ``target``. Raises StoreError where something is there already or can't be written, NotADatabase where ``source`` is
    no database of this library, or is damaged.
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
            _check(db, source)  # an index of it that is damaged would be made anew in the copy, without a word
            db.execute("VACUUM INTO ?", (str(target),))
        with contextlib.closing(sqlite3.connect(target, isolation_level=None)) as db:
            _check(db, source)
            _compare(db, source)
    except sqlite3.OperationalError as error:
        raise StoreError(f"{source} can't be copied: {error}.", hint="Check the room on the disk; try again.") from None
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # SQLite quotes what it finds, whatever bytes that has
        raise NotADatabase(f"{source} can't be read: {error}.", hint="Use another backup.") from None
    with target.open("rb+") as file:
        os.fsync(file.fileno())


def _check(db: sqlite3.Connection, source: Path) -> None:
    """Raises NotADatabase where a page, a row or an index does not fit the others."""
    db.create_function("words_of", 2, lambda fields, pin: "", deterministic=True)
    ((answer, *_), *_) = db.execute("PRAGMA integrity_check(1)").fetchall()
    if answer != "ok":
        raise NotADatabase(f"{source} is damaged: {answer}.", hint="Use another backup.")


def _compare(db: sqlite3.Connection, source: Path) -> None:
    """Hold the rows of a copy against the digest that its source had of them, if that was a copy itself; leave the
    digest there. Raises NotADatabase."""
    db.text_factory = bytes
    digest = _digest(db)
    told = db.execute("SELECT value FROM settings WHERE name = ?", (BACKUP_DIGEST,)).fetchone()
    if told is not None and told[0] != digest.encode():
        raise NotADatabase(f"{source} is damaged: a row is not as it was backed up.", hint="Use another backup.")
    db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (BACKUP_DIGEST, digest))


def _digest(db: sqlite3.Connection) -> str:
    """A digest of every table's name, statement and rows, but for the digest itself."""
    said = hashlib.sha256()
    tables = "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name"
    for name, sql in db.execute(tables).fetchall():
        for row in [(name, sql), *db.execute(f'SELECT * FROM "{name.decode()}"')]:
            if (name, row[0]) != (b"settings", BACKUP_DIGEST.encode()):
                for value in row:
                    data = value if isinstance(value, bytes) else repr(value).encode()
                    said.update(b"%s %d\n" % (type(value).__name__.encode(), len(data)) + data)
    return said.hexdigest()


def _folder(database: Path) -> Path:
    return Path(f"{database}.blobs")


def _attachments(source: Path) -> list[Path]:
    """The whole attachments of a repo, without those that are being written or were set aside."""
    return sorted(_folder(source).glob("[0-9a-f][0-9a-f]/[0-9a-f][0-9a-f]/*"))
