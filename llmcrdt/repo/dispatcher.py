"""Observers' callbacks, one after the other, on a thread of their own."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable


class Dispatcher:
    """From any thread. The thread is started by the first call."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def run(self, call: Callable[[], None]) -> None:
        """Run a callback after those before it. Its errors go to ``threading.excepthook``."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="llmcrdt-observers", daemon=True)
            self._thread.start()
        self._calls.put(call)

    def close(self) -> None:
        """End the thread, after all that waits."""
        self._calls.put(None)

    def join(self, timeout: float) -> None:
        """After ``close``: wait for the thread's end, ``timeout`` seconds at most. From another thread."""
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except BaseException:  # also SystemExit: one callback must not silence the others
                kind, error, trace = sys.exc_info()
                assert kind is not None
                threading.excepthook(threading.ExceptHookArgs((kind, error, trace, threading.current_thread())))
