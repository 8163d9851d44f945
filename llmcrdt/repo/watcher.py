"""A thread that looks, a few times a second, for what other processes wrote to the file."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from ..exceptions import StoreError

_POLL = 0.3  # seconds between two looks


class Watcher:
    """``tick`` is called at each look, ``look`` under ``lock`` afterwards: with the version of the file that it gave
    the last time, None at first."""

    def __init__(
        self, lock: threading.RLock, tick: Callable[[], None], look: Callable[[int | None], int | None]
    ) -> None:
        self._lock, self._tick, self._look = lock, tick, look
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    @property
    def stopped(self) -> bool:
        return self._stopping.is_set()

    def start(self) -> None:
        """Begin to look; again is harmless."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="llmcrdt-watcher", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Look no more. Doesn't wait for the thread: ``join`` does."""
        self._stopping.set()

    def join(self, timeout: float) -> None:
        """Wait for the thread's end, ``timeout`` seconds at most."""
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        version: int | None = None
        while not self._stopping.wait(_POLL):
            self._tick()
            with self._lock:
                if self._stopping.is_set():
                    return
                with suppress(StoreError):  # the disk, for a moment: whoever reads or writes next is told
                    version = self._look(version)
