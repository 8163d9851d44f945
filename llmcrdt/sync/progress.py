"""How far a link has come, and the observers who are told."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from ..exceptions import LLMCRDTError

logger = logging.getLogger(__name__)

REPORT = 0.1
"""Seconds at least between two reports of progress."""


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
    """Callbacks that hear of progress. Added and removed from any thread, called from one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[Progress], None]] = []

    def __bool__(self) -> bool:
        return bool(self._callbacks)

    def add(self, callback: Callable[[Progress], None]) -> Callable[[], None]:
        """Returns the function that removes it."""
        with self._lock:
            self._callbacks.append(callback)

        def stop() -> None:
            with self._lock:
                if callback in self._callbacks:
                    self._callbacks.remove(callback)

        return stop

    def tell(self, progress: Progress) -> None:
        """An exception of a callback is logged."""
        for callback in tuple(self._callbacks):
            try:
                callback(progress)
            except Exception:
                logger.exception("an observer of progress failed")


class ProgressReports:
    """Reads progress, and tells observers ten times a second at most. For one thread, but ``latest`` and
    ``observers``. ``call_later(seconds, function)`` is that thread's."""

    def __init__(self, read: Callable[[], Progress], call_later: Callable[[float, Callable[[], None]], None]) -> None:
        self._read, self._call_later = read, call_later
        self._soon = False
        self.latest = Progress()
        self.observers = Observers()

    def update(self) -> None:
        """Read it now."""
        with suppress(LLMCRDTError):  # the disk, for a moment
            self.latest = self._read()

    def report_soon(self) -> None:
        if self.observers and not self._soon:
            self._soon = True
            self._call_later(REPORT, self.report_now)

    def report_now(self) -> None:
        if not self.observers:
            return
        self._soon = False
        before = self.latest
        self.update()
        if self.latest != before:
            self.observers.tell(self.latest)
