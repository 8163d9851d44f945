"""One WebSocket of the load generator: a plain socket, and no more of RFC 6455 than a benchmark needs."""

from __future__ import annotations

import base64
import os
import socket
import zlib
from bisect import bisect_right

from .dialects import Dialect, frame

STALLED = 60.0
"""Seconds without a message after which a run has failed."""
_CHUNK = 1 << 18
_DEFLATE = "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"
_WINDOW = 15


class Connection:
    """Sends the upgrade and the dialect's greeting by itself.

    Attributes:
        upgraded: the server has accepted the WebSocket.
        opened: the server has sent what there was of the document.
        have: updates that have come (``follow``).
        arrivals: (when, updates before, updates after), one for each time that some came.
        complete, came: the whole document has come, and the messages that it came in (``storm``: those that any
            connection got, so that each is kept once).
        received: bytes of messages.
    """

    def __init__(
        self,
        address: tuple[str, int],
        spoken: Dialect,
        *,
        follow: bool = False,
        storm: dict[bytes, bytes] | None = None,
        deflate: bool = False,
        buffer: int = 0,
    ) -> None:
        self.spoken = spoken
        self.upgraded = self.opened = self.complete = False
        self.have = self.received = 0
        self.arrivals: list[tuple[float, int, int]] = []
        self._follower = spoken.follow() if follow else None
        self._storm = storm
        self.came: list[bytes] = []
        self._rest = b""
        self._unsent = b""
        # Of what a server echoes word for word: how much has come, so that a whole read is one comparison.
        self._echo = spoken.echoed if follow else None
        self._inflate: zlib._Decompress | None = None
        self.socket = socket.socket()
        if buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.connect(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.write(self._upgrade(deflate))

    def _upgrade(self, deflate: bool) -> bytes:
        lines = [
            f"GET {self.spoken.path} HTTP/1.1",
            "Host: 127.0.0.1",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            "Sec-WebSocket-Version: 13",
        ]
        if self.spoken.subprotocol:
            lines.append(f"Sec-WebSocket-Protocol: {self.spoken.subprotocol}")
        if offered := _DEFLATE if deflate else self.spoken.extensions:
            lines.append(f"Sec-WebSocket-Extensions: {offered}")
        return "\r\n".join([*lines, "", ""]).encode()

    # ---------------------------------------------------------------- out

    def write(self, data: bytes) -> bool:
        """Whether all has left; else ``flush`` when the socket takes more."""
        self._unsent = self._unsent + data if self._unsent else data
        return self.flush()

    @property
    def established(self) -> bool:
        """Whether neither side has closed; also of one that nobody reads from."""
        return self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x01"

    def flush(self) -> bool:
        """Whether nothing waits any more."""
        try:
            self._unsent = self._unsent[self.socket.send(self._unsent) :]
        except BlockingIOError:
            return False
        return not self._unsent

    # ---------------------------------------------------------------- in

    def receive(self, now: float) -> None:
        """Take what has come. Raises WrongContent, ConnectionError."""
        data = self.socket.recv(_CHUNK)
        if not data:
            raise ConnectionError("The server closed the connection.")
        before = self.have
        if not self.upgraded:
            data = self._accepted(data)
        if self._echo is None or not self._as_echoed(data):
            self._frames(self._rest + data if self._rest else data)
        if self.have > before:
            self.arrivals.append((now, before, self.have))

    def _accepted(self, data: bytes) -> bytes:
        self._rest += data
        head, end, rest = self._rest.partition(b"\r\n\r\n")
        if not end:
            return b""
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise ConnectionError(head.decode("latin-1"))
        if b"permessage-deflate" in head:
            self._inflate = zlib.decompressobj(-_WINDOW)
        self.upgraded, self._rest = True, b""
        self.write(b"".join(frame(payload, masked=True) for payload in self.spoken.hello))
        return rest

    def _as_echoed(self, data: bytes) -> bool:
        """Whether this goes on as expected, word for word; if so, it is taken."""
        assert self._echo is not None and self._follower is not None
        if not self.opened or not self._follower.word_for_word:
            return False
        start = self._echo.ends[self.have] + len(self._rest)
        if self._echo.blob[start : start + len(data)] != data:
            return False
        end = start + len(data)
        self.received += len(data)
        self.have = bisect_right(self._echo.ends, end) - 1
        self._rest = self._echo.blob[self._echo.ends[self.have] : end]
        return True

    def _frames(self, data: bytes) -> None:
        at, end = 0, len(data)
        if not self.upgraded:
            return
        while end - at >= 2:
            size, start = data[at + 1], at + 2
            if size >= 126:
                width = 2 if size == 126 else 8
                if end - start < width:
                    break
                size = int.from_bytes(data[start : start + width], "big")
                start += width
            if start + size > end:
                break
            self._frame(data[at], data[start : start + size])
            at = start + size
        self._rest = data[at:]

    def _frame(self, head: int, payload: bytes) -> None:
        kind = head & 0x0F
        if kind == 0x9:
            self.write(b"\x8a" + bytes((0x80 | len(payload),)) + bytes(4) + payload)
        elif kind == 0x8:
            raise ConnectionError(f"The server closed the connection: {payload[:2].hex()} {payload[2:]!r}.")
        elif kind in (0x1, 0x2):
            if head & 0x40 and self._inflate is not None:
                payload = self._inflate.decompress(payload + b"\x00\x00\xff\xff")
            self._message(payload)

    def _message(self, payload: bytes) -> None:
        self.received += len(payload)
        if self._storm is not None:
            if self.spoken.counts(payload):
                self.came.append(self._storm.setdefault(payload, payload))
            self.complete = self.complete or self.spoken.whole(payload)
        elif not self.opened:
            self.opened = self.spoken.whole(payload)
        elif self._follower is not None:
            self.have = self._follower.take(payload, self.have)
            if reply := self._follower.reply:
                self.write(frame(reply, masked=True))

    def check(self) -> None:
        if self._follower is not None:
            self._follower.check(self.have)
