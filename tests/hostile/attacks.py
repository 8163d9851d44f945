"""Floods: what one connection, or many, may send as fast as they can. ``python -m tests.hostile.attacks NAME PORT
SECONDS`` runs one of them in a process of its own, and prints how many frames it got rid of."""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import pycrdt

from llmcrdt.automerge_sync import NOTHING, Have, make_filter, write_message
from llmcrdt.ids import document_id
from llmcrdt.sync import codec
from llmcrdt.sync.messages import (
    FEATURES,
    PATH,
    SEALED,
    SUBPROTOCOL,
    Announcement,
    AttachmentName,
    Close,
    Data,
    Delete,
    Discard,
    Fetch,
    Fold,
    Hello,
    Offer,
    Open,
    Presence,
    Push,
)
from sync_server.doors import automerge, cbor, yjs

D, E, S = b"d" * 16, b"e" * 16, b"s" * 16
PING, PART, LAST, BINARY = 0x89, 0x00, 0x80, 0x82


def frame(payload: bytes, opcode: int = BINARY) -> bytes:
    """A client's WebSocket frame, with a mask of zeros."""
    size = len(payload)
    if size < 126:
        head = bytes([opcode, 0x80 | size])
    elif size < 1 << 16:
        head = bytes([opcode, 0xFE]) + struct.pack("!H", size)
    else:
        head = bytes([opcode, 0xFF]) + struct.pack("!Q", size)
    return head + bytes(4) + payload


def native(*messages: object) -> bytes:
    return b"".join(frame(codec.encode(message)) for message in messages)  # type: ignore[arg-type]


def upgrade(path: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: relay", "Upgrade: websocket", "Connection: Upgrade",
             "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]  # fmt: skip
    lines += [f"Sec-WebSocket-Protocol: {SUBPROTOCOL}"] if path == PATH else []
    return "\r\n".join([*lines, "", ""]).encode()


@dataclass
class Flooder:
    """A connection that sends the same bytes over and over, and takes whatever comes back. A closed one is replaced."""

    port: int
    opening: bytes
    again: Callable[[], bytes]
    sent: int = 0
    connections: int = 0
    _left: memoryview = field(default_factory=lambda: memoryview(b""))
    _socket: socket.socket | None = None

    def fileno(self) -> int:
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self.port), timeout=20)
            self._socket.setblocking(False)
            self._left, self.connections = memoryview(self.opening), self.connections + 1
        return self._socket.fileno()

    def move(self) -> None:
        """Send and take what goes without waiting."""
        assert self._socket is not None
        try:
            with suppress(BlockingIOError):
                if self._socket.recv(1 << 20) == b"":
                    raise ConnectionResetError
            with suppress(BlockingIOError):
                if not self._left:
                    self._left = memoryview(self.again())
                done = self._socket.send(self._left)
                self.sent += done
                self._left = self._left[done:]
        except OSError:
            self._socket.close()
            self._socket = None

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()


HELLO = native(Hello("hostile", b"", FEATURES))
_EMPTY = b"\x00\x02" + b"\x02\x00\x00"
_REPEATED = pycrdt.Doc()
_REPEATED["t"] = pycrdt.Text("again and again")
_UPDATE = yjs.encode(yjs.Update(_REPEATED.get_update()))
_ENTRIES = [Announcement(n, 1, "{}") for n in range(1024)]


def _same(data: bytes) -> Callable[[int], Callable[[], bytes]]:
    return lambda _: lambda: data


def _deletes(_: int) -> Callable[[], bytes]:
    return lambda: b"".join(native(Delete(os.urandom(16))) for _ in range(200))


def _presence(_: int) -> Callable[[], bytes]:
    clock = 1

    def again() -> bytes:
        nonlocal clock
        clock += 1
        return native(Presence(D, tuple(entry._replace(clock=clock) for entry in _ENTRIES))) * 4

    return again


def _forget(_: int) -> Callable[[], bytes]:
    """Documents that were never there, opened and closed."""
    return lambda: b"".join(native(Open(d, "yjs"), Close(d)) for d in (os.urandom(16) for _ in range(200)))


def _attachments(_: int) -> Callable[[], bytes]:
    """Attachments that are brought and discarded."""

    def again() -> bytes:
        names = [AttachmentName(SEALED, os.urandom(32)) for _ in range(20)]
        return b"".join(
            native(Offer(D, name, 100), Data(D, name, 100, 0, b"x" * 100), Discard(D, name)) for name in names
        )

    return again


class Flood:
    """``opening`` once for a connection, then ``again(number)()``."""

    def __init__(
        self, path: str, opening: bytes, again: Callable[[int], Callable[[], bytes]], connections: int = 1
    ) -> None:
        self.path, self.opening, self.again, self.connections = path, opening, again, connections


YJS = yjs.PATH + document_id(D)
_PART = frame(b"", PART)
_BEGUN = HELLO + native(Open(D, "yjs"), Push(D, S, 1, (_REPEATED.get_update(),)))
_NAME = AttachmentName(SEALED, b"n" * 32)
FLOODS = {
    "pings before HELLO": Flood(PATH, b"", _same(frame(b"", PING) * 20_000), 4),
    "pings": Flood(PATH, HELLO, _same(frame(b"", PING) * 20_000)),
    "empty fragments": Flood(PATH, HELLO + frame(b"\x05", 0x02), _same(_PART * 20_000)),
    "empty fragments, 20 connections": Flood(PATH, HELLO + frame(b"\x05", 0x02), _same(_PART * 20_000), 20),
    "bytes that are no request": Flood("", b"", _same(b"GET /sync HTTP/1.1\r\n" + b"a: b\r\n" * 5_000), 4),
    "FOLD of a folded document": Flood(PATH, _BEGUN, _same(native(Fold(D)) * 500)),
    "attachments": Flood(PATH, _BEGUN, _attachments),
    "FETCH": Flood(
        PATH,
        _BEGUN + native(Offer(D, _NAME, 4096), Data(D, _NAME, 4096, 0, bytes(4096))),  # before WELCOME comes no more
        _same(native(Fetch(D, _NAME, 0, 4096)) * 500),
    ),
    "OPEN of one document": Flood(PATH, HELLO, _same(native(Open(D, "yjs")) * 500)),
    "OPEN and CLOSE": Flood(PATH, HELLO, _forget),
    "OPEN past the limit": Flood(
        PATH, HELLO, lambda _: lambda: b"".join(native(Open(os.urandom(16), "yjs")) for _ in range(200))
    ),
    "PRESENCE of 1,024 {}": Flood(PATH, HELLO + native(Open(D, "yjs")), _presence),
    "DELETE": Flood(PATH, HELLO, _deletes),
    "DELETE, 20 connections": Flood(PATH, HELLO, _deletes, 20),
    "the same record": Flood(
        PATH, HELLO + native(Open(D, "yjs")), _same(native(Push(D, S, 1, (_REPEATED.get_update(),))) * 500)
    ),
    "empty Yjs updates": Flood(YJS, b"", _same(frame(b"\x00\x02\x02\x00\x00") * 5_000)),
    "repeated Yjs updates": Flood(YJS, b"", _same(frame(_UPDATE) * 500)),
    "repeated Yjs updates, 20 connections": Flood(YJS, b"", _same(frame(_UPDATE) * 500), 20),
    "Yjs questions": Flood(YJS, b"", _same(frame(yjs.encode(yjs.StepOne(b"\x00"))) * 500)),
    "Yjs awareness questions": Flood(YJS, b"", _same(frame(b"\x03") * 2_000)),
    "upgrades": Flood(PATH, frame(b"\x00"), _same(b"\x00"), 20),
}
"""By name. The first message of ``upgrades`` is none, so each connection is closed at once and replaced."""


def _automerge(type_: str, document: bytes = D, **fields: object) -> bytes:
    said = {"type": type_, "senderId": "peer", "targetId": "relay", "documentId": document_id(document), **fields}
    return frame(cbor.write(said))


def _automerge_documents(_: int) -> Callable[[], bytes]:
    """Documents that were never there."""
    return lambda: b"".join(_automerge("request", os.urandom(16), data=_ASKED) for _ in range(200))


if cbor.installed():
    _ASKED = write_message([], [], [Have([], NOTHING)], [])
    _HEADS = [os.urandom(32) for _ in range(10_000)]
    _JOIN = _automerge("join") + _automerge("request", data=_ASKED)
    _QUESTION = _automerge("sync", data=write_message(_HEADS, [], [Have([], make_filter(_HEADS))], []))
    FLOODS |= {
        "Automerge questions": Flood(automerge.PATH, _JOIN, _same(_automerge("request", data=_ASKED) * 500)),
        "Automerge questions with 10,000 heads": Flood(automerge.PATH, _JOIN, _same(_QUESTION)),
        "Automerge documents": Flood(automerge.PATH, _JOIN, _automerge_documents),
        "ephemeral messages": Flood(
            automerge.PATH, _JOIN, _same(_automerge("ephemeral", count=1, sessionId="s", data=b"\xf6") * 2_000)
        ),
    }


def run(name: str, port: int, seconds: float, enough: Callable[[], bool] = lambda: False) -> tuple[int, int]:
    """Flood a relay for some time, or until it is enough. Bytes that it took, and connections that it took for that."""
    flood = FLOODS[name]
    opening = (upgrade(flood.path) if flood.path else b"") + flood.opening
    flooders = [Flooder(port, opening, flood.again(n)) for n in range(flood.connections)]
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end and not enough():
            readable, writable, _ = select.select(flooders, flooders, (), 0.05)
            for flooder in {id(f): f for f in (*readable, *writable)}.values():
                with suppress(OSError):
                    flooder.move()
    finally:
        for flooder in flooders:
            flooder.close()
    return sum(f.sent for f in flooders), sum(f.connections for f in flooders)


def main(arguments: Sequence[str]) -> None:
    name, port, seconds = arguments
    print(*run(name, int(port), float(seconds)))


if __name__ == "__main__":
    main(sys.argv[1:])
