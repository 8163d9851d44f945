"""The relay's log: order, names, chain, and what a failed or interrupted write leaves."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcrdt.sync.chain import START, digest
from llmcrdt.sync.messages import Cursor, Record
from sync_server.log.base import Conflict, Gap, Head, LogError, Stored
from sync_server.log.sqlite import SqliteLog

D, S, T, LOG = b"d" * 16, b"s" * 16, b"t" * 16, b"l" * 16


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    log = SqliteLog(tmp_path / "relay.db")
    yield log
    log.close()


def append(log: SqliteLog, *records: Record, document: bytes = D) -> list[tuple[int, bool]]:
    with log.transaction():
        return [log.append(document, r, "yjs", LOG) for r in records]


def test_positions_follow_the_order_of_appending(log: SqliteLog) -> None:
    assert log.head(D) is None
    records = [Record(S, 1, b"a"), Record(T, 1, b"b"), Record(S, 2, b"c")]
    assert append(log, *records) == [(1, True), (2, True), (3, True)]
    assert append(log, Record(S, 1, b"x"), document=T) == [(1, True)]
    assert log.read(D, 0, 1000, 1000) == [Stored(i, r) for i, r in enumerate(records, 1)]
    assert log.read(D, 2, 1000, 1000) == [Stored(3, records[2])]
    assert log.read(D, 3, 1000, 1000) == log.read(b"?" * 16, 0, 1000, 1000) == []
    cursor = Cursor(LOG, 0, START)
    for r in records:
        cursor = cursor.after(digest(D, r))
        assert log.chain_at(D, cursor.position) == cursor.chain
    assert log.head(D) == Head("yjs", cursor)
    assert log.chain_at(D, 0) == START
    assert log.chain_at(D, 4) is None


def test_inside_a_transaction_its_own_records_are_seen(log: SqliteLog) -> None:
    with log.transaction():
        for n in range(1, 4):
            log.append(D, Record(S, n, b"a"), "yjs", LOG)
            assert [s.position for s in log.read(D, 0, 100, 100)] == list(range(1, n + 1))
            assert log.chain_at(D, n - 1) is not None
            head = log.head(D)
            assert head is not None
            assert head.cursor.position == n


def test_a_read_gives_at_least_one_record_and_stops_at_its_limits(log: SqliteLog) -> None:
    append(log, *(Record(S, n, b"x" * 10) for n in range(1, 10)))
    assert [s.position for s in log.read(D, 0, 25, 100)] == [1, 2]
    assert [s.position for s in log.read(D, 0, 1, 100)] == [1]
    assert [s.position for s in log.read(D, 4, 1000, 3)] == [5, 6, 7]


def test_bytes_are_counted_until_there_are_enough(log: SqliteLog) -> None:
    with log.transaction():
        log.extend(D, S, 1, [b"x" * 10] * 5_000, "yjs", LOG)
    assert log.weigh(D, 0, 5_000) == log.weigh(D, 0, 5_000, 50_001) == 50_000
    assert log.weigh(D, 1, 4_999) == 49_980
    assert log.weigh(D, 4_990, 5_000, 1) == 100
    assert log.weigh(D, 7, 7) == 0
    for enough in (1, 10_000, 10_241, 30_000):
        assert enough <= log.weigh(D, 100, 5_000, enough) <= enough + 10_240
    # What was folded doesn't count.
    head = log.head(D)
    assert head
    with log.transaction():
        log.put_fold(D, head.cursor, S, [b"folded"], 1 << 16)
    append(log, Record(S, 5_001, b"x"))
    assert log.weigh(D, 0, 5_001) == 1


@pytest.mark.parametrize("together", [True, False])
def test_a_repeat_keeps_its_position_and_is_checked(log: SqliteLog, together: bool) -> None:
    first = [Record(S, 1, b"a"), Record(T, 1, b"b")]
    if not together:
        append(log, *first)
        first = []
    assert append(log, *first, Record(T, 1, b"b"))[-1] == (2, False)
    assert append(log, Record(S, 1, b"a")) == [(1, False)]
    with pytest.raises(Conflict):
        append(log, Record(T, 1, b"c"))
    # The same bytes under the name of another session, or n, are another record.
    assert append(log, Record(S, 2, b"a")) == [(3, True)]


def test_a_gap_names_what_is_expected(log: SqliteLog) -> None:
    with pytest.raises(Gap) as first:
        append(log, Record(S, 2, b"a"))
    assert first.value.expected == 1
    append(log, Record(S, 1, b"a"))
    with pytest.raises(Gap) as later:
        append(log, Record(S, 3, b"a"))
    assert later.value.expected == 2
    assert append(log, Record(S, 2, b"b")) == [(2, True)]


def test_a_refused_record_spoils_nothing_in_its_transaction(log: SqliteLog) -> None:
    with log.transaction():
        log.append(D, Record(S, 1, b"a"), "yjs", LOG)
        with pytest.raises(Gap):
            log.append(D, Record(S, 3, b"c"), "yjs", LOG)
        log.append(D, Record(S, 2, b"b"), "yjs", LOG)
    assert [s.record.data for s in log.read(D, 0, 100, 100)] == [b"a", b"b"]


def test_what_a_transaction_did_is_gone_when_it_fails(log: SqliteLog) -> None:
    append(log, Record(S, 1, b"a"))
    before = log.head(D)
    with pytest.raises(ZeroDivisionError):
        fail_after(log, Record(S, 2, b"b"))
    assert log.head(D) == before
    assert log.head(T) is None
    assert append(log, Record(S, 2, b"other")) == [(2, True)]


def fail_after(log: SqliteLog, record: Record) -> None:
    with log.transaction():
        log.append(D, record, "yjs", LOG)
        log.append(T, record._replace(n=1), "yjs", LOG)
        raise ZeroDivisionError


operations = st.lists(
    st.tuples(st.sampled_from([D, T]), st.sampled_from([S, T]), st.integers(1, 6), st.sampled_from([b"a", b"b"])),
    max_size=12,
)


@settings(deadline=None, max_examples=60)
@given(groups=st.lists(st.tuples(operations, st.booleans(), st.booleans()), max_size=8))
def test_it_is_a_list_per_document(tmp_path_factory: pytest.TempPathFactory, groups: list) -> None:
    """Against a dictionary of lists: groups of appends, some rolled back, the file closed and opened in between."""
    path = tmp_path_factory.mktemp("log") / "relay.db"
    log, model = SqliteLog(path), {}
    for group, keep, reopen in groups:
        attempt = {d: list(records) for d, records in model.items()}
        try:
            with log.transaction():
                for document, session, n, data in group:
                    check_append(log, attempt.setdefault(document, []), document, Record(session, n, data))
                if not keep:
                    raise InterruptedError
        except InterruptedError:
            attempt = model
        model = attempt
        if reopen:
            log.close()
            log = SqliteLog(path)
        for document in (D, T):
            stored = [Stored(i, r) for i, r in enumerate(model.get(document, []), 1)]
            assert log.read(document, 0, 1 << 20, 1 << 20) == stored
            head = log.head(document)
            assert (head.cursor.position if head else 0) == len(stored)
    log.close()


def check_append(log: SqliteLog, records: list[Record], document: bytes, record: Record) -> None:
    last = sum(r.session == record.session for r in records)
    same = [(i, r) for i, r in enumerate(records, 1) if r[:2] == record[:2]]
    if record.n > last + 1:
        with pytest.raises(Gap) as gap:
            log.append(document, record, "yjs", LOG)
        assert gap.value.expected == last + 1
    elif same and same[0][1] != record:
        with pytest.raises(Conflict):
            log.append(document, record, "yjs", LOG)
    else:
        if not same:
            records.append(record)
        assert log.append(document, record, "yjs", LOG) == (same[0][0] if same else len(records), not same)


def test_a_full_disk_raises_and_what_was_there_stays(log: SqliteLog) -> None:
    append(log, Record(S, 1, b"a"))
    (pages,) = log._db.conn.execute("PRAGMA page_count").fetchone()
    log._db.conn.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(LogError, match="full"):
        append(log, *(Record(S, n, bytes(4000)) for n in range(2, 10)))
    assert [s.record.data for s in log.read(D, 0, 100, 100)] == [b"a"]
    log._db.conn.execute(f"PRAGMA max_page_count = {pages + 1000}")
    assert append(log, Record(S, 2, b"b")) == [(2, True)]


def test_writes_are_synchronous(log: SqliteLog) -> None:
    assert log._db.conn.execute("PRAGMA synchronous").fetchone() == (2,)
    assert log._db.conn.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_only_one_relay_uses_a_log(log: SqliteLog) -> None:
    with pytest.raises(LogError, match="Another relay"):
        SqliteLog(log.path)
    log.close()
    SqliteLog(log.path).close()


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("This is a text and no database, and long enough to say so. " * 20)
    with pytest.raises(LogError, match="not a database"):
        SqliteLog(tmp_path / "text.db")
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE mine (x)")
    other.close()
    with pytest.raises(LogError, match="something else"):
        SqliteLog(tmp_path / "other.db")
    with pytest.raises(LogError, match="unable to open"):
        SqliteLog(tmp_path / "nowhere" / "relay.db")
    assert (tmp_path / "text.db").read_text().startswith("This is a text")


def test_a_newer_log_is_refused(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "relay.db")
    log._db["_sqlite_migrations"].insert({"migration_set": "sync_server", "name": "m999", "applied_at": "later"})
    log.close()
    with pytest.raises(LogError, match="newer"):
        SqliteLog(tmp_path / "relay.db")
