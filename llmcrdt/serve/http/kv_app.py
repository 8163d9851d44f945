"""Chunks of KV state over HTTP, for those who have the key (docs/kv.md, *Handed over*).

``POST /llmcrdt/kv/1/have``: keys, 32 bytes each; the answer is the bytes of each file, 0 where it isn't here.
``GET``, ``HEAD /llmcrdt/kv/1/chunks/KEY``: a file, or with ``Range`` the rest of it; its MAC stands in a header.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ...kvcache import ChunkCache, ChunkKey, HandoverKey
from ...kvcache.chunk_file import encode
from ...kvcache.chunk_hash import KEY_BYTES
from ...kvcache.handover import CHUNK_PATH, HAVE_PATH, MAC_HEADER, MOST_KEYS, pack_sizes, unpack_keys

_PIECE = 1 << 16
_KEY = re.compile(r"[0-9a-f]{64}")
_FROM = re.compile(r"bytes=(\d{1,15})-(\d{0,15})")


@dataclass(frozen=True)
class KvLimits:
    """``rate``: bytes per second to all who ask together. ``at_once``: files that are being sent. ``connections``: all
    of them. ``seconds``: for a file, or for a question to arrive; then the connection is closed."""

    rate: float = 256 << 20
    at_once: int = 8
    connections: int = 64
    seconds: float = 60.0


class KvApp:
    """Makes the application over the chunks of ``cache``; ``keys``: who is let in."""

    def __init__(
        self,
        cache: ChunkCache,
        keys: Sequence[HandoverKey],
        limits: KvLimits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cache, self._keys, self._limits = cache, list(keys), limits
        self._pace = Pace(limits.rate, clock)
        self._sending = 0

    def starlette(self) -> Starlette:
        """The application."""
        return Starlette(
            routes=[
                Route(HAVE_PATH, self._have, methods=["POST"]),
                Route(CHUNK_PATH + "{key}", self._chunk, methods=["GET", "HEAD"]),
            ]
        )

    async def _have(self, request: Request) -> Response:
        holder = self._holder(request)
        if holder is None:
            return _refusal()
        try:
            async with asyncio.timeout(self._limits.seconds):
                keys = unpack_keys(question := await _body(request))
        except TimeoutError:
            return Response(status_code=408)
        except ValueError as error:
            return Response(f"{error}\n", 400, media_type="text/plain")
        answer = await asyncio.to_thread(self._sizes, keys)
        mac = holder.answer_mac(question, answer).hex()
        return Response(answer, headers={MAC_HEADER: mac}, media_type="application/octet-stream")

    async def _chunk(self, request: Request) -> Response:
        holder, name = self._holder(request), request.path_params["key"]
        if holder is None:
            return _refusal()
        if not _KEY.fullmatch(name):
            return Response("A key is 64 hex digits.\n", 400, media_type="text/plain")
        if self._sending >= self._limits.at_once:
            return Response("Too many at once.\n", 429, {"retry-after": "1"}, "text/plain")
        key = ChunkKey(bytes.fromhex(name))
        self._sending += 1
        try:
            chunk = await asyncio.to_thread(self._cache.get, key)  # whole and verified: nothing damaged is sent
            if chunk is None:
                raise LookupError
            data = await asyncio.to_thread(encode, chunk)
            start, stop = _range(request.headers.get("range"), len(data))
        except BaseException as error:
            self._sending -= 1
            if isinstance(error, LookupError):
                return Response(status_code=404)
            if isinstance(error, ValueError):
                return Response(status_code=416)
            raise
        headers = {
            MAC_HEADER: holder.mac(key, chunk.digest).hex(),
            "content-length": str(stop - start),
            "accept-ranges": "bytes",
            "cache-control": "no-store",
        }
        if (start, stop) != (0, len(data)):
            headers["content-range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        pieces = self._pieces(memoryview(data)[start:stop] if request.method == "GET" else memoryview(b""))
        return _Sending(pieces, 206 if "content-range" in headers else 200, headers, self._limits.seconds, self._sent)

    def _sent(self) -> None:
        self._sending -= 1

    def _holder(self, request: Request) -> HandoverKey | None:
        """The key that was shown. No page in a browser has one to show, and those that try are refused."""
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or "origin" in request.headers:
            return None
        shown = given.strip().encode("utf-8", "replace")
        found = [key for key in self._keys if hmac.compare_digest(key.token.encode(), shown)]
        return found[0] if found else None

    def _sizes(self, keys: Sequence[ChunkKey]) -> bytes:
        headers = [self._cache.header(key) for key in keys]
        return pack_sizes([0 if header is None else header.size for header in headers])

    async def _pieces(self, data: memoryview) -> AsyncIterator[bytes]:
        for at in range(0, len(data), _PIECE):
            piece = bytes(data[at : at + _PIECE])
            await asyncio.sleep(self._pace.wait_for(len(piece)))
            yield piece


class Pace:
    """So many bytes per second, whoever they are for."""

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._rate, self._clock = rate, clock
        self._free = clock()  # when what was promised so far is sent

    def wait_for(self, size: int) -> float:
        """Seconds until so many more bytes may go."""
        now = self._clock()
        self._free = max(now, self._free) + size / self._rate
        return max(0.0, self._free - now)


class _Sending(StreamingResponse):
    """A file on its way; whoever doesn't read it is left. ``sent`` is called at the end, however that comes."""

    def __init__(
        self,
        pieces: AsyncIterator[bytes],
        status: int,
        headers: dict[str, str],
        seconds: float,
        sent: Callable[[], None],
    ) -> None:
        super().__init__(pieces, status, headers, "application/octet-stream")
        self._seconds, self._sent = seconds, sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with contextlib.suppress(TimeoutError):  # then the connection ends before the file does
                async with asyncio.timeout(self._seconds):
                    await super().__call__(scope, receive, send)
        finally:
            self._sent()


def _refusal() -> Response:
    return Response("Show a key.\n", 401, {"www-authenticate": "Bearer"}, "text/plain")


async def _body(request: Request) -> bytes:
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > MOST_KEYS * KEY_BYTES:
            break
    return bytes(data)


def _range(header: str | None, size: int) -> tuple[int, int]:
    """The bytes that a Range asks for: from somewhere on, or all. Raises ValueError for one outside of the file."""
    found = _FROM.fullmatch(header.strip()) if header else None
    if found is None:  # none, or of a kind that isn't served: RFC 9110 lets it be passed over
        return 0, size
    start, stop = int(found[1]), min(size, int(found[2]) + 1) if found[2] else size
    if not start < stop:
        raise ValueError("outside of the file")
    return start, stop
