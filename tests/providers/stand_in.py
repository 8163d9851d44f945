"""Small servers that stand in for providers: over HTTP on loopback, streaming and not, with the documented rules.

A stand-in refuses what the real API refuses, in its own words where they are public, and fails as it is told to
(``faults``), also in the middle of a stream. Nothing here imports ``llmcrdt``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar

JSON = Any


@dataclass
class Said:
    """The answer to a request. ``calls``: pairs of a tool's name and the JSON text of its arguments."""

    text: str = ""
    thinking: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Refusal(Exception):
    """An error response. ``code``, ``kind``: the API's words for it."""

    status: int
    message: str
    code: str | None = None
    kind: str = "invalid_request_error"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Cut:
    """The connection breaks off when so many events of the stream were sent; without a stream, in the body."""

    after: int


@dataclass(frozen=True)
class GiveUp:
    """An error event comes when so many events of the stream were sent, and nothing after it."""

    after: int
    message: str = "Overloaded"


@dataclass(frozen=True)
class Hang:
    """Nothing more comes when so many events were sent, until the client goes away."""

    after: int


Fault = Refusal | Cut | GiveUp | Hang


class StandIn:
    """A server, while the ``with`` block lasts. ``accepted``: the bodies that it took; ``read``: the same with
    what it had kept before; ``refused``: why not the others.
    ``faults``: what goes wrong with the next requests, one each; None is none. ``says``: the next answers, else
    ``brain`` makes one of each request. ``keys``: the API keys that it knows."""

    path: ClassVar[str]

    def __init__(self, *, keys: Iterable[str] = ("key-1",), salt: str = "", listen: bool = True) -> None:
        self.keys = set(keys)
        self.accepted: list[JSON] = []
        self.read: list[JSON] = []
        self.refused: list[str] = []
        self.faults: list[Fault | None] = []
        self.says: list[Said] = []
        self.left = threading.Event()
        self._secret = f"stand-in {salt}".encode()
        self._count = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler()) if listen else None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Any:
        server = self._server
        assert server is not None
        server.daemon_threads = False
        self._thread = threading.Thread(target=lambda: server.serve_forever(0.02), name="stand-in")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None and self._thread is not None
        self._stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()  # waits for the threads of its connections

    # the API: what a stand-in for one says

    def check(self, body: JSON, key: str) -> None:
        """Raises Refusal for a request that the API refuses."""
        raise NotImplementedError

    def whole(self, body: JSON) -> JSON:
        """A request with what the server kept before it."""
        return body

    def answer(self, body: JSON, key: str, said: Said) -> JSON:
        """The whole response."""
        raise NotImplementedError

    def events(self, answer: JSON) -> Iterator[tuple[str | None, JSON]]:
        """The same as events of a stream, each with its name."""
        raise NotImplementedError

    def error(self, refusal: Refusal) -> JSON:
        """An error in the API's form."""
        return {"error": {"message": refusal.message, "type": refusal.kind, "param": None, "code": refusal.code}}

    def headers(self, refusal: Refusal) -> Iterable[tuple[str, str]]:
        """The headers of an error response."""
        return refusal.headers

    def given_up(self, message: str) -> tuple[str | None, JSON]:
        """The error in the middle of a stream."""
        return None, self.error(Refusal(500, message, kind="server_error"))

    def asked(self, path: str, body: JSON) -> JSON | None:
        """A request with what its address says; None for an address that is not here."""
        return body if path == self.path else None

    def key(self, headers: Mapping[str, str]) -> str:
        """The API key that a request comes with."""
        return headers.get("x-api-key") or (headers.get("authorization") or "").removeprefix("Bearer ")

    done: ClassVar[str | None] = None
    """The last data of a stream, which is no JSON."""

    def brain(self, body: JSON) -> Said:
        return Said(f"answer {self.number()}")

    # for those

    def number(self) -> int:
        with self._lock:
            self._count += 1
            return self._count

    def sign(self, *bound: JSON) -> str:
        """An opaque text that is bound to these values; ``reads`` tells what they were."""
        value = json.dumps(bound, sort_keys=True).encode()
        return base64.b64encode(hmac.digest(self._secret, value, hashlib.sha256) + value).decode()

    def reads(self, opaque: JSON) -> list[JSON] | None:
        """The values that an opaque text of this server's is bound to; None where it is none."""
        try:
            data = base64.b64decode(opaque, validate=True)
        except (ValueError, TypeError):
            return None
        mac, value = data[:32], data[32:]
        return json.loads(value) if hmac.compare_digest(mac, hmac.digest(self._secret, value, hashlib.sha256)) else None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                self.close_connection = True
                with suppress(ConnectionError):
                    owner._serve(self, body)

        return Handler

    def reply(self, body: JSON, key: str, fault: Fault | None, asked: JSON = None) -> JSON:
        """The answer to a request, whoever brought it; ``asked``: with what its address says. Raises Refusal."""
        asked = asked or body
        try:
            if isinstance(fault, Refusal):
                raise fault
            if key not in self.keys:
                raise Refusal(401, "invalid x-api-key", kind="authentication_error")
            self.check(asked, key)
            whole = self.whole(asked)
            said = self.says.pop(0) if self.says else self.brain(asked)
            answer = self.answer(asked, key, said)
        except Refusal as refusal:
            self.refused.append(refusal.message)
            raise
        self.accepted.append(body)
        self.read.append(whole)
        return answer

    def stream(self, answer: JSON, fault: Fault | None) -> Iterator[bytes]:
        """The body of a streamed response, an event at a time, up to its fault."""
        at = fault.after if isinstance(fault, Cut | GiveUp | Hang) else None
        for n, (name, event) in enumerate(self.events(answer)):
            if n == at:
                break
            yield _event(name, json.dumps(event))
        else:
            if self.done is not None:
                yield _event(None, self.done)
            return
        if isinstance(fault, GiveUp):
            name, event = self.given_up(fault.message)
            yield _event(name, json.dumps(event))

    def _serve(self, handler: BaseHTTPRequestHandler, body: JSON) -> None:
        fault = self.faults.pop(0) if self.faults else None
        asked = self.asked(handler.path.split("?")[0], body)
        try:
            if asked is None:
                raise Refusal(404, f"Invalid URL (POST {handler.path})")
            answer = self.reply(body, self.key(handler.headers), fault, asked)
        except Refusal as refusal:
            self._send(handler, refusal.status, self.error(refusal), self.headers(refusal))
            return
        if asked.get("stream"):
            self._stream(handler, answer, fault)
        elif isinstance(fault, Hang):
            self._hang(handler)
        else:
            self._send(handler, 200, answer, cut=isinstance(fault, Cut))

    def _send(
        self,
        handler: BaseHTTPRequestHandler,
        status: int,
        value: JSON,
        headers: Iterable[tuple[str, str]] = (),
        *,
        cut: bool = False,
    ) -> None:
        data = json.dumps(value).encode()
        handler.send_response(status)
        for name, text in (("content-type", "application/json"), ("content-length", str(len(data))), *headers):
            handler.send_header(name, text)
        handler.end_headers()
        handler.wfile.write(data[: len(data) // 2] if cut else data)

    def _stream(self, handler: BaseHTTPRequestHandler, answer: JSON, fault: Fault | None) -> None:
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        for piece in self.stream(answer, fault):
            handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            handler.wfile.flush()
        if isinstance(fault, Hang):
            self._hang(handler)
        elif not isinstance(fault, Cut):
            handler.wfile.write(b"0\r\n\r\n")

    def _hang(self, handler: BaseHTTPRequestHandler) -> None:
        """Wait until the client has closed the connection."""
        handler.connection.settimeout(0.02)
        while not self._stopping.is_set():
            try:
                if not handler.connection.recv(1):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        self.left.set()


def _event(name: str | None, data: str) -> bytes:
    return ((f"event: {name}\n" if name else "") + f"data: {data}\n\n").encode()


def canonical(value: JSON) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def digest(value: JSON) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def pieces(text: str, size: int = 5) -> list[str]:
    """A text as a model says it, a few letters at a time."""
    return [text[i : i + size] for i in range(0, len(text), size)]
