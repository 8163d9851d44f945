"""All that a relay keeps, in one SQLite file: Storage, and what an operator does with the file.

``file.py`` opens the file, ``database.py`` holds the connection and the group of writes that shares a commit; each
contract of ``base.py`` and ``admin.py`` has a module of its own.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence

from . import tombstones
from .attachments import SqliteAttachments
from .database import SqliteDatabase
from .file import aside, bring_up_to_date
from .quotas import SqliteQuotas
from .records import SqliteRecords
from .rejected import SqliteRejected
from .snapshots import SqliteSnapshots
from .sweeper import SqliteSweeper
from .tombstones import SqliteTombstones

_CACHED = 10_000
_ROWS = 512


class SqliteStorage:
    """Storage in one SQLite file. ``cached``: documents whose ends are held in memory, and as many sessions and
    subjects. Raises LogError where the file can't be used, also while another relay uses it."""

    def __init__(self, path: str | os.PathLike[str], cached: int = _CACHED) -> None:
        self.database = SqliteDatabase(path, cached)
        self.records = SqliteRecords(self.database)
        self.snapshots = SqliteSnapshots(self.database)
        self.tombstones = SqliteTombstones(self.database)
        self.quotas = SqliteQuotas(self.database)
        self.rejected = SqliteRejected(self.database)
        self.attachments = SqliteAttachments(self.database)
        self.sweeper = SqliteSweeper(self.database)

    def close(self) -> None:
        self.database.close()

    # ---------------------------------------------------------------- for operators

    def documents(self) -> Sequence[bytes]:
        """All documents to which something was appended, but for those that were deleted."""
        with self.database.errors():
            sql = "SELECT id FROM documents WHERE gone = 0 ORDER BY number"
            return [id_ for (id_,) in self.database.connection.execute(sql)]

    def vacuum(self) -> None:
        """Give free pages back to the file system. Takes as long as it takes to write the file anew."""
        with self.database.errors():
            self.database.connection.execute("VACUUM")
        self.sweeper.scrub()

    def replace_with(self, source: sqlite3.Connection) -> None:
        """Become a copy of another database. Documents that were deleted here stay deleted. All of it or none, also
        where the process is killed. Raises LogError."""
        database = self.database
        with database.errors(), aside(database.path) as copy:
            source.backup(copy)
            # The copy may be of an older relay.
            bring_up_to_date(copy)
            # They are in it before it takes the log's place: between the two, nothing would be deleted.
            tombstones.carry(database.connection, copy)
            copy.backup(database.connection)
        database.forget()
        database.find_unswept()
        while self.sweeper.sweep(_ROWS):
            pass
        self.sweeper.scrub()
