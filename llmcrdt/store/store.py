"""The store of a repo in one SQLite file: the parts, on one connection."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from ..ids import Random
from .attachment_tasks import SqliteAttachmentTasks
from .catalog import SqliteCatalog
from .connection import Connection, WordsOf
from .deletions import SqliteDeletions
from .entry_index import SqliteEntryIndex
from .outbox import SqliteOutboxes
from .relay_tasks import SqliteRelayTasks
from .settings import SqliteSettings
from .updates import Cut, Redact, SqliteUpdates


class SqliteStore:
    """One open file. Implements ``base.Store``. Raises NotADatabase, NewerDatabase, StoreError."""

    def __init__(
        self,
        path: str | Path,
        *,
        lock: threading.RLock,
        random: Random = os.urandom,
        cut: Cut = lambda document, update: [update],
        redact: Redact = lambda document, whole, updates: [whole],
        words_of: WordsOf | None = None,
        locate: Callable[[str, bytes], Mapping[str, int]] = lambda document, piece: {},
    ) -> None:
        self.lock = lock
        self._connection = Connection(path, lock, words_of)
        self.path = self._connection.path
        self.settings = SqliteSettings(self._connection)
        self.catalog = SqliteCatalog(self._connection)
        self.relay_tasks = SqliteRelayTasks(self._connection)
        self.attachment_tasks = SqliteAttachmentTasks(self._connection)
        self.outboxes = SqliteOutboxes(self._connection, random, cut)
        self.updates = SqliteUpdates(self._connection, self.outboxes, self.relay_tasks, cut, redact, locate)
        self.deletions = SqliteDeletions(self._connection, self.relay_tasks)
        self.entries = SqliteEntryIndex(self._connection)

    @property
    def closed(self) -> bool:
        return self._connection.closed

    def transaction(self) -> AbstractContextManager[object]:
        return self._connection.writing()

    def data_version(self) -> int:
        return self._connection.data_version()

    def shrink(self, pages: int) -> None:
        """Give room that is free back to the disk, so many pages of it."""
        self._connection.shrink(pages)

    def close(self) -> None:
        self._connection.close()
