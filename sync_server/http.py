"""Plain HTTP at a relay: is it there, can it take more, and what has it counted. And what an upgrade asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import NegotiationError
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from .admin.metrics import CONTENT_TYPE, Metrics
from .auth.tokens import TokenRefused, Tokens
from .core.limits import Limits
from .doors.base import DoorType
from .doors.registry import describe, find

_BUSY = HTTPStatus.SERVICE_UNAVAILABLE


class HttpPages:
    """``answer`` and ``subprotocol`` are for websockets' ``serve``. ``ready``: whether there is room for a connection
    more; ``oldest``: for how many seconds a record has waited in vain; ``gauges``: numbers for /metrics as they are
    now."""

    def __init__(
        self,
        doors: Sequence[DoorType],
        limits: Limits,
        tokens: Tokens,
        metrics: Metrics,
        ready: Callable[[], bool],
        oldest: Callable[[], float],
        gauges: Callable[[], Mapping[str, float]],
    ) -> None:
        self._doors, self._limits, self._tokens, self._metrics = doors, limits, tokens, metrics
        self._ready, self._oldest, self._gauges = ready, oldest, gauges

    def answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """A page; None lets the WebSocket begin."""
        path = request.path.partition("?")[0]
        if (door := find(self._doors, path)) is not None:
            if not door.deflate:
                connection.protocol.available_extensions = []
            return None
        if path == "/healthz":
            waits = self._oldest()
            late = waits > self._limits.check_wait
            why = f"records that are to be checked have waited for {waits:.0f} s\n"
            return connection.respond(*((_BUSY, why) if late else (HTTPStatus.OK, "ok\n")))
        if path == "/readyz":
            return connection.respond(*((HTTPStatus.OK, "ready\n") if self._ready() else (_BUSY, "busy\n")))
        if path == "/metrics":
            return self._answer_metrics(connection, request)
        return connection.respond(HTTPStatus.NOT_FOUND, f"{describe(self._doors)}\n")

    def _answer_metrics(self, connection: ServerConnection, request: Request) -> Response:
        if self._tokens.on:
            try:
                allowed = self._tokens.check(bearer(request)).allows("admin")
            except TokenRefused:
                allowed = False
            if not allowed:
                return connection.respond(HTTPStatus.UNAUTHORIZED, "It takes a token that may do all (admin).\n")
        response = connection.respond(HTTPStatus.OK, self._metrics.text(self._gauges()))
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = CONTENT_TYPE
        return response

    def subprotocol(self, connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        """The one subprotocol of a door; none at a door whose clients know none."""
        found = find(self._doors, connection.request.path) if connection.request is not None else None
        if found is None or found.subprotocol is None:
            return None
        if found.subprotocol in offered:
            return Subprotocol(found.subprotocol)
        raise NegotiationError(f"the subprotocol is {found.subprotocol}")


def bearer(request: Request) -> bytes:
    """The token in a request's headers; empty without one."""
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip().encode() if kind.lower() == "bearer" else b""
