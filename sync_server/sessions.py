"""A connection from its upgrade to its end.

state      enters with                                and goes on with
JOINED     there is room for it: Joined is put        GREETED, ENDING
GREETED    its door knows what it may: Greeted is put messages are taken, at the rate of its subject; ENDING
ENDING     an error is sent, nothing is read          LEFT
LEFT       the socket is closed: Left is put

A connection for which there is no room begins in ENDING, and the rooms never hear of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import count

from websockets.asyncio.server import ServerConnection

from llmcrdt.sync.messages import Deleted, Error, ErrorCode, Push, Welcome

from .admin.metrics import Metrics
from .answers import Answers
from .auth.public_keys import AccessError
from .auth.tokens import EVERYTHING
from .connections import Connections, encode
from .core.events import Event, Greeted, Joined
from .core.price import FRAME, OTHER_FRAME, price
from .core.validation import DiffRequest, Left, MergeRequest, Received, Request
from .doors.base import Answer, DoorContext, DoorType, Refused, Upgrade
from .doors.registry import find
from .http import bearer
from .net.connection import OBJECT, Connection
from .net.websocket import Socket
from .subjects import Subjects

logger = logging.getLogger(__name__)


class Sessions:
    """``serve`` is one connection's whole time. ``put`` takes events for the rooms; ``doors`` are those of the relay,
    and ``context`` has what they share."""

    def __init__(
        self,
        doors: Sequence[DoorType],
        context: DoorContext,
        connections: Connections,
        subjects: Subjects,
        metrics: Metrics,
        put: Callable[[Event], None],
        answers: Answers,
    ) -> None:
        self._doors, self._context, self._limits, self._tokens = doors, context, context.limits, context.tokens
        self._connections, self._subjects, self._metrics, self._put = connections, subjects, metrics, put
        self._answers = answers
        self._numbers = count(1)
        # Connections that have said who they are: strangers take none of their places.
        self._greeted = 0
        self.stopping = False
        """Whether nothing more is taken: set it when the relay stops."""

    @property
    def ready(self) -> bool:
        """Whether there is room for a connection more."""
        return not self.stopping and self._greeted < self._limits.connections

    @property
    def _retry_after(self) -> int:
        return int(self._limits.retry_after * 1000)

    async def serve(self, socket: ServerConnection) -> None:
        """From the upgrade until the connection is closed."""
        assert isinstance(socket, Socket) and socket.request is not None
        found = find(self._doors, socket.request.path)
        assert found is not None, "any other path was answered before the upgrade"
        door = found.make(Upgrade(socket.request.path, bearer(socket.request)), self._context)
        connection = Connection(next(self._numbers), socket, self._limits, door, self._receive, self._charge)
        welcome = self.ready
        if welcome:
            self._connections.by_peer[connection.peer] = connection
            self._put(Joined(connection.peer))
        else:
            self._connections.end(connection, self._no_room())
        self._begin(connection)
        pump = asyncio.create_task(self._pump(connection))
        loop = asyncio.get_running_loop()
        late = loop.call_later(self._limits.handshake, self._expect_greeting, connection)
        socket.hand_to(connection.receive)
        try:
            await socket.wait_closed()
        finally:
            late.cancel()
            pump.cancel()
            with suppress(asyncio.CancelledError):
                await pump
            if welcome:
                self._connections.each((connection,), Connection.drain)
                del self._connections.by_peer[connection.peer]
                connection.release()
                self._answers.leave(connection.peer)
                self._greeted -= connection.greeted
                self._put(Left(connection.peer))

    async def _pump(self, connection: Connection) -> None:
        try:
            await connection.pump(self._connections.report)
        except Exception:
            self._connections.fail(connection)

    # ---------------------------------------------------------------- greeting

    def _begin(self, connection: Connection) -> None:
        try:
            connection.door.begin()
        except Refused as e:
            return self._connections.end(connection, e.error)
        if connection.door.greeted:
            self._greet(connection)

    def _greet(self, connection: Connection) -> bool:
        """Let the rooms know a client that has said who it is. False where its subject has too many connections."""
        door = connection.door
        if not self.ready:
            self._connections.end(connection, self._no_room())
            return False
        if not self._subjects.has_room(door):
            text = f"At most {self._limits.subject_connections} connections for one subject."
            error = Error(ErrorCode.TOO_MANY_CONNECTIONS, text, retry_after=self._retry_after)
            self._connections.end(connection, error)
            return False
        connection.socket.protocol.max_message_size = door.max_frame
        grant = door.grant or EVERYTHING
        connection.subject_window = self._subjects.window(grant.subject)
        connection.socket.introduce(connection.subject_window or connection)
        connection.greeted = True
        self._greeted += 1
        named = grant.names if grant.own else None
        self._put(Greeted(connection.peer, door.features, grant.subject, grant.level == "admin", named))
        return True

    def _no_room(self) -> Error:
        code = ErrorCode.SHUTTING_DOWN if self.stopping else ErrorCode.TOO_MANY_CONNECTIONS
        return Error(code, "Try again later.", retry_after=self._retry_after)

    def _expect_greeting(self, connection: Connection) -> None:
        if not connection.door.greeted:
            self._connections.end(connection, Error(ErrorCode.UNEXPECTED, "HELLO did not come in time."))

    def confirm_all(self) -> None:
        """End the connections of tokens that have expired or were revoked."""
        if not self._tokens.on:
            return
        try:
            self._tokens.refresh()
        except AccessError as e:
            logger.error("%s", e)
        self._connections.each(self._connections.all(), self._confirm)

    def _confirm(self, connection: Connection) -> None:
        try:
            connection.door.confirm()
        except Refused as e:
            self._connections.end(connection, e.error)

    # ---------------------------------------------------------------- messages

    def _receive(self, connection: Connection, frame: bytes | str) -> None:
        """Look at a message, and handle it now, or when its sender has been slow enough."""
        frames, size = 1, len(frame)
        try:
            message = connection.door.receive(frame)
        except Refused as e:
            return self._connections.end(connection, e.error)
        if isinstance(message, (Push, MergeRequest)):
            message, frames, size = connection.door.join_following(message, frame, connection.unread)
        self._metrics.count_messages("received", frames, size)
        cost = size + frames * FRAME
        if not isinstance(message, (Welcome, Error, Deleted)):
            cost += price(message, self._limits)
        pause = self._subjects.rate(connection).pause(cost, asyncio.get_running_loop().time())
        if pause:
            self._metrics.count("pauses_total")
            connection.pause(pause, partial(self._handle, connection, message, size))
        else:
            self._handle(connection, message, size)

    def _charge(self, connection: Connection, frames: int) -> None:
        """Frames came that were no message by themselves."""
        rate = self._subjects.rate(connection)
        if pause := rate.pause(frames * OTHER_FRAME, asyncio.get_running_loop().time()):
            if not connection.greeted:
                return self._connections.end(connection, Error(ErrorCode.UNEXPECTED, "HELLO comes first."))
            self._metrics.count("pauses_total")
            connection.pause(pause, _nothing)

    def _handle(self, connection: Connection, message: Answer | Request | None, size: int) -> None:
        """Hand a message to the rooms, or answer it here."""
        if isinstance(message, (Welcome, Error, Deleted)):
            if isinstance(message, Welcome) and not self._greet(connection):
                return
            self._connections.send_encoded([connection], message, encode(connection.door, message), 0)
        elif message is not None and not self.stopping:
            size += OBJECT + price(message, self._limits)
            match message:
                case DiffRequest():
                    # The answer may be large: the next message is taken when it has left.
                    size += self._limits.window
                case Push(_, _, _, data):
                    size += len(data) * self._limits.check_cost
                case MergeRequest(_, _, updates):
                    size += len(updates) * self._limits.merge_cost
            connection.start_work(size)
            put = self._answers.ask if isinstance(message, DiffRequest) else self._put
            put(Received(connection.peer, message, size))
            if isinstance(message, MergeRequest) and message.question:
                question = DiffRequest(message.document, message.kind, message.question)
                self._handle(connection, question, len(message.question))


def _nothing() -> None:
    """Nothing was put off."""
