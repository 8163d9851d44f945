"""One WebSocket of the relay: what came in and is in work, what is still to be sent, and whether to read on.

Messages are handed over as they come, without a task that waits for each; what goes to many is framed once. At a
relay's rates both cost more than the messages do.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, TypeAlias

from websockets.asyncio.server import ServerConnection, broadcast
from websockets.exceptions import ConnectionClosed
from websockets.frames import DATA_OPCODES, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State

from llmcrdt.sync.wire import Error

from .doors.native import NativeDoor
from .doors.yjs import YjsDoor
from .limits import Limits
from .rate import Rate

_BUFFER = 64 << 10
"""Bytes that may wait in one socket's own buffer before its frames queue up here."""


_WORDS = 123
"""Bytes of words that a close frame can carry."""


class Outgoing:
    """A message on its way to one connection or to many."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload

    @cached_property
    def framed(self) -> bytes:
        """The WebSocket frame, the same for all connections that don't compress."""
        return Frame(Opcode.BINARY, self.payload).serialize(mask=False)


class Socket(ServerConnection):
    """A WebSocket that hands over its messages, all that one read brought at once, instead of keeping them."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._take: Callable[[list[bytes | str]], None] | None = None
        self._messages: list[bytes | str] = []
        self._fragments: list[Frame] = []

    def hand_to(self, take: Callable[[list[bytes | str]], None]) -> None:
        """From now on, and with what has come since the upgrade."""
        self._take = take
        self._hand_over()

    def write(self, out: Outgoing) -> None:
        """Send without waiting until it has left. Nothing happens where the connection is closing."""
        if self.protocol.extensions:
            broadcast((self,), out.payload)
        elif self.protocol.state is State.OPEN:
            self.transport.write(out.framed)

    async def write_and_wait(self, out: Outgoing) -> None:
        """Send, and wait until the other side takes more. Raises ConnectionClosed."""
        if self.protocol.extensions or self.protocol.state is not State.OPEN:
            return await self.send(out.payload)
        self.transport.write(out.framed)
        await self.drain()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages and self._take is not None:
            self._hand_over()

    def process_event(self, event: Request | Frame) -> None:  # type: ignore[override]
        if not isinstance(event, Frame) or event.opcode not in DATA_OPCODES:
            super().process_event(event)
        elif event.fin and not self._fragments:
            self._messages.append(_message(event.opcode, event.data))
        else:
            self._fragments.append(event)
            if event.fin:
                parts, self._fragments = self._fragments, []
                self._messages.append(_message(parts[0].opcode, b"".join(part.data for part in parts)))

    def _hand_over(self) -> None:
        if self._take is not None:
            messages, self._messages = self._messages, []
            self._take(messages)


Take: TypeAlias = "Callable[[Connection, bytes | str], None]"


def _message(opcode: Opcode, data: bytes | bytearray | memoryview) -> bytes | str:
    return bytes(data) if opcode is Opcode.BINARY else bytes(data).decode("utf-8", "replace")


class Connection:
    """What a socket still has to send, and how much of its input is in work.

    ``take`` gets each message in its turn: when what came before has left room for it, and the sender's rate allows it.
    ``unreported``: the weight of what has left since the rooms were told last. ``last``: the error after which it ends.
    """

    def __init__(self, peer: int, socket: Socket, limits: Limits, door: NativeDoor | YjsDoor, take: Take) -> None:
        self.peer = peer
        self.socket = socket
        self.limits = limits
        self.door = door
        self._take = take
        self._unread: deque[bytes | str] = deque()
        self._taking = False
        self.rate = Rate(limits.rate, limits.burst)
        self.unreported = 0
        self.last: Error | None = None
        self.sent_at = 0.0
        self._queue: deque[tuple[Outgoing, int]] = deque()
        self._queued = 0
        self._working = 0
        self._resting: tuple[asyncio.TimerHandle, Callable[[], None]] | None = None
        self._reading = True
        self._wake = asyncio.Event()

    # ---------------------------------------------------------------- out

    def send(self, out: Outgoing, weight: int) -> None:
        """Write at once where the socket takes it, else queue."""
        self.sent_at = asyncio.get_running_loop().time()
        if not self._queue and self.socket.transport.get_write_buffer_size() < _BUFFER:
            self.socket.write(out)
            self.unreported += weight
        else:
            self._queue.append((out, weight))
            self._queued += len(out.payload)
            self._wake.set()
            self._read_on()

    def end(self, error: Error) -> bool:
        """Send an error after all that is queued, then close. False where it ends already."""
        if self.last is not None:
            return False
        self.last = error
        frame, _, _ = self.door.farewell(error)
        if frame is not None:
            self.send(Outgoing(frame), 0)
        self._wake.set()
        self._read_on()
        return True

    async def pump(self, sent: Callable[[Connection], None]) -> None:
        """Send what is queued, as fast as the other side takes it, until the connection has ended."""
        with suppress(ConnectionClosed):
            while True:
                while self._queue:
                    out, weight = self._queue[0]
                    await self.socket.write_and_wait(out)
                    self._queue.popleft()
                    self._queued -= len(out.payload)
                    self.unreported += weight
                    sent(self)
                    self._read_on()
                if self.last is not None:
                    _, code, words = self.door.farewell(self.last)
                    return await self.socket.close(code, words.encode()[:_WORDS].decode(errors="ignore"))
                self._wake.clear()
                await self._wake.wait()

    # ---------------------------------------------------------------- in

    def receive(self, messages: Sequence[bytes | str]) -> None:
        """What one read brought. What there is no room for waits here, and nothing more is read."""
        self._unread.extend(messages)
        self._read_on()

    def gave(self, size: int) -> None:
        """So many bytes more are in work."""
        self._working += size

    def took(self, size: int) -> None:
        """So many bytes are no longer in work."""
        self._working -= size
        self._read_on()

    def rest(self, seconds: float, then: Callable[[], None]) -> None:
        """Take nothing for a while; then do this, and go on."""
        self._resting = asyncio.get_running_loop().call_later(seconds, self._rested), then

    def finish(self) -> None:
        """The peer is gone: take what it said last, also where there was no room, and without a rest, which would end
        when nobody knows the peer any more."""
        while self.last is None and (self._resting or self._unread):
            if self._resting:
                self._resting[0].cancel()
                self._go_on()
            else:
                self._take(self, self._unread.popleft())

    def _rested(self) -> None:
        self._go_on()
        self._read_on()

    def _go_on(self) -> None:
        """Do what the rest has put off."""
        assert self._resting is not None
        (_, then), self._resting = self._resting, None
        if self.last is None:
            then()

    def _read_on(self) -> None:
        """Take messages while there is room, and read from the socket while none wait; at the end too, for the closing
        handshake stands behind whatever else the peer sends."""
        if self._taking:
            return
        self._taking = True
        try:
            while self._unread and self._has_room:
                self._take(self, self._unread.popleft())
        finally:
            self._taking = False
        if self.last is not None:
            self._unread.clear()
        reading = self.last is not None or self._has_room
        if reading != self._reading and not self.socket.transport.is_closing():
            self._reading = reading
            (self.socket.transport.resume_reading if reading else self.socket.transport.pause_reading)()

    @property
    def _has_room(self) -> bool:
        full = self._working > self.limits.window or self._queued > self.limits.outgoing
        return self.last is None and not full and not self._resting
