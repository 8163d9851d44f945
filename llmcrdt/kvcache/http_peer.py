"""A peer over HTTP: ``llmcrdt serve --offer-kv`` on another machine, or in another process of this one.

The wire is in docs/kv.md, *Handed over*. Each call works on a thread of its own, and whoever asks waits for it as long
as they said, whatever the other side does: a name that isn't resolved, a head that comes a byte at a time. Then the
connection is closed under it.
"""

from __future__ import annotations

import contextlib
import hmac
import http.client
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import closing
from typing import TypeVar, cast
from urllib.parse import urlsplit

from ..exceptions import InvalidContent
from .chunk_hash import ChunkKey
from .handover import CHUNK_PATH, HAVE_PATH, MAC_HEADER, HandoverKey, unpack_sizes
from .peers import PeerFailed

_PIECE = 1 << 18
_SILENCE = 10.0  # seconds without a byte after which the thread gives up, whoever waits for it
_Answer = TypeVar("_Answer")


class HttpPeer:
    """The chunks of the server at ``url`` (http or https, host and port), asked for with ``key``. Raises InvalidContent
    for another address."""

    def __init__(self, url: str, key: HandoverKey) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if parts.scheme not in ("http", "https") or not host or parts.path.strip("/") or parts.query or parts.username:
            raise InvalidContent(f"{url!r} is no address of KV state.", hint="Give http://HOST:PORT.")
        self._https, self._host, self._port, self._key = parts.scheme == "https", host, port, key
        self._name = f"{parts.scheme}://{parts.netloc}"
        self._connection: http.client.HTTPConnection | None = None
        self._busy = threading.Lock()  # until a call's work is over, also when nobody waits for it any more
        self._left = False  # nobody waits for it any more

    @property
    def name(self) -> str:
        return self._name

    @property
    def key(self) -> HandoverKey:
        return self._key

    def have(self, keys: Sequence[ChunkKey], seconds: float) -> list[int]:
        return self._within(seconds, lambda: self._have(keys))

    def read(self, key: ChunkKey, size: int, seconds: float) -> tuple[bytes, bytes]:
        return self._within(seconds, lambda: self._read(key, size))

    def close(self) -> None:
        if self._busy.acquire(blocking=False):
            self._discard()
            self._busy.release()
        else:
            self._cut()

    def _within(self, seconds: float, work: Callable[[], _Answer]) -> _Answer:
        """The answer of ``work``, on another thread. Raises PeerFailed, also after ``seconds``."""
        if not self._busy.acquire(blocking=False):
            raise PeerFailed("it has not ended what it was asked before")
        self._left = False
        future: Future[_Answer] = Future()

        def run() -> None:
            answer: _Answer | None = None
            failure: BaseException | None = None
            try:
                answer = work()
            except (OSError, http.client.HTTPException, ValueError) as error:
                failure = PeerFailed(f"{type(error).__name__}: {error}")
            except BaseException as error:
                failure = error
            if failure is not None or self._left:
                self._discard()
            self._busy.release()
            if failure is not None:
                future.set_exception(failure)
            else:
                future.set_result(cast("_Answer", answer))

        threading.Thread(target=run, name="llmcrdt-kv-peer", daemon=True).start()
        try:
            return future.result(seconds)
        except TimeoutError:
            self._cut()
            raise PeerFailed(f"no answer within {seconds:.3f} s") from None

    def _cut(self) -> None:
        """End what the thread waits for; it closes the connection itself."""
        self._left = True
        connection = self._connection
        sock = connection.sock if connection is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    # on the thread that is busy

    def _discard(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _have(self, keys: Sequence[ChunkKey]) -> list[int]:
        question, data = b"".join(keys), bytearray()
        with closing(self._answer("POST", HAVE_PATH, question, {})) as answer:
            mac = bytes.fromhex(answer.headers.get(MAC_HEADER, ""))
            _read_into(data, answer, 8 * len(keys))
        if not hmac.compare_digest(self._key.answer_mac(question, bytes(data)), mac):
            raise ValueError("nobody with the key vouches for what it says")
        return unpack_sizes(bytes(data), len(keys))

    def _read(self, key: ChunkKey, size: int) -> tuple[bytes, bytes]:
        """After a connection that broke in the middle, the rest is asked for once."""
        path, data = CHUNK_PATH + key.hex(), bytearray()
        for attempt in (1, 2):
            try:
                rest = {"range": f"bytes={len(data)}-"} if data else {}
                with closing(self._answer("GET", path, None, rest)) as answer:
                    mac = bytes.fromhex(answer.headers.get(MAC_HEADER, ""))
                    if answer.status != 206:
                        data.clear()
                    _read_into(data, answer, size)
                    return bytes(data), mac
            except (ConnectionError, http.client.IncompleteRead):
                self._discard()
                if attempt == 2 or not data or self._left:
                    raise
        raise AssertionError("unreachable")

    def _answer(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> http.client.HTTPResponse:
        headers = {"authorization": f"Bearer {self._key.token}", **headers}
        kept = self._connection is not None
        try:
            answer = self._request(method, path, body, headers)
        except (ConnectionError, http.client.BadStatusLine):
            self._discard()
            if not kept or self._left:
                raise
            answer = self._request(method, path, body, headers)  # the server had ended the one that was kept
        if answer.status not in (200, 206):
            answer.close()
            raise ValueError(f"it answers {answer.status}")
        return answer

    def _request(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> http.client.HTTPResponse:
        if self._connection is None:
            kind = http.client.HTTPSConnection if self._https else http.client.HTTPConnection
            self._connection = kind(self._host, self._port, timeout=_SILENCE)
        self._connection.request(method, path, body, headers)
        return self._connection.getresponse()


def _read_into(data: bytearray, answer: http.client.HTTPResponse, most: int) -> None:
    """Add what comes. Raises ValueError past ``most`` bytes in all, IncompleteRead where it ends early."""
    while piece := answer.read1(_PIECE):
        data += piece
        if len(data) > most:
            raise ValueError("more than it said")
    if answer.length:
        raise http.client.IncompleteRead(b"", answer.length)
