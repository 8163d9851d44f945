"""The relay's shell: sockets on an asyncio loop, the rooms and their log on one thread of their own.

So the loop never waits for the disk: it hands over what has come in and goes on; the thread takes all there is, does
one step, and hands back what is to be sent. The busier the relay, the more records share one fsync.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeAlias

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response
from websockets.typing import Origin, Subprotocol

from llmcrdt.sync import wire
from llmcrdt.sync.wire import Error, ErrorCode

from .access import EVERYTHING, TokenRefused, Tokens
from .connection import Connection, Outgoing, Socket
from .doors.native import Answer, NativeDoor, Refused, Request
from .folder import Folder
from .folding import Folded, ToFold
from .limits import Limits
from .log import DATABASE, SqliteLog
from .metrics import CONTENT_TYPE, Metrics
from .public_keys import AccessError
from .rate import Rate
from .rooms import Drop, Event, Greeted, Joined, Left, Received, Rooms, Send, Sent, Tick
from .tls import Certificate

logger = logging.getLogger(__name__)

_Work: TypeAlias = dict[str, float]
_TICK = 0.5
"""Seconds between two looks for what waits for a better moment."""
_FRAME = 64
"""What a frame counts beside its bytes, so that many small ones are not free."""
_BUSY = HTTPStatus.SERVICE_UNAVAILABLE


def agent() -> str:
    try:
        return f"llmcrdt-relay/{version('llmcrdt')}"
    except PackageNotFoundError:
        return "llmcrdt-relay"


class Relay:
    """One relay over one folder. ``await start()``, then ``port`` says where it listens; ``await stop()`` ends it.

    ``start`` raises LogError where the folder can't be used, OSError where the address can't. ``failed`` becomes set
    when the relay can't go on.
    """

    def __init__(
        self,
        data: str | os.PathLike[str],
        host: str = "127.0.0.1",
        port: int = 8765,
        limits: Limits | None = None,
        origins: Sequence[str] = (),
        certificate: Certificate | None = None,
    ) -> None:
        self.data, self.host, self.port = Path(data), host, port
        self.limits = limits or Limits()
        self.failed = asyncio.Event()
        self.certificate = certificate
        self._origins: list[Origin | None] = [None, *map(Origin, origins)]
        self._events: SimpleQueue[Event | None] = SimpleQueue()
        self._connections: dict[int, Connection] = {}
        self._rates: dict[str, Rate] = {}
        self.metrics = Metrics()
        self._numbers = count(1)
        self._stopping = False
        self._announcing = False

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.data.mkdir(parents=True, exist_ok=True)
        self._tokens = Tokens(self.data)
        self._log = SqliteLog(self.data / DATABASE)
        self._rooms = Rooms(self._log, self.limits)
        try:
            self._server: Server = await serve(
                self._serve,
                self.host,
                self.port,
                subprotocols=[Subprotocol(wire.SUBPROTOCOL)],
                origins=self._origins,
                ssl=self.certificate.context if self.certificate else None,
                # Windows of 4 KiB: docs/protocol.md, section 2.
                compression="deflate",
                process_request=self._answer_http,
                open_timeout=self.limits.handshake,
                close_timeout=self.limits.shutdown,
                max_size=wire.MAX_FRAME,
                create_connection=Socket,
                server_header=None,
            )
        except BaseException:
            self._log.close()
            raise
        self.port = self._server.sockets[0].getsockname()[1]
        self._folder = Folder(self._log, self.limits, self._events.put)
        self._thread = threading.Thread(target=self._work, name="llmcrdt-relay-log", daemon=True)
        self._thread.start()
        self._ticking = asyncio.create_task(self._tick())

    async def stop(self) -> None:
        """Take no more, finish what came in, send its acks, say goodbye, close."""
        self._stopping = True
        self._server.close(close_connections=False)
        self._ticking.cancel()
        self._events.put(None)
        await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self._folder.stop)
        # What the thread handed over last is dispatched before this goes on.
        await asyncio.sleep(0)
        retry_after = int(self.limits.retry_after * 1000)
        for connection in tuple(self._connections.values()):
            self._end(connection, Error(ErrorCode.SHUTTING_DOWN, "The relay is stopping.", retry_after=retry_after))
        with suppress(TimeoutError):
            async with asyncio.timeout(self.limits.shutdown):
                await self._server.wait_closed()
        for connection in tuple(self._connections.values()):
            connection.socket.transport.abort()
        self._log.close()

    # ---------------------------------------------------------------- on the loop

    async def _serve(self, socket: ServerConnection) -> None:
        assert isinstance(socket, Socket)
        door = NativeDoor(self.limits, agent(), self._tokens)
        connection = Connection(next(self._numbers), socket, self.limits, door, self._take)
        welcome = not self._stopping and len(self._connections) < self.limits.connections
        if welcome:
            self._connections[connection.peer] = connection
            self._events.put(Joined(connection.peer))
        else:
            code = ErrorCode.SHUTTING_DOWN if self._stopping else ErrorCode.TOO_MANY_CONNECTIONS
            self._end(connection, Error(code, "Try again later.", retry_after=int(self.limits.retry_after * 1000)))
        pump = asyncio.create_task(connection.pump(self._report))
        late = self._loop.call_later(self.limits.handshake, self._expect_greeting, connection)
        socket.hand_to(connection.receive)
        try:
            await socket.wait_closed()
        finally:
            late.cancel()
            pump.cancel()
            with suppress(asyncio.CancelledError):
                await pump
            if welcome:
                del self._connections[connection.peer]
                self._events.put(Left(connection.peer))

    def _take(self, connection: Connection, frame: bytes | str) -> None:
        """Look at a message, and handle it now, or when its sender has been slow enough."""
        self.metrics.count("frames_received_total")
        self.metrics.count("bytes_received_total", len(frame))
        try:
            message = connection.door.receive(frame)
        except Refused as e:
            return self._end(connection, e.error)
        cost = len(frame) + (self.limits.presence_cost if isinstance(message, wire.Presence) else _FRAME)
        pause = self._rate(connection).pause(cost, self._loop.time())
        if pause:
            self.metrics.count("pauses_total")
            connection.rest(pause, partial(self._handle, connection, message, len(frame)))
        else:
            self._handle(connection, message, len(frame))

    def _handle(self, connection: Connection, message: Answer | Request, size: int) -> None:
        """Hand a message to the rooms, or answer it here."""
        if isinstance(message, wire.Welcome):
            if not self._has_room(connection.door):
                text = f"At most {self.limits.subject_connections} connections for one subject."
                retry_after = int(self.limits.retry_after * 1000)
                return self._end(connection, Error(ErrorCode.TOO_MANY_CONNECTIONS, text, retry_after=retry_after))
            grant = connection.door.grant or EVERYTHING
            admin = grant.level == "admin"
            self._events.put(Greeted(connection.peer, connection.door.features, grant.subject, admin))
            self._send([connection], Outgoing(wire.encode(message)), 0)
        elif isinstance(message, Error | wire.Deleted):
            if isinstance(message, Error):
                self.metrics.error(message.code)
            self._send([connection], Outgoing(wire.encode(message)), 0)
        elif not self._stopping:
            connection.gave(size)
            self._events.put(Received(connection.peer, message, size))

    def _expect_greeting(self, connection: Connection) -> None:
        if not connection.door.greeted:
            self._end(connection, Error(ErrorCode.UNEXPECTED, "HELLO did not come in time."))

    def _rate(self, connection: Connection) -> Rate:
        """The connection's own, or that of its token's subject."""
        grant = connection.door.grant
        if not self._tokens.on or grant is None:
            return connection.rate
        if grant.subject not in self._rates:
            self._rates[grant.subject] = Rate(self.limits.rate, self.limits.burst)
        return self._rates[grant.subject]

    def _send(self, connections: Sequence[Connection], out: Outgoing, weight: int) -> None:
        for connection in connections:
            connection.send(out, weight)
        self.metrics.count("frames_sent_total", len(connections))
        self.metrics.count("bytes_sent_total", len(connections) * len(out.payload))

    def _end(self, connection: Connection, error: Error) -> None:
        if connection.end(error):
            self.metrics.error(error.code)

    def _report(self, connection: Connection) -> None:
        """Tell the rooms what has left, but not for every frame: each report wakes their thread."""
        if connection.unreported >= self.limits.outgoing // 4:
            self._events.put(Sent(connection.peer, connection.unreported))
            connection.unreported = 0

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            if self._rooms.stuck:
                self._events.put(Tick())
            if self._tokens.on:
                self._confirm_all()
            if self.certificate:
                self.certificate.refresh()

    def _tick_soon(self) -> None:
        """There is presence to tell."""
        if not self._announcing:
            self._announcing = True
            self._loop.call_later(self.limits.presence_tick, self._tick_now)

    def _tick_now(self) -> None:
        self._announcing = False
        self._events.put(Tick())

    def _confirm_all(self) -> None:
        """End the connections of tokens that have expired or were revoked."""
        try:
            self._tokens.refresh()
        except AccessError as e:
            logger.error("%s", e)
        for connection in tuple(self._connections.values()):
            try:
                connection.door.confirm()
            except Refused as e:
                self._end(connection, e.error)

    def _has_room(self, door: NativeDoor) -> bool:
        """Whether the subject of a token may have this connection too; a relay without tokens knows no subjects."""
        if not self._tokens.on or door.grant is None:
            return True
        grants = (c.door.grant for c in self._connections.values())
        same = sum(1 for grant in grants if grant is not None and grant.subject == door.grant.subject)
        return same <= self.limits.subject_connections

    def _dispatch(
        self, taken: Sequence[tuple[int, int]], frames: Sequence[tuple[Drop | Send, Outgoing | None]], work: _Work
    ) -> None:
        for name, by in work.items():
            self.metrics.count(name, by)
        for output, out in frames:
            if isinstance(output, Drop):
                if connection := self._connections.get(output.peer):
                    self._end(connection, output.error)
                continue
            assert out is not None
            if isinstance(output.message, wire.Ack):
                self.metrics.count("records_acknowledged_total", output.message.count)
            elif isinstance(output.message, Error):
                self.metrics.error(output.message.code)
            connections = [c for peer in output.peers if (c := self._connections.get(peer))]
            self._send(connections, out, output.weight)
            for connection in connections:
                self._report(connection)
        for peer, size in taken:
            if connection := self._connections.get(peer):
                connection.took(size)

    def _answer_http(self, connection: ServerConnection, request: HttpRequest) -> Response | None:
        """Plain HTTP: is it there, can it take more, and what has it counted. None lets the WebSocket begin."""
        path = request.path.partition("?")[0]
        if path == wire.PATH:
            return None
        if path == "/healthz":
            return connection.respond(HTTPStatus.OK, "ok\n")
        if path == "/readyz":
            ready = not self._stopping and len(self._connections) < self.limits.connections
            return connection.respond(*((HTTPStatus.OK, "ready\n") if ready else (_BUSY, "busy\n")))
        if path == "/metrics":
            return self._answer_metrics(connection, request)
        return connection.respond(HTTPStatus.NOT_FOUND, f"The sync protocol is at {wire.PATH}.\n")

    def _answer_metrics(self, connection: ServerConnection, request: HttpRequest) -> Response:
        if self._tokens.on:
            try:
                allowed = self._tokens.check(_bearer(request)).allows("admin")
            except TokenRefused:
                allowed = False
            if not allowed:
                return connection.respond(HTTPStatus.UNAUTHORIZED, "It takes a token that may do all (admin).\n")
        gauges = {"connections": len(self._connections), "documents": self._rooms.documents}
        response = connection.respond(HTTPStatus.OK, self.metrics.text(gauges))
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = CONTENT_TYPE
        return response

    # ---------------------------------------------------------------- on the thread of the rooms

    def _work(self) -> None:
        work: _Work = {}
        try:
            while True:
                events, last = self._waiting()
                began = time.perf_counter()
                outputs = self._rooms.step(events)
                work["commits_total"] = work.get("commits_total", 0) + 1
                work["commit_seconds_total"] = work.get("commit_seconds_total", 0.0) + time.perf_counter() - began
                for event in events:
                    if isinstance(event, Folded):
                        name = "folds_failed_total" if event.records is None else "folds_total"
                        work[name] = work.get(name, 0) + 1
                taken = [(e.peer, e.size) for e in events if isinstance(e, Received)]
                frames: list[tuple[Drop | Send, Outgoing | None]] = []
                for output in outputs:
                    if isinstance(output, ToFold):
                        self._folder.put(output)
                    else:
                        out = None if isinstance(output, Drop) else Outgoing(wire.encode(output.message))
                        frames.append((output, out))
                if self._rooms.announces and not self._announcing:
                    self._loop.call_soon_threadsafe(self._tick_soon)
                if taken or frames:
                    self._loop.call_soon_threadsafe(self._dispatch, taken, frames, work)
                    work = {}
                if last:
                    return
        except Exception:
            logger.exception("the relay can't go on")
            self._loop.call_soon_threadsafe(self.failed.set)

    def _waiting(self) -> tuple[list[Event], bool]:
        """All events there are, and whether they are the last. Waits for one, unless there is work without."""
        events: list[Event] = []
        with suppress(Empty):
            event = self._events.get(block=not self._rooms.more)
            while event is not None:
                events.append(event)
                if len(events) == self.limits.group:
                    return events, False
                event = self._events.get_nowait()
            return events, True
        return events, False


def _bearer(request: HttpRequest) -> bytes:
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip().encode() if kind.lower() == "bearer" else b""
