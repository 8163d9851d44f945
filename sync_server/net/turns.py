"""Sockets from which more came than one turn of the loop may spend on them go on by turns."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Protocol

SLICE = 0.001
"""Seconds that one socket has in a row."""
_TOGETHER = 0.004
"""Seconds that all have between two looks at what else came."""


class Worker(Protocol):
    """Somebody with work. ``source``: on whose time."""

    @property
    def source(self) -> object: ...

    def work(self) -> None:
        """Work for ``SLICE``, and ask for another turn where something is left."""
        ...


class SocketTurns:
    """One turn for each source that waits, whatever number of sockets it has; then the first again."""

    def __init__(self) -> None:
        self._lines: dict[object, deque[Worker]] = {}
        self._due = False

    def add(self, worker: Worker) -> None:
        """Give it a turn. It must not wait for one already."""
        self._lines.setdefault(worker.source, deque()).append(worker)
        self._soon()

    def _soon(self) -> None:
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._due = False
        until = time.perf_counter() + _TOGETHER
        while self._lines:
            source = next(iter(self._lines))
            line = self._lines.pop(source)
            worker = line.popleft()
            if line:
                self._lines[source] = line
            worker.work()
            if time.perf_counter() >= until:
                break
        if self._lines:
            self._soon()
