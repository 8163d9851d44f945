"""Who takes the steps of the rooms: the loop while they are quick, a thread when they are not."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
    Push,
    Snapshot,
)
from sync_server.core.limits import Limits
from sync_server.log.sqlite import SqliteLog
from sync_server.server import Pace
from sync_server.thread import RelayThread

from .core.test_validation import ask, edits, hear, native

D, S = b"d" * 16, b"s" * 16
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
    real, names = SqliteLog.transaction, list[str]()

    @contextmanager
    def slow(log: SqliteLog) -> Iterator[None]:
        names.append(threading.current_thread().name)
        with real(log):
            yield
            time.sleep(seconds)

    with monkeypatch.context() as patch:
        patch.setattr(SqliteLog, "transaction", slow)
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
            for message in (Hello("t"), Open(D, "automerge")):
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

    def note(name: str) -> None:
        real = getattr(SqliteLog, name)

        def noting(log: SqliteLog, *arguments: object) -> object:
            threads.setdefault(name, set()).add(threading.current_thread().name)
            return real(log, *arguments)

        monkeypatch.setattr(SqliteLog, name, noting)

    with RelayThread(tmp_path) as relay:
        for name in ("extend", "put_fold", "delete", "sweep", "scrub"):
            note(name)
        monkeypatch.setattr(Pace, "quick", True)
        with connect(relay.url + PATH, subprotocols=[Subprotocol(SUBPROTOCOL)], proxy=None) as client:
            say(client, Hello("t"))
            say(client, Open(D, "yjs"))
            assert isinstance(say(client, Push(D, S, 1, tuple(edits(3)))), Ack)
            assert say(client, Fold(D)) == Folded(D, FOLD_DONE)
            client.send(codec.encode(Delete(D)))
            while codec.decode(client.recv(timeout=20)) != Deleted(D, DELETE_DONE):  # type: ignore[arg-type]
                pass
    loop = threads.pop("extend")
    assert len(loop) == 1 and len(threads) == 4
    assert all(loop.isdisjoint(names) for names in threads.values())


def test_what_was_condensed_is_weighed_on_the_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads, real = list[str](), SqliteLog.chain_at

    def noting(log: SqliteLog, *arguments: Any) -> bytes | None:
        threads.append(threading.current_thread().name)
        return real(log, *arguments)

    limits = Limits(condense_bytes=1, condense_share=1e9, condense_wait=60.0)
    with RelayThread(tmp_path, limits=limits) as relay, native(relay.url, D) as writer:
        assert isinstance(ask(writer, Push(D, S, 1, tuple(edits(40)))), Ack)
        monkeypatch.setattr(Pace, "quick", True)
        monkeypatch.setattr(SqliteLog, "chain_at", noting)
        with native(relay.url, D) as reader:
            assert isinstance(hear(reader), Snapshot)
    assert threads and all(name.startswith("llmcrdt-relay-log") for name in threads)
