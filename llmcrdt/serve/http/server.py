"""HttpServer: the HTTP APIs of a repo's conversations and some models, on a thread of its own."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import threading
from collections.abc import Callable, Collection, Mapping
from types import TracebackType
from typing import Any

import uvicorn

from ...at_exit import end_at_exit
from ...engine.base import Engine
from ...exceptions import InvalidContent, LLMCRDTError
from ...listening import listen, url_at
from ...providers.base import Provider
from ...repo.repo import Repo
from .app import App
from .idle import run_server
from .keys import Keys
from .limits import HttpLimits
from .turns import Turns

logger = logging.getLogger("llmcrdt.serve.http")

DEFAULT_HOST = "127.0.0.1"
_NO_KEYS = Keys()


class HttpServer:
    """Serves from ``start`` on, until ``stop``; a context manager. Any method from any thread.

    ``models``: engines, or models of providers, by the names that requests use. ``host``, ``port``: where it listens;
    port 0 draws one.
    ``keys``: who is let in; without any it listens on this machine alone. ``origins``: the pages that may ask from a
    browser. ``front``: makes the application that is served, of the one here and the port. Raises InvalidContent where
    that would be open to strangers, and where nothing can listen there.
    """

    def __init__(
        self,
        repo: Repo,
        models: Mapping[str, Engine | Provider],
        *,
        host: str = DEFAULT_HOST,
        port: int = 0,
        keys: Keys = _NO_KEYS,
        origins: Collection[str] = (),
        limits: HttpLimits | None = None,
        front: Callable[[Any, int], Any] = lambda app, port: app,
    ) -> None:
        if not models or not all(isinstance(name, str) and name for name in models):
            raise InvalidContent("A server has a model at least, by name.", hint='Give {"smol": engine}.')
        check_reach(host, keys)
        self._limits = limits or HttpLimits()
        self._turns = Turns(repo, models, self._limits)
        app = App(self._turns, keys, origins).starlette()
        self._socket = listen(host, port, 256)
        self._host, self._port = host, self._socket.getsockname()[1]
        config = uvicorn.Config(
            front(app, self._port),
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            http="h11",
            loop="asyncio",
            server_header=False,
            limit_concurrency=self._limits.connections,
            h11_max_incomplete_event_size=self._limits.headers,
            timeout_graceful_shutdown=5,
        )
        self._server = uvicorn.Server(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="llmcrdt-http", daemon=True)
        self._stopped = False
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)

    @property
    def url(self) -> str:
        """Its address: the ``base_url`` of Anthropic's SDK; that of OpenAI's has /v1 at the end."""
        return url_at(self._host, self._port)

    def start(self) -> HttpServer:
        """Begin to serve."""
        end_at_exit(self, finish=lambda server, seconds: server.stop(min(seconds, 1.0)))
        self._thread.start()
        threading.Thread(target=self._read, name="llmcrdt-http-index", daemon=True).start()
        self._started.wait(30)
        return self

    def stop(self, drain: float = 0.0) -> None:
        """Take nothing more. Answers under way have ``drain`` seconds; then they are stopped, and kept as they are.
        Twice is harmless."""
        if self._stopped:
            return
        self._stopped = True
        if self._loop is not None and self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._turns.stop(drain), self._loop).result(drain + 30)
            self._server.should_exit = True
            self._thread.join(30)
        self._socket.close()
        self._turns.scratch.close()

    def __enter__(self) -> HttpServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _read(self) -> None:
        try:
            self._turns.placer.read()
        except LLMCRDTError as error:  # the disk, or the repo was closed: the next request finds out
            logger.info("%s", error)

    def _run(self) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            self._started.set()
            await run_server(self._server, self._socket, self._limits.arrival)

        try:
            asyncio.run(serve())
        finally:
            self._started.set()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_reach(host: str, keys: Keys) -> None:
    """Raises InvalidContent where strangers would reach a server that has no key."""
    if not keys and not is_loopback(host):
        raise InvalidContent(
            f"Without a key everybody who reaches {host} could read this library.",
            hint="Give a file of keys (--http-keys), or LLMCRDT_HTTP_KEY; or listen on 127.0.0.1.",
        )


def address(text: str) -> tuple[str, int]:
    """Host and port of ``[HOST:]PORT``. Raises InvalidContent."""
    host, colon, port = text.rpartition(":")
    host = host.strip("[]") if colon else DEFAULT_HOST
    if not port.isdigit() or int(port) > 65535 or (colon and not host):
        raise InvalidContent(f"{text!r} is no address to listen at.", hint="Give PORT, or HOST:PORT.")
    return host, int(port)
