"""One WebSocket of the relay: what came in and is in work, what is still to be sent, and whether to read on.

Messages are handed over as they come, without a task that waits for each; what goes to many is framed once. At a
relay's rates both cost more than the messages do.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, TypeAlias

from websockets.asyncio.server import ServerConnection, broadcast
from websockets.exceptions import ConnectionClosed
from websockets.frames import DATA_OPCODES, CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State

from llmcrdt.sync.keepalive import Keepalive
from llmcrdt.sync.messages import Error

from ..core.limits import Limits
from ..core.rate import Rate
from ..doors.base import Door
from .frames import PlainFrames

SLICE = 16 << 10
"""Bytes that are given to a socket at a time. It copies those that it can't send; frames wait here, shared by all."""
OBJECT = 256
"""The weight of a message beside its bytes where it waits: to Python a small one is mostly an object."""
_CLOGGED = 64 << 10
"""Bytes in a socket's own buffer above which its peer is not read from: it may ask for pongs and take none."""
_POSIX = os.name == "posix"
_WORDS = 123
"""Bytes of words that a close frame can carry."""


class Outgoing:
    """Messages on their way to one connection or to many, one behind the other."""

    def __init__(self, *payloads: bytes) -> None:
        self.payloads: Sequence[bytes | memoryview] = payloads
        self.size = sum(map(len, payloads))

    @cached_property
    def framed(self) -> bytes:
        """The WebSocket frames, the same for all connections that don't compress."""
        frames = [Frame(Opcode.BINARY, payload).serialize(mask=False) for payload in self.payloads]
        if len(frames) == 1 and self.size > SLICE:
            # It is kept once.
            self.payloads = (memoryview(frames[0])[-self.size :],)
        return b"".join(frames)


class Socket(ServerConnection):
    """A WebSocket that hands over its messages, all that one read brought at once, instead of keeping them; and that
    writes frames piece by piece, so that of what is slow to leave little is copied. ``heard`` and ``given``: bytes that
    came and that were written, since the upgrade or a little before."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.heard = self.given = 0
        self._take: Callable[[list[bytes | str]], None] | None = None
        self._messages: list[bytes | str] = []
        # A message that comes in several frames, and whether it is text.
        self._begun: bytearray | None = None
        self._begun_as = Opcode.BINARY
        # Part of a frame has left, and the rest has not.
        self._within = False
        # Plain frames are taken from the upgrade on, unless bytes behind it came too early to tell where one begins.
        self._plain: PlainFrames | None = None
        self._upgrading = False
        self._early = False

    def hand_to(self, take: Callable[[list[bytes | str]], None]) -> None:
        """From now on, and with what has come since the upgrade."""
        self._take = take
        self._hand_over()

    @property
    def clogged(self) -> bool:
        """Whether more waits in the socket's own buffer than may be added to by who does not read."""
        return self.paused and self.waiting > _CLOGGED

    @property
    def waiting(self) -> int:
        """Bytes that were given to the socket and have not left: all that waits for this connection alone."""
        held = sum(map(len, self.protocol.writes)) if self._within else 0
        return self.transport.get_write_buffer_size() + held

    def write(self, out: Outgoing, place: int = 0) -> int | None:
        """Write as much as leaves soon, from a place in it on. Where to go on, after ``drain``; None when all is
        written, or nothing leaves any more."""
        if self.protocol.state is not State.OPEN:
            return None
        room = self.transport.get_write_buffer_size
        if self.protocol.extensions:
            for at, payload in enumerate(out.payloads[place:], place):
                if room() >= SLICE:
                    return at
                broadcast((self,), payload)
            return None
        framed = out.framed
        if len(framed) <= SLICE:
            if room() >= SLICE:
                return 0
            self._give(framed)
            return None
        return self._write_large(memoryview(framed), place)

    def _write_large(self, framed: memoryview, place: int) -> int | None:
        while (room := self.transport.get_write_buffer_size()) < SLICE:
            if room == 0 and not self.transport.is_closing():
                place += self._left_at_once(framed[place:])
            # What the transport can't send it copies, and tells when it has left.
            piece = framed[place : place + SLICE]
            place += len(piece)
            self._within = place < len(framed)
            if piece:
                self._give(piece)
            if not self._within:
                self.send_data()
                return None
        return place

    def _left_at_once(self, data: memoryview) -> int:
        """How much of it the system takes without the transport, which has nothing to send. Not through TLS."""
        if not _POSIX or self.transport.get_extra_info("sslcontext"):
            return 0
        with suppress(OSError):  # the transport meets the same, and says so
            left = os.write(self.transport.get_extra_info("socket").fileno(), data)
            self.given += left
            return left
        return 0

    def _give(self, data: bytes | memoryview) -> None:
        self.given += len(data)
        self.transport.write(data)

    def send_data(self) -> None:
        """Frames that the library sends by itself (pings, pongs, the close) wait for the end of a frame."""
        if not self._within:
            self.given += sum(map(len, self.protocol.writes))
            super().send_data()

    def fail(self) -> None:
        """Close it as one at which something went wrong; of what is queued nothing leaves any more."""
        if self._within or self.protocol.state is not State.OPEN:
            self.transport.abort()
        else:
            self.protocol.fail(CloseCode.INTERNAL_ERROR)
            self.send_data()

    def ask(self) -> None:
        """Send a ping."""
        if self.protocol.state is State.OPEN:
            self.protocol.send_ping(b"")
            self.send_data()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._hand_over()

    def data_received(self, data: bytes) -> None:
        self.heard += len(data)
        if self._plain is not None:
            self._plain.feed(data)
        elif self.protocol.state is State.CONNECTING or self._early:
            self._early = self._early or self._upgrading
            super().data_received(data)
            self._early = self._early or (self._upgrading and bool(self.protocol.reader.buffer))
        else:
            self._plain = PlainFrames(self._add, super().data_received, self._is_open, self._most)
            self._plain.feed(data)
        self._hand_over()

    def _add(self, message: bytes) -> None:
        self._messages.append(message)

    def _is_open(self) -> bool:
        return self.protocol.state is State.OPEN and self._begun is None

    def _most(self) -> int:
        return self.protocol.max_message_size or 0

    def process_event(self, event: Request | Frame) -> None:  # type: ignore[override]
        if not isinstance(event, Frame) or event.opcode not in DATA_OPCODES:
            self._upgrading = self._upgrading or isinstance(event, Request)
            return super().process_event(event)
        if self._begun is None:
            if event.fin:
                return self._messages.append(_message(event.opcode, event.data))
            self._begun, self._begun_as = bytearray(), event.opcode
        # As bytes: there may be any number of frames, with nothing in them.
        self._begun += event.data
        if event.fin:
            self._messages.append(_message(self._begun_as, self._begun))
            self._begun = None

    def _hand_over(self) -> None:
        if self._take is not None:
            messages, self._messages = self._messages, []
            self._take(messages)


Take: TypeAlias = "Callable[[Connection, bytes | str], None]"


def _message(opcode: Opcode, data: bytes | bytearray | memoryview) -> bytes | str:
    return bytes(data) if opcode is Opcode.BINARY else bytes(data).decode("utf-8", "replace")


class Share:
    """Bytes that all connections of one subject have in work together; from ``most`` on none of them is read from."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.working = 0
        self._waiting: dict[Connection, None] = {}

    def has_room(self, connection: Connection) -> bool:
        """Whether a connection may take more. If not it is told when there is room."""
        if self.working <= self._most:
            return True
        self._waiting[connection] = None
        return False

    def less(self, size: int) -> None:
        """So many bytes are no longer in work."""
        self.working -= size
        if self._waiting and self.working <= self._most:
            waiting, self._waiting = self._waiting, {}
            for connection in waiting:
                connection.read_on()

    def forget(self, connection: Connection) -> None:
        """It is gone."""
        self._waiting.pop(connection, None)


class Connection:
    """The frames that a socket still has to send, and how much of its input is in work.

    ``take`` gets each message in its turn: when what came before has left room for it, and the sender's rate allows it.
    ``unread``: what has come and waits for its turn; who is given a message may take those behind it, too.
    ``unreported``: the weight of what has left since the rooms were told last. ``last``: the error after which it ends.
    """

    def __init__(self, peer: int, socket: Socket, limits: Limits, door: Door, take: Take) -> None:
        self.peer = peer
        self.socket = socket
        self.limits = limits
        self.door = door
        self._take = take
        self.unread: deque[bytes | str] = deque()
        self._taking = False
        self.rate = Rate(limits.rate, limits.burst)
        self.share: Share | None = None
        self.unreported = 0
        self.last: Error | None = None
        self.sent_at = 0.0
        self._pulse = Keepalive(socket.transport, socket.ask, asyncio.get_running_loop().time(), limits.idle_timeout)
        # What waits here, and of the first how much has left.
        self._queue: deque[tuple[Outgoing, int]] = deque()
        self._place = 0
        self._queued = 0
        self._working = 0
        self._resting: tuple[asyncio.TimerHandle, Callable[[], None]] | None = None
        self._reading = True
        self._wake = asyncio.Event()

    # ---------------------------------------------------------------- out

    @property
    def waiting(self) -> tuple[int, int]:
        """Bytes that wait here, in frames that other connections may share; and in the socket, which are this
        connection's own."""
        return self._queued, self.socket.waiting

    def send(self, out: Outgoing, weight: int) -> None:
        """Write at once where the socket takes it, else queue."""
        self.sent_at = asyncio.get_running_loop().time()
        place = 0 if self._queue else self.socket.write(out)
        if place is None:
            self.unreported += weight
            return
        if not self._queue:
            self._place = place
        self._queue.append((out, weight))
        self._queued += out.size + OBJECT
        self._wake.set()
        self.read_on()

    def end(self, error: Error) -> bool:
        """Send an error after all that is queued, then close. False where it ends already."""
        if self.last is not None:
            return False
        self.last = error
        last = self.door.close_frame(error).last
        if last is not None:
            self.send(Outgoing(last), 0)
        self._wake.set()
        self.read_on()
        # Otherwise a peer that never reads would stay connected for ever.
        asyncio.get_running_loop().call_later(self.limits.close_timeout, self.socket.transport.abort)
        return True

    def break_off(self) -> None:
        """At once, for something went wrong here."""
        # Otherwise a peer that never reads would stay connected for ever.
        asyncio.get_running_loop().call_later(self.limits.close_timeout, self.socket.transport.abort)
        self.socket.fail()

    def beat(self) -> None:
        """To be called now and then: give up a peer that shows no life. One that is sent away has its own limit."""
        socket = self.socket
        # Where it is the relay that is slow, it hears nothing.
        excused = self._working > self.limits.window or self._resting is not None
        now = asyncio.get_running_loop().time()
        if self.last is None and not self._pulse.beat(now, socket.heard, socket.given, excused=excused):
            socket.transport.abort()

    async def pump(self, sent: Callable[[Connection], None]) -> None:
        """Send what is queued, as fast as the other side takes it, until the connection has ended."""
        with suppress(ConnectionClosed, OSError):
            while True:
                while self._queue:
                    out, weight = self._queue[0]
                    place = self.socket.write(out, self._place)
                    if place is not None:
                        self._place = place
                        await (self.socket.drain() if self.socket.paused else asyncio.sleep(0))
                        continue
                    self._queue.popleft()
                    self._place = 0
                    self._queued -= out.size + OBJECT
                    self.unreported += weight
                    sent(self)
                    self.read_on()
                if self.last is not None:
                    _, code, words = self.door.close_frame(self.last)
                    return await self.socket.close(code, words.encode()[:_WORDS].decode(errors="ignore"))
                self._wake.clear()
                await self._wake.wait()

    # ---------------------------------------------------------------- in

    def receive(self, messages: Sequence[bytes | str]) -> None:
        """The frames of one read. Those that there is no room for wait here, and nothing more is read."""
        self.unread.extend(messages)
        self.read_on()

    def gave(self, size: int) -> None:
        """So many bytes more are in work."""
        self._working += size
        if self.share is not None:
            self.share.working += size

    def took(self, size: int) -> None:
        """So many bytes are no longer in work."""
        self._working -= size
        self.read_on()
        if self.share is not None:
            self.share.less(size)

    def rest(self, seconds: float, then: Callable[[], None]) -> None:
        """Take nothing for a while; then do this, and go on."""
        self._resting = asyncio.get_running_loop().call_later(seconds, self._rested), then

    def finish(self) -> None:
        """The peer is gone: take what it said last, also where there was no room, and without a rest, which would end
        when nobody knows the peer any more."""
        while self.last is None and (self._resting or self.unread):
            if self._resting:
                self._resting[0].cancel()
                self._go_on()
            else:
                self._take(self, self.unread.popleft())

    def left(self) -> None:
        """Nothing of it is in work any more, as far as its subject goes."""
        if self.share is not None:
            self.share.forget(self)
            self.share.less(self._working)
            self.share = None

    def _rested(self) -> None:
        self._go_on()
        self.read_on()

    def _go_on(self) -> None:
        """Do what the rest has put off."""
        assert self._resting is not None
        (_, then), self._resting = self._resting, None
        if self.last is None:
            then()

    def read_on(self) -> None:
        """Take messages while there is room, and read from the socket while none wait; at the end too, for the closing
        handshake stands behind whatever else the peer sends."""
        if self._taking:
            return
        self._taking = True
        try:
            while self.unread and self._has_room:
                self._take(self, self.unread.popleft())
        finally:
            self._taking = False
        if self.last is not None:
            self.unread.clear()
        reading = self.last is not None or self._has_room
        if reading != self._reading and not self.socket.transport.is_closing():
            self._reading = reading
            (self.socket.transport.resume_reading if reading else self.socket.transport.pause_reading)()

    @property
    def _has_room(self) -> bool:
        full = self._working > self.limits.window or self._queued > self.limits.outgoing or self.socket.clogged
        if self.last is not None or full or self._resting:
            return False
        return self.share is None or self.share.has_room(self)
