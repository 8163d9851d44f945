"""The connections of a relay: what is done to each, to many, and to all."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Concatenate, ParamSpec, TypeAlias

from llmcrdt.sync.messages import Error

from .admin.metrics import Metrics
from .core.events import Event, PeerMessage, Sent
from .core.limits import Limits
from .doors.base import Door, Refused
from .net.connection import Connection
from .net.outgoing import Outgoing

logger = logging.getLogger(__name__)

P = ParamSpec("P")

Encoded: TypeAlias = Outgoing | Error
"""A message as frames; or an error, where a protocol has no word for the message and the connection ends."""


def encode(door: Door, message: PeerMessage) -> Encoded:
    """A message in the protocol of a door. From any thread."""
    try:
        return Outgoing(*door.encode(message))
    except Refused as e:
        return e.error


class Connections:
    """All open connections, by peer. Use it on the loop; other threads may look a peer up.

    A defect at one connection ends that connection, and is kept from the others. ``put`` takes events for the rooms.
    """

    def __init__(self, limits: Limits, metrics: Metrics, put: Callable[[Event], None]) -> None:
        self._limits, self._metrics, self._put = limits, metrics, put
        self.by_peer: dict[int, Connection] = {}

    def __len__(self) -> int:
        return len(self.by_peer)

    def all(self) -> tuple[Connection, ...]:
        """As they are now: any of them may end while something is done to the others."""
        return tuple(self.by_peer.values())

    def each(
        self,
        connections: Sequence[Connection],
        act: Callable[Concatenate[Connection, P], None],
        *arguments: P.args,
        **options: P.kwargs,
    ) -> None:
        """Do something to each; a connection at which that raises is closed."""
        for connection in connections:
            try:
                act(connection, *arguments, **options)
            except Exception:
                self.fail(connection)

    def fail(self, connection: Connection) -> None:
        """Close a connection at which the relay failed. Only where an exception is handled."""
        logger.exception("connection %d is closed, for the relay failed at it", connection.peer)
        connection.fail()

    def end(self, connection: Connection, error: Error) -> None:
        """Send an error after all that is queued, then close."""
        if connection.end(error):
            self._metrics.error(error.code)

    def abort(self) -> None:
        """Close all of them at once, whatever is queued."""
        for connection in self.all():
            connection.socket.transport.abort()

    def send(self, connections: Sequence[Connection], out: Outgoing, weight: int) -> None:
        self.each(connections, Connection.send, out, weight)
        to = len(connections)
        self._metrics.count_messages("sent", to * len(out.payloads), to * out.size)

    def send_encoded(self, connections: Sequence[Connection], message: PeerMessage, out: Encoded, weight: int) -> None:
        """Send a message to clients of one protocol."""
        if isinstance(out, Error):
            return self.each(connections, self.end, out)
        if not out.payloads:
            # Nothing of it waits.
            for connection in connections:
                connection.unreported += weight
            return
        if isinstance(message, Error) and connections:
            self._metrics.error(message.code)
        self.send(connections, out, weight)

    def report(self, connection: Connection) -> None:
        """Tell the rooms what has left, but not for every frame: each report wakes their thread."""
        if connection.unreported >= self._limits.outgoing // 4:
            self._put(Sent(connection.peer, connection.unreported))
            connection.unreported = 0

    def report_all(self, connections: Sequence[Connection]) -> None:
        """The same of many."""
        self.each(connections, self.report)

    def send_keepalives(self, now: float) -> None:
        """Clients of some protocols take a connection for lost where nothing comes for a while."""
        for connection in self.all():
            keepalive = connection.door.keepalive
            if keepalive is not None and now - connection.sent_at > keepalive.seconds:
                self.send([connection], Outgoing(keepalive.frame), 0)
