"""Page: serves one repo's page on loopback, from a thread of its own, until it is closed."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import TracebackType

import uvicorn

from ..engine.base import Engine
from ..exceptions import LLMCRDTError
from ..listening import listen
from ..repo.repo import Repo
from ..sync.link import Link
from .access import OnlyWithToken, Tokens
from .app import PageApp

HOST = "127.0.0.1"
_START = 10.0  # seconds


class Page:
    """A page over ``repo``, at ``url``; a context manager. ``link``: the connection whose state it shows. ``models``:
    the names that asks may use, each with its engine where it runs in this process. ``port``: 0 takes a free one.
    Raises LLMCRDTError where the port is taken."""

    def __init__(
        self,
        repo: Repo,
        *,
        link: Link | None = None,
        models: Mapping[str, Engine | None] | None = None,
        port: int = 0,
        token: str | None = None,
    ) -> None:
        self._socket = listen(HOST, port, 64, hint="Give another --port.")
        self.port: int = self._socket.getsockname()[1]
        self._tokens = Tokens(token)
        app = PageApp(repo, link=link, models=models or {}, stopping=lambda: self._server.should_exit)
        hosts = [f"{name}:{self.port}" for name in (HOST, "localhost")]
        self._server = uvicorn.Server(
            uvicorn.Config(
                OnlyWithToken(app.routes(), self._tokens, hosts),
                log_level="warning",
                access_log=False,
                server_header=False,
                ws="none",
                lifespan="off",
                timeout_graceful_shutdown=3,
            )
        )
        self._thread = threading.Thread(target=self._run, name="llmcrdt-page", daemon=True)
        self._thread.start()
        self._wait_started()

    @property
    def url(self) -> str:
        """Its address, with the token."""
        return f"http://{HOST}:{self.port}/#token={self.token}"

    @property
    def token(self) -> str:
        """The token that its address has."""
        return self._tokens.token

    def opening_url(self) -> str:
        """An address that opens it once, within a minute: for the arguments of a browser, which other users may see."""
        return f"http://{HOST}:{self.port}/#code={self._tokens.code()}"

    def close(self) -> None:
        """Serve no longer. Twice is harmless."""
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()

    def __enter__(self) -> Page:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])

    def _wait_started(self) -> None:
        waiting = threading.Event()
        for _ in range(int(_START / 0.01)):
            if self._server.started:
                return
            if not self._thread.is_alive():
                break
            waiting.wait(0.01)
        raise LLMCRDTError("The page did not start.", hint="Look at the log; perhaps uvicorn is damaged.")
