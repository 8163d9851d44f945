"""One WebSocket of the relay: what came in and is in work, what is still to be sent, and whether to read on.

Messages are handed over as they come, without a task that waits for each; what goes to many is framed once. At a
relay's rates both cost more than the messages do.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, TypeAlias, cast

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
from .frames import PlainFrames, frame_head
from .large import SMALL, LargeRoom
from .strangers import Strangers
from .turns import SLICE as TURN
from .turns import SocketTurns

SLICE = 16 << 10
"""Bytes that are given to a socket at a time. It copies those that it can't send; frames wait here, shared by all."""
OBJECT = 256
"""The weight of a message beside its bytes where it waits: to Python a small one is mostly an object."""
_FRAMES = 512
"""Frames that are taken before it is looked at how long they took."""
_READ = 64 << 10
"""Bytes that are read at once, and may wait here of a connection that has no turn."""
_HEAD_ENDS, _HEAD = b"\r\n\r\n", 16 << 10
"""The end of a request, and its bytes at most."""
_MORE, _FULL, _LARGE = "more", "full", "large"
"""Why nothing is read: there is more than was looked at; too much is in work; a large frame has no room."""
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


class Socket(ServerConnection):
    """A WebSocket that hands over its messages, all that one read brought at once, instead of keeping them; and that
    writes frames piece by piece, so that of what is slow to leave little is copied. ``heard`` and ``given``: bytes that
    came and that were written, since the upgrade or a little before.

    It has many methods, for those that asyncio, websockets and the turns call have to be on one object.
    """

    def __init__(
        self, *arguments: Any, turns: SocketTurns, strangers: Strangers, large: LargeRoom, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.heard = self.given = 0
        self.source: object = None
        """On whose time it is listened to; that of all strangers together, to begin with."""
        self._turns, self._strangers, self._large = turns, strangers, large
        self._take: Callable[[list[bytes | str], int], None] | None = None
        self._messages: list[bytes | str] = []
        # Bytes that have come and were not looked at, and why nothing more is read.
        self._inbox = b""
        self._holds: set[str] = set()
        self._in_line = False
        # Of the request: bytes that came, and its last few, to find where it ends.
        self._asked, self._asked_last, self._upgrading = 0, b"", True
        # A message that comes in several frames, and whether it is text.
        self._begun: bytearray | None = None
        self._begun_as = Opcode.BINARY
        # Part of a frame has left, and the rest has not.
        self._within = False
        self._plain = PlainFrames(
            self._add, super().data_received, self._is_open, self._most, self._has_enough, self._has_room
        )
        self.unread = self.working = 0
        """Messages that wait for their turn, and bytes in work."""
        # Bytes of messages that are not handed over yet, and of the one of which parts are still to come.
        self._came = self._parts = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        cast("Any", transport).max_size = _READ
        self._strangers.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._strangers.remove(self)
        self._large.leave(self)
        self._inbox, self._begun = b"", None
        super().connection_lost(exc)
        self.protocol.reader.buffer.clear()

    def give_way(self) -> None:
        """Close at once, for others need its place."""
        self.transport.abort()

    def introduce(self, source: object) -> None:
        """It has said who it is: a stranger no longer."""
        self.source = source
        self._strangers.remove(self)

    def hand_to(self, take: Callable[[list[bytes | str], int], None]) -> None:
        """Messages, and how many frames came beside those that are messages by themselves. From now on, and with what
        has come since the upgrade."""
        self._take = take
        self._work_soon()

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
        """Write as much as leaves soon, from a place in it on. Returns the next one, after ``drain``; None when all is
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
            # The transport copies what it can't send, and tells when it has left.
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
        if not self.transport.is_closing():
            self.transport.write(data)

    def send_data(self) -> None:
        """Frames that the library sends by itself (pings, pongs, the close) wait for the end of a frame."""
        if self.transport.is_closing():
            # The other side is gone: the library would hand it over, and asyncio say so each time.
            self.protocol.data_to_send()
        elif not self._within:
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
        if self._upgrading:
            data = self._ask_to_upgrade(data)
        self._inbox = self._inbox + data if self._inbox else data
        if self._take is None:
            self.hold(_MORE, bool(self._inbox))
        elif not self._in_line:
            self.work()

    def _ask_to_upgrade(self, data: bytes) -> bytes:
        """The library gets the request and nothing behind it, which has to wait for the answer. Returns the rest."""
        joined = self._asked_last + data
        end = joined.find(_HEAD_ENDS)
        self._asked_last = joined[-len(_HEAD_ENDS) + 1 :]
        self._upgrading = end < 0
        mine = len(data) if end < 0 else end + len(_HEAD_ENDS) - (len(joined) - len(data))
        self._asked += mine
        if self._asked > _HEAD:
            self.transport.abort()
            return b""
        super().data_received(data[:mine])
        return data[mine:]

    def work(self) -> None:
        """Look at what came, for a while; then others have a turn."""
        self._in_line = False
        until = time.perf_counter() + TURN
        while self._inbox and not self._stops and not self.transport.is_closing():
            self._inbox = self._plain.feed(self._inbox, _FRAMES)
            self._hand_over()
            self.settle()
            if time.perf_counter() >= until:
                break
        self.hold(_MORE, bool(self._inbox))
        self._work_soon()

    @property
    def _stops(self) -> bool:
        return _FULL in self._holds or _LARGE in self._holds

    def _work_soon(self) -> None:
        if self._inbox and not self._stops and not self._in_line and not self.transport.is_closing():
            self._in_line = True
            self._turns.add(self)

    def listen(self, on: bool) -> None:
        """Whether there is room for more."""
        self.hold(_FULL, not on)
        if on:
            self._work_soon()

    def hold(self, why: str, on: bool) -> None:
        """Read nothing more for this reason, or read on where it was the last."""
        reading = not self._holds
        (self._holds.add if on else self._holds.discard)(why)
        if reading != (not self._holds) and not self.transport.is_closing():
            (self.transport.pause_reading if self._holds else self.transport.resume_reading)()

    def _add(self, message: bytes | str) -> None:
        self._messages.append(message)
        self._came += len(message)
        self._parts = 0

    def _has_enough(self) -> bool:
        return self._came > SMALL

    def _has_room(self, size: int, parts: bool) -> bool:
        """Whether there is room for a frame. Nobody knows how long a message becomes that comes in parts."""
        if parts and self._parts + size > SMALL:
            size = self._most()
        found = self._large.ask(self, size, self.loop.time())
        self.hold(_LARGE, not found)
        return found

    def room_came(self) -> None:
        """There may be room for the frame that waits."""
        self.hold(_LARGE, False)
        self._work_soon()

    def settle(self) -> None:
        """Keep no more room for large frames than it takes: for what waits, for what is in work, and for a frame that
        has come in part."""
        if not self.unread:
            unfinished = self._most() if self._parts > SMALL else self._plain.unfinished
            self._large.keep(self, max(self.working, unfinished))

    def _is_open(self) -> bool:
        return self.protocol.state is State.OPEN and self._begun is None

    def _most(self) -> int:
        return self.protocol.max_message_size or 0

    def process_event(self, event: Request | Frame) -> None:  # type: ignore[override]
        if not isinstance(event, Frame) or event.opcode not in DATA_OPCODES:
            return super().process_event(event)
        if self._begun is None:
            if event.fin:
                return self._add(_message(event.opcode, event.data))
            self._begun, self._begun_as = bytearray(), event.opcode
        # As bytes: there may be any number of frames, with nothing in them.
        self._begun += event.data
        self._parts = len(self._begun)
        if event.fin:
            self._add(_message(self._begun_as, self._begun))
            self._begun = None

    def _hand_over(self) -> None:
        if self._take is not None:
            messages, self._messages, self._came = self._messages, [], 0
            others, self._plain.others = self._plain.others, 0
            self._take(messages, others)


Take: TypeAlias = "Callable[[Connection, bytes | str], None]"
Charge: TypeAlias = "Callable[[Connection, int], None]"


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
    ``charge`` gets the number of frames that were no message by themselves: pings, parts, compressed ones.
    ``unread``: what has come and waits for its turn; who is given a message may take those behind it, too.
    ``unreported``: the weight of what has left since the rooms were told last. ``last``: the error after which it ends.
    """

    def __init__(self, peer: int, socket: Socket, limits: Limits, door: Door, take: Take, charge: Charge) -> None:
        self.peer = peer
        self.socket = socket
        self.limits = limits
        self.door = door
        self._take, self._charge = take, charge
        self.greeted = False
        self.unread: deque[bytes | str] = deque()
        self._taking = False
        self.rate = Rate(limits.rate, limits.burst)
        self.share: Share | None = None
        self.unreported = 0
        self.last: Error | None = None
        self.sent_at = 0.0
        self._pulse = Keepalive(socket.transport, socket.ask, asyncio.get_running_loop().time(), limits.idle_timeout)
        # All that waits here, and of the first how much has left.
        self._queue: deque[tuple[Outgoing, int]] = deque()
        self._place = 0
        self._queued = 0
        self._working = 0
        self._resting: tuple[asyncio.TimerHandle, Callable[[], None]] | None = None
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
        # If it is the relay that is slow, it hears nothing.
        excused = self._working > self.limits.window or self._resting is not None
        now = asyncio.get_running_loop().time()
        if self.last is None and not self._pulse.beat(now, socket.heard, socket.given, excused=excused):
            socket.transport.abort()

    async def pump(self, sent: Callable[[Connection], None]) -> None:
        """Send what is queued, as fast as the other side takes it, until the connection has ended."""
        with suppress(ConnectionClosed, OSError):
            while True:
                while self._queue:
                    # No name for it: a task that is cancelled while it waits is long in memory, with what it names.
                    place = self.socket.write(self._queue[0][0], self._place)
                    if place is not None:
                        self._place = place
                        await (self.socket.drain() if self.socket.paused else asyncio.sleep(0))
                        continue
                    out, weight = self._queue.popleft()
                    self._place = 0
                    self._queued -= out.size + OBJECT
                    self.unreported += weight
                    del out
                    sent(self)
                    self.read_on()
                if self.last is not None:
                    _, code, words = self.door.close_frame(self.last)
                    return await self.socket.close(code, words.encode()[:_WORDS].decode(errors="ignore"))
                self._wake.clear()
                await self._wake.wait()

    # ---------------------------------------------------------------- in

    def receive(self, messages: Sequence[bytes | str], others: int = 0) -> None:
        """The frames of one read. Those that there is no room for wait here, and nothing more is read."""
        self.unread.extend(messages)
        if others and self.last is None:
            self._charge(self, others)
        self.read_on()

    def gave(self, size: int) -> None:
        """So many bytes more are in work."""
        self._working += size
        self.socket.working = self._working
        if self.share is not None:
            self.share.working += size

    def took(self, size: int) -> None:
        """So many bytes are no longer in work."""
        self._working -= size
        self.socket.working = self._working
        self.read_on()
        self.socket.settle()
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
        """It is gone: nothing of it is in work any more, as far as its subject goes, and it holds nothing. It may be
        there for long: it is part of a cycle."""
        self._queue.clear()
        self.unread.clear()
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
        self.socket.unread = len(self.unread)
        self.socket.listen(self.last is not None or self._has_room)

    @property
    def _has_room(self) -> bool:
        full = self._working > self.limits.window or self._queued > self.limits.outgoing or self.socket.clogged
        if self.last is not None or full or self._resting:
            return False
        return self.share is None or self.share.has_room(self)
