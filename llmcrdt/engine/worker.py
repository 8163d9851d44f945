"""One thread that serves jobs: those people wait for in the order they came, then background work, a step at a time."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator

from ..exceptions import EngineClosed

_LOG = logging.getLogger("llmcrdt.engine")
_MOST_BACKGROUND = 256

Job = Callable[[], None]


class Worker:
    """Runs jobs on a thread of its own. Background work is an iterator: between two steps any job may go first.

    Only the newest 256 pieces of background work are kept: it saves time later, nothing depends on it.
    """

    def __init__(self, name: str) -> None:
        self._jobs: deque[Job] = deque()
        self._background: deque[Iterator[object]] = deque(maxlen=_MOST_BACKGROUND)
        self._changed = threading.Condition()
        self._busy = False
        self._closing = False
        self._last: Job | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job. It must not raise. Raises EngineClosed after ``close``."""
        with self._changed:
            if self._closing:
                raise EngineClosed("The engine is closed.", hint="Open it again.")
            self._jobs.append(job)
            self._changed.notify_all()

    def next_if(self, wanted: Callable[[Job], bool]) -> Job | None:
        """For the running job: the one that is next, to be done together with it, if it is ``wanted``. After ``close``
        it still is."""
        with self._changed:
            return self._jobs.popleft() if self._jobs and wanted(self._jobs[0]) else None

    def background(self, work: Iterator[object]) -> None:
        """Queue work that waits until no job does. After ``close`` it is dropped."""
        with self._changed:
            if not self._closing:
                self._background.append(work)
                self._changed.notify_all()

    def idle(self, timeout: float | None = None) -> bool:
        """Wait until nothing is queued or running. False if that took longer than ``timeout`` seconds."""
        if threading.current_thread() is self._thread:
            return False
        with self._changed:
            return self._changed.wait_for(lambda: not (self._busy or self._jobs or self._background), timeout)

    @property
    def closing(self) -> bool:
        return self._closing

    def close(self, last: Job) -> None:
        """As ``end``, and wait for the thread's end, unless on the thread itself."""
        self.end(last)
        self.join()

    def end(self, last: Job) -> None:
        """Refuse new jobs, finish those queued (they see ``closing``), run ``last`` on the thread, and end it.

        Returns at once; ``join`` waits. A second call changes nothing.
        """
        with self._changed:
            if not self._closing:
                self._closing, self._last = True, last
                self._background.clear()
                self._changed.notify_all()

    def join(self, timeout: float | None = None) -> bool:
        """After ``end``: wait for the thread's end. False on the thread itself, or after ``timeout`` seconds."""
        if threading.current_thread() is self._thread:
            return False
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: bool(self._jobs or self._background or self._closing))
                job = self._jobs.popleft() if self._jobs else None
                work = self._background[0] if job is None and self._background else None
                if job is None and work is None:
                    break
                self._busy = True
            if job is not None:
                _guarded(job)
            elif work is not None and not self._step(work):
                with self._changed:
                    if self._background and self._background[0] is work:
                        self._background.popleft()
            del job, work  # an idle thread keeps nobody's engine alive
        if self._last is not None:
            _guarded(self._last)
            self._last = None

    @staticmethod
    def _step(work: Iterator[object]) -> bool:
        """One step. False once there is nothing left, or it failed."""
        try:
            next(work)
        except StopIteration:
            return False
        except Exception:
            _LOG.exception("background work of the engine failed")
            return False
        return True


def _guarded(job: Job) -> None:
    try:
        job()
    except Exception:
        _LOG.exception("a job of the engine failed")
