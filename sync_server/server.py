"""The relay's shell: sockets on an asyncio loop, and the rooms, which take one step after the other.

A step takes all events there are, so the busier the relay, the more records share one fsync. While steps are quick the
loop takes them itself, for to wait for another thread twice costs more than a fast disk does. When they are not, for
there is much to do or the disk is slow, a thread takes them, and the loop never waits for long (``Pace``). So it does
where a document is folded or deleted, and until what stood there is gone; and where a part of a log was condensed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from typing import Concatenate, NamedTuple, ParamSpec, TypeAlias

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import InvalidHandshake, NegotiationError
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response
from websockets.typing import Origin, Subprotocol

from llmcrdt.sync.messages import (
    MAX_GREETING,
    Ack,
    Delete,
    Deleted,
    Error,
    ErrorCode,
    Message,
    Presence,
    Push,
    Welcome,
)

from .admin.metrics import CONTENT_TYPE, Metrics
from .auth.public_keys import AccessError
from .auth.tokens import EVERYTHING, TokenRefused, Tokens
from .core.events import (
    Appended,
    CatchUpRequest,
    CatchUpResult,
    CompactRequest,
    CompactResult,
    Drop,
    Event,
    Greeted,
    Joined,
    Send,
    Sent,
    Tick,
)
from .core.limits import Limits
from .core.rate import Rate
from .core.rooms import Rooms
from .core.validation import (
    DiffRequest,
    DiffResponse,
    Flushed,
    Left,
    MergeRequest,
    Received,
    ReplicaDropped,
    Request,
    ValidateRequest,
    ValidateResult,
    Validation,
)
from .doors.base import Answer, Door, DoorType, House, Refused, Upgrade
from .doors.registry import DOORS, describe, find
from .log.base import LogError
from .log.file import DATABASE
from .log.sqlite import SqliteStorage
from .net.connection import OBJECT, SLICE, Connection, Outgoing, Share, Socket
from .net.tls import Certificate
from .workers.compactor import Compactor
from .workers.scheduler import Order
from .workers.validator import Validator

logger = logging.getLogger(__name__)

P = ParamSpec("P")


def _unrevealing(record: logging.LogRecord) -> bool:
    """Whether a line of websockets shows nothing of what a peer sent. Its debug lines are frames and headers, with
    tokens and content in them; and where a request can't be read, its error has a piece of that."""
    error = record.exc_info[1] if record.exc_info else None
    return record.levelno > logging.DEBUG and not isinstance(error, InvalidHandshake)


_sockets_logger = logging.getLogger(f"{__name__}.websockets")
_sockets_logger.addFilter(_unrevealing)

_TICK = 0.5
"""Seconds between two looks for what waits for a better moment."""
_FRAME = 64
"""What a frame counts beside its bytes, so that many small ones are not free."""
_BUSY = HTTPStatus.SERVICE_UNAVAILABLE
_QUICK = 0.001
"""Seconds that a step may take on the loop."""
_NEWEST = 1 / 8
"""What the last step counts in the mean of all."""


class Pace:
    """How long steps take, as a mean that follows the last of them. One far over the bound is enough to make them slow,
    and then it takes some ten quick ones: so a spell of a slow disk holds up the loop once."""

    def __init__(self) -> None:
        self._mean = 0.0

    def note(self, seconds: float) -> None:
        self._mean += (seconds - self._mean) * _NEWEST

    @property
    def quick(self) -> bool:
        return self._mean < _QUICK


Frames: TypeAlias = dict[str, "Outgoing | Error"]
"""A message as frames, by protocol; an error where a protocol has no word for it, and the connection ends."""


class Step(NamedTuple):
    """What a step of the rooms leaves to be done: orders for the validator, what Rooms.taken says, and messages, with
    their frames for each protocol. ``counts`` is for the metrics."""

    orders: Sequence[Order]
    taken: Sequence[tuple[int, int]]
    frames: Sequence[tuple[Drop | Send, Frames]]
    counts: dict[str, float]


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
        check: bool = True,
        doors: Sequence[DoorType] = DOORS,
    ) -> None:
        self._check, self._doors = check, doors
        self.data, self.host, self.port = Path(data), host, port
        self.limits = limits or Limits()
        self.failed = asyncio.Event()
        self.certificate = certificate
        self._origins: list[Origin | None] = [None, *map(Origin, origins)]
        self._events: list[Event] = []
        self._pace = Pace()
        # A step will be begun; one is under way on the thread; there will be none any more.
        self._due = self._under_way = self._over = False
        self._rested = asyncio.Event()
        self._connections: dict[int, Connection] = {}
        self._rates: dict[str, Rate] = {}
        self._shares: dict[str, Share] = {}
        # The last answer of a kind that many may get, and its frames.
        self._answered: tuple[DiffResponse, Frames] | None = None
        self.metrics = Metrics()
        self._numbers = count(1)
        self._stopping = False
        self._announcing = False

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.data.mkdir(parents=True, exist_ok=True)
        self._tokens = Tokens(self.data)
        self._house = House(self.limits, self._tokens, agent())
        self._storage = SqliteStorage(self.data / DATABASE, self.limits.cached)
        self._checking = Validation(available=True, always=self._check)
        self._rooms = Rooms(
            self._storage, self.limits, validation=self._checking, catch_up=True, notify=self._put_appended
        )
        try:
            self._server: Server = await serve(
                self._serve,
                self.host,
                self.port,
                subprotocols=[Subprotocol(door.subprotocol) for door in self._doors if door.subprotocol],
                select_subprotocol=self._subprotocol,
                origins=self._origins,
                ssl=self.certificate.context if self.certificate else None,
                # Windows of 4 KiB: docs/protocol.md, section 2.
                compression="deflate",
                process_request=self._answer_http,
                open_timeout=self.limits.handshake,
                close_timeout=self.limits.shutdown,
                ping_interval=None,  # Connection.beat
                # Until it is known who it is: a frame that has come in part is held in memory.
                max_size=MAX_GREETING,
                write_limit=(SLICE - 1, SLICE // 4),
                create_connection=Socket,
                server_header=None,
                logger=_sockets_logger,
            )
        except BaseException:
            self._storage.close()
            raise
        self.port = self._server.sockets[0].getsockname()[1]
        self._thread = ThreadPoolExecutor(1, "llmcrdt-relay-log")
        self._folder = Compactor(self._storage.snapshots, self.limits, self._put_from_thread)
        early = self.limits.condense_jobs > 0
        self._condenser = Compactor(self._storage.snapshots, self.limits, self._put_from_thread, early=early)
        self._keeper = Validator(self._storage.snapshots, self.limits, self._put, self._fail, early=self._check)
        self._keeper.start()
        self._step_soon()
        self._ticking = asyncio.create_task(self._tick())

    async def stop(self) -> None:
        """Take no more, finish what came in, send its acks, say goodbye, close."""
        self._stopping = True
        self._server.close(close_connections=False)
        self._ticking.cancel()
        # What came in is looked at, appended and acknowledged before the relay ends.
        with suppress(TimeoutError):
            async with asyncio.timeout(self.limits.shutdown):
                while not self._at_rest:
                    await self._rested.wait()
                    self._rested.clear()
        self._over = True
        await asyncio.to_thread(self._thread.shutdown)
        await self._keeper.stop()
        await asyncio.to_thread(self._folder.stop)
        await asyncio.to_thread(self._condenser.stop)
        # What the thread handed over last is sent before this goes on.
        await asyncio.sleep(0)
        retry_after = int(self.limits.retry_after * 1000)
        goodbye = Error(ErrorCode.SHUTTING_DOWN, "The relay is stopping.", retry_after=retry_after)
        self._each(tuple(self._connections.values()), self._end, goodbye)
        with suppress(TimeoutError):
            async with asyncio.timeout(self.limits.shutdown):
                await self._server.wait_closed()
        for connection in tuple(self._connections.values()):
            connection.socket.transport.abort()
        self._storage.close()

    # ---------------------------------------------------------------- on the loop

    async def _serve(self, socket: ServerConnection) -> None:
        assert isinstance(socket, Socket)
        request = socket.request
        assert request is not None
        found = find(self._doors, request.path)
        assert found is not None, "any other path was answered before the upgrade"
        door = found.make(Upgrade(request.path, _bearer(request)), self._house)
        connection = Connection(next(self._numbers), socket, self.limits, door, self._take)
        welcome = not self._stopping and len(self._connections) < self.limits.connections
        if welcome:
            self._connections[connection.peer] = connection
            self._put(Joined(connection.peer))
        else:
            code = ErrorCode.SHUTTING_DOWN if self._stopping else ErrorCode.TOO_MANY_CONNECTIONS
            self._end(connection, Error(code, "Try again later.", retry_after=int(self.limits.retry_after * 1000)))
        self._begin(connection)
        pump = asyncio.create_task(self._pump(connection))
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
                self._each((connection,), Connection.finish)
                del self._connections[connection.peer]
                connection.left()
                self._put(Left(connection.peer))

    async def _pump(self, connection: Connection) -> None:
        try:
            await connection.pump(self._report)
        except Exception:
            self._break_off(connection)

    def _begin(self, connection: Connection) -> None:
        try:
            connection.door.begin()
        except Refused as e:
            return self._end(connection, e.error)
        if connection.door.greeted:
            self._greet(connection)

    def _greet(self, connection: Connection) -> bool:
        """Let the rooms know a client that has said who it is. False where its subject has too many connections."""
        if not self._has_room(connection.door):
            self._crowded(connection)
            return False
        self._greeted(connection)
        return True

    def _take(self, connection: Connection, frame: bytes | str) -> None:
        """Look at a message, and handle it now, or when its sender has been slow enough."""
        frames, size = 1, len(frame)
        try:
            message = connection.door.receive(frame)
        except Refused as e:
            return self._end(connection, e.error)
        if isinstance(message, Push):
            message, frames, size = connection.door.join_following(message, frame, connection.unread)
        self.metrics.count("frames_received_total", frames)
        self.metrics.count("bytes_received_total", size)
        cost = size + (self.limits.presence_cost if isinstance(message, Presence) else frames * _FRAME)
        pause = self._rate(connection).pause(cost, self._loop.time())
        if pause:
            self.metrics.count("pauses_total")
            connection.rest(pause, partial(self._handle, connection, message, size))
        else:
            self._handle(connection, message, size)

    def _handle(self, connection: Connection, message: Answer | Request | None, size: int) -> None:
        """Hand a message to the rooms, or answer it here."""
        if isinstance(message, Welcome | Error | Deleted):
            if isinstance(message, Welcome) and not self._greet(connection):
                return
            self._send_encoded([connection], message, _encode(connection.door, message), 0)
        elif message is not None and not self._stopping:
            size += OBJECT
            match message:
                case DiffRequest():
                    # The answer may be large: the next message is taken when it has left.
                    size += self.limits.window
                case Push(_, _, _, data):
                    size += len(data) * self.limits.check_cost
                case MergeRequest():
                    size += self.limits.merge_cost
            connection.gave(size)
            self._put(Received(connection.peer, message, size))

    def _greeted(self, connection: Connection) -> None:
        connection.socket.protocol.max_message_size = connection.door.max_frame
        grant = connection.door.grant or EVERYTHING
        admin = grant.level == "admin"
        if self._tokens.on:
            connection.share = self._shares.setdefault(grant.subject, Share(self.limits.subject_window))
        self._put(Greeted(connection.peer, connection.door.features, grant.subject, admin))

    def _crowded(self, connection: Connection) -> None:
        text = f"At most {self.limits.subject_connections} connections for one subject."
        retry_after = int(self.limits.retry_after * 1000)
        self._end(connection, Error(ErrorCode.TOO_MANY_CONNECTIONS, text, retry_after=retry_after))

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
        self._each(connections, Connection.send, out, weight)
        self.metrics.count("frames_sent_total", len(connections) * len(out.payloads))
        self.metrics.count("bytes_sent_total", len(connections) * out.size)

    def _each(
        self,
        connections: Sequence[Connection],
        act: Callable[Concatenate[Connection, P], None],
        *arguments: P.args,
        **options: P.kwargs,
    ) -> None:
        """What goes wrong at one connection ends that one, and is kept from the others."""
        for connection in connections:
            try:
                act(connection, *arguments, **options)
            except Exception:
                self._break_off(connection)

    def _break_off(self, connection: Connection) -> None:
        logger.exception("connection %d is closed, for the relay failed at it", connection.peer)
        connection.break_off()

    def _end(self, connection: Connection, error: Error) -> None:
        if connection.end(error):
            self.metrics.error(error.code)

    def _report(self, connection: Connection) -> None:
        """Tell the rooms what has left, but not for every frame: each report wakes their thread."""
        if connection.unreported >= self.limits.outgoing // 4:
            self._put(Sent(connection.peer, connection.unreported))
            connection.unreported = 0

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            if self._rooms.stuck:
                self._put(Tick())
            if not self._under_way:
                self._poll()
            if self._tokens.on:
                self._confirm_all()
                self._forget_rates()
            if self.certificate:
                self.certificate.refresh()
            self._each(tuple(self._connections.values()), Connection.beat)
            self._keep_alive()

    def _poll(self) -> None:
        """Let the log look for changes of other processes. Only while no step is under way."""
        try:
            self._storage.records.poll()
        except LogError as e:
            logger.error("the log can't be read: %s", e)

    def _keep_alive(self) -> None:
        """Clients of some protocols take a connection for lost where nothing comes for a while."""
        now = self._loop.time()
        for connection in tuple(self._connections.values()):
            keepalive = connection.door.keepalive
            if keepalive is not None and now - connection.sent_at > keepalive.seconds:
                self._send([connection], Outgoing(keepalive.frame), 0)

    def _tick_soon(self) -> None:
        """There is presence to tell."""
        if not self._announcing:
            self._announcing = True
            self._loop.call_later(self.limits.presence_tick, self._tick_now)

    def _tick_now(self) -> None:
        self._announcing = False
        self._put(Tick())

    def _confirm_all(self) -> None:
        """End the connections of tokens that have expired or were revoked."""
        try:
            self._tokens.refresh()
        except AccessError as e:
            logger.error("%s", e)
        self._each(tuple(self._connections.values()), self._confirm)

    def _confirm(self, connection: Connection) -> None:
        try:
            connection.door.confirm()
        except Refused as e:
            self._end(connection, e.error)

    def _forget_rates(self) -> None:
        """Of subjects that are not here, as soon as it makes no difference."""
        now = self._loop.time()
        here = {c.door.grant.subject for c in self._connections.values() if c.door.grant}
        for subject in [s for s, rate in self._rates.items() if s not in here and rate.rested(now)]:
            del self._rates[subject]
        for subject in [s for s in self._shares if s not in here]:
            del self._shares[subject]

    def _has_room(self, door: Door) -> bool:
        """Whether the subject of a token may have this connection too; a relay without tokens knows no subjects."""
        if not self._tokens.on or door.grant is None:
            return True
        grants = (c.door.grant for c in self._connections.values())
        same = sum(1 for grant in grants if grant is not None and grant.subject == door.grant.subject)
        return same <= self.limits.subject_connections

    def _dispatch(self, step: Step) -> None:
        for name, by in step.counts.items():
            self.metrics.count(name, by)
        for output, frames in step.frames:
            if isinstance(output, Drop):
                if connection := self._connections.get(output.peer):
                    self._each((connection,), self._end, output.error)
                continue
            if isinstance(output.message, Ack):
                self.metrics.count("records_acknowledged_total", output.message.count)
            connections = [c for peer in output.peers if (c := self._connections.get(peer))]
            if isinstance(output.message, DiffResponse):
                self._each(connections, self._ask_back, output.message)
            for protocol, out in frames.items():
                same = connections if len(frames) == 1 else [c for c in connections if c.door.protocol == protocol]
                self._send_encoded(same, output.message, out, output.weight)
            self._each(connections, self._report)
        for peer, size in step.taken:
            if connection := self._connections.get(peer):
                self._each((connection,), Connection.took, size)

    def _send_encoded(
        self, connections: Sequence[Connection], message: Message | DiffResponse, out: Outgoing | Error, weight: int
    ) -> None:
        """Send a message to clients of one protocol."""
        if isinstance(out, Error):
            return self._each(connections, self._end, out)
        if not out.payloads:
            # It leaves at once.
            for connection in connections:
                connection.unreported += weight
            return
        if isinstance(message, Error) and connections:
            self.metrics.error(message.code)
        self._send(connections, out, weight)

    def _ask_back(self, connection: Connection, answer: DiffResponse) -> None:
        question = connection.door.ask_back(answer)
        if question is not None:
            self._send([connection], Outgoing(question), 0)

    def _frames(self, output: Drop | Send) -> Frames:
        """A message for each protocol that one of its peers speaks. On the thread of the step."""
        if isinstance(output, Drop):
            return {}
        message = output.message
        frames: Frames = {}
        if isinstance(message, DiffResponse):
            # Many get the same answer when they all come back at once.
            if self._answered is None or self._answered[0] != message:
                self._answered = message, frames
            frames = self._answered[1]
        for peer in output.peers:
            connection = self._connections.get(peer)
            if connection is not None and connection.door.protocol not in frames:
                frames[connection.door.protocol] = _encode(connection.door, message)
        return frames

    def _subprotocol(self, connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        """The one subprotocol of a door; none at a door whose clients know none."""
        found = find(self._doors, connection.request.path) if connection.request is not None else None
        if found is None or found.subprotocol is None:
            return None
        if found.subprotocol in offered:
            return Subprotocol(found.subprotocol)
        raise NegotiationError(f"the subprotocol is {found.subprotocol}")

    def _answer_http(self, connection: ServerConnection, request: HttpRequest) -> Response | None:
        """Plain HTTP: is it there, can it take more, and what has it counted. None lets the WebSocket begin."""
        path = request.path.partition("?")[0]
        if find(self._doors, path) is not None:
            return None
        if path == "/healthz":
            waits = self._keeper.oldest
            late = waits > self.limits.check_wait
            why = f"records that are to be checked have waited for {waits:.0f} s\n"
            return connection.respond(*((_BUSY, why) if late else (HTTPStatus.OK, "ok\n")))
        if path == "/readyz":
            ready = not self._stopping and len(self._connections) < self.limits.connections
            return connection.respond(*((HTTPStatus.OK, "ready\n") if ready else (_BUSY, "busy\n")))
        if path == "/metrics":
            return self._answer_metrics(connection, request)
        return connection.respond(HTTPStatus.NOT_FOUND, f"{describe(self._doors)}\n")

    def _answer_metrics(self, connection: ServerConnection, request: HttpRequest) -> Response:
        if self._tokens.on:
            try:
                allowed = self._tokens.check(_bearer(request)).allows("admin")
            except TokenRefused:
                allowed = False
            if not allowed:
                return connection.respond(HTTPStatus.UNAUTHORIZED, "It takes a token that may do all (admin).\n")
        gauges: dict[str, float] = {"connections": len(self._connections), "documents": self._rooms.documents}
        gauges |= {"documents_held": self._keeper.held, "keeper_restarts_total": self._keeper.restarts}
        gauges["check_oldest_seconds"] = round(self._keeper.oldest, 3)
        response = connection.respond(HTTPStatus.OK, self.metrics.text(gauges))
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = CONTENT_TYPE
        return response

    # ---------------------------------------------------------------- steps of the rooms

    def _put(self, event: Event) -> None:
        self._events.append(event)
        self._step_soon()

    def _put_appended(self, document: bytes) -> None:
        """Another process changed a document. From any thread."""
        self._put_from_thread(Appended(document))

    def _put_from_thread(self, event: Event) -> None:
        self._loop.call_soon_threadsafe(self._put, event)

    def _step_soon(self) -> None:
        """Behind all that this turn of the loop brings."""
        if not self._due and not self._under_way:
            self._due = True
            self._loop.call_soon(self._begin_step)

    def _begin_step(self) -> None:
        self._due = False
        if self._over or not (self._events or self._rooms.more):
            return
        events = self._events[: self.limits.group]
        del self._events[: self.limits.group]
        if self._pace.quick and self._rooms.clean and not any(map(_is_heavy, events)):
            self._end_step(self._step(events))
        else:
            self._under_way = True
            self._thread.submit(self._step_on_thread, events)

    def _step_on_thread(self, events: Sequence[Event]) -> None:
        self._loop.call_soon_threadsafe(self._end_step, self._step(events))

    def _step(self, events: Sequence[Event]) -> Step | None:
        """On the loop, or on the thread; never both. None where the relay can't go on."""
        try:
            began = time.perf_counter()
            outputs = self._rooms.step(events)
            counts = {"commits_total": 1, "commit_seconds_total": time.perf_counter() - began}
            for event in events:
                if isinstance(event, ValidateResult) and event.refused:
                    counts["records_refused_total"] = counts.get("records_refused_total", 0) + 1
                if isinstance(event, CompactResult):
                    name = "folds_failed_total" if event.records is None else "folds_total"
                    counts[name] = counts.get(name, 0) + 1
                if isinstance(event, CatchUpResult) and event.records:
                    counts["condensed_total"] = counts.get("condensed_total", 0) + 1
            orders: list[Order] = []
            frames: list[tuple[Drop | Send, Frames]] = []
            for output in outputs:
                if isinstance(output, CompactRequest):
                    self._folder.put(output)
                elif isinstance(output, CatchUpRequest):
                    self._condenser.put(output)
                elif isinstance(output, ValidateRequest | ReplicaDropped | Flushed):
                    orders.append(output)
                else:
                    frames.append((output, self._frames(output)))
            self._pace.note(time.perf_counter() - began)
            return Step(orders, self._rooms.taken, frames, counts)
        except Exception:
            logger.exception("the relay can't go on")
            return None

    def _end_step(self, step: Step | None) -> None:
        self._under_way = False
        if step is None:
            return self._fail()
        if step.orders:
            self._keeper.put(*step.orders)
        if self._events or self._rooms.more:
            self._step_soon()
        if self._rooms.announces:
            self._tick_soon()
        self._dispatch(step)
        self._rested.set()

    @property
    def _at_rest(self) -> bool:
        """Whether all that came in is dealt with, or nothing will be any more."""
        return self._over or not (self._events or self._under_way or self._checking.busy)

    def _fail(self) -> None:
        """The relay can't go on. From any thread."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._failed)

    def _failed(self) -> None:
        self._over = True
        self._rested.set()
        self.failed.set()


def _is_heavy(event: Event) -> bool:
    """Whether it writes, takes away or weighs much of a document, which may be long on the quickest disk."""
    if isinstance(event, Received):
        return isinstance(event.message, Delete)
    return isinstance(event, CompactResult | CatchUpResult)


def _encode(door: Door, message: Message | DiffResponse) -> Outgoing | Error:
    try:
        return Outgoing(*door.encode(message))
    except Refused as e:
        return e.error


def _bearer(request: HttpRequest) -> bytes:
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip().encode() if kind.lower() == "bearer" else b""
