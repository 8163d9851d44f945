"""A relay that lies takes a bounded part of a device: its memory, its disk and its time."""

from __future__ import annotations

import random
import threading
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import llmcrdt
from llmcrdt.crdt.yjs.update import DEPTH
from llmcrdt.exceptions import RelayRefused, SyncError
from llmcrdt.ids import DocumentId, document_bytes, document_id
from llmcrdt.repo.sync_source import SyncSource
from llmcrdt.store import update_rows
from llmcrdt.store.store import SqliteStore
from llmcrdt.sync import codec, connection_sync, protocol
from llmcrdt.sync.backoff import RETRY_AFTER, Backoff
from llmcrdt.sync.messages import (
    RESET,
    RESUMED,
    Cursor,
    Error,
    ErrorCode,
    Message,
    Opened,
    Record,
    Records,
    Snapshot,
    Welcome,
)
from llmcrdt.sync.synchronizer import Synchronizer
from llmcrdt.testing.local_documents import BlobDocuments, pack

from ..crdt.yjs.hostile_nesting import deep

LOG, S = b"l" * 16, b"s" * 16
NAMES = [document_id(bytes([n]) * 16) for n in range(1, 31)]
FAR = Cursor(LOG, 1 << 40, b"c" * 32)


def connected(*documents: DocumentId, known: bool = True) -> tuple[Synchronizer, BlobDocuments]:
    """A device that follows documents, just greeted by its relay."""
    local = BlobDocuments(1)
    for document in documents:
        local.follow(document)
        if known:
            local.refill(document, [], Cursor(LOG, 1, b"k" * 32))
    synchronizer = Synchronizer(local, random.Random(1).random)
    synchronizer.connected()
    hear(synchronizer, Welcome())
    return synchronizer, local


def hear(synchronizer: Synchronizer, *sent: Message) -> None:
    for message in sent:
        synchronizer.receive(codec.encode(message))


def part(document: DocumentId, n: int, size: int, count: int = 1 << 30) -> Snapshot:
    """The n-th record of a snapshot that never comes to its end."""
    return Snapshot(document_bytes(document), 1 << 39, b"c" * 32, S, n, count, size, 0, bytes(size))


def opened(document: DocumentId, known: bool = True) -> Opened:
    how, position = (RESUMED, 1) if known else (RESET, 0)
    return Opened(document_bytes(document), how, FAR._replace(position=1 << 39), position)


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_sync, "ROOM", 1 << 20)
    monkeypatch.setattr(connection_sync, "ROOM_FOR_ONE", 4 << 20)
    monkeypatch.setattr(connection_sync, "LOOK", 64 << 10)


@pytest.mark.usefixtures("little_room")
@pytest.mark.parametrize("size", [0, 1, 50_000])
def test_a_snapshot_without_end_is_given_up_and_the_rest_goes_on(size: int) -> None:
    bad, good = NAMES[:2]
    synchronizer, local = connected(bad, good)
    hear(synchronizer, opened(bad), opened(good))
    frames = [codec.encode(part(bad, n, max(size, 1))) for n in range(1, 40_000 if size < 2 else 100)]
    tracemalloc.start()
    for frame in frames:
        synchronizer.receive(frame)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 16 << 20
    assert "MiB" in synchronizer.refused[bad].message and synchronizer.refused[bad].hint
    hear(synchronizer, Records(document_bytes(good), 2, (Record(S, 1, pack([b"x"])),)))
    assert local.blobs(good) == {b"x"} and list(synchronizer.refused) == [bad]


@pytest.mark.usefixtures("little_room")
def test_a_log_without_end_is_given_up() -> None:
    bad = NAMES[0]
    synchronizer, _ = connected(bad, known=False)
    hear(synchronizer, opened(bad, known=False))
    for n in range(1, 200):
        hear(synchronizer, Records(document_bytes(bad), n, (Record(S, n, pack([bytes(50_000)])),)))
    assert isinstance(synchronizer.refused[bad], RelayRefused)


@pytest.mark.usefixtures("little_room")
def test_many_documents_in_part_take_no_more_than_their_share() -> None:
    synchronizer, _ = connected(*NAMES)
    hear(synchronizer, *map(opened, NAMES))
    frames = [codec.encode(part(document, n, 10_000)) for n in range(1, 40) for document in NAMES]
    tracemalloc.start()
    for frame in frames:
        synchronizer.receive(frame)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 6 << 20
    assert not synchronizer.refused
    # All but one are to be opened again, one after the other.
    assert synchronizer.progress().documents == 1


def test_a_relay_that_reads_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says without end that a record is bad, so that its document is asked for again."""
    monkeypatch.setattr(protocol, "MAX_UNSENT", 100_000)
    (document,) = NAMES[:1]
    synchronizer, _ = connected(document)
    refusal = Error(ErrorCode.BAD_RECORD, "", document_bytes(document), S, 1)
    with pytest.raises(SyncError, match="reads nothing"):
        for _ in range(10_000):
            hear(synchronizer, opened(document), refusal)


def test_a_window_without_end_is_not_filled() -> None:
    (document,) = NAMES[:1]
    synchronizer, local = connected(document)
    synchronizer.connected()
    hear(synchronizer, Welcome(window_records=1 << 40, window_bytes=1 << 50))
    for n in range(40):
        local.put(document, n.to_bytes(1, "big") * (1 << 20))
    hear(synchronizer, opened(document))
    assert sum(map(len, synchronizer.drain_frames())) < 18 << 20


@pytest.mark.parametrize("levels", [DEPTH + 1, 100_000])
def test_the_snapshot_of_a_relay_is_read_as_any_record(open_repo: Callable[..., llmcrdt.Repo], levels: int) -> None:
    """Of maps that lie in each other, of which the first is deleted at once: enough of them end the process whose core
    gets them. Only the snapshot that a device's own core made isn't read again."""
    with open_repo("mine") as repo:
        conv = repo.create("Trip")
        conv.append("user", "here before")
        whole, raw = conv.diff(), document_bytes(conv.id)
        local = SyncSource(repo._core, "ws://relay", None)
        synchronizer = Synchronizer(local, random.Random(1).random, "test")
        synchronizer.connected()
        hear(synchronizer, Welcome(), Opened(raw, RESET, Cursor(LOG, 2, b"c" * 32), 0))
        for n, data in enumerate((deep(levels)[:-1] + b"\x01\x01\x01\x00\x01", whole), 1):
            hear(synchronizer, Snapshot(raw, 2, b"c" * 32, S, n, 2, len(data), 0, data))
        assert repo._core.store.updates.set_aside_count(conv.id) == 1
        conv.append("user", "and on")
    with open_repo("mine") as repo:
        assert [entry.text for entry in repo.get(conv.id).transcript()] == ["here before", "and on"]


@pytest.mark.parametrize("asked", [1e3, 1e9, 2.0**53])
def test_a_relay_keeps_nobody_away_for_ever(asked: float) -> None:
    assert Backoff(lambda: 1.0).next(asked) <= 2 * RETRY_AFTER


def test_what_can_not_be_applied_fills_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the same again, nor always others, nor in always other documents; what can be is taken all the time."""
    monkeypatch.setattr(update_rows, "ASIDE_ROWS", 50)
    monkeypatch.setattr(update_rows, "ASIDE", 10_000)
    monkeypatch.setattr(update_rows, "ALL_ASIDE", 25_000)
    with closing(SqliteStore(tmp_path / "a.db", lock=threading.RLock())) as store:
        for _ in range(100):
            store.outboxes.receive("r", "a", [], [(b"the same", "why")], None)
        assert store.updates.set_aside_count("a") == 1 and not caplog.records
        store.outboxes.receive("r", "a", [], [(b"%d" % n, "why") for n in range(100)], None)
        assert store.updates.set_aside_count("a") == 50
        assert "no copies" in caplog.records[-1].message
        for document in ("b", "c", "d"):
            for n in range(20):
                store.outboxes.receive("r", document, [("s", n + 1, b"good")], [(bytes([n]) * 1_000, "why")], None)
            assert len(store.updates.since(document, 0).updates) == 20
        assert [store.updates.set_aside_count(document) for document in ("b", "c", "d")] == [10, 10, 4]
