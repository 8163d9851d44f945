"""How far a link has come, and who is told."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import NamedTuple

logger = logging.getLogger(__name__)


class Progress(NamedTuple):
    """How far a link has come. ``documents`` of ``of_documents`` are caught up with, or refused; both are 0 while there
    is no connection. Records ``received`` and ``sent`` (acknowledged) since the link was made, and with those that are
    known to be still to come or to go: of how many. ``bytes_waiting``: what is still to go, in bytes."""

    documents: int = 0
    of_documents: int = 0
    received: int = 0
    of_received: int = 0
    sent: int = 0
    of_sent: int = 0
    bytes_waiting: int = 0


class Observers:
    """Who is called when there is progress. Added and taken away from any thread, told from one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[Progress], None]] = []

    def __bool__(self) -> bool:
        return bool(self._callbacks)

    def add(self, callback: Callable[[Progress], None]) -> Callable[[], None]:
        """Returns what takes it away again."""
        with self._lock:
            self._callbacks.append(callback)

        def stop() -> None:
            with self._lock:
                if callback in self._callbacks:
                    self._callbacks.remove(callback)

        return stop

    def tell(self, progress: Progress) -> None:
        """What a callback raises is logged."""
        for callback in tuple(self._callbacks):
            try:
                callback(progress)
            except Exception:
                logger.exception("an observer of progress failed")
