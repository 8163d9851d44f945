"""Closes connections on which no request comes in: uvicorn waits for the first one, and for the rest of each one's
head, as long as the client likes."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any


async def run_server(server: Any, at: socket.socket, arrival: float) -> None:
    """Run a ``uvicorn.Server`` until it is to exit, and close idle connections meanwhile."""
    idle = asyncio.ensure_future(close_idle(server, arrival))
    try:
        await server.serve(sockets=[at])
    finally:
        idle.cancel()


async def close_idle(server: Any, arrival: float) -> None:
    """Close those of a ``uvicorn.Server`` that have waited for ``arrival`` seconds, until this is cancelled."""
    since: dict[tuple[Any, Any], float] = {}
    while True:
        now = time.monotonic()
        open_now: Any = server.server_state.connections  # H11Protocol: the config says so
        waiting = {(each, each.cycle) for each in open_now if _waits_for_a_head(each)}
        since = {each: since.get(each, now) for each in waiting}
        for (connection, _), begun in since.items():
            if now - begun > arrival:
                connection.transport.close()
        await asyncio.sleep(min(1.0, arrival / 2))


def _waits_for_a_head(connection: Any) -> bool:
    """Whether a connection of uvicorn's waits for its first request, or for the rest of the head of another one. It
    closes those itself that are kept alive between requests."""
    if connection.cycle is None:
        return True
    return bool(connection.cycle.response_complete) and connection.timeout_keep_alive_task is None
