"""Access to the page: from this machine, with its token, and from the page itself. Pure ASGI; knows no repo.

A page on loopback can be reached by every site that the same browser shows: by a name that is resolved to 127.0.0.1
(the host is checked), by a form or a script (the origin is checked), and by other users of the machine (the token).
The token stands in the address's fragment, which browsers send to nobody.

Other users of the machine see the arguments of a browser that is started. So it is started with a code, which the page
exchanges for the token: once, and soon. A code that comes twice was seen by somebody else, or is one that was: then the
token that it gave is good no more.
"""

from __future__ import annotations

import hmac
import json
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
"""Nothing comes from elsewhere, nothing inline is run, and nobody frames it."""

_AGAIN = (
    'Run "llmcrdt open" again, or open the address that it prints. If nobody opened this one twice, somebody else did.'
)

HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]


CODE_SECONDS = 60.0
"""A code is good for so long: a browser may have to be started."""

EXCHANGE = "/api/token"
"""``POST``, with ``Authorization: Code CODE``: the token."""


class Tokens:
    """The tokens of one page. Any thread. ``token``: one that is good as long as the page; None draws one. Each code
    gives one of its own."""

    def __init__(self, token: str | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.token = token or secrets.token_urlsafe(24)
        self._clock = clock
        self._lock = threading.Lock()
        self._good = {self.token}
        # Each code with the time until which it is good, and the token that it gave.
        self._codes: dict[str, tuple[float, str]] = {}

    def code(self) -> str:
        """A new code."""
        made = secrets.token_urlsafe(24)
        with self._lock:
            self._codes[made] = (self._clock() + CODE_SECONDS, "")
        return made

    def exchange(self, code: str) -> str | None:
        """The token for a code; None where it is too late, where there is no such code, or where it was exchanged
        before: then that token ends too."""
        with self._lock:
            until, token = self._codes.get(code, (0.0, ""))
            if token:
                self._good.discard(token)
            if token or self._clock() >= until:
                return None
            token = secrets.token_urlsafe(24)
            self._codes[code] = (until, token)
            self._good.add(token)
            return token

    def allows(self, token: bytes) -> bool:
        """Whether a token is good."""
        with self._lock:
            good = list(self._good)
        return sum(hmac.compare_digest(token, each.encode()) for each in good) > 0  # all, whichever it is


class OnlyWithToken:
    """Lets through requests to these hosts (``name:port``), of their own origins, and under ``/api/`` only with a
    token (``Authorization: Bearer TOKEN``)."""

    def __init__(self, app: App, tokens: Tokens, hosts: Iterable[str]) -> None:
        self._app, self._tokens = app, tokens
        self._hosts = {host.encode() for host in hosts}
        self._origins = {b"http://" + host for host in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            raise ValueError(f"The page has no {scope['type']}.")

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            if scope["path"] != EXCHANGE:
                return await self._app(scope, receive, send_guarded)
            status, said = self._exchanged(scope)
        else:
            status, said = refusal[0], {"error": refusal[1]}
        body = json.dumps(said).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send_guarded({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if headers.get(b"host") not in self._hosts:
            return 421, "This page is for this machine alone."
        if headers.get(b"origin", next(iter(self._origins))) not in self._origins:
            return 403, "Another page asked for this."
        if not scope["path"].startswith("/api/") or scope["path"] == EXCHANGE:
            return None
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not self._tokens.allows(token):
            return 401, 'The token is missing or of another time. Open the address that "llmcrdt open" prints.'
        return None

    def _exchanged(self, scope: Scope) -> tuple[int, dict[str, str]]:
        scheme, _, code = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
        if scope["method"] != "POST":
            return 405, {"error": "A code is sent with POST."}
        token = self._tokens.exchange(code.decode("latin-1")) if scheme.lower() == b"code" else None
        if token is None:
            return 401, {"error": "This address was used before, or is too old.", "hint": _AGAIN}
        return 200, {"token": token}
