"""Compactions of a repo's file, in the background: nobody has to wait for them."""

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
    """Finishes compactions that were begun, on a thread of its own. ``lock``: that of the store, which is held for
    short steps only. Should the process end in between, nothing is lost, and the next writer begins again."""

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._unfinished: list[Compaction] = []
        self._queue: queue.SimpleQueue[Compaction | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def add(self, compaction: Compaction) -> None:
        """Finish this one as well. Called under the lock."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="llmcrdt-upkeep", daemon=True)
            self._thread.start()
        self._unfinished.append(compaction)
        self._queue.put(compaction)

    def close(self) -> None:
        """Finish all that was begun, and end the thread. Called under the lock; twice is harmless."""
        for compaction in self._unfinished:
            finish(compaction)
        self._unfinished.clear()
        self._queue.put(None)

    def join(self, timeout: float) -> None:
        """After ``close``: wait for the thread's end, ``timeout`` seconds at most."""
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        while (compaction := self._queue.get()) is not None:
            compaction.prepare()
            with self._lock:
                more = self._is_due(compaction) and _without_error(compaction.finish)
            while more:
                time.sleep(_PAUSE)
                with self._lock:
                    more = self._is_due(compaction) and _without_error(compaction.trim)
            with self._lock:
                self._drop(compaction)

    def _is_due(self, compaction: Compaction) -> bool:
        return compaction in self._unfinished

    def _drop(self, compaction: Compaction) -> None:
        if self._is_due(compaction):
            self._unfinished.remove(compaction)


def finish(compaction: Compaction) -> None:
    """Finish a compaction at once. Called under the lock."""
    compaction.prepare()
    more = _without_error(compaction.finish)
    while more:
        more = _without_error(compaction.trim)


def _without_error(step: Callable[[], bool]) -> bool:
    """The result of a step; False where it fails, for a full disk perhaps: the document stays as it is."""
    try:
        return step()
    except LLMCRDTError:
        return False
