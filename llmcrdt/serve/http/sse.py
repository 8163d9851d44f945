"""Server-sent events: what an answer streams as, kept so that readers may come late, come back, or go away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...document.canonical import JSON

_IN_A_ROW = 16  # events that are sent to one client before others have their turn


def compact(value: JSON) -> str:
    """The JSON text of a value, as short as it can be."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def event(data: JSON, name: str = "") -> bytes:
    """One event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {compact(data)}\n\n".encode("utf-8", "replace")


@dataclass
class Feed:
    """The events of one answer, from the first one on. Used on the server's loop alone."""

    events: list[bytes] = field(default_factory=list)
    ended: bool = False
    size: int = 0
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, *events: bytes) -> None:
        """Something happened."""
        self.events += events
        self.size += sum(map(len, events))
        self._wake()

    def end(self) -> None:
        """Nothing follows."""
        self.ended = True
        self._wake()

    async def wait(self) -> None:
        """Wait for the end."""
        while not self.ended:
            await self._news.wait()

    async def follow(self, after: int, silence: float, alive: bytes) -> AsyncIterator[bytes]:
        """The events but for the first ``after``; ``alive`` after ``silence`` seconds without one."""
        at = after
        while True:
            news = self._news
            while at < len(self.events):
                at += 1
                yield self.events[at - 1]
                if at % _IN_A_ROW == 0:
                    await asyncio.sleep(0)  # so that others have their turn, and a client that went is noticed
            if self.ended:
                return
            if news is self._news:
                try:
                    async with asyncio.timeout(silence):  # wait_for of Python 3.11 may swallow that it is cancelled
                        await news.wait()
                except TimeoutError:
                    yield alive

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


class EventStream(Response):
    """Streams a body, and stops as soon as the client has gone. ``left`` is called at the end, however it came."""

    media_type = "text/event-stream"

    def __init__(self, body: AsyncIterator[bytes], left: Any, headers: Mapping[str, str]) -> None:
        self._body, self._left = body, left
        self.status_code, self.background = 200, None
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no", **headers})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            gone = asyncio.ensure_future(disconnected(receive))
            sent = asyncio.ensure_future(self._send(send))
            await asyncio.wait([gone, sent], return_when=asyncio.FIRST_COMPLETED)
            for task in (gone, sent):
                task.cancel()
                with suppress(asyncio.CancelledError, OSError):
                    await task
        finally:
            self._left()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for chunk in self._body:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def disconnected(receive: Receive) -> None:
    """Wait until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
