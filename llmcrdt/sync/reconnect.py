"""A WebSocket to a relay that is made, and made again, for as long as somebody wants it."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, TypeAlias

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State as SocketState
from websockets.typing import Subprotocol

from ..exceptions import LLMCRDTError, MalformedFrame, SyncError
from .address import is_loopback, relay_address
from .backoff import Backoff
from .failures import explained, first, token_refused
from .keepalive import PATIENCE, Keepalive
from .messages import MAX_FRAME, SUBPROTOCOL
from .synchronizer import Synchronizer
from .token import TokenSource
from .traffic import Traffic

logger = logging.getLogger(__name__)

State: TypeAlias = Literal["connecting", "online", "offline", "closed"]

HELD = 5.0
"""Seconds after which a connection counts as good, and back-off starts over."""
TOGETHER, TOGETHER_BYTES = 64, 256 << 10
"""Frames that are handled at once, and their bytes, unless one has more."""
_OPEN_TIMEOUT = 10.0
_BEAT = 0.5
"""Seconds between two checks whether the relay still lives."""


class ReconnectingTransport:
    """Carries the frames of a Synchronizer. Used on one event loop; its attributes are read from anywhere.

    ``changed()`` is called after the Synchronizer did something, ``ended(error)`` when a connection failed or ended.
    ``patience``: seconds, as Keepalive has it. Raises RelayUnreachable where ``url`` is no address.

    Attributes:
        state: "connecting", "online", "offline" (between two tries); whoever runs it says when it is "closed".
        last_error: why the last connection failed or ended; None if none did.
        ever_connected: whether a relay ever answered.
        traffic: bytes of all connections.
        told: called after ``state`` changed.
    """

    def __init__(
        self,
        url: str,
        synchronizer: Synchronizer,
        backoff: Backoff,
        tls: Callable[[], ssl.SSLContext],
        tokens: TokenSource,
        *,
        changed: Callable[[], None],
        ended: Callable[[LLMCRDTError], None],
        patience: float = PATIENCE,
    ) -> None:
        self._url, self._address = url, relay_address(url)
        self._tls = tls() if self._address.startswith("wss:") else None
        self._synchronizer, self._backoff, self._tokens = synchronizer, backoff, tokens
        self._changed, self._on_end, self._patience = changed, ended, patience
        self.state: State = "connecting"
        self.told: Callable[[], None] = lambda: None
        self.last_error: LLMCRDTError | None = None
        self.ever_connected = False
        self.traffic = Traffic()
        self._stopped, self._flush = asyncio.Event(), asyncio.Event()
        self._socket: ClientConnection | None = None
        self._online_since: float | None = None
        self._failure: Exception | None = None
        # Frames that have come and are not handled yet, and their bytes.
        self._arrived: list[bytes] = []
        self._arrived_size, self._some_arrived = 0, asyncio.Event()

    async def run(self) -> None:
        """Connect, again and again, until ``stop``, or until the relay refuses the token and there is no other one:
        then another try would be refused as well."""
        loop = asyncio.get_running_loop()
        stopped = asyncio.create_task(self._stopped.wait())
        while not self._stopped.is_set():
            self._enter("connecting")
            self._online_since, self._failure = None, None
            session = asyncio.create_task(self._session())
            await asyncio.wait((session, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not session.done():
                session.cancel()
            with suppress(asyncio.CancelledError):
                await session
            self._synchronizer.disconnected()
            held = self._online_since is not None and loop.time() - self._online_since >= HELD
            if held:
                self._backoff.reset()
            if (why := token_refused(self.last_error)) is not None and not self._stopped.is_set():
                if not self._tokens.renew(why):
                    self._stopped.set()
                elif held or self._online_since is None:  # else tokens that last no time would be asked for without end
                    self.last_error = None
                    continue
            if not self._stopped.is_set():
                self._enter("offline")
                pause, self._synchronizer.retry_after = self._backoff.next(self._synchronizer.retry_after), 0.0
                await asyncio.wait((stopped,), timeout=pause)
        self._synchronizer.disconnected()

    def stop(self) -> None:
        self._stopped.set()

    def _enter(self, state: State) -> None:
        self.state = state
        self.told()

    def flush(self) -> None:
        """The Synchronizer has frames to send."""
        self._flush.set()

    def fail(self, error: Exception) -> None:
        """The Synchronizer failed outside of the task that receives: that ends the connection, not the loop."""
        self._failure = error
        self._synchronizer.disconnected()
        if self._socket is not None:
            self._socket.transport.abort()
        else:
            self._ended(error)

    async def _session(self) -> None:
        """One connection, from its first byte to its last. Notes why it ended."""
        try:
            self._synchronizer.token = await self._tokens.current()
            async with connect(
                self._address,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                compression="deflate",
                create_connection=self.traffic.connection(),
                proxy=None if is_loopback(self._address) else True,
                ssl=self._tls,
                open_timeout=_OPEN_TIMEOUT,
                ping_interval=None,  # Keepalive does that
                close_timeout=1.0,
                max_size=MAX_FRAME,
                user_agent_header=None,
            ) as socket:
                self._socket, self._arrived, self._arrived_size = socket, [], 0
                self._synchronizer.connected()
                async with asyncio.TaskGroup() as group:
                    sending = group.create_task(self._send(socket))
                    beating = group.create_task(self._beat(socket))
                    handling = group.create_task(self._handle())
                    await self._receive(socket)
                    for task in (sending, beating, handling):
                        task.cancel()
            self._ended(SyncError("The relay closed the connection."))
        except asyncio.CancelledError:
            raise
        except Exception as e:
            self._ended(self._failure or first(e))
        finally:
            self._socket = None

    async def _send(self, socket: ClientConnection) -> None:
        with suppress(ConnectionClosed):
            while True:
                self._flush.clear()
                frames = deque(self._synchronizer.drain_frames())
                while frames:
                    # As ``socket.send`` does, for several at once: on its own each would cost more than its bytes.
                    async with socket.send_context():
                        size = 0
                        while frames and size < TOGETHER_BYTES:
                            size += len(frames[0])
                            socket.protocol.send_binary(frames.popleft())
                await self._flush.wait()

    async def _beat(self, socket: ClientConnection) -> None:
        def ask() -> None:
            if socket.protocol.state is SocketState.OPEN:
                socket.protocol.send_ping(b"")
                socket.send_data()

        loop = asyncio.get_running_loop()
        keepalive = Keepalive(socket.transport, ask, loop.time(), self._patience)
        while keepalive.beat(loop.time(), self.traffic.received, self.traffic.sent):
            await asyncio.sleep(_BEAT)
        self.fail(SyncError(f"The relay gave no sign of life for {2 * self._patience:g} s."))

    async def _receive(self, socket: ClientConnection) -> None:
        try:
            async for frame in socket:
                if isinstance(frame, str):
                    raise MalformedFrame("The relay sent a text frame.")
                # Those that lie ready come without a turn of the loop between them, and are handled together.
                self._arrived.append(frame)
                self._arrived_size += len(frame)
                self._some_arrived.set()
                if len(self._arrived) >= TOGETHER or self._arrived_size >= TOGETHER_BYTES:
                    self._handle_arrived()
        except ConnectionClosed:
            self._handle_arrived()
            raise
        self._handle_arrived()

    async def _handle(self) -> None:
        while True:
            await self._some_arrived.wait()
            self._handle_arrived()

    def _handle_arrived(self) -> None:
        frames, self._arrived, self._arrived_size = self._arrived, [], 0
        self._some_arrived.clear()
        if frames and self._failure is None:
            self._synchronizer.receive(*frames)
            if self._online_since is None:
                self._online_since = asyncio.get_running_loop().time()
                self.ever_connected = True
                self._tokens.accepted()
                self._enter("online")
            self._changed()

    def _ended(self, error: BaseException) -> None:
        if isinstance(error, ConnectionClosed):
            error = SyncError(f"The connection to {self._url} was lost: {error}.")
        self.last_error = explained(error)
        logger.debug("%s: %s", self._url, self.last_error)
        self._on_end(self.last_error)
