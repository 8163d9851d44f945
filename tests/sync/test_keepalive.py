"""A client that shows no life is given up, and no other: not a slow one, and not one that is not heard just now."""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import pytest

from llmcrdt.ids import document_id
from llmcrdt.sync import codec, link_loop
from llmcrdt.sync.chain import START, digest, next_chain
from llmcrdt.sync.keepalive import Keepalive
from llmcrdt.sync.link import Link
from llmcrdt.sync.messages import RESET, SUBPROTOCOL, Cursor, Opened, Record, Records, Welcome
from llmcrdt.sync.reconnect import ReconnectingTransport
from llmcrdt.testing.local_documents import BlobDocuments

from ..waiting import eventually

D = b"d" * 16


class Other:
    """The other side. The transport says what waits for it."""

    def __init__(self) -> None:
        self.asked, self.buffer, self.given, self.heard, self.now = 0, 0, 0, 0, 100.0
        self.keepalive = Keepalive(self, self.ask, self.now, 20.0)  # type: ignore[arg-type]

    def get_write_buffer_size(self) -> int:
        return self.buffer

    def get_extra_info(self, name: str) -> None:
        raise ValueError

    def ask(self) -> None:
        self.asked += 1
        self.buffer += 2
        self.given += 2

    def lives(self, seconds: int, each: Callable[[Other], None] = lambda other: None, excused: bool = False) -> int:
        """For how many of so many seconds it is not given up, with what happens in each."""
        for second in range(seconds):
            each(self)
            self.now += 1.0
            if not self.keepalive.beat(self.now, self.heard, self.given, excused=excused):
                return second + 1
        return seconds


def test_the_silent_are_asked_and_then_given_up() -> None:
    other = Other()
    assert other.lives(100) == 40
    assert other.asked == 1


def test_whatever_is_heard_is_a_sign_of_life() -> None:
    other = Other()

    def answer(other: Other) -> None:
        other.heard += other.buffer  # each ping
        other.buffer = 0

    assert other.lives(1000, answer) == 1000
    assert 45 <= other.asked <= 50


def test_who_takes_some_of_what_waits_lives_and_who_takes_none_does_not() -> None:
    other = Other()
    other.buffer = other.given = 30_000

    def take(other: Other) -> None:
        if other.now % 15 == 0:
            other.given += 1_000
        else:
            other.buffer -= 10

    assert other.lives(500, take) == 500
    assert other.lives(500) <= 41
    more = Other()
    more.buffer = more.given = 30_000

    def queue(other: Other) -> None:
        other.given += 100
        other.buffer += 100

    assert more.lives(500, queue) == 40, "what is written to it is no sign of its own"


def test_a_system_that_takes_all_for_a_process_that_hangs_is_no_sign_of_life() -> None:
    other = Other()

    def swallow(other: Other) -> None:
        other.given += 100
        other.buffer = 0

    assert other.lives(500, swallow) == 40


def test_whom_one_does_not_listen_to_is_not_given_up() -> None:
    other = Other()
    assert other.lives(500, excused=True) == 500
    assert other.lives(500) == 40


def test_after_a_long_stop_of_this_process_the_other_side_is_asked_first() -> None:
    other = Other()
    other.now += 3_600
    assert other.lives(100) == 21


# ---------------------------------------------------------------- the client


@contextmanager
def hand_made(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """A relay whose every byte a test says."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer:
                    head = b""
                    while b"\r\n\r\n" not in head:
                        head += peer.recv(4096)
                    key = head.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
                    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
                    peer.sendall(
                        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        b"Sec-WebSocket-Accept: " + accept + b"\r\nSec-WebSocket-Protocol: "
                        + SUBPROTOCOL.encode() + b"\r\n\r\n"
                    )  # fmt: skip
                    peer.sendall(frame(codec.encode(Welcome("test"))))
                    with suppress(OSError):
                        serve(peer)

        threading.Thread(target=run, daemon=True).start()
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}"


def frame(payload: bytes) -> bytes:
    size = len(payload)
    head = bytes([0x82, size]) if size < 126 else bytes([0x82, 127]) + struct.pack("!Q", size)
    return head + payload


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second is long."""
    monkeypatch.setattr(link_loop, "ReconnectingTransport", partial(ReconnectingTransport, patience=0.5))


def test_a_relay_that_says_nothing_any_more_is_left(impatient: Any) -> None:
    over = threading.Event()
    with hand_made(lambda peer: over.wait(60) and None) as url, Link(url, BlobDocuments(1)) as link:
        eventually(lambda: "no sign of life" in str(link.last_error))
        over.set()


def test_a_message_that_comes_slowly_is_waited_for(impatient: Any) -> None:
    """The answer to a ping would stand behind it."""
    record = Record(b"s" * 16, 1, (60_000).to_bytes(4, "big") + bytes(60_000))
    head = Cursor(b"l" * 16, 1, next_chain(START, digest(D, record)))
    over, connections = threading.Event(), list[float]()

    def serve(peer: socket.socket) -> None:
        connections.append(time.monotonic())
        peer.sendall(frame(codec.encode(Opened(D, RESET, head._replace(log=b"l" * 16), 0))))
        records = frame(codec.encode(Records(D, 1, (record,))))
        for at in range(0, len(records), 3_000):
            peer.sendall(records[at : at + 3_000])
            over.wait(0.15)
        over.wait(60)

    local = BlobDocuments(1)
    local.follow(document_id(D))
    with hand_made(serve) as url, Link(url, local) as link:
        eventually(lambda: local.blobs(document_id(D)))
        assert time.monotonic() - connections[0] > 2.0 and len(connections) == 1, link.last_error
        over.set()
