"""Writes a WebSocket: messages are framed once for many connections, and written piece by piece."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property

from websockets.asyncio.server import ServerConnection, broadcast
from websockets.protocol import State

from .frames import frame_head

SLICE = 16 << 10
"""Bytes that are given to a socket at a time. It copies those that it can't send; frames wait here, shared by all."""
_CLOGGED = 64 << 10
"""Bytes in a socket's own buffer above which its peer is not read from: it may ask for pongs and take none."""
_POSIX = os.name == "posix"


class Outgoing:
    """Messages on their way to one connection or to many, one after the other."""

    def __init__(self, *payloads: bytes) -> None:
        self.payloads: Sequence[bytes | memoryview] = payloads
        self.size = sum(map(len, payloads))
        self.counted = False
        """Whether somebody counts it already."""

    @cached_property
    def framed(self) -> bytes:
        """The WebSocket frames, the same for all connections that don't compress."""
        pieces = [piece for payload in self.payloads for piece in (frame_head(len(payload)), payload)]
        framed = b"".join(pieces)
        if len(self.payloads) == 1 and self.size > SLICE:
            # It is kept once.
            self.payloads = (memoryview(framed)[-self.size :],)
        return framed


class FrameWriter:
    """Writes frames to one WebSocket piece by piece, so that of what is slow to leave little is copied.

    ``given``: bytes that were written, since the upgrade or a little before. ``within``: part of a frame has left and
    the rest has not; the library's own frames (pings, pongs, the close) have to wait for its end.
    """

    def __init__(self, socket: ServerConnection, transport: asyncio.Transport) -> None:
        self._socket, self._transport, self._protocol = socket, transport, socket.protocol
        self.given = 0
        self.within = False

    @property
    def clogged(self) -> bool:
        """Whether more waits in the socket's own buffer than may be added to by a peer that does not read."""
        return self._socket.paused and self.waiting > _CLOGGED

    @property
    def waiting(self) -> int:
        """Bytes that were given to the socket and have not left: all that waits for this connection alone."""
        held = sum(map(len, self._protocol.writes)) if self.within else 0
        return self._transport.get_write_buffer_size() + held

    def write(self, out: Outgoing, place: int = 0) -> int | None:
        """Write as much as leaves soon, from a place in it on. Returns the next one, after ``drain``; None when all is
        written, or nothing leaves any more."""
        if self._protocol.state is not State.OPEN:
            return None
        room = self._transport.get_write_buffer_size
        if self._protocol.extensions:
            for at, payload in enumerate(out.payloads[place:], place):
                if room() >= SLICE:
                    return at
                broadcast((self._socket,), payload)
            return None
        framed = out.framed
        if len(framed) <= SLICE:
            if room() >= SLICE:
                return 0
            self._give(framed)
            return None
        return self._write_large(memoryview(framed), place)

    def _write_large(self, framed: memoryview, place: int) -> int | None:
        while (room := self._transport.get_write_buffer_size()) < SLICE:
            if room == 0 and not self._transport.is_closing():
                place += self._left_at_once(framed[place:])
            # The transport copies what it can't send, and tells when it has left.
            piece = framed[place : place + SLICE]
            place += len(piece)
            self.within = place < len(framed)
            if piece:
                self._give(piece)
            if not self.within:
                self._socket.send_data()
                return None
        return place

    def _left_at_once(self, data: memoryview) -> int:
        """How much of it the system takes without the transport, which has nothing to send. Not through TLS."""
        if not _POSIX or self._transport.get_extra_info("sslcontext"):
            return 0
        with suppress(OSError):  # the transport meets the same, and says so
            left = os.write(self._transport.get_extra_info("socket").fileno(), data)
            self.given += left
            return left
        return 0

    def _give(self, data: bytes | memoryview) -> None:
        self.given += len(data)
        if not self._transport.is_closing():
            self._transport.write(data)
