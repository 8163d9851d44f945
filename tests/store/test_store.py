"""The SQLite file: what is refused, what is kept, what several processes see."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlite_utils import Database

import llmcrdt
from llmcrdt.exceptions import NewerDatabase, NotADatabase, RepoClosed, StoreError
from llmcrdt.ids import NO_LOG
from llmcrdt.store.base import SMALL, Listed
from llmcrdt.store.file_version import APPLICATION_ID
from llmcrdt.store.migrations import migrations
from llmcrdt.store.store import SqliteStore
from sync_server.log.sqlite import SqliteStorage

DOCUMENT, RELAY, SESSION = "doc", "ws://relay", "S" * 22
CURSOR = (b"log", 3, b"chain")


@pytest.fixture
def store(tmp_path: Path):  # type: ignore[no-untyped-def]
    made = SqliteStore(tmp_path / "a.db", lock=threading.RLock())
    made.catalog.add(DOCUMENT, "conversation")
    yield made
    made.close()


@pytest.mark.parametrize(
    "content", [b"SQLite", b"not a database at all", b"\x00" * 4096, b"SQLite format 3\x00 and then nothing"]
)
def test_other_files_are_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(content)
    with pytest.raises(NotADatabase, match="file name"):
        SqliteStore(path, lock=threading.RLock())
    assert path.read_bytes() == content


def test_another_program_s_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "a.db")
    connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()
    with pytest.raises(NotADatabase, match="another program"):
        SqliteStore(tmp_path / "a.db", lock=threading.RLock())
    tables = sqlite3.connect(tmp_path / "a.db").execute("SELECT name FROM sqlite_master").fetchall()
    assert tables == [("recipes",)]


def test_a_file_that_was_copied_without_its_log_is_refused_and_left_alone(store: SqliteStore, tmp_path: Path) -> None:
    store.settings.put("a", "b")
    alone, both = tmp_path / "alone.db", tmp_path / "both.db"
    for copy in (alone, both):
        shutil.copy(store.path, copy)
    shutil.copy(f"{store.path}-wal", f"{both}-wal")
    before = alone.read_bytes()
    for _ in range(2):
        with pytest.raises(NotADatabase, match=r"alone\.db-wal"):
            SqliteStore(alone, lock=threading.RLock())
        assert alone.read_bytes() == before
        assert not Path(f"{alone}-wal").exists()
    with closing(SqliteStore(both, lock=threading.RLock())) as whole:
        assert whole.settings.get("a") == "b"
    with closing(SqliteStore(both, lock=threading.RLock())) as whole:  # closed in order: no log beside it
        assert whole.settings.get("a") == "b"


def test_a_file_whose_making_was_cut_short_is_made(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    code = f"import os, sqlite3; db = sqlite3.connect({str(path)!r}); db.execute('PRAGMA journal_mode=WAL');"
    code += " db.execute('PRAGMA application_id').fetchone(); os._exit(0)"
    subprocess.run([sys.executable, "-c", code], check=True)
    with closing(SqliteStore(path, lock=threading.RLock())) as made:
        made.settings.put("a", "b")


def test_a_file_that_another_process_is_making_is_waited_for(tmp_path: Path) -> None:
    with sqlite3.connect(path := tmp_path / "a.db") as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    connection.close()  # as it stands between the two steps of the other
    assert not Path(f"{path}-wal").exists()

    def make() -> None:
        database = Database(path)
        database.execute("BEGIN IMMEDIATE")
        database.execute(f"PRAGMA application_id={APPLICATION_ID}")
        migrations.apply(database)
        database.execute("COMMIT")
        database.close()

    other = threading.Timer(0.2, make)
    other.start()
    SqliteStore(path, lock=threading.RLock()).close()
    other.join()


def test_several_may_make_one_file_at_once(tmp_path: Path) -> None:
    for n in range(10):
        together = threading.Barrier(4)

        def make(path: Path = tmp_path / f"{n}.db", together: threading.Barrier = together) -> None:
            together.wait()
            SqliteStore(path, lock=threading.RLock()).close()

        with ThreadPoolExecutor(4) as pool:
            for made in [pool.submit(make) for _ in range(4)]:
                made.result()


def test_a_file_of_a_newer_version_is_refused(store: SqliteStore) -> None:
    store.close()
    connection = sqlite3.connect(store.path)
    connection.execute(
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('llmcrdt', 'm999_later', 'x')"
    )
    connection.commit()
    connection.close()
    with pytest.raises(NewerDatabase, match="m999_later"):
        SqliteStore(store.path, lock=threading.RLock())


def test_a_folder_and_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(NotADatabase):
        SqliteStore(tmp_path, lock=threading.RLock())
    with pytest.raises(StoreError, match="folder exists"):
        SqliteStore(tmp_path / "no" / "a.db", lock=threading.RLock())


def test_a_damaged_file_says_so(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "a.db", lock=threading.RLock())
    store.close()
    data = bytearray((tmp_path / "a.db").read_bytes())
    data[100:4096] = b"\xff" * 3996
    (tmp_path / "a.db").write_bytes(data)
    with pytest.raises(NotADatabase, match="backup"):
        SqliteStore(tmp_path / "a.db", lock=threading.RLock())


def test_every_commit_is_on_disk_before_it_returns(store: SqliteStore) -> None:
    assert store._connection.one("PRAGMA journal_mode") == "wal"
    assert store._connection.one("PRAGMA synchronous") == 2  # FULL


def test_an_update_waits_only_for_relays_that_know_the_document(store: SqliteStore) -> None:
    store.updates.append(DOCUMENT, b"one", SESSION, ["e1"])
    assert store.outboxes.rows(RELAY, DOCUMENT, 0, 10) == []
    assert store.outboxes.unacknowledged(DOCUMENT) is None
    store.outboxes.refill(RELAY, DOCUMENT, b"everything", CURSOR)
    store.updates.append(DOCUMENT, b"two", SESSION, ["e2"])
    rows = store.outboxes.rows(RELAY, DOCUMENT, 0, 10)
    assert [row.data for row in rows] == [b"everything", b"two"]
    assert [row.n for row in rows] == [1, 2]
    assert len({row.session for row in rows}) == 1
    assert store.outboxes.unacknowledged(DOCUMENT) == {"e2": rows[-1].seq}
    store.outboxes.acknowledge(
        RELAY, DOCUMENT, [(rows[0].session, 1), (rows[1].session, 2), ("unknown", 9)], (b"log", 5, b"c")
    )
    assert store.outboxes.rows(RELAY, DOCUMENT, 0, 10) == []
    assert store.outboxes.unacknowledged(DOCUMENT) == {}
    assert store.outboxes.cursor(RELAY, DOCUMENT) == (b"log", 5, b"c")


def test_after_a_refill_names_begin_anew_in_every_process(store: SqliteStore) -> None:
    """A relay that was wiped knows none of the old sessions; n must start at 1 again, also for who did not refill
    it."""
    other = SqliteStore(store.path, lock=threading.RLock())
    store.outboxes.refill(RELAY, DOCUMENT, None, CURSOR)
    for process in (store, other):
        process.updates.append(DOCUMENT, b"x", SESSION, [])
        process.updates.append(DOCUMENT, b"y", SESSION, [])
    store.outboxes.refill(RELAY, DOCUMENT, None, CURSOR)
    other.updates.append(DOCUMENT, b"z", SESSION, [])
    (row,) = other.outboxes.rows(RELAY, DOCUMENT, 0, 10)
    assert (row.data, row.n) == (b"z", 1)
    other.close()


def test_no_two_processes_use_one_record_name(store: SqliteStore) -> None:
    other = SqliteStore(store.path, lock=threading.RLock())
    store.outboxes.refill(RELAY, DOCUMENT, None, CURSOR)
    for n in range(3):
        store.updates.append(DOCUMENT, bytes([n]), SESSION, [])
        other.updates.append(DOCUMENT, bytes([n]), "T" * 22, [])
    names = [(row.session, row.n) for row in store.outboxes.rows(RELAY, DOCUMENT, 0, 10)]
    assert len(set(names)) == 6
    assert sorted(n for _, n in names) == [1, 1, 2, 2, 3, 3]
    other.close()


def test_a_cursor_goes_back_within_a_log_only_at_a_refill(store: SqliteStore) -> None:
    """Two processes have a link each; the one that is behind must not hide what the other one's records rest on."""
    store.outboxes.refill(RELAY, DOCUMENT, None, (b"log", 3, b"c3"))
    store.outboxes.acknowledge(RELAY, DOCUMENT, [], (b"log", 7, b"c7"))
    store.outboxes.acknowledge(RELAY, DOCUMENT, [], (b"log", 4, b"c4"))
    store.outboxes.receive(RELAY, DOCUMENT, [], [], (b"log", 5, b"c5"))
    assert store.outboxes.cursor(RELAY, DOCUMENT) == (b"log", 7, b"c7")
    store.outboxes.refill(RELAY, DOCUMENT, None, (b"log", 2, b"d2"))
    assert store.outboxes.cursor(RELAY, DOCUMENT) == (b"log", 2, b"d2")
    store.outboxes.refill(RELAY, DOCUMENT, None, (b"gol", 1, b"e1"))
    assert store.outboxes.cursor(RELAY, DOCUMENT) == (b"gol", 1, b"e1")


@pytest.mark.parametrize("cursor", [None, (b"gol", 9, b"e9")])
def test_records_of_another_log_leave_a_cursor_into_none(
    store: SqliteStore, cursor: tuple[bytes, int, bytes] | None
) -> None:
    """Should the relay go back to the log before, it has none of them."""
    store.outboxes.refill(RELAY, DOCUMENT, None, (b"log", 3, b"c3"))
    store.outboxes.receive(RELAY, DOCUMENT, [("R" * 22, 1, b"theirs")], [], cursor)
    assert store.outboxes.cursor(RELAY, DOCUMENT) == (NO_LOG, 3, b"c3"), (
        "where it was still tells that something was lost"
    )
    for late in ((b"log", 4, b"c4"), (b"gol", 10, b"e10")):
        store.outboxes.acknowledge(RELAY, DOCUMENT, [], late)
        assert store.outboxes.cursor(RELAY, DOCUMENT) == (NO_LOG, 3, b"c3")
    store.outboxes.refill(RELAY, DOCUMENT, None, (b"gol", 10, b"e10"))
    assert store.outboxes.cursor(RELAY, DOCUMENT) == (b"gol", 10, b"e10")


def test_an_update_that_is_cut_waits_as_several_records(tmp_path: Path) -> None:
    """An entry is with the relay when the last of them is."""
    store = SqliteStore(tmp_path / "cut.db", lock=threading.RLock(), cut=lambda _, update: [update[:3], update[3:]])
    store.outboxes.refill(RELAY, DOCUMENT, b"refilled", CURSOR, ["e1"])
    store.updates.append(DOCUMENT, b"appended", SESSION, ["e2"])
    waiting = store.outboxes.rows(RELAY, DOCUMENT, 0, 10)
    assert [row.data for row in waiting] == [b"ref", b"illed", b"app", b"ended"]
    assert len({row.session for row in waiting}) == 1 and [row.n for row in waiting] == [1, 2, 3, 4]
    assert store.outboxes.unacknowledged(DOCUMENT) == {"e1": waiting[1].seq, "e2": waiting[3].seq}
    store.close()


def test_a_purge_replaces_what_waits_only_where_it_holds_something_deleted(tmp_path: Path) -> None:
    """By what is left of it, for each relay by itself; what goes on waiting keeps its name."""

    def redact(document: str, whole: bytes, updates: Sequence[bytes]) -> list[bytes] | None:
        left = [update for update in updates if b"gone" not in update]
        return None if len(left) == len(updates) else [*left, b"rest of " + whole]

    store = SqliteStore(tmp_path / "redacted.db", lock=threading.RLock(), redact=redact)
    store.outboxes.refill(RELAY, DOCUMENT, b"first", CURSOR, ["e1"])
    store.updates.append(DOCUMENT, b"gone", SESSION, ["e2"])
    store.outboxes.refill("ws://other", DOCUMENT, b"clean", CURSOR, ["e3"])
    theirs, refills = store.outboxes.rows("ws://other", DOCUMENT, 0, 10), store.outboxes.refills("ws://other", DOCUMENT)
    ours = store.outboxes.rows(RELAY, DOCUMENT, 0, 10)
    assert store.updates.purge(DOCUMENT, store.updates.last_seq(DOCUMENT), SESSION, 1, lambda: (b"all", [b"pending"]))
    assert store.outboxes.rows("ws://other", DOCUMENT, 0, 10) == theirs
    assert store.outboxes.refills("ws://other", DOCUMENT) == refills
    waiting = store.outboxes.rows(RELAY, DOCUMENT, 0, 10)
    assert sorted(row.data for row in waiting) == [b"first", b"pending", b"rest of all"]
    assert {row.session for row in waiting}.isdisjoint(row.session for row in ours)
    assert store.outboxes.unacknowledged(DOCUMENT).keys() == {"e1", "e2", "e3"}
    kept = store.updates.since(DOCUMENT, 0)
    assert kept.snapshot == b"all" and sorted(kept.updates) == [b"clean", b"first", b"pending", b"rest of all"]
    store.close()


def test_an_outbox_is_read_a_mebibyte_at_a_time(store: SqliteStore) -> None:
    store.outboxes.refill(RELAY, DOCUMENT, None, CURSOR)
    for _ in range(5):
        store.updates.append(DOCUMENT, bytes(700_000), SESSION, [])
    after, read = 0, []
    while rows := store.outboxes.rows(RELAY, DOCUMENT, after, 256):
        after = rows[-1].seq
        read.append(len(rows))
    assert read == [2, 2, 1]


def test_before_the_first_refill_there_is_no_cursor(store: SqliteStore) -> None:
    store.outboxes.receive(RELAY, DOCUMENT, [("R" * 22, 1, b"theirs")], [], None)
    store.outboxes.acknowledge(RELAY, DOCUMENT, [], CURSOR)
    assert store.outboxes.cursor(RELAY, DOCUMENT) is None


def test_a_received_record_is_kept_once(store: SqliteStore) -> None:
    for _ in range(2):
        store.outboxes.receive(RELAY, DOCUMENT, [("R" * 22, 1, b"theirs")], [(b"bad", "why")], CURSOR)
    assert store.updates.since(DOCUMENT, 0).updates == [b"theirs"]
    assert store.updates.set_aside_count(DOCUMENT) == 1
    assert store.outboxes.rows(RELAY, DOCUMENT, 0, 10) == []


def test_news_are_what_others_wrote(store: SqliteStore) -> None:
    store.updates.append(DOCUMENT, b"mine", SESSION, [])
    store.updates.append(DOCUMENT, b"theirs", "T" * 22, [])
    kept = store.updates.since(DOCUMENT, 0, SESSION)
    assert kept.updates == [b"theirs"]
    assert store.updates.since(DOCUMENT, kept.seq, SESSION).updates == []


def test_compaction_keeps_what_waits_and_what_is_queued(store: SqliteStore) -> None:
    store.outboxes.refill(RELAY, DOCUMENT, None, CURSOR)
    store.updates.append(DOCUMENT, b"queued", SESSION, [])
    store.outboxes.receive(RELAY, DOCUMENT, [("R" * 22, n, bytes(SMALL // 4)) for n in range(1, 7)], [], None)
    seen = store.updates.since(DOCUMENT, 0).seq
    assert store.updates.compact(DOCUMENT, seen - 1, SESSION, lambda: (b"never", [])) is None, (
        "something was not seen yet"
    )
    made = store.updates.compact(DOCUMENT, seen, SESSION, lambda: (b"whole", [b"waiting"]))
    assert made is not None and made.finish() and not made.trim()
    kept = store.updates.since(DOCUMENT, 0)
    assert (kept.snapshot, kept.updates) == (b"whole", [b"queued", b"waiting"])
    assert [row.data for row in store.outboxes.rows(RELAY, DOCUMENT, 0, 10)] == [b"queued"]
    late = store.updates.since(DOCUMENT, 1)
    assert late.snapshot == b"whole", "who had not seen it all gets the snapshot"
    assert store.updates.compact(DOCUMENT, kept.seq, SESSION, lambda: (b"never", [])) is None, "nothing has grown since"


def test_a_write_that_fails_leaves_nothing(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.outboxes.refill(RELAY, DOCUMENT, None, CURSOR)

    def fail(*_: object) -> tuple[str, int]:
        raise OSError("disk")

    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(store.outboxes, "_name", fail)
        store.updates.append(DOCUMENT, b"x", SESSION, [])
    assert store.updates.since(DOCUMENT, 0).updates == []
    store.updates.append(DOCUMENT, b"y", SESSION, [])
    assert [row.n for row in store.outboxes.rows(RELAY, DOCUMENT, 0, 10)] == [1]


def test_the_listing_is_paged_youngest_first_without_the_deleted(store: SqliteStore) -> None:
    store.catalog.put(Listed(f"c{n}", f"title {n}", float(n // 2), False, n == 3) for n in range(7))
    first = store.catalog.page(3, None)
    assert [row.id for row in first] == ["c6", "c5", "c4"]
    assert [row.id for row in store.catalog.page(3, "c4")] == ["c2", "c1", "c0"]


def test_a_closed_store_says_so(store: SqliteStore) -> None:
    store.close()
    store.close()
    with pytest.raises(RepoClosed):
        store.settings.get("library")


def test_a_purge_that_a_reader_stands_in_the_way_of_is_owed_also_for_the_same_number_of_erases(
    store: SqliteStore,
) -> None:
    """Words that arrive late beside an erase are purged with the count that was purged before."""
    assert store.updates.purge(DOCUMENT, 0, SESSION, 1, lambda: (b"first", []))
    assert store.updates.purged(DOCUMENT) == 1
    reader = sqlite3.connect(store.path)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM updates").fetchone()
    assert store.updates.purge(DOCUMENT, 0, SESSION, 1, lambda: (b"second", []))
    assert store.updates.purged(DOCUMENT) != 1
    reader.close()
    assert store.updates.purge(DOCUMENT, 0, SESSION, 1, lambda: (b"third", []))
    assert store.updates.purged(DOCUMENT) == 1


def test_a_record_that_a_relay_refused_stays_here_and_those_behind_it_get_other_names(store: SqliteStore) -> None:
    store.outboxes.refill(RELAY, DOCUMENT, None, CURSOR)
    for n in range(5):
        store.updates.append(DOCUMENT, b"%d" % n, "w", ())
    before = store.outboxes.rows(RELAY, DOCUMENT, 0, 10)
    store.outboxes.acknowledge(RELAY, DOCUMENT, [(before[0].session, 1)], CURSOR)
    store.outboxes.refuse(RELAY, DOCUMENT, before[2].session, 3, "why")
    after = store.outboxes.rows(RELAY, DOCUMENT, 0, 10)
    assert [(row.n, row.data) for row in after] == [(2, b"1"), (1, b"3"), (2, b"4")]
    assert after[0].session == before[0].session
    assert after[1].session == after[2].session != before[0].session
    store.updates.append(DOCUMENT, b"5", "w", ())
    last = store.outboxes.rows(RELAY, DOCUMENT, 0, 10)[-1]
    assert (last.session, last.n, last.data) == (after[1].session, 3, b"5")
    assert store.updates.set_aside_count(DOCUMENT) == 1
    assert store.updates.since(DOCUMENT, 0).updates == [b"%d" % n for n in range(6)]
    store.outboxes.refuse(RELAY, DOCUMENT, before[2].session, 3, "why")
    assert store.updates.set_aside_count(DOCUMENT) == 1


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_a_new_file_is_for_its_owner_only(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with llmcrdt.open(tmp_path / "chats.db") as repo:
            repo.create().append("user", "Hello")
            log = SqliteStorage(tmp_path / "relay.db")
            modes = {path.name: path.stat().st_mode & 0o077 for path in tmp_path.iterdir() if path.is_file()}
            log.close()
    finally:
        os.umask(before)
    assert {"chats.db", "chats.db-wal", "relay.db"} <= modes.keys()
    assert {name for name, mode in modes.items() if mode and "-lock" not in name} == set(), "the lock holds nothing"


@pytest.mark.parametrize("left", ["header", "nothing"])
def test_a_file_whose_making_a_power_failure_cut_short_is_made(tmp_path: Path, left: str) -> None:
    """The word that it is being made lies beside it, and the log that it names is not on the disk."""
    path = tmp_path / "a.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
    if left == "nothing":
        path.write_bytes(b"")
    Path(f"{path}.making").touch()
    with closing(SqliteStore(path, lock=threading.RLock())) as made:
        made.settings.put("a", "b")
    assert not Path(f"{path}.making").exists()
    with closing(SqliteStore(path, lock=threading.RLock())) as again:
        assert again.settings.get("a") == "b"
