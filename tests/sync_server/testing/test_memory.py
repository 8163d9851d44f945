"""The storage in memory passes the suites."""

from __future__ import annotations

from pathlib import Path

from sync_server.log.admin import Storage
from sync_server.log.base import LogError
from sync_server.testing.memory import MemoryData, MemoryStorage
from sync_server.testing.storage_suite import AttachmentStoreSuite, RecordLogSuite, SnapshotStoreSuite, TombstonesSuite


class _Memory:
    data: dict[Path, MemoryData]

    def make(self, folder: Path) -> Storage:
        if not hasattr(self, "data"):
            self.data = {}
        return MemoryStorage(self.data.setdefault(folder, MemoryData()))

    def break_commits(self, storage: Storage) -> None:
        assert isinstance(storage, MemoryStorage)
        storage.failure = LogError("The disk is full.")

    def mend_commits(self, storage: Storage) -> None:
        assert isinstance(storage, MemoryStorage)
        storage.failure = None


class TestRecords(_Memory, RecordLogSuite):
    pass


class TestSnapshots(_Memory, SnapshotStoreSuite):
    pass


class TestTombstones(_Memory, TombstonesSuite):
    pass


class TestAttachments(_Memory, AttachmentStoreSuite):
    pass
