"""Folds one log after the other, each in a worker process, on a thread of its own."""

from __future__ import annotations

import logging
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import IO

from llmcrdt.exceptions import LLMCRDTError

from . import pieces, process
from .folding import Folded, ToFold
from .limits import Limits
from .log import RecordLog

logger = logging.getLogger(__name__)


class Folder:
    """``put`` takes what is to be folded; ``answer`` gets the result, on the folder's thread."""

    def __init__(self, log: RecordLog, limits: Limits, answer: Callable[[Folded], None]) -> None:
        self._log, self._limits, self._answer = log, limits, answer
        self._todo: SimpleQueue[ToFold | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._worker: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="llmcrdt-relay-fold", daemon=True)
        self._thread.start()

    def put(self, todo: ToFold) -> None:
        self._todo.put(todo)

    def stop(self) -> None:
        """End it, and a fold that is under way; the log is not touched by that."""
        with self._lock:
            self._stopping = True
            if self._worker is not None:
                self._worker.kill()
        self._todo.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (todo := self._todo.get()) is not None and not self._stopping:
            self._answer(Folded(todo.document, todo.upto, self.fold(todo)))

    def fold(self, todo: ToFold) -> Sequence[bytes] | None:
        """What a document's log folds to; None where that failed. Blocks."""
        worker = self._start()
        if worker is None:
            return None
        timer = threading.Timer(2 * self._limits.fold_seconds, worker.kill)
        timer.start()
        assert worker.stdin is not None and worker.stdout is not None
        try:
            _feed(worker.stdin, self._log, todo)
            return list(pieces.read(worker.stdout))
        except (OSError, EOFError) as e:
            if not self._stopping:
                logger.error("the worker that folds ended: %r", e)
            return None
        except LLMCRDTError as e:
            logger.error("the log can't be read: %s", e)
            return None
        finally:
            timer.cancel()
            worker.kill()
            worker.stdout.close()
            worker.wait()
            with self._lock:
                self._worker = None

    def _start(self) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._stopping:
                return None
            try:
                limits = self._limits
                self._worker = process.start("sync_server.fold_worker", limits.fold_memory, limits.fold_seconds)
            except OSError as e:
                logger.error("the worker that folds can't be started: %s", e)
            return self._worker


def _feed(stream: IO[bytes], log: RecordLog, todo: ToFold) -> None:
    try:
        pieces.write(stream, log.contents(todo.document, todo.upto.position))
    finally:
        # What is still in the buffer would be written here, to a worker that may be gone.
        with suppress(OSError):
            stream.close()
