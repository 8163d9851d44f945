"""The validator: worker processes look at records before they are appended. It runs on the event loop, which waits for
nothing: it writes to the workers' pipes and reads from them. Only logs are read elsewhere, on a thread.

The scheduler (scheduler.py) decides which worker gets what. There is a quick one and a slow one, which is started when
something is slow, and ends after a while without that.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from ..core.limits import Limits
from ..core.validation import Flush, ValidateResult
from ..log.admin import SnapshotStore
from ..log.quarantine import Quarantine
from . import framing, process, starter
from .documents import Lane
from .log_slices import close_log, read_slice
from .orders import Place, Sent, read_answers
from .scheduler import Order, ValidationScheduler

logger = logging.getLogger(__name__)

T = TypeVar("T")

_PATIENCE = 6
"""Real seconds for each second of processor time that a worker may take. On a busy machine it may need more: it hangs
only where it has had none for as many seconds."""
_AT_LEAST = 1.0
"""Seconds of processor time that count for a batch in any case, where it is real time that runs out."""
_PAUSE = 1.0
"""Seconds between two starts of a worker that does not come up, and two looks at a log that can't be read."""
_IDLE = 60.0
"""Seconds without anything for the slow worker, after which it ends."""


class _Worker(asyncio.SubprocessProtocol):
    """A worker process that runs: ``heard`` gets each batch of answers, ``ended`` is called once, when it is no use any
    more."""

    def __init__(
        self,
        progress: process.Progress,
        heard: Callable[[_Worker, list[bytes]], None],
        ended: Callable[[_Worker], None],
    ) -> None:
        self.progress = progress
        self._heard, self._ended = heard, ended
        self._reader = framing.Reader()
        self.over = self.told = False
        self.gone = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._process = transport
        stdin = transport.get_pipe_transport(0)
        assert isinstance(stdin, asyncio.WriteTransport)
        self._stdin = stdin
        self.pid = transport.get_pid()

    @property
    def ran_out(self) -> bool:
        """Whether it ended for the time that it took."""
        return process.ran_out(self._process.get_returncode())

    def say(self, orders: list[bytes]) -> None:
        self._stdin.write(framing.joined(orders))

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
        self._tell()

    def pipe_connection_lost(self, fd: int, error: Exception | None) -> None:
        if not self.over:
            # It has ended by itself, or does so now; asyncio waits for it, and tells how.
            self.over = True
            self._stdin.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._tell()
        self._process.close()
        self.gone.set_result(None)

    def _tell(self) -> None:
        if not self.told:
            self.told = True
            self._ended(self)


class _Hands:
    """A lane's worker, and what it has in hand: an empty batch asks whether it has come up."""

    def __init__(self, lane: Lane, arguments: Callable[[int], Sequence[object]], seconds: float) -> None:
        self.lane, self.arguments, self.seconds = lane, arguments, seconds
        self.worker: _Worker | None = None
        self.starting: asyncio.Task[None] | None = None
        self.batch: list[Sent] | None = None
        self.deadline = float("inf")
        self.used = 0.0
        self.pausing = False
        # The processor time that the worker had, and when that was last seen to grow.
        self._had, self._moved = 0, 0.0

    def hangs(self, now: float) -> bool:
        """Whether the worker is late and doesn't work. To be called every second."""
        if self.worker is None or self.batch is None:
            return False
        had = process.processor_time(self.worker.pid)
        if had != self._had:
            self._had, self._moved = had, now
        return now > self.deadline and now > self._moved + _PATIENCE


class Validator:
    """``put`` takes orders, and ``answer`` gets ValidateResult and Flush, on the loop; ``failed`` is called where it
    can't go on. ``early``: start the quick worker at once, so that the first record doesn't wait for it."""

    def __init__(
        self,
        log: SnapshotStore,
        limits: Limits,
        answer: Callable[[ValidateResult | Flush], None],
        failed: Callable[[], None] = lambda: None,
        early: bool = False,
        quarantine: Quarantine | None = None,
    ) -> None:
        self._early, self._failed = early, failed
        self.scheduler = ValidationScheduler(log, limits, answer, quarantine)

        def arguments(seconds: float, each: int, heavy: float, file: int) -> Sequence[object]:
            return limits.keep_memory, limits.record, int(seconds * 1000), each, int(heavy * 1000), file

        quick, slow = limits.check_quick, limits.check_seconds
        quick_lane, slow_lane = self.scheduler.lanes
        self._hands = (
            _Hands(quick_lane, partial(arguments, quick, 100, limits.check_heavy), quick),
            _Hands(slow_lane, partial(arguments, slow, 1000, 0), slow),
        )
        self._over = False
        self.restarts = 0
        """How often a worker was lost."""

    def start(self) -> None:
        """Begin to work on what is put."""
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "llmcrdt-relay-validator")
        self._watching = self._loop.call_later(1.0, self._watch)
        if self._early:
            self._start_worker(self._hands[0])

    @property
    def held(self) -> int:
        """How many documents are in memory."""
        return self.scheduler.held

    @property
    def pids(self) -> list[int]:
        """The process ids of the quick worker and the slow one, as far as they run."""
        return [hands.worker.pid for hands in self._hands if hands.worker]

    @property
    def oldest(self) -> float:
        """For how many seconds somebody who waits has seen nothing of his being done."""
        return self.scheduler.oldest(time.monotonic())

    def put(self, *orders: Order) -> None:
        self._do(partial(self._put, orders))

    def _put(self, orders: tuple[Order, ...]) -> None:
        now = time.monotonic()
        for order in orders:
            self.scheduler.put(order, now)

    async def stop(self) -> None:
        """End it; what it did not answer is not in the log."""
        self._over = True
        self._watching.cancel()
        for hands in self._hands:
            if hands.starting is not None:
                await hands.starting
        for id_ in tuple(self.scheduler.documents):
            self.scheduler.forget(id_)
        self._close_logs()
        for hands in self._hands:
            if hands.worker is not None:
                hands.worker.end()
                await hands.worker.gone
        await asyncio.to_thread(self._thread.shutdown)

    # ---------------------------------------------------------------- on the loop

    def _do(self, act: Callable[[], None]) -> None:
        """Do something, then what there is to do behind it."""
        if self._over:
            return
        try:
            act()
            for hands in self._hands:
                self._go_on(hands)
            self._close_logs()
        except Exception:
            logger.exception("records can't be checked any more")
            self._over = True
            self._failed()

    def _go_on(self, hands: _Hands) -> None:
        """Hand a worker its next batch, when it has none in hand, and have read what it needs behind that."""
        if hands.batch is None and not hands.pausing and hands.lane.wants_worker:
            if hands.worker is None:
                self._start_worker(hands)
            elif batch := self.scheduler.batch(hands.lane, time.monotonic()):
                self._hand_over(hands, hands.worker, batch)
        slice_ = None if hands.pausing else self.scheduler.next_read(hands.lane)
        if slice_ is not None:

            def was_read(found: tuple[list[bytes], bool] | None) -> None:
                if not self.scheduler.was_read(slice_, found, time.monotonic()):
                    self._pause(hands)

            self._on_thread(partial(read_slice, slice_.log), was_read)

    def _pause(self, hands: _Hands) -> None:
        if not hands.pausing:
            hands.pausing = True
            self._loop.call_later(_PAUSE, self._do, partial(setattr, hands, "pausing", False))

    def _on_thread(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """Do what may wait for the disk; one after the other, all on the same thread."""

        def run() -> None:
            try:
                done = partial(then, work())
            except Exception as e:
                done = partial(_fail, e)
            self._loop.call_soon_threadsafe(self._do, done)

        self._thread.submit(run)

    def _close_logs(self) -> None:
        for log in self.scheduler.take_closed():
            self._on_thread(partial(close_log, log), lambda _: None)

    # ---------------------------------------------------------------- the workers

    def _start_worker(self, hands: _Hands) -> None:
        if hands.starting is None:
            hands.starting = self._loop.create_task(self._bring_up(hands))

    async def _bring_up(self, hands: _Hands) -> None:
        file = process.shared_file()

        def heard(worker: _Worker, answers: list[bytes]) -> None:
            self._do(partial(self._heard, hands, worker, answers))

        def ended(worker: _Worker) -> None:
            self._do(partial(self._ended, hands, worker))

        try:
            make = partial(_Worker, process.Progress(file), heard, ended)
            _, worker = await starter.connect(make, starter.VALIDATOR, hands.arguments, file)
            hands.worker, hands.used = worker, time.monotonic()
            self._hand_over(hands, worker, [])
            if worker.told:  # it has ended before it was known here
                ended(worker)
        except OSError as e:
            logger.error("the worker that checks records can't be started: %s", e)
            self._pause(hands)
        except Exception as e:
            self._do(partial(_fail, e))
        finally:
            if file >= 0:
                os.close(file)
        hands.starting = None

    def _hand_over(self, hands: _Hands, worker: _Worker, batch: list[Sent]) -> None:
        size = sum(sum(map(len, s.data)) for s in batch)
        now = time.monotonic()
        hands.deadline = now + _PATIENCE * (max(_AT_LEAST, hands.seconds) + size / (1 << 20))
        hands.batch, hands.used = batch, now
        worker.progress.begin(0)
        worker.say([p for s in batch for p in (s.name, s.kind, s.document, b"%d" % len(s.data), *s.data)])

    def _heard(self, hands: _Hands, worker: _Worker, answers: list[bytes]) -> None:
        try:
            if hands.batch is None:
                raise ValueError("nothing was asked")
            answered = list(read_answers(hands.batch, answers))
        except ValueError as e:
            logger.error("a worker that checks records said what can't be: %s", e)
            return worker.give_up()
        seconds = [worker.progress.seconds(place) for place in range(len(answered))]
        hands.batch, hands.deadline = None, float("inf")
        timed = [(order, answer, took) for (order, answer), took in zip(answered, seconds, strict=True)]
        self.scheduler.answered(hands.lane, timed, time.monotonic())

    def _ended(self, hands: _Hands, worker: _Worker) -> None:
        """It crashed, was ended, or said what can't be."""
        if hands.worker is not worker:
            return
        batch, hands.batch, hands.deadline, hands.worker = hands.batch, None, float("inf"), None
        if batch == []:
            logger.error("a worker that checks records does not come up")
            self._pause(hands)
        else:
            logger.error("a worker that checks records ended")
            self.restarts += 1
        place = Place(*worker.progress.place())
        known = worker.progress.shared and place.order < len(batch or ())
        self.scheduler.lost(hands.lane, batch or [], place if known else None, worker.ran_out, time.monotonic())

    def _watch(self) -> None:
        """End a worker that hangs, and the slow one where nothing is slow."""
        self._watching = self._loop.call_later(1.0, self._watch)
        now = time.monotonic()
        for hands in self._hands:
            if hands.worker is None:
                continue
            if hands.hangs(now):
                hands.worker.give_up()
            elif hands.lane.slow and hands.batch is None and not hands.lane.wants_worker and now > hands.used + _IDLE:
                worker, hands.worker = hands.worker, None
                worker.end()
                self.scheduler.lost(hands.lane, [], None, overran=False, now=now)


def _fail(error: Exception) -> None:
    raise error
