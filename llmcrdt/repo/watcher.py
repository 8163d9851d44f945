"""A thread that looks, a few times a second, for what other processes wrote to the file."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from ..exceptions import LLMCRDTError, StoreError

_POLL = 0.3  # seconds between two looks


class Watcher:
    """``tick`` is called at each look, ``look`` under ``lock`` afterwards: with the version of the file that it gave
    the last time, None at first. ``work`` does some of what can wait; it gives the seconds
    until it is to go on, or None."""

    def __init__(
        self,
        lock: threading.RLock,
        tick: Callable[[], None],
        look: Callable[[int | None], int | None],
        work: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._lock, self._tick, self._look, self._work = lock, tick, look, work
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
        looked, rest = time.monotonic(), None
        while not self._stopping.wait(_POLL if rest is None else rest):
            if time.monotonic() - looked >= _POLL:
                looked = time.monotonic()
                self._tick()
                with self._lock:
                    if self._stopping.is_set():
                        return
                    with suppress(StoreError):  # the disk, for a moment: whoever reads or writes next is told
                        version = self._look(version)
            rest = None
            with suppress(LLMCRDTError):  # the disk, or a document that can't be read: whoever asks for it is told
                rest = self._work()
