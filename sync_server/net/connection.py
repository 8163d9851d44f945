"""A connection of the relay: what is still to be sent to its peer, and how much of what came from it is in work."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

from websockets.exceptions import ConnectionClosed

from llmcrdt.sync.keepalive import Keepalive
from llmcrdt.sync.messages import Error

from ..core.limits import Limits
from ..core.rate import Rate
from ..doors.base import Door
from .outgoing import Outgoing
from .websocket import Socket

OBJECT = 256
"""The weight of a message beside its bytes where it waits: to Python a small one is mostly an object."""
_WORDS = 123
"""Bytes of words that a close frame can carry."""

Take: TypeAlias = "Callable[[Connection, bytes | str], None]"
Charge: TypeAlias = "Callable[[Connection, int], None]"


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
        self._reader, self._writer = socket.reader, socket.writer
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
        return self._queued, self._writer.waiting

    def send(self, out: Outgoing, weight: int) -> None:
        """Write at once where the socket takes it, else queue."""
        self.sent_at = asyncio.get_running_loop().time()
        place = 0 if self._queue else self._writer.write(out)
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
        if self.last is None and not self._pulse.beat(now, self._reader.heard, self._writer.given, excused=excused):
            socket.transport.abort()

    async def pump(self, sent: Callable[[Connection], None]) -> None:
        """Send what is queued, as fast as the other side takes it, until the connection has ended."""
        with suppress(ConnectionClosed, OSError):
            while True:
                while self._queue:
                    # No name for it: a task that is cancelled while it waits is long in memory, with what it names.
                    place = self._writer.write(self._queue[0][0], self._place)
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
        self._reader.working = self._working
        if self.share is not None:
            self.share.working += size

    def took(self, size: int) -> None:
        """So many bytes are no longer in work."""
        self._working -= size
        self._reader.working = self._working
        self.read_on()
        self._reader.trim_room()
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
        self._reader.unread = len(self.unread)
        self._reader.listen(self.last is not None or self._has_room)

    @property
    def _has_room(self) -> bool:
        full = self._working > self.limits.window or self._queued > self.limits.outgoing or self._writer.clogged
        if self.last is not None or full or self._resting:
            return False
        return self.share is None or self.share.has_room(self)
