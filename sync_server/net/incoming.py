"""Reads a WebSocket: bytes are looked at by turns, and messages are handed over, all that one read brought at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from .frames import PlainFrames
from .large import SMALL, LargeRoom
from .turns import SLICE as TURN
from .turns import SocketTurns

_FRAMES = 512
"""Frames that are taken before it is looked at how long they took."""
_HEAD_ENDS, _HEAD = b"\r\n\r\n", 16 << 10
"""The end of a request, and its bytes at most."""
_MORE, _FULL, _LARGE = "more", "full", "large"
"""Why nothing is read: there is more than was looked at; too much is in progress; a large frame has no room."""


class FrameReader:
    """Reads what comes through one WebSocket: the request, then frames. Implements ``turns.Worker`` and
    ``large.Holder``.

    ``library`` gets the bytes that the WebSocket library has to look at; it hands messages of several frames, or
    compressed ones, to ``add_frame``. ``source``: on whose time it is listened to; None is that of all strangers.
    ``heard``: bytes that came. ``unread`` and ``working``: messages that wait for their turn, and bytes in progress;
    the receiver of the messages sets them.

    Nothing is read from the transport while more has come than was looked at, while too much is in progress
    (``listen``), or while a large frame waits for room.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        protocol: ServerProtocol,
        library: Callable[[bytes], None],
        now: Callable[[], float],
        turns: SocketTurns,
        large: LargeRoom,
    ) -> None:
        self._transport, self._protocol, self._library, self._now = transport, protocol, library, now
        self._turns, self._large = turns, large
        self.source: object = None
        self.heard = 0
        self.unread = self.working = 0
        self._receive: Callable[[list[bytes | str], int], None] | None = None
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
        self._plain = PlainFrames(self._add, library, self._is_open, self._most, self._has_enough, self._has_room)
        # Bytes of messages that are not handed over yet, and of the one of which parts are still to come.
        self._came = self._parts = 0

    def hand_to(self, receive: Callable[[list[bytes | str], int], None]) -> None:
        """Hand messages to this from now on, and with them those that have come since the upgrade. With each list
        comes the number of frames that were no messages by themselves."""
        self._receive = receive
        self._work_soon()

    def data_received(self, data: bytes) -> None:
        """Bytes came. They are looked at now, or in the reader's next turn."""
        self.heard += len(data)
        if self._upgrading:
            data = self._ask_to_upgrade(data)
        self._inbox = self._inbox + data if self._inbox else data
        if self._receive is None:
            self._hold(_MORE, bool(self._inbox))
        elif not self._in_line:
            self.work()

    def _ask_to_upgrade(self, data: bytes) -> bytes:
        """The library gets the request and nothing after it, which has to wait for the answer. Returns the rest."""
        joined = self._asked_last + data
        end = joined.find(_HEAD_ENDS)
        self._asked_last = joined[-len(_HEAD_ENDS) + 1 :]
        self._upgrading = end < 0
        mine = len(data) if end < 0 else end + len(_HEAD_ENDS) - (len(joined) - len(data))
        self._asked += mine
        if self._asked > _HEAD:
            self._transport.abort()
            return b""
        self._library(data[:mine])
        return data[mine:]

    def work(self) -> None:
        """Look at what came, for a while; then others have a turn."""
        self._in_line = False
        until = time.perf_counter() + TURN
        while self._inbox and not self._stops and not self._transport.is_closing():
            self._inbox = self._plain.feed(self._inbox, _FRAMES)
            self.hand_over()
            self.trim_room()
            if time.perf_counter() >= until:
                break
        self._hold(_MORE, bool(self._inbox))
        self._work_soon()

    @property
    def _stops(self) -> bool:
        return _FULL in self._holds or _LARGE in self._holds

    def _work_soon(self) -> None:
        if self._inbox and not self._stops and not self._in_line and not self._transport.is_closing():
            self._in_line = True
            self._turns.add(self)

    def hand_over(self) -> None:
        """Hand over what is there, if only that nothing is."""
        if self._receive is not None:
            messages, self._messages, self._came = self._messages, [], 0
            others, self._plain.others = self._plain.others, 0
            self._receive(messages, others)

    # ---------------------------------------------------------------- whether to read

    def listen(self, on: bool) -> None:
        """Whether there is room for more."""
        self._hold(_FULL, not on)
        if on:
            self._work_soon()

    def _hold(self, why: str, on: bool) -> None:
        """Read nothing more for this reason, or read on where it was the last."""
        reading = not self._holds
        (self._holds.add if on else self._holds.discard)(why)
        if reading != (not self._holds) and not self._transport.is_closing():
            (self._transport.pause_reading if self._holds else self._transport.resume_reading)()

    def room_freed(self) -> None:
        """There may be room for the frame that waits."""
        self._hold(_LARGE, False)
        self._work_soon()

    def trim_room(self) -> None:
        """Keep no more room for large frames than it takes: for what waits, for what is in progress, and for a frame
        that has come in part."""
        if not self.unread:
            unfinished = self._most() if self._parts > SMALL else self._plain.unfinished
            self._large.keep(self, max(self.working, unfinished))

    def give_way(self) -> None:
        """Close at once, for others need its place."""
        self._transport.abort()

    def close(self) -> None:
        """The transport is gone: nothing is looked at any more."""
        self._large.leave(self)
        self._inbox, self._begun = b"", None

    # ---------------------------------------------------------------- frames

    def add_frame(self, frame: Frame) -> None:
        """Take a data frame from the library."""
        if self._begun is None:
            if frame.fin:
                return self._add(_message(frame.opcode, frame.data))
            self._begun, self._begun_as = bytearray(), frame.opcode
        # As bytes: there may be any number of frames, with nothing in them.
        self._begun += frame.data
        self._parts = len(self._begun)
        if frame.fin:
            self._add(_message(self._begun_as, self._begun))
            self._begun = None

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
        found = self._large.ask(self, size, self._now())
        self._hold(_LARGE, not found)
        return found

    def _is_open(self) -> bool:
        return self._protocol.state is State.OPEN and self._begun is None

    def _most(self) -> int:
        return self._protocol.max_message_size or 0


def _message(opcode: Opcode, data: bytes | bytearray | memoryview) -> bytes | str:
    return bytes(data) if opcode is Opcode.BINARY else bytes(data).decode("utf-8", "replace")
