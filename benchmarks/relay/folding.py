"""The cost of a compaction, the time that it saves a new device, and how long others wait meanwhile.

One document of streamed tokens; a second client writes to another document all the
time and notes how long each ack takes.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pycrdt
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from llmcrdt.crdt.yjs.replica import YjsReplica
from llmcrdt.sync import codec
from llmcrdt.sync.messages import (
    MAX_FRAME,
    PATH,
    SUBPROTOCOL,
    Ack,
    Barrier,
    Error,
    Fold,
    Folded,
    Hello,
    Message,
    Open,
    Push,
    Reached,
)

from ..report import Report
from .connection import STALLED
from .generator import Failed
from .servers import KINDS, running

D, E = b"d" * 16, b"e" * 16


def measure(report: Report, count: int, alone: float) -> None:
    """Add the figures of one log that is folded; ``alone``: seconds of acks before that."""
    updates = _tokens(count)
    with running(KINDS[0], "compaction_bytes=1099511627776") as server:
        url = server.url
        began = time.perf_counter()
        _push(url, updates)
        report.add("push and acknowledge, on disk", len(updates) / (time.perf_counter() - began), "records/s")
        report.add("log", sum(map(len, updates)) / 1e6, "MB")
        _joining(report, url, "before the fold")
        report.add("p99 of an ack, nothing else going on", _percentile(_acks(url, alone), 0.99) * 1000, "ms")
        stop = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(_acks, url, None, stop)
            try:
                began = time.perf_counter()
                _fold(url)
                report.add("fold, from asking until the old bytes are gone", time.perf_counter() - began, "s")
            finally:
                stop.set()
            waits = other.result()
        report.add("p99 of an ack meanwhile", _percentile(waits, 0.99) * 1000, "ms")
        report.add("longest ack meanwhile", max(waits) * 1000, "ms")
        _joining(report, url, "after the fold")


def _tokens(count: int) -> list[bytes]:
    """Updates of answers that are streamed, and taken away when they are done, as the document layer does it."""
    replica, updates = YjsReplica(["r"]), list[bytes]()
    while len(updates) < count:
        key = f"answer-{len(updates)}"
        with replica.edit() as edit:
            edit.put_node("r", key, {})
            edit.put_text("r", key, "live")
        updates.append(edit.update)
        for i in range(200):
            with replica.edit() as edit:
                edit.append_text("r", key, "live", f"word{i} ")
            updates.append(edit.update)
        with replica.edit() as edit:
            edit.put_field("r", key, "text", "".join(f"word{i} " for i in range(200)))
            edit.delete_field("r", key, "live")
        updates.append(edit.update)
    return updates[:count]


def _joining(report: Report, url: str, when: str) -> None:
    began, size = time.perf_counter(), 0
    with _client(url, D) as client:
        client.send(codec.encode(Barrier(1)))
        while not isinstance((heard := _heard(client))[0], Reached):
            size += heard[1]
    report.add(f"a new device, {when}", (time.perf_counter() - began) * 1000, "ms")
    report.add(f"bytes to a new device, {when}", size / 1e6, "MB")


def _acks(url: str, seconds: float | None, stop: threading.Event | None = None) -> list[float]:
    """One record after the other, words of a text; how long each ack took."""
    waits, session, began = list[float](), os.urandom(16), time.perf_counter()
    document: pycrdt.Doc[pycrdt.Text] = pycrdt.Doc()
    text, updates = document.get("answer", type=pycrdt.Text), list[bytes]()
    document.observe(lambda event: updates.append(event.update))
    with _client(url, E) as client:
        while (stop and not stop.is_set()) or (seconds and time.perf_counter() - began < seconds):
            text += f"word{len(waits)} "
            sent = time.perf_counter()
            client.send(codec.encode(Push(E, session, len(waits) + 1, (updates.pop(),))))
            while not isinstance(hear(client), Ack):
                pass
            waits.append(time.perf_counter() - sent)
    return waits


def _push(url: str, updates: list[bytes]) -> None:
    session = os.urandom(16)
    with _client(url, D) as client:
        for start in range(0, len(updates), 200):
            part = tuple(updates[start : start + 200])
            client.send(codec.encode(Push(D, session, start + 1, part)))
            while not isinstance(hear(client), Ack):
                pass


def _fold(url: str) -> None:
    with _client(url, D) as client:
        client.send(codec.encode(Fold(D)))
        while not isinstance(hear(client), Folded):
            pass


def hear(client: ClientConnection) -> Message:
    """The next message. Raises Failed where it is an error, or none comes."""
    return _heard(client)[0]


def _heard(client: ClientConnection) -> tuple[Message, int]:
    """The next message, and its bytes."""
    try:
        frame = client.recv(STALLED)
    except (TimeoutError, WebSocketException) as e:
        raise Failed(f"Nothing came: {e!r}.") from e
    assert isinstance(frame, bytes)
    message = codec.decode(frame)
    if isinstance(message, Error):
        raise Failed(f"The relay refused: {message.text}")
    return message, len(frame)


@contextmanager
def connected(url: str) -> Iterator[ClientConnection]:
    """A client that has said HELLO."""
    with connect(
        url + PATH,
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        compression=None,
        proxy=None,
        max_size=MAX_FRAME,
    ) as client:
        client.send(codec.encode(Hello("benchmark")))
        yield client


@contextmanager
def _client(url: str, document: bytes) -> Iterator[ClientConnection]:
    with connected(url) as client:
        client.send(codec.encode(Open(document, "yjs")))
        yield client


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]
