"""The rooms' steps: the loop takes them while they are quick, a thread when they are not."""

from __future__ import annotations

import sqlite3
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from llmcrdt.sync import codec
from llmcrdt.sync.messages import (
    DELETE_DONE,
    FOLD_DONE,
    PATH,
    SUBPROTOCOL,
    Ack,
    Delete,
    Deleted,
    Fold,
    Folded,
    Hello,
    Message,
    Open,
    Opened,
    Push,
    Record,
    Records,
    Snapshot,
)
from sync_server.core.limits import Limits
from sync_server.log import database
from sync_server.log.base import LogError, Origin
from sync_server.log.file import DATABASE
from sync_server.log.records import SqliteRecords
from sync_server.log.snapshots import SqliteSnapshots
from sync_server.log.sqlite import SqliteStorage
from sync_server.log.sweeper import SqliteSweeper
from sync_server.log.tombstones import SqliteTombstones
from sync_server.step_loop import Pace
from sync_server.thread import RelayThread

from .core.test_validation import ask, edits, hear, native

D, S, T = b"d" * 16, b"s" * 16, b"t" * 16
SLOW = 0.5


def test_steps_are_slow_as_soon_as_one_is_and_quick_when_many_were() -> None:
    pace = Pace()
    for _ in range(100):
        pace.note(0.0003)
    assert pace.quick
    pace.note(0.004)
    assert pace.quick, "a hiccup"
    pace.note(0.1)
    assert not pace.quick
    steps = 0
    while not pace.quick:
        pace.note(0.0003)
        steps += 1
    assert 5 < steps < 40


@contextmanager
def transactions(monkeypatch: pytest.MonkeyPatch, seconds: float) -> Iterator[list[str]]:
    """Each takes so long. The names of the threads on which they are."""
    real, names = SqliteRecords.commit, list[str]()

    def slow(records: SqliteRecords) -> Mapping[bytes, LogError]:
        names.append(threading.current_thread().name)
        time.sleep(seconds)
        return real(records)

    with monkeypatch.context() as patch:
        patch.setattr(SqliteRecords, "commit", slow)
        yield names


def say(client: ClientConnection, message: Message) -> Message:
    client.send(codec.encode(message))
    answer = client.recv(timeout=20)
    assert isinstance(answer, bytes)
    return codec.decode(answer)


def test_a_slow_disk_holds_up_nobody_who_does_not_need_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()

    def write(url: str) -> None:
        with connect(url + PATH, subprotocols=[Subprotocol(SUBPROTOCOL)], proxy=None) as client:
            for message in (Hello("t"), Open(D, "sealed")):
                client.send(codec.encode(message))
                client.recv(timeout=20)
            n = 0
            while not stop.is_set():
                n += 1
                client.send(codec.encode(Push(D, S, n, (b"x",))))
                client.recv(timeout=20)

    with RelayThread(tmp_path) as relay:
        writer = threading.Thread(target=write, args=(relay.url,))
        writer.start()
        # The first steps look for what is to be taken away.
        with transactions(monkeypatch, 0) as names:
            while "llmcrdt-relay" not in names:
                time.sleep(0.01)
        with transactions(monkeypatch, SLOW) as names:
            while len(names) < 4:
                time.sleep(0.01)
            waits = []
            for _ in range(20):
                began = time.monotonic()
                with urllib.request.urlopen(relay.url.replace("ws", "http", 1) + "/healthz", timeout=20) as response:
                    assert response.status == 200
                waits.append(time.monotonic() - began)
                time.sleep(0.05)
            assert sorted(waits)[15] < SLOW / 4, "the loop answers while the disk is slow"
            assert names.count("llmcrdt-relay") < 2, "the loop takes the first one at most"
        with transactions(monkeypatch, 0) as names:
            while "llmcrdt-relay" not in names:  # the disk is quick again
                time.sleep(0.01)
        stop.set()
        writer.join()


def test_a_document_is_folded_and_deleted_on_the_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To write a snapshot, and to take away what it stands for, is long where there is much, however quick the disk."""
    threads: dict[str, set[str]] = {}

    def note(owner: type, name: str) -> None:
        real = getattr(owner, name)

        def noting(log: object, *arguments: object) -> object:
            threads.setdefault(name, set()).add(threading.current_thread().name)
            return real(log, *arguments)

        monkeypatch.setattr(owner, name, noting)

    with RelayThread(tmp_path) as relay:
        note(SqliteRecords, "append")
        note(SqliteSnapshots, "put")
        note(SqliteTombstones, "delete")
        note(SqliteSweeper, "sweep")
        note(SqliteSweeper, "scrub")
        monkeypatch.setattr(Pace, "quick", True)
        with connect(relay.url + PATH, subprotocols=[Subprotocol(SUBPROTOCOL)], proxy=None) as client:
            say(client, Hello("t"))
            say(client, Open(D, "yjs"))
            assert isinstance(say(client, Push(D, S, 1, tuple(edits(3)))), Ack)
            assert say(client, Fold(D)) == Folded(D, FOLD_DONE)
            client.send(codec.encode(Delete(D)))
            while codec.decode(client.recv(timeout=20)) != Deleted(D, DELETE_DONE):  # type: ignore[arg-type]
                pass
    loop = threads.pop("append")
    assert len(loop) == 1 and len(threads) == 4
    assert all(loop.isdisjoint(names) for names in threads.values())


def test_what_was_condensed_is_weighed_on_the_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads, real = list[str](), SqliteRecords.chain_at

    def noting(log: SqliteRecords, *arguments: Any) -> bytes | None:
        threads.append(threading.current_thread().name)
        return real(log, *arguments)

    limits = Limits(catch_up_bytes=1, catch_up_share=1e9, catch_up_wait=60.0)
    with RelayThread(tmp_path, limits=limits) as relay, native(relay.url, D) as writer:
        assert isinstance(ask(writer, Push(D, S, 1, tuple(edits(40)))), Ack)
        monkeypatch.setattr(Pace, "quick", True)
        monkeypatch.setattr(SqliteRecords, "chain_at", noting)
        with native(relay.url, D) as reader:
            assert isinstance(hear(reader), Snapshot)
    assert threads and all(name.startswith("llmcrdt-relay-log") for name in threads)


def test_records_that_another_process_appends_reach_readers(tmp_path: Path) -> None:
    """The lock keeps a second relay out; here it is left out."""
    with RelayThread(tmp_path) as relay, native(relay.url) as reader:
        assert isinstance(ask(reader, Open(D, "sealed")), Opened)
        assert isinstance(ask(reader, Push(D, S, 1, (b"here",))), Ack)
        with mock.patch.object(database, "lock_file", return_value=sqlite3.connect(":memory:")):
            other = SqliteStorage(tmp_path / DATABASE)
        other.records.append(D, T, 1, [b"there"], Origin("sealed", b"l" * 16))
        assert not other.records.commit()
        assert hear(reader) == Records(D, 2, (Record(T, 1, b"there"),))
        assert ask(reader, Push(D, S, 2, (b"again",))) == Ack(D, S, 2, 1, 3)
        other.close()
