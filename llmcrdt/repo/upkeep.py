"""Work on the file that nobody has to wait for, on a thread of its own."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from ..exceptions import LLMCRDTError
from ..store.base import Compaction

_PAUSE = 0.002
"""Seconds between two steps: the lock is not fair, so whoever waits for it gets it only while this thread sleeps."""


class Upkeep:
    """Goes on with compactions that were begun. ``lock``: that of the store; it is held for what is short only. Should
    the process end in between, nothing is lost, and the next writer begins again."""

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._begun: list[Compaction] = []
        self._calls: queue.SimpleQueue[Compaction | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def take(self, begun: Compaction) -> None:
        """Go on with it. Called under the lock."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="llmcrdt-upkeep", daemon=True)
            self._thread.start()
        self._begun.append(begun)
        self._calls.put(begun)

    def close(self) -> None:
        """Finish what was begun, and end the thread. Called under the lock; twice is harmless."""
        for begun in self._begun:
            finish(begun)
        self._begun.clear()
        self._calls.put(None)

    def join(self, timeout: float) -> None:
        """After ``close``: wait for the thread's end, ``timeout`` seconds at most."""
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        while (begun := self._calls.get()) is not None:
            begun.prepare()
            with self._lock:
                more = self._is_due(begun) and _without_error(begun.finish)
            while more:
                time.sleep(_PAUSE)
                with self._lock:
                    more = self._is_due(begun) and _without_error(begun.trim)
            with self._lock:
                self._drop(begun)

    def _is_due(self, begun: Compaction) -> bool:
        return begun in self._begun

    def _drop(self, begun: Compaction) -> None:
        if self._is_due(begun):
            self._begun.remove(begun)


def finish(begun: Compaction) -> None:
    """Finish a compaction at once. Called under the lock."""
    begun.prepare()
    more = _without_error(begun.finish)
    while more:
        more = _without_error(begun.trim)


def _without_error(do: Callable[[], bool]) -> bool:
    """The disk is full, for a moment: the document stays as it is."""
    try:
        return do()
    except LLMCRDTError:
        return False
