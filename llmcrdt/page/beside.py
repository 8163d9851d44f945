"""The page at / of a server that answers other paths as well."""

from __future__ import annotations

from .access import App, OnlyWithToken, Receive, Scope, Send, Tokens
from .app import PageApp


def beside(app: App, page: PageApp, tokens: Tokens, port: int) -> App:
    """``app``, with the page at ``/``, ``/static/`` and ``/api/``, for this machine alone: the guard of ``Page``."""
    hosts = [f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")]
    guarded = OnlyWithToken(page.routes(), tokens, hosts)

    async def either(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        mine = scope["type"] == "http" and (path == "/" or path.startswith(("/static/", "/api/")))
        await (guarded if mine else app)(scope, receive, send)

    return either
