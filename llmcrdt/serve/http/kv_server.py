"""KvServer: hands the chunks of a cache folder to whoever has a key, from a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import uvicorn

from ...at_exit import end_at_exit
from ...exceptions import InvalidContent
from ...kvcache import DiskCache, HandoverKey
from ...kvcache.paths import chunk_folder, user_cache
from ...listening import listen, url_at
from .idle import run_server
from .kv_app import KvApp, KvLimits

_HOST = "127.0.0.1"
_ARRIVAL = 10.0  # seconds for the head of a request
_HEAD = 16 << 10


class KvServer:
    """Offers the chunks in the cache folder ``folder`` (None: the user's) from ``start`` to ``stop``; a context
    manager. Any method from any thread.

    ``keys``: who is let in. ``host``, ``port``: where it listens; port 0 draws one. Raises InvalidContent where it
    can't.
    """

    def __init__(
        self,
        folder: Path | None,
        keys: Sequence[HandoverKey],
        *,
        host: str = _HOST,
        port: int = 0,
        limits: KvLimits | None = None,
    ) -> None:
        if not keys:
            raise InvalidContent("KV state is handed over with a key alone.", hint="Give a HandoverKey at least.")
        limits = limits or KvLimits()
        self._socket = listen(host, port, 64)
        try:
            self._cache = DiskCache(chunk_folder(folder or user_cache()))
        except OSError as error:
            self._socket.close()
            raise InvalidContent(f"The cache folder {folder} can't be used: {error.strerror}.") from None
        self._host, self._port = host, self._socket.getsockname()[1]
        self._server = uvicorn.Server(
            uvicorn.Config(
                KvApp(self._cache, keys, limits).starlette(),
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                http="h11",
                loop="asyncio",
                server_header=False,
                limit_concurrency=limits.connections,
                h11_max_incomplete_event_size=_HEAD,
                timeout_graceful_shutdown=2,
            )
        )
        self._thread = threading.Thread(target=self._run, name="llmcrdt-kv-offer", daemon=True)
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)

    @property
    def url(self) -> str:
        """Its address."""
        return url_at(self._host, self._port)

    def start(self) -> KvServer:
        """Begin to offer: who connects from now on is answered."""
        end_at_exit(self, finish=lambda server, seconds: server.stop())
        self._thread.start()
        return self

    def stop(self) -> None:
        """Offer nothing more; files under way have two seconds. Twice is harmless."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(10)
        self._socket.close()
        self._cache.close()

    def __enter__(self) -> KvServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        asyncio.run(run_server(self._server, self._socket, _ARRIVAL))
