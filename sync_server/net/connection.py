"""A connection of the relay: what is still to be sent to its peer, and how much of what came from it is in progress."""

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
_REASON = 123
"""Bytes of the reason that a close frame can carry."""

HandleMessage: TypeAlias = "Callable[[Connection, bytes | str], None]"
Charge: TypeAlias = "Callable[[Connection, int], None]"


class SubjectWindow:
    """Bytes that all connections of one subject have in progress together; past ``most`` none of them is read from."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.in_progress = 0
        self._waiting: dict[Connection, None] = {}

    def has_room(self, connection: Connection) -> bool:
        """Whether a connection may handle more. If not, it goes on when there is room."""
        if self.in_progress <= self._most:
            return True
        self._waiting[connection] = None
        return False

    def release(self, size: int) -> None:
        """So many bytes are no longer in progress."""
        self.in_progress -= size
        if self._waiting and self.in_progress <= self._most:
            waiting, self._waiting = self._waiting, {}
            for connection in waiting:
                connection.process_unread()

    def forget(self, connection: Connection) -> None:
        """It is gone."""
        self._waiting.pop(connection, None)


class Connection:
    """The frames that a socket still has to send, and how much of its input is in progress.

    ``handle`` gets each message in its turn: when there is room beside what came before, and the sender's rate allows
    it.
    ``charge`` gets the number of frames that were no message by themselves: pings, parts, compressed ones.
    ``unread``: messages that wait for their turn; ``handle`` may take those after its own, too.
    ``unreported``: the weight of what has left since the rooms were told last. ``last``: the error after which it ends.
    """

    def __init__(
        self, peer: int, socket: Socket, limits: Limits, door: Door, handle: HandleMessage, charge: Charge
    ) -> None:
        self.peer = peer
        self.socket = socket
        self._reader, self._writer = socket.reader, socket.writer
        self.limits = limits
        self.door = door
        self._handle, self._charge = handle, charge
        self.greeted = False
        self.unread: deque[bytes | str] = deque()
        self._handling = False
        self.rate = Rate(limits.rate, limits.burst)
        self.subject_window: SubjectWindow | None = None
        self.unreported = 0
        self.last: Error | None = None
        self.sent_at = 0.0
        self._time = asyncio.get_running_loop().time
        self._keepalive = Keepalive(socket.transport, socket.ask, self._time(), limits.idle_timeout)
        # All that waits here, and of the first how much has left.
        self._queue: deque[tuple[Outgoing, int]] = deque()
        self._place = 0
        self._queued = 0
        self._working = 0
        self._paused: tuple[asyncio.TimerHandle, Callable[[], None]] | None = None
        self._wake = asyncio.Event()

    # ---------------------------------------------------------------- out

    @property
    def waiting(self) -> tuple[int, int]:
        """Bytes that wait here, in frames that other connections may share; and in the socket, which are this
        connection's own."""
        return self._queued, self._writer.waiting

    def send(self, out: Outgoing, weight: int) -> None:
        """Write at once where the socket takes it, else queue."""
        self.sent_at = self._time()
        place = 0 if self._queue else self._writer.write(out)
        if place is None:
            self.unreported += weight
            return
        if not self._queue:
            self._place = place
        self._queue.append((out, weight))
        self._queued += out.size + OBJECT
        self._wake.set()
        self.process_unread()

    def end(self, error: Error) -> bool:
        """Send an error after all that is queued, then close. False where it ends already."""
        if self.last is not None:
            return False
        self.last = error
        last = self.door.close_frame(error).last
        if last is not None:
            self.send(Outgoing(last), 0)
        self._wake.set()
        self.process_unread()
        # Otherwise a peer that never reads would stay connected for ever.
        asyncio.get_running_loop().call_later(self.limits.close_timeout, self.socket.transport.abort)
        return True

    def fail(self) -> None:
        """Close at once, for the relay failed at this connection."""
        # Otherwise a peer that never reads would stay connected for ever.
        asyncio.get_running_loop().call_later(self.limits.close_timeout, self.socket.transport.abort)
        self.socket.fail()

    def check_alive(self) -> None:
        """To be called now and then: cut a peer that gives no sign of life. One that was sent its last error has
        another limit."""
        socket = self.socket
        # While the relay itself is slow, it reads nothing.
        excused = self._working > self.limits.window or self._paused is not None
        now = self._time()
        if self.last is None and not self._keepalive.beat(now, self._reader.heard, self._writer.given, excused=excused):
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
                    self.process_unread()
                if self.last is not None:
                    _, code, reason = self.door.close_frame(self.last)
                    return await self.socket.close(code, reason.encode()[:_REASON].decode(errors="ignore"))
                self._wake.clear()
                await self._wake.wait()

    # ---------------------------------------------------------------- in

    def receive(self, messages: Sequence[bytes | str], others: int = 0) -> None:
        """The messages of one read. Those that there is no room for wait here, and nothing more is read."""
        self.unread.extend(messages)
        if others and self.last is None:
            self._charge(self, others)
        self.process_unread()

    def start_work(self, size: int) -> None:
        """The relay works on so many bytes more."""
        self._working += size
        self._reader.working = self._working
        if self.subject_window is not None:
            self.subject_window.in_progress += size

    def end_work(self, size: int) -> None:
        """The relay is done with so many bytes."""
        self._working -= size
        self._reader.working = self._working
        self.process_unread()
        self._reader.trim_room()
        if self.subject_window is not None:
            self.subject_window.release(size)

    def pause(self, seconds: float, then: Callable[[], None]) -> None:
        """Handle nothing for some seconds; then call ``then``, and go on."""
        self._paused = asyncio.get_running_loop().call_later(seconds, self._end_pause), then

    def drain(self) -> None:
        """The peer is gone: handle what it sent last, also where there was no room, and without a pause, which would
        end after the peer was removed."""
        while self.last is None and (self._paused or self.unread):
            if self._paused:
                self._paused[0].cancel()
                self._resume()
            else:
                self._handle(self, self.unread.popleft())

    def release(self) -> None:
        """The peer is gone: give its part of the subject's window back, and hold nothing. The object is in a cycle, and
        may stay in memory for long."""
        self._queue.clear()
        self.unread.clear()
        if self.subject_window is not None:
            self.subject_window.forget(self)
            self.subject_window.release(self._working)
            self.subject_window = None

    def _end_pause(self) -> None:
        self._resume()
        self.process_unread()

    def _resume(self) -> None:
        """Do what the pause has put off."""
        assert self._paused is not None
        (_, then), self._paused = self._paused, None
        if self.last is None:
            then()

    def process_unread(self) -> None:
        """Handle messages while there is room, and read from the socket while none wait. After the last error too: the
        closing handshake comes after whatever else the peer sends."""
        if self._handling:
            return
        self._handling = True
        try:
            while self.unread and self._has_room:
                self._handle(self, self.unread.popleft())
        finally:
            self._handling = False
        if self.last is not None:
            self.unread.clear()
        self._reader.unread = len(self.unread)
        self._reader.listen(self.last is not None or self._has_room)

    @property
    def _has_room(self) -> bool:
        full = self._working > self.limits.window or self._queued > self.limits.outgoing or self._writer.clogged
        if self.last is not None or full or self._paused:
            return False
        return self.subject_window is None or self.subject_window.has_room(self)
