"""Has a worker process look at what is to be appended. All of it happens on the loop, which waits for nothing: it
writes to the worker's pipe and reads from it. Only logs are read elsewhere, on a thread.

All that is there goes to the worker as one batch, so the busier the relay the less each costs. A document is loaded
when it is needed first, in slices between the batches of others, and thrown away when those used since fill the room.

When the worker dies, what it had in hand is tried again, each alone: what then makes it die again is refused. All
documents are loaded again from the log, each when it is needed.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from typing import NamedTuple, TypeAlias, TypeVar

from llmcrdt.exceptions import LLMCRDTError
from llmcrdt.sync.messages import Push

from ..core.limits import Limits
from ..core.validation import DiffRequest, Flush, Flushed, MergeRequest, ReplicaDropped, ValidateRequest, ValidateResult
from ..log.base import RecordLog, label
from . import framing as pieces
from . import process

logger = logging.getLogger(__name__)

Order: TypeAlias = ValidateRequest | ReplicaDropped | Flushed
T = TypeVar("T")

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
"""Seconds between two starts of a worker that does not come up, and two looks at a log that can't be read."""
_CHECKS = (b"check", b"glance")


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

    todo: ValidateRequest
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


class _Answer(NamedTuple):
    """What the worker says to one order (keeper_worker.py)."""

    state: bytes
    reason: str
    data: tuple[bytes, ...]


@dataclass(slots=True)
class _Slice:
    """A part of a document's log for the worker. ``data`` is None while it is read."""

    document: bytes
    log: Iterator[bytes]
    data: list[bytes] | None = None
    last: bool = False


class _Worker(asyncio.SubprocessProtocol):
    """A worker process that runs: ``heard`` gets each batch of answers, ``ended`` is called once, when it is no use any
    more."""

    def __init__(self, heard: Callable[[_Worker, list[bytes]], None], ended: Callable[[], None]) -> None:
        self._heard, self._ended = heard, ended
        self._reader = pieces.Reader()
        self.over = False
        self.gone = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._process = transport
        stdin = transport.get_pipe_transport(0)
        assert isinstance(stdin, asyncio.WriteTransport)
        self._stdin = stdin
        self.pid = transport.get_pid()

    def say(self, orders: list[bytes]) -> None:
        self._stdin.write(pieces.joined(orders))

    def end(self) -> None:
        """Now, whatever it does; also where it hangs."""
        self.over = True
        self._process.close()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if self.over:
            return
        try:
            answers = self._reader.feed(data)
        except EOFError:
            return self.give_up()
        if answers is not None:
            self._heard(self, answers)

    def give_up(self) -> None:
        self.end()
        self._ended()

    def pipe_connection_lost(self, fd: int, error: Exception | None) -> None:
        if not self.over:
            # It has ended by itself, or does so now; asyncio waits for it.
            self.over = True
            self._stdin.close()
            self._ended()

    def connection_lost(self, error: Exception | None) -> None:
        self._process.close()
        self.gone.set_result(None)


class Validator:
    """``put`` takes orders, and ``answer`` gets Checked and Flush, on the loop; ``failed`` is called where it can't go
    on. ``early``: start the worker at once, so that the first record doesn't wait for it."""

    def __init__(
        self,
        log: RecordLog,
        limits: Limits,
        answer: Callable[[ValidateResult | Flush], None],
        failed: Callable[[], None] = lambda: None,
        early: bool = False,
    ) -> None:
        self._early = early
        self._log, self._limits, self._answer, self._failed = log, limits, answer, failed
        self._orders: deque[Order] = deque()
        self._documents: OrderedDict[bytes, _Document] = OrderedDict()
        # Documents with something to do, in the order of their turns.
        self._active: dict[bytes, None] = {}
        self._dropped: dict[bytes, None] = {}
        # Bytes of updates of all documents.
        self._size = 0
        # How many answers to Flush are still to come.
        self._flushes: Counter[bytes] = Counter()
        self._suspects = False
        # The one slice that is read, or is there and was not handed over.
        self._slice: _Slice | None = None
        self._worker: _Worker | None = None
        self._starting: asyncio.Task[None] | None = None
        # What the worker has in hand; an empty batch asks whether it has come up.
        self._in_hand: list[_Sent] | None = None
        self._deadline = float("inf")
        self._pausing = self._over = False
        self.restarts = 0
        """How often a worker was started again."""

    def start(self) -> None:
        """Begin to work on what is put."""
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "llmcrdt-relay-keeper")
        self._watching = self._loop.call_later(1.0, self._watch)
        if self._early:
            self._start_worker()

    @property
    def held(self) -> int:
        """How many documents are in memory."""
        return sum(document.state is _State.HELD for document in self._documents.values())

    @property
    def pid(self) -> int | None:
        """The worker's process id."""
        return self._worker.pid if self._worker else None

    def put(self, *orders: Order) -> None:
        self._do(partial(self._orders.extend, orders))

    async def stop(self) -> None:
        """End it; what it did not answer is not in the log."""
        self._over = True
        self._watching.cancel()
        if self._starting is not None:
            await self._starting
        for id_ in tuple(self._documents):
            self._forget(id_)
        if self._worker is not None:
            self._worker.end()
            await self._worker.gone
        await asyncio.to_thread(self._thread.shutdown)

    # ---------------------------------------------------------------- on the loop

    def _do(self, act: Callable[[], None]) -> None:
        """Do something, then what there is to do behind it."""
        if self._over:
            return
        try:
            act()
            self._go_on()
        except Exception:
            logger.exception("records can't be checked any more")
            self._over = True
            self._failed()

    def _go_on(self) -> None:
        """Hand the worker its next batch, when it has none in hand."""
        if self._in_hand is not None or self._pausing:
            return
        self._receive_all()
        if self._active and self._worker is None:
            self._start_worker()
        elif self._active and self._worker is not None and (batch := self._batch()):
            self._hand_over(self._worker, batch)

    def _pause(self) -> None:
        if not self._pausing:
            self._pausing = True
            self._loop.call_later(_PAUSE, self._do, self._end_pause)

    def _end_pause(self) -> None:
        self._pausing = False

    def _on_thread(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """Do what may wait for the disk; one after the other, all on the same thread."""

        def run() -> None:
            try:
                done = partial(then, work())
            except Exception as e:
                done = partial(_fail, e)
            self._loop.call_soon_threadsafe(self._do, done)

        self._thread.submit(run)

    def _receive_all(self) -> None:
        """Only when nothing is in hand: what is answered then is about what was known when it was handed over."""
        while self._orders:
            self._receive(self._orders.popleft())

    def _receive(self, order: Order) -> None:
        match order:
            case ValidateRequest(_, request):
                document = self._documents.setdefault(request.document, _Document())
                document.jobs.append(_Job(order))
                self._active[request.document] = None
            case ReplicaDropped(id_):
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
                    document.state = _State.LOADING
                    document.log = iter(self._log.contents(id_, position)) if position else None

    def _forget(self, id_: bytes) -> None:
        """Its replica is no good any more."""
        document = self._documents[id_]
        if document.log is not None:
            self._on_thread(partial(_close, document.log), lambda _: None)
            if self._slice is not None and self._slice.log is document.log:
                self._slice = None
        document.log, document.answered, document.alone = None, None, False
        self._grow(document, -document.size)
        if document.state is not _State.LIGHT:
            if document.state in (_State.HELD, _State.LOADING):
                self._dropped[id_] = None
            document.state = _State.COLD
        if not document.jobs and not document.heal and document.state is _State.COLD:
            del self._documents[id_]

    # ---------------------------------------------------------------- what goes into a batch

    def _batch(self) -> list[_Sent]:
        """What the worker gets next, if it has anything to do."""
        while sent := self._next():
            ready = [s for s in sent if not self._answered_before(s)]
            if ready:
                ready[:0] = [_Sent(id_, b"drop", ()) for id_ in self._dropped]
                self._dropped.clear()
                self._read_ahead()
                return ready
        self._read_ahead()
        return []

    def _next(self) -> list[_Sent]:
        if self._suspects and (suspect := self._suspect()):
            return [suspect]
        sent: list[_Sent] = []
        size = count = 0
        for id_ in tuple(self._active):
            document = self._documents[id_]
            if document.state is _State.LIGHT:
                self._refuse_what_needs_it(id_, document)
            if document.state is _State.COLD:
                document.state = _State.FLUSHING
                self._flushes[id_] += 1
                self._answer(Flush(id_))
            loads = self._loads(id_, document) if document.state is _State.LOADING and not document.alone else []
            sent += loads
            # Behind the last of its log comes at once what waits for that.
            if document.state in (_State.HELD, _State.LIGHT) or (loads and document.log is None):
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
        for id_ in tuple(self._active):
            document = self._documents[id_]
            if document.state is _State.LIGHT:
                self._refuse_what_needs_it(id_, document)
            if not document.jobs:
                continue
            alone = document.alone or document.jobs[0].alone
            self._suspects = self._suspects or alone
            if document.state is _State.LOADING and document.alone and (loads := self._loads(id_, document)):
                return loads[0]
            if document.state in (_State.HELD, _State.LIGHT) and document.jobs[0].alone:
                return self._sent(id_, document, document.jobs[0])
        return None

    def _loads(self, id_: bytes, document: _Document) -> list[_Sent]:
        """The next slice of a document's log, if it has been read. A document without a log is empty."""
        if document.log is None:
            return [_Sent(id_, b"loaded", ())]
        slice_ = self._slice
        if slice_ is None or slice_.document != id_ or slice_.data is None:
            return []
        self._slice = None
        self._grow(document, sum(map(len, slice_.data)))
        if slice_.last:
            document.log = None
        names = (b"heal", b"healed") if document.heal else (b"load", b"loaded")
        return [_Sent(id_, names[slice_.last], slice_.data)]

    def _read_ahead(self) -> None:
        """Have the next slice read while the worker is busy: one at a time, of the document whose turn it is."""
        for id_ in self._active if self._slice is None else ():
            log = self._documents[id_].log
            if log is not None:
                self._slice = _Slice(id_, log)
                return self._on_thread(partial(_read, log), partial(self._was_read, self._slice))

    def _was_read(self, slice_: _Slice, found: tuple[list[bytes], bool] | None) -> None:
        if found is not None:
            slice_.data, slice_.last = found
        elif slice_ is self._slice:
            self._forget(slice_.document)
            self._pause()

    def _sent(self, id_: bytes, document: _Document, job: _Job) -> _Sent:
        light = document.state is _State.LIGHT
        match job.todo.request:
            case Push(_, _, _, data):
                records = data[job.good : job.good + 1] if job.alone else data[: job.todo.records]
                return _Sent(id_, b"glance" if light else b"check", records, job)
            case MergeRequest(_, _, update, may_append):
                return _Sent(id_, b"merge" if may_append else b"cover", (update,), job)
            case DiffRequest(_, _, version):
                return _Sent(id_, b"diff", (version,), job)

    # ---------------------------------------------------------------- the worker

    def _start_worker(self) -> None:
        if self._starting is None:
            self._starting = self._loop.create_task(self._bring_up())

    async def _bring_up(self) -> None:
        limits = self._limits
        command = process.command(
            "sync_server.workers.validator_worker", limits.keep_memory, limits.record, limits.check_seconds
        )  # fmt: skip
        pipe = subprocess.PIPE
        try:
            _, worker = await self._loop.subprocess_exec(
                partial(_Worker, lambda w, a: self._do(partial(self._heard, w, a)), lambda: self._do(self._ended)),
                *command, stdin=pipe, stdout=pipe, stderr=None, env=process.environment(),
            )  # fmt: skip
            self._worker = worker
            self._hand_over(worker, [])
            if worker.over:  # it has ended before it was known here
                self._do(self._ended)
        except OSError as e:
            logger.error("the worker that checks records can't be started: %s", e)
            self._pause()
        except Exception as e:
            self._do(partial(_fail, e))
        self._starting = None

    def _hand_over(self, worker: _Worker, batch: list[_Sent]) -> None:
        size = sum(len(d) for s in batch for d in s.data)
        self._deadline = time.monotonic() + _PATIENCE * (self._limits.check_seconds + size / (1 << 20))
        self._in_hand = batch
        worker.say([p for s in batch for p in (s.name, s.document, b"%d" % len(s.data), *s.data)])

    def _heard(self, worker: _Worker, answers: list[bytes]) -> None:
        try:
            if self._in_hand is None:
                raise ValueError("nothing was asked")
            answered = list(_read_answers(self._in_hand, answers))
        except ValueError as e:
            logger.error("the worker that checks records said what can't be: %s", e)
            return worker.give_up()
        self._in_hand, self._deadline = None, float("inf")
        self._answered(answered)

    def _answered(self, answered: Sequence[tuple[_Sent, _Answer]]) -> None:
        for order, answer in answered:
            self._done(order, answer)
        self._make_room()

    def _ended(self) -> None:
        """It crashed, was ended, or said what can't be."""
        if self._worker is None:
            return
        batch, self._in_hand, self._deadline, self._worker = self._in_hand, None, float("inf"), None
        if batch == []:
            logger.error("the worker that checks records does not come up")
            self._pause()
        else:
            logger.error("the worker that checks records ended")
            self.restarts += 1
        self._lost(batch or [])

    def _watch(self) -> None:
        """End a worker that hangs."""
        self._watching = self._loop.call_later(1.0, self._watch)
        if self._worker is not None and time.monotonic() > self._deadline:
            self._worker.give_up()

    def _lost(self, sent: Sequence[_Sent]) -> None:
        """The worker is gone, with all it held. What it had in hand is tried again, alone, for it may be to blame."""
        for id_ in tuple(self._documents):
            self._forget(id_)
        self._dropped.clear()
        self._suspects = True
        sent = [order for order in sent if order.name != b"drop"]
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
                    self._finish(
                        order.document, job, ValidateResult(job.todo.ticket, job.good, (), "It made the check fail.")
                    )
            else:
                job.alone = True
            if job is not None:
                # What passed was in the replica that is gone.
                job.good = 0

    # ---------------------------------------------------------------- answers

    def _done(self, order: _Sent, answer: _Answer) -> None:
        document, job, state = self._documents.get(order.document), order.job, answer.state
        if document is None or order.name == b"drop":
            return
        if job is None:
            self._loaded(order, document, answer)
        elif state in (b"gone", b"which"):
            self._forget(order.document)
            if state == b"which":
                job.alone = self._suspects = True
        else:
            if state == b"broken":
                logger.warning("document %s: a record broke the CRDT core", label(order.document))
                self._forget(order.document)
            self._judged(order, document, job, answer)

    def _judged(self, order: _Sent, document: _Document, job: _Job, answer: _Answer) -> None:
        ticket, (state, reason, data) = job.todo.ticket, answer
        refused = "" if state == b"ok" else reason
        if order.name in _CHECKS:
            good = job.good + int(data[0])
            if job.alone and not refused and good < job.todo.records:
                job.good = good
                return
            self._finish(order.document, job, ValidateResult(ticket, good, (), refused))
        else:
            self._finish(order.document, job, ValidateResult(ticket, 0, data, refused))
        if order.name == b"diff":
            document.answered = (order.data[0], data) if state == b"ok" else None
        else:
            document.answered = None
            if document.state is _State.HELD:
                self._grow(document, sum(map(len, order.data)))

    def _refuse_what_needs_it(self, id_: bytes, document: _Document) -> None:
        """Of a document that can't be loaded nothing can be told, and nothing can be merged into it."""
        for job in tuple(document.jobs):
            if not isinstance(job.todo.request, Push):
                self._finish(id_, job, ValidateResult(job.todo.ticket, failed=True))

    def _answered_before(self, order: _Sent) -> bool:
        """Many clients that come with the same version get the same answer, which is computed once."""
        document = self._documents[order.document]
        if order.name != b"diff" or document.answered is None or document.answered[0] != order.data[0]:
            return False
        if order.job is None or document.jobs[0] is not order.job:
            return False
        self._finish(order.document, order.job, ValidateResult(order.job.todo.ticket, 0, document.answered[1]))
        return True

    def _finish(self, id_: bytes, job: _Job, answer: ValidateResult) -> None:
        document = self._documents[id_]
        document.jobs.remove(job)
        self._answer(answer)
        self._documents.move_to_end(id_)
        if not document.jobs:
            self._active.pop(id_, None)
            if document.state is _State.COLD and not document.heal:
                del self._documents[id_]

    def _loaded(self, order: _Sent, document: _Document, answer: _Answer) -> None:
        if answer.state != b"ok":
            logger.warning(
                "document %s: what the log has can't all be applied: %s", label(order.document), answer.reason
            )
            document.heal = True
            self._forget(order.document)
        elif order.name in (b"loaded", b"healed"):
            document.state, document.failures, document.alone = _State.HELD, 0, False

    def _make_room(self) -> None:
        """Throw away what was used longest ago, until the rest fits. It is asked for behind each batch, so where all
        fits it looks at none of them."""
        for id_ in tuple(self._documents) if self._is_full else ():
            if not self._is_full:
                return
            document = self._documents[id_]
            if not document.jobs and document.state not in (_State.LOADING, _State.FLUSHING):
                self._forget(id_)
                # What is known of one that can't be loaded as it is goes too: that is found out again.
                self._documents.pop(id_, None)

    @property
    def _is_full(self) -> bool:
        count = len(self._documents)
        return count > 1 and self._size + count * _EACH > self._limits.keep

    def _grow(self, document: _Document, by: int) -> None:
        document.size += by
        self._size += by


def _read_answers(batch: Sequence[_Sent], answers: Sequence[bytes]) -> Iterator[tuple[_Sent, _Answer]]:
    """Each order of a batch with its answer. Raises ValueError where they are no answers to these orders."""
    at = 0
    for order in batch:
        state, reason, count = answers[at : at + 3]
        answer = _Answer(state, reason.decode(), tuple(answers[at + 3 : at + 3 + int(count)]))
        if len(answer.data) != int(count) or not _is_possible(order, answer):
            raise ValueError(f"{state!r} to {order.name!r}, with {count!r} pieces")
        yield order, answer
        at += 3 + len(answer.data)
    if at != len(answers):
        raise ValueError(f"{len(answers) - at} pieces are left over")


def _is_possible(order: _Sent, answer: _Answer) -> bool:
    """Whether an answer tells what its order asked for: it comes from where strangers' bytes may have had their way."""
    state, reason, data = answer
    if order.name in _CHECKS and state in (b"ok", b"bad", b"broken"):
        good, asked = (int(data[0]) if len(data) == 1 else -1), len(order.data)
        return good == asked if state == b"ok" else bool(reason) and 0 <= good < asked
    match state:
        case b"ok":
            return order.name == b"merge" or len(data) == (2 if order.name == b"diff" else 0)
        case b"which":
            return order.name in _CHECKS and len(order.data) > 1 and not data
        case b"gone":
            return order.job is not None and order.name != b"glance" and not data
        case b"bad":
            return (order.job is not None or order.name in (b"load", b"loaded")) and bool(reason) and not data
        case b"broken":
            return order.job is not None and bool(reason) and not data
        case _:
            return False


def _read(log: Iterator[bytes]) -> tuple[list[bytes], bool] | None:
    """The next slice of a log, and whether it is the last. None where it can't be read."""
    data: list[bytes] = []
    size, last = 0, True
    try:
        for update in log:
            data.append(update)
            size += len(update)
            if size >= _SLICE:
                last = False
                break
    except LLMCRDTError as e:
        logger.error("the log can't be read: %s", e)
        return None
    return data, last


def _close(log: Iterator[bytes]) -> None:
    with suppress(LLMCRDTError):
        log.close()  # type: ignore[attr-defined]


def _fail(error: Exception) -> None:
    raise error
