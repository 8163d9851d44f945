"""One WebSocket of the relay, as asyncio and the WebSocket library call it.

Messages are handed over as they come, without a task that waits for each; what goes to many is framed once. At a
relay's rates both cost more than the messages do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from websockets.asyncio.server import ServerConnection
from websockets.frames import DATA_OPCODES, CloseCode, Frame
from websockets.http11 import Request
from websockets.protocol import State

from .incoming import FrameReader
from .large import LargeRoom
from .outgoing import FrameWriter
from .strangers import Strangers
from .turns import SocketTurns

_READ = 64 << 10
"""Bytes that are read at once, and may wait here of a connection that has no turn."""


class Socket(ServerConnection):
    """A WebSocket that reads through a ``FrameReader`` and writes through a ``FrameWriter``; they exist from the TCP
    connection on. The handshake, pings, the close, and frames that are not plain are the library's."""

    reader: FrameReader
    writer: FrameWriter

    def __init__(
        self, *arguments: Any, turns: SocketTurns, strangers: Strangers, large: LargeRoom, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self._turns, self._strangers, self._large = turns, strangers, large

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        made = cast("asyncio.Transport", transport)
        cast("Any", made).max_size = _READ
        library = super().data_received
        self.reader = FrameReader(made, self.protocol, library, self.loop.time, self._turns, self._large)
        self.writer = FrameWriter(self, made)
        self._strangers.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._strangers.remove(self)
        self.reader.close()
        super().connection_lost(exc)
        self.protocol.reader.buffer.clear()

    def data_received(self, data: bytes) -> None:
        self.reader.data_received(data)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.reader.hand_over()

    def process_event(self, event: Request | Frame) -> None:  # type: ignore[override]
        if isinstance(event, Frame) and event.opcode in DATA_OPCODES:
            self.reader.add_frame(event)
        else:
            super().process_event(event)

    def send_data(self) -> None:
        """Frames that the library sends by itself (pings, pongs, the close) wait for the end of a frame."""
        if self.transport.is_closing():
            # The other side is gone: the library would hand it over, and asyncio say so each time.
            self.protocol.data_to_send()
        elif not self.writer.within:
            self.writer.given += sum(map(len, self.protocol.writes))
            super().send_data()

    @property
    def given(self) -> int:
        """Bytes that were written, since the upgrade or a little before."""
        return self.writer.given

    def hand_to(self, receive: Callable[[list[bytes | str], int], None]) -> None:
        """Hand messages to this from now on: ``FrameReader.hand_to``."""
        self.reader.hand_to(receive)

    def introduce(self, source: object) -> None:
        """It has said who it is: a stranger no longer."""
        self.reader.source = source
        self._strangers.remove(self)

    def give_way(self) -> None:
        """Close at once, for others need its place."""
        self.transport.abort()

    def ask(self) -> None:
        """Send a ping."""
        if self.protocol.state is State.OPEN:
            self.protocol.send_ping(b"")
            self.send_data()

    def fail(self) -> None:
        """Close it as one at which something went wrong; of what is queued nothing leaves any more."""
        if self.writer.within or self.protocol.state is not State.OPEN:
            self.transport.abort()
        else:
            self.protocol.fail(CloseCode.INTERNAL_ERROR)
            self.send_data()
