"""Compacts logs, or makes catch-ups of parts of them, one by one, in a worker process, on a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from itertools import chain
from queue import Empty, SimpleQueue

from llmcrdt.exceptions import LLMCRDTError

from ..core.events import CatchUpRequest, CatchUpResult, CompactRequest, CompactResult
from ..core.limits import Limits
from ..log.admin import Storage
from ..log.quarantine import Quarantine
from . import framing, starter

logger = logging.getLogger(__name__)


class Compactor:
    """``put`` takes requests; ``answer`` gets the results, on the compactor's thread. A worker compacts one log, or
    makes many catch-ups. ``early``: start it before it is needed, for somebody waits for its results."""

    def __init__(
        self,
        storage: Storage,
        limits: Limits,
        answer: Callable[[CompactResult | CatchUpResult], None],
        early: bool = False,
        quarantine: Quarantine | None = None,
    ) -> None:
        self._storage, self._limits, self._answer, self._early = storage, limits, answer, early
        self._quarantine = quarantine or Quarantine()
        self._used = False
        self._todo: SimpleQueue[tuple[float, CompactRequest | CatchUpRequest, str] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._worker: starter.Worker | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="llmcrdt-relay-compactor", daemon=True)
        self._thread.start()

    def put(self, todo: CompactRequest | CatchUpRequest) -> None:
        self._todo.put((time.monotonic(), todo, self._kind(todo)))

    def stop(self) -> None:
        """End it, and what is under way; the log is not touched by that."""
        with self._lock:
            self._stopping = True
            if self._worker is not None:
                self._worker.kill()
        self._todo.put(None)
        self._thread.join()
        self._end_worker()

    def _run(self) -> None:
        if self._early:
            self._start()
        while not self._stopping:
            try:
                got = self._todo.get(timeout=self._limits.catch_up_idle if self._used else None)
            except Empty:
                # With it goes the memory that it took.
                self._used = False
                self._end_worker()
                self._start()
                continue
            if got is None:
                return
            since, todo, kind = got
            if isinstance(todo, CompactRequest):
                self._answer(CompactResult(*todo, self._compact(todo, kind)))
                self._end_worker()
            else:
                self._used = True
                late = time.monotonic() - since > self._limits.catch_up_wait
                self._answer(CatchUpResult(*todo, None if late else self._catch_up(todo, kind)))
                if self._early:
                    # If it was ended: the next question has not the time to wait for a start as well.
                    self._start()

    def compact(self, todo: CompactRequest) -> Sequence[bytes] | None:
        """The records that a document's log is compacted to; None where that failed. Blocks; on the storage's
        thread."""
        return self._compact(todo, self._kind(todo))

    def _compact(self, todo: CompactRequest, kind: str) -> Sequence[bytes] | None:
        if not kind or todo.document in self._quarantine:
            return None
        contents = self._storage.snapshots.contents(todo.document, todo.upto.position)
        return self._ask(b"fold", kind, contents, 2 * self._limits.compaction_seconds)

    def catch_up(self, todo: CatchUpRequest) -> Sequence[bytes] | None:
        """The catch-up for a part of a document's log, empty where there can be none; None where it failed, or takes
        too long. Blocks; on the storage's thread."""
        return self._catch_up(todo, self._kind(todo))

    def _catch_up(self, todo: CatchUpRequest, kind: str) -> Sequence[bytes] | None:
        if not kind or todo.document in self._quarantine:
            return []
        contents = self._storage.snapshots.contents_around(*todo)
        return self._ask(b"condense", kind, contents, self._limits.catch_up_wait)

    def _kind(self, todo: CompactRequest | CatchUpRequest) -> str:
        """The kind of a document; "" where it was deleted meanwhile, or nobody can tell."""
        try:
            head = self._storage.records.head(todo.document)
        except LLMCRDTError as e:
            logger.error("the log can't be read: %s", e)
            return ""
        return head.kind if head else ""

    def _ask(self, order: bytes, kind: str, data: Iterable[bytes], seconds: float) -> Sequence[bytes] | None:
        worker = self._start()
        if worker is None:
            return None
        timer = threading.Timer(seconds, worker.kill)
        assert worker.stdin is not None and worker.stdout is not None
        try:
            timer.start()
            framing.write(worker.stdin, chain((order, kind.encode()), data))
            return list(framing.read(worker.stdout))
        except (OSError, EOFError) as e:
            if not self._stopping:
                logger.error("the worker that compacts ended: %r", e)
        except LLMCRDTError as e:
            logger.error("the log can't be read: %s", e)
        except Exception:
            # Somebody waits for an answer, and goes on without one.
            logger.exception("the worker that compacts can't be asked")
        finally:
            timer.cancel()
            if isinstance(data, Generator):
                data.close()  # it holds a connection of this thread; a logged error may keep it for another one to end
        self._end_worker()
        return None

    def _start(self) -> starter.Worker | None:
        with self._lock:
            if self._stopping:
                return None
            try:
                limits = self._limits
                if self._worker is None:
                    self._worker = starter.start(starter.COMPACTOR, limits.compaction_memory, limits.compaction_seconds)
            except OSError as e:
                logger.error("the worker that compacts can't be started: %s", e)
            return self._worker

    def _end_worker(self) -> None:
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None:
            assert worker.stdin is not None and worker.stdout is not None
            worker.kill()
            # Bytes still in the buffer would be written here, to a worker that is gone.
            with suppress(OSError):
                worker.stdin.close()
            worker.stdout.close()
            worker.wait()
