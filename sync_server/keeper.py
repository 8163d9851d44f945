"""Has a worker process look at what is to be appended, on a thread of its own.

All that is there goes to the worker as one batch, so the busier the relay the less each costs. A document is loaded
when it is needed first, in slices between the batches of others, and thrown away when those used since fill the room.

When the worker dies, what it had in hand is tried again, each alone: what then makes it die again is refused. All
documents are loaded again from the log, each when it is needed.
"""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from queue import Empty, SimpleQueue
from typing import TypeAlias

from llmcrdt.exceptions import LLMCRDTError
from llmcrdt.sync import wire

from . import pieces, process
from .checking import Ask, Checked, Flush, Flushed, Merge, ToCheck, ToDrop
from .limits import Limits
from .log import RecordLog, label

logger = logging.getLogger(__name__)

Order: TypeAlias = ToCheck | ToDrop | Flushed

_BATCH = 256
"""Orders in one batch."""
_BYTES = 1 << 20
"""Bytes in one batch, unless one order has more."""
_PIECES = 1_024
"""Records in one batch, unless one order has more: while these are appended, the next are looked at."""
_SLICE = 256 << 10
"""Bytes of a log that are loaded in one batch, unless one record has more."""
_TRIES = 3
"""Times that something may be in the worker's hands, alone, when it dies."""
_PATIENCE = 6
"""Real seconds for each second of processor time that the worker may take."""
_EACH = 4 << 10
"""What a document counts in ``keep`` beside its bytes, so that the smallest are not held without end."""
_PAUSE = 1.0
"""Seconds between two starts of a worker that does not come up."""


class _State(Enum):
    COLD = auto()
    FLUSHING = auto()
    LOADING = auto()
    HELD = auto()
    LIGHT = auto()  # it can't be loaded: records are looked at without it


@dataclass(slots=True)
class _Job:
    """``good``: of a push that is tried record by record, how many passed; ``deaths``: how often the worker died over
    one of them, the ``fatal``-th."""

    todo: ToCheck
    alone: bool = False
    good: int = 0
    fatal: int = 0
    deaths: int = 0


@dataclass(slots=True)
class _Document:
    state: _State = _State.COLD
    jobs: deque[_Job] = field(default_factory=deque)
    log: Iterator[bytes] | None = None
    heal: bool = False
    failures: int = 0
    size: int = 0
    alone: bool = False
    answered: tuple[bytes, tuple[bytes, ...]] | None = None


@dataclass(slots=True)
class _Sent:
    """One order in the worker's hands: for a job, or (None) a slice of a log."""

    document: bytes
    name: bytes
    data: Sequence[bytes]
    job: _Job | None = None


class Keeper:
    """``put`` takes orders; ``answer`` gets Checked and Flush, on the keeper's thread; ``failed`` is called where it
    can't go on. ``early``: start the worker at once, so that the first record doesn't wait for it."""

    def __init__(
        self,
        log: RecordLog,
        limits: Limits,
        answer: Callable[[Checked | Flush], None],
        failed: Callable[[], None] = lambda: None,
        early: bool = False,
    ) -> None:
        self._early = early
        self._log, self._limits, self._answer, self._failed = log, limits, answer, failed
        self._orders: SimpleQueue[Order | None] = SimpleQueue()
        self._documents: OrderedDict[bytes, _Document] = OrderedDict()
        # Documents with something to do, in the order of their turns.
        self._active: dict[bytes, None] = {}
        self._dropped: dict[bytes, None] = {}
        # How many answers to Flush are still to come.
        self._flushes: Counter[bytes] = Counter()
        self._suspects = False
        self._lock = threading.Lock()
        self._worker: subprocess.Popen[bytes] | None = None
        self._deadline = float("inf")
        self._stopping = threading.Event()
        self.restarts = 0
        """How often a worker was started again."""
        self.held = 0
        """How many documents are in memory."""
        self._thread = threading.Thread(target=self._run, name="llmcrdt-relay-keeper", daemon=True)
        self._watch = threading.Thread(target=self._watchdog, name="llmcrdt-relay-watch", daemon=True)

    def start(self) -> None:
        """Begin to work on what is put."""
        self._thread.start()
        self._watch.start()

    @property
    def pid(self) -> int | None:
        """The worker's process id."""
        worker = self._worker
        return worker.pid if worker else None

    def put(self, order: Order) -> None:
        self._orders.put(order)

    def stop(self) -> None:
        """End it; what it did not answer is not in the log."""
        self._stopping.set()
        with self._lock:
            if self._worker is not None:
                self._worker.kill()
        self._orders.put(None)
        self._thread.join()
        self._watch.join()

    # ---------------------------------------------------------------- the thread

    def _run(self) -> None:
        try:
            if self._early:
                self._up()
            while self._take() and not self._stopping.is_set():
                sent = self._next()
                if sent:
                    self._work(sent)
        except Exception:
            logger.exception("records can't be checked any more")
            self._failed()
        finally:
            for id_ in tuple(self._documents):
                self._forget(id_)
            self._end_worker()

    def _take(self) -> bool:
        """Take all orders there are; wait for one where there is nothing to do. False at the end."""
        with suppress(Empty):
            order = self._orders.get(block=not self._runnable())
            while order is not None:
                self._receive(order)
                order = self._orders.get_nowait()
            return False
        return True

    def _runnable(self) -> bool:
        return any(self._documents[d].state is not _State.FLUSHING for d in self._active)

    def _receive(self, order: Order) -> None:
        match order:
            case ToCheck(_, request):
                document = self._documents.setdefault(request.document, _Document())
                document.jobs.append(_Job(order))
                self._active[request.document] = None
            case ToDrop(id_):
                if id_ in self._documents:
                    self._forget(id_)
            case Flushed(id_, position):
                # Where it was dropped meanwhile, only the answer to the last question tells of all that was answered.
                self._flushes[id_] -= 1
                if self._flushes[id_] > 0:
                    return
                del self._flushes[id_]
                if id_ in self._documents and self._documents[id_].state is _State.FLUSHING:
                    document = self._documents[id_]
                    document.state, document.log = _State.LOADING, iter(self._log.contents(id_, position))

    def _forget(self, id_: bytes) -> None:
        """Its replica is no good any more."""
        document = self._documents[id_]
        if document.log is not None:
            with suppress(LLMCRDTError):
                document.log.close()  # type: ignore[attr-defined]
        document.log, document.size, document.answered, document.alone = None, 0, None, False
        if document.state is not _State.LIGHT:
            if document.state in (_State.HELD, _State.LOADING):
                self._dropped[id_] = None
            document.state = _State.COLD
        if not document.jobs and not document.heal and document.state is _State.COLD:
            del self._documents[id_]

    # ---------------------------------------------------------------- what goes into a batch

    def _next(self) -> list[_Sent]:
        if self._suspects and (suspect := self._suspect()):
            return [suspect]
        sent: list[_Sent] = []
        size, count, loading = 0, 0, False
        for id_ in tuple(self._active):
            document = self._documents[id_]
            if document.state is _State.LIGHT:
                self._refuse_what_needs_it(id_, document)
            if document.state is _State.COLD:
                document.state = _State.FLUSHING
                self._flushes[id_] += 1
                self._answer(Flush(id_))
            elif document.state is _State.LOADING and not loading and not document.alone:
                sent += self._slice(id_, document)
                loading = True
            elif document.state in (_State.HELD, _State.LIGHT):
                for job in document.jobs:
                    if job.alone:
                        break
                    order = self._sent(id_, document, job)
                    size += sum(map(len, order.data))
                    count += len(order.data)
                    if sent and (size > _BYTES or count > _PIECES or len(sent) >= _BATCH):
                        return sent
                    sent.append(order)
                    if order.name == b"diff":
                        # It may be large, and the next one may be the same.
                        break
            # To the back of the line.
            if self._active.pop(id_, 0) is None:
                self._active[id_] = None
        return sent

    def _suspect(self) -> _Sent | None:
        """What the worker may have died over, in a batch of its own."""
        self._suspects = False
        for id_ in self._active:
            document = self._documents[id_]
            alone = document.alone or document.jobs[0].alone
            self._suspects = self._suspects or alone
            if document.state is _State.LOADING and document.alone:
                return next(iter(self._slice(id_, document)), None)
            if document.state in (_State.HELD, _State.LIGHT) and document.jobs[0].alone:
                return self._sent(id_, document, document.jobs[0])
        return None

    def _slice(self, id_: bytes, document: _Document) -> list[_Sent]:
        data: list[bytes] = []
        size, last = 0, True
        assert document.log is not None
        try:
            for update in document.log:
                data.append(update)
                size += len(update)
                if size >= _SLICE:
                    last = False
                    break
        except LLMCRDTError as e:
            logger.error("the log can't be read: %s", e)
            self._forget(id_)
            self._stopping.wait(_PAUSE)
            return []
        document.size += size
        names = (b"heal", b"healed") if document.heal else (b"load", b"loaded")
        return [_Sent(id_, names[last], data)]

    def _sent(self, id_: bytes, document: _Document, job: _Job) -> _Sent:
        light = document.state is _State.LIGHT
        match job.todo.request:
            case wire.Push(_, _, _, data):
                records = data[job.good : job.good + 1] if job.alone else data[: job.todo.records]
                return _Sent(id_, b"glance" if light else b"check", records, job)
            case Merge(_, _, update, may_append):
                return _Sent(id_, b"merge" if may_append else b"cover", (update,), job)
            case Ask(_, _, version):
                return _Sent(id_, b"diff", (version,), job)

    # ---------------------------------------------------------------- the worker

    def _work(self, sent: list[_Sent]) -> None:
        """Hand a batch to the worker, and take what it answers."""
        ready = [s for s in sent if not self._answered_before(s)]
        if not ready:
            return
        worker = self._up()
        if worker is None:
            self._lost(ready, blame=False)
            self._stopping.wait(_PAUSE)
            return
        ready[:0] = [_Sent(id_, b"drop", ()) for id_ in self._dropped]
        self._dropped.clear()
        try:
            answers = self._exchange(worker, ready)
        except (OSError, EOFError, ValueError) as e:
            if not self._stopping.is_set():
                logger.error("the worker that checks records ended: %r", e)
                self.restarts += 1
                self._end_worker()
                self._lost(ready, blame=True)
            return
        at = 0
        for order in ready:
            state, reason, count = answers[at : at + 3]
            data = tuple(answers[at + 3 : at + 3 + int(count)])
            at += 3 + len(data)
            self._done(order, state, reason.decode(), data)
        self._make_room()

    def _exchange(self, worker: subprocess.Popen[bytes], sent: Sequence[_Sent]) -> list[bytes]:
        assert worker.stdin is not None and worker.stdout is not None
        size = sum(len(d) for s in sent for d in s.data)
        self._deadline = time.monotonic() + _PATIENCE * (self._limits.check_seconds + size / (1 << 20))
        try:
            pieces.write(worker.stdin, (p for s in sent for p in (s.name, s.document, b"%d" % len(s.data), *s.data)))
            return list(pieces.read(worker.stdout))
        finally:
            self._deadline = float("inf")

    def _up(self) -> subprocess.Popen[bytes] | None:
        """The worker, started if need be. None where it does not come up."""
        with self._lock:
            if self._stopping.is_set():
                return None
            if self._worker is not None:
                return self._worker
            limits = self._limits
            try:
                self._worker = process.start(
                    "sync_server.keeper_worker", limits.keep_memory, limits.record, limits.check_seconds
                )
            except OSError as e:
                logger.error("the worker that checks records can't be started: %s", e)
                return None
        try:
            self._exchange(self._worker, ())
        except (OSError, EOFError) as e:
            if not self._stopping.is_set():
                logger.error("the worker that checks records does not come up: %r", e)
            self._end_worker()
            return None
        return self._worker

    def _end_worker(self) -> None:
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None:
            assert worker.stdin is not None and worker.stdout is not None
            worker.kill()
            with suppress(OSError):
                worker.stdin.close()
            worker.stdout.close()
            worker.wait()

    def _watchdog(self) -> None:
        while not self._stopping.wait(1.0) and self._thread.is_alive():
            worker = self._worker
            if worker is not None and time.monotonic() > self._deadline:
                worker.kill()

    def _lost(self, sent: Sequence[_Sent], blame: bool) -> None:
        """The worker is gone, with all it held. What it had in hand is tried again, alone, if it may be to blame."""
        for id_ in tuple(self._documents):
            self._forget(id_)
        self._dropped.clear()
        self._suspects = True
        sent = [order for order in sent if order.name != b"drop"] if blame else []
        alone = len(sent) == 1
        for order in sent:
            document, job = self._documents.setdefault(order.document, _Document()), order.job
            if job is None:
                document.alone = True
                document.failures += alone
                if document.failures >= _TRIES:
                    logger.error("document %s can't be loaded", label(order.document))
                    document.state = _State.LIGHT
            elif alone and job.alone:
                job.deaths = job.deaths + 1 if job.fatal == job.good else 1
                job.fatal = job.good
                if job.deaths >= _TRIES:
                    self._finish(order.document, job, Checked(job.todo.ticket, job.good, (), "It made the check fail."))
            else:
                job.alone = True
            if job is not None:
                # What passed was in the replica that is gone.
                job.good = 0

    # ---------------------------------------------------------------- answers

    def _done(self, order: _Sent, state: bytes, reason: str, data: tuple[bytes, ...]) -> None:
        document, job = self._documents.get(order.document), order.job
        if document is None or order.name == b"drop":
            return
        if job is None:
            self._loaded(order, document, state, reason)
        elif state in (b"gone", b"which"):
            self._forget(order.document)
            if state == b"which":
                job.alone = self._suspects = True
        else:
            if state == b"broken":
                logger.warning("document %s: a record broke the CRDT core", label(order.document))
                self._forget(order.document)
            self._judged(order, document, job, state, reason, data)

    def _judged(
        self, order: _Sent, document: _Document, job: _Job, state: bytes, reason: str, data: tuple[bytes, ...]
    ) -> None:
        ticket, refused = job.todo.ticket, "" if state == b"ok" else reason
        if order.name in (b"check", b"glance"):
            good = job.good + int(data[0])
            if job.alone and not refused and good < job.todo.records:
                job.good = good
                return
            self._finish(order.document, job, Checked(ticket, good, (), refused))
        else:
            self._finish(order.document, job, Checked(ticket, 0, data, refused))
        if order.name == b"diff":
            document.answered = (order.data[0], data) if state == b"ok" else None
        else:
            document.answered = None
            document.size += sum(map(len, order.data))

    def _refuse_what_needs_it(self, id_: bytes, document: _Document) -> None:
        """Of a document that can't be loaded nothing can be told, and nothing can be merged into it."""
        for job in tuple(document.jobs):
            if not isinstance(job.todo.request, wire.Push):
                self._finish(id_, job, Checked(job.todo.ticket, failed=True))

    def _answered_before(self, order: _Sent) -> bool:
        """Many clients that come with the same version get the same answer, which is computed once."""
        document = self._documents[order.document]
        if order.name != b"diff" or document.answered is None or document.answered[0] != order.data[0]:
            return False
        if order.job is None or document.jobs[0] is not order.job:
            return False
        self._finish(order.document, order.job, Checked(order.job.todo.ticket, 0, document.answered[1]))
        return True

    def _finish(self, id_: bytes, job: _Job, answer: Checked) -> None:
        document = self._documents[id_]
        document.jobs.remove(job)
        self._answer(answer)
        self._documents.move_to_end(id_)
        if not document.jobs:
            self._active.pop(id_, None)
            if document.state is _State.COLD and not document.heal:
                del self._documents[id_]

    def _loaded(self, order: _Sent, document: _Document, state: bytes, reason: str) -> None:
        if state != b"ok":
            logger.warning("document %s: what the log has can't all be applied: %s", label(order.document), reason)
            document.heal = True
            self._forget(order.document)
        elif order.name in (b"loaded", b"healed"):
            document.state, document.log, document.failures, document.alone = _State.HELD, None, 0, False

    def _make_room(self) -> None:
        """Throw away what was used longest ago, until the rest fits."""
        total = sum(document.size + _EACH for document in self._documents.values())
        self.held = sum(document.state is _State.HELD for document in self._documents.values())
        for id_ in tuple(self._documents):
            if total <= self._limits.keep or len(self._documents) == 1:
                return
            document = self._documents[id_]
            if not document.jobs and document.state not in (_State.LOADING, _State.FLUSHING):
                total -= document.size + _EACH
                self._forget(id_)
                # What is known of one that can't be loaded as it is goes too: that is found out again.
                self._documents.pop(id_, None)
