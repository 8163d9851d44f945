"""Faults that others can bring about are logged once a minute, however often they do."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

PAUSE = 60.0
"""Seconds between two lines about the same fault."""
_KINDS = 256
"""Faults that are told apart."""


class Seldom(logging.Filter):
    """For a logger: of lines with the same words (before values are put in) and of one level, one passes in ``PAUSE``
    seconds. The next says how many did not."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        # When a line passed last, and how many did not since.
        self._last: dict[tuple[int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno <= logging.DEBUG:
            return True
        kind, now = (record.levelno, str(record.msg)), self._clock()
        at, more = self._last.get(kind, (-PAUSE, 0))
        if now - at < PAUSE:
            self._last[kind] = at, more + 1
            return False
        if len(self._last) >= _KINDS:
            self._last.clear()
        self._last[kind] = now, 0
        if more:
            record.msg, record.args = f"{record.getMessage()} (and {more} times more)", ()
        return True


class FewLines:
    """``Seldom`` for all loggers of this package, while a relay runs."""

    def __init__(self) -> None:
        self._filters: list[tuple[logging.Logger, Seldom]] = []

    def begin(self) -> None:
        package = __name__.partition(".")[0]
        for name, logger in tuple(logging.root.manager.loggerDict.items()):
            if isinstance(logger, logging.Logger) and name.partition(".")[0] == package:
                self._filters.append((logger, seldom := Seldom()))
                logger.addFilter(seldom)

    def end(self) -> None:
        for logger, seldom in self._filters:
            logger.removeFilter(seldom)
        self._filters.clear()
