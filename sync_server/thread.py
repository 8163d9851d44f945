"""A relay inside another program, on a thread of its own: for tests, demonstrations and small deployments."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from types import TracebackType

from .core.limits import Limits
from .doors.base import DoorType
from .doors.registry import DOORS
from .net.tls import Certificate
from .server import Relay, StorageFactory, sqlite_storage


class RelayThread:
    """A running relay: ``with RelayThread(folder) as relay: repo.connect(relay.url)``.

    Listens on loopback only, on a free port unless one is named. Raises what Relay.start raises.
    """

    def __init__(
        self,
        data: str | os.PathLike[str],
        port: int = 0,
        limits: Limits | None = None,
        certificate: Certificate | None = None,
        check: bool = True,
        doors: Sequence[DoorType] = DOORS,
        storage: StorageFactory = sqlite_storage,
    ) -> None:
        self._data, self.port, self._limits, self._certificate = data, port, limits, certificate
        self._check, self._doors, self._storage = check, doors, storage
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="llmcrdt-relay", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error

    @property
    def url(self) -> str:
        return f"{'wss' if self._certificate else 'ws'}://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Stop it, and wait until it has. A second call does nothing."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def __enter__(self) -> RelayThread:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            relay = Relay(
                self._data,
                port=self.port,
                limits=self._limits,
                certificate=self._certificate,
                check=self._check,
                doors=self._doors,
                storage=self._storage,
            )
            await relay.start()
            self.port = relay.port
        except BaseException as e:
            self._error = e
            return
        finally:
            self._ready.set()
        await self._stop.wait()
        await relay.stop()
