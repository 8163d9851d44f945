"""The log in SQLite: the suites, and what only a file can do."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from llmcrdt.sync.messages import Record
from sync_server.log import database
from sync_server.log.admin import Storage
from sync_server.log.base import LogError
from sync_server.log.sqlite import SqliteStorage
from sync_server.testing.storage_suite import (
    ORIGIN,
    AttachmentStoreSuite,
    D,
    RecordLogSuite,
    S,
    SnapshotStoreSuite,
    TombstonesSuite,
    append,
    head,
)


class _Sqlite:
    def make(self, folder: Path) -> Storage:
        return SqliteStorage(folder / "relay.db")

    def another(self, folder: Path) -> Storage:
        """Without the lock that keeps a second relay out."""
        with mock.patch.object(database, "lock_file", return_value=sqlite3.connect(":memory:")):
            return SqliteStorage(folder / "relay.db")

    def break_commits(self, storage: Storage) -> None:
        assert isinstance(storage, SqliteStorage)
        (pages,) = storage.database.connection.execute("PRAGMA page_count").fetchone()
        storage.database.connection.execute(f"PRAGMA max_page_count = {pages}")

        def full() -> None:
            storage.database.connection.execute("CREATE TABLE large (data)")
            storage.database.connection.execute("INSERT INTO large VALUES (zeroblob(100000))")

        storage.database._commit = full  # type: ignore[method-assign]

    def mend_commits(self, storage: Storage) -> None:
        assert isinstance(storage, SqliteStorage)
        storage.database.connection.execute("PRAGMA max_page_count = 1000000")
        del storage.database._commit


class TestRecords(_Sqlite, RecordLogSuite):
    pass


class TestSnapshots(_Sqlite, SnapshotStoreSuite):
    pass


class TestTombstones(_Sqlite, TombstonesSuite):
    pass


class TestAttachments(_Sqlite, AttachmentStoreSuite):
    pass


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[SqliteStorage]:
    storage = SqliteStorage(tmp_path / "relay.db")
    yield storage
    storage.close()


def test_bytes_are_counted_until_there_are_enough(storage: SqliteStorage) -> None:
    append(storage, *[b"x" * 10] * 5_000)
    counted = storage.snapshots.bytes_between
    assert counted(D, 0, 5_000) == counted(D, 0, 5_000, 50_001) == 50_000
    assert counted(D, 1, 4_999) == 49_980
    assert counted(D, 4_990, 5_000, 1) == 100
    assert counted(D, 7, 7) == 0
    for enough in (1, 10_000, 10_241, 30_000):
        assert enough <= counted(D, 100, 5_000, enough) <= enough + 10_240
    # Records that the snapshot stands for don't count.
    storage.snapshots.put(D, head(storage), S, [b"compacted"], 1 << 16)
    append(storage, b"x")
    assert counted(D, 0, 5_001) == 1


def test_a_full_disk_fails_the_commit_and_records_stay_that_were_there(storage: SqliteStorage) -> None:
    append(storage, b"a")
    connection = storage.database.connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    storage.records.append(D, S, 2, [bytes(4000)] * 8, ORIGIN)
    (error,) = storage.records.commit().values()
    assert isinstance(error, LogError) and "full" in str(error)
    assert [s.record.data for s in storage.records.read(D, 0, 100, 100)] == [b"a"]
    connection.execute(f"PRAGMA max_page_count = {pages + 1000}")
    assert append(storage, b"b")[0].position == 2


def test_all_that_is_staged_after_an_error_fails_with_it(storage: SqliteStorage) -> None:
    append(storage, b"a")
    connection = storage.database.connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    storage.records.append(D, S, 2, [bytes(4000)] * 8, ORIGIN)
    with pytest.raises(LogError, match="full"):
        storage.records.read(D, 0, 100, 100)
    other, third = b"o" * 16, b"p" * 16
    for refused in (
        lambda: storage.records.append(other, S, 1, [b"x"], ORIGIN),
        lambda: storage.rejected.keep(third, Record(S, 1, b"x"), "?"),
    ):
        with pytest.raises(LogError, match="full"):
            refused()
    assert set(storage.records.commit()) == {D, other, third}
    connection.execute(f"PRAGMA max_page_count = {pages + 1000}")
    assert append(storage, b"b")[0].position == 2 and storage.records.head(other) is None


def test_writes_are_synchronous(storage: SqliteStorage) -> None:
    assert storage.database.connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert storage.database.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_only_one_relay_uses_a_log(storage: SqliteStorage) -> None:
    with pytest.raises(LogError, match="Another relay"):
        SqliteStorage(storage.database.path)
    storage.close()
    SqliteStorage(storage.database.path).close()


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("This is a text and no database, and long enough to say so. " * 20)
    with pytest.raises(LogError, match="not a database"):
        SqliteStorage(tmp_path / "text.db")
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE mine (x)")
    other.close()
    with pytest.raises(LogError, match="something else"):
        SqliteStorage(tmp_path / "other.db")
    with pytest.raises(LogError, match="unable to open"):
        SqliteStorage(tmp_path / "nowhere" / "relay.db")
    assert (tmp_path / "text.db").read_text().startswith("This is a text")


def test_a_newer_log_is_refused(tmp_path: Path) -> None:
    storage = SqliteStorage(tmp_path / "relay.db")
    storage.database.connection.execute(
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('sync_server', 'm999', 'later')"
    )
    storage.close()
    with pytest.raises(LogError, match="newer"):
        SqliteStorage(tmp_path / "relay.db")
