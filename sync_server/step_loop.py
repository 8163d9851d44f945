"""Events become steps of the rooms, one after the other.

A step takes all events there are, so the busier the relay, the more records share one fsync. While steps are quick the
loop takes them itself, for to wait for another thread twice costs more than a fast disk does. When they are not, for
there is much to do or the disk is slow, a thread takes them, and the loop never waits for long (``Pace``). The thread
also takes steps that compact or delete a document, until the rest of that is swept, and steps with a catch-up.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from llmcrdt.sync.messages import Delete

from .core.events import (
    Appended,
    CatchUpRequest,
    CatchUpResult,
    CompactRequest,
    CompactResult,
    Drop,
    Event,
    Send,
    Tick,
)
from .core.limits import Limits
from .core.rooms import Rooms
from .core.validation import Flushed, Received, ReplicaDropped, ValidateRequest, ValidateResult, Validation
from .dispatch import Dispatch, Frames, Step
from .event_queue import EventQueue
from .log.admin import Storage
from .log.base import LogError
from .workers.pool import Workers
from .workers.scheduler import Order

logger = logging.getLogger(__name__)

_QUICK = 0.001
"""Seconds that a step may take on the loop."""
_NEWEST = 1 / 8
"""The weight of the last step in the mean of all."""


class Pace:
    """How long steps take, as a mean that follows the last of them. One far over the bound is enough to make them slow,
    and then it takes some ten quick ones: so a spell of a slow disk holds up the loop once."""

    def __init__(self) -> None:
        self._mean = 0.0

    def note(self, seconds: float) -> None:
        self._mean += (seconds - self._mean) * _NEWEST

    @property
    def quick(self) -> bool:
        return self._mean < _QUICK


class StepLoop:
    """The rooms over a storage, and the events that wait for them. ``failed`` is set when the relay can't go on.

    state       enters with                        and goes on with
    IDLE        nothing waits                      DUE: an event comes
    DUE         a step begins in this turn         IDLE, DUE: a quick step is taken on the loop
                                                   UNDER WAY: a step is taken on the thread
    UNDER WAY   the thread has a step              IDLE, DUE
    OVER        stop, or a step failed             nothing: no step is taken any more
    """

    def __init__(self, storage: Storage, limits: Limits, check: bool, failed: asyncio.Event) -> None:
        self._storage, self._limits, self._failed = storage, limits, failed
        self._loop = asyncio.get_running_loop()
        self._validation = Validation(available=True, always=check)
        self.rooms = Rooms(storage, limits, validation=self._validation, catch_up=True, notify=self._put_appended)
        self._events = EventQueue(limits)
        self._pace = Pace()
        self._due = self._under_way = self._over = False
        self._due_since = 0.0
        self._rested = asyncio.Event()
        self._announcing = False

    def start(self, workers: Workers, dispatch: Dispatch) -> None:
        """Begin to take steps; their orders go to ``workers``, their messages to ``dispatch``."""
        self._workers, self._dispatch = workers, dispatch
        self._thread = ThreadPoolExecutor(1, "llmcrdt-relay-log")
        self._step_soon()

    async def stop(self) -> None:
        """Deal with what came in, for ``Limits.shutdown`` at most, then take no more steps."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.shutdown):
                while not self._at_rest:
                    await self._rested.wait()
                    self._rested.clear()
        self._over = True
        await asyncio.to_thread(self._thread.shutdown)

    # ---------------------------------------------------------------- events

    def put(self, event: Event) -> None:
        self._events.put(event)
        self._step_soon()

    def put_from_thread(self, event: Event) -> None:
        self._loop.call_soon_threadsafe(self.put, event)

    def _put_appended(self, document: bytes) -> None:
        """Another process changed a document. From any thread."""
        self.put_from_thread(Appended(document))

    def tick(self) -> None:
        """To be called now and then: for what waits for a better moment, and changes of other processes."""
        if self.rooms.stuck:
            self.put(Tick())
        if not self._under_way:
            self._dispatch.forget()
            try:
                self._storage.records.poll()
            except LogError as e:
                logger.error("the log can't be read: %s", e)

    def fail(self) -> None:
        """The relay can't go on. From any thread."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self._over = True
        self._rested.set()
        self._failed.set()

    @property
    def _at_rest(self) -> bool:
        """Whether all that came in is dealt with, or nothing will be any more."""
        return self._over or not (self._events or self._under_way or self._validation.busy)

    # ---------------------------------------------------------------- steps

    def _step_soon(self) -> None:
        """After all that this turn of the loop brings."""
        if not self._due and not self._under_way:
            self._due, self._due_since = True, time.perf_counter()
            self._loop.call_soon(self._begin_step)

    def _begin_step(self) -> None:
        self._due = False
        if self._over or not (self._events or self.rooms.more):
            return
        events, late = self._events.take(), time.perf_counter() - self._due_since
        if self._pace.quick and self.rooms.clean and not any(map(_is_heavy, events)):
            self._end_step(self._step(events, late))
        else:
            self._under_way = True
            self._thread.submit(self._step_on_thread, events, late)

    def _step_on_thread(self, events: Sequence[Event], late: float) -> None:
        self._loop.call_soon_threadsafe(self._end_step, self._step(events, late))

    def _step(self, events: Sequence[Event], late: float) -> Step | None:
        """On the loop, or on the thread; never both. None where the relay can't go on."""
        try:
            began = time.perf_counter()
            outputs = self.rooms.step(events, self._hand_out)
            took = time.perf_counter() - began
            times = {"commit_longest_seconds": took, "loop_late_seconds": late}
            orders: list[Order] = []
            messages: list[tuple[Drop | Send, Frames]] = []
            for output in outputs:
                if isinstance(output, CompactRequest):
                    self._workers.compact(output)
                elif isinstance(output, CatchUpRequest):
                    self._workers.catch_up(output)
                elif isinstance(output, (ValidateRequest, ReplicaDropped, Flushed)):
                    orders.append(output)
                else:
                    messages.append((output, self._dispatch.frames(output)))
            self._pace.note(time.perf_counter() - began)
            return Step(orders, self.rooms.taken, messages, _counts(events, took), times)
        except Exception:
            logger.exception("the relay can't go on")
            return None

    def _hand_out(self, orders: Sequence[ValidateRequest | ReplicaDropped]) -> None:
        """On the thread that takes the step, before its commit."""
        if orders and self._under_way:
            self._loop.call_soon_threadsafe(self._workers.validator.put, *orders)
        elif orders:
            self._workers.validator.put(*orders)

    def _end_step(self, step: Step | None) -> None:
        self._under_way = False
        if step is None:
            return self.fail()
        if step.orders:
            self._workers.validator.put(*step.orders)
        if self._events or self.rooms.more:
            self._step_soon()
        if self.rooms.announces and not self._announcing:
            self._announcing = True
            self._loop.call_later(self._limits.presence_tick, self._announce)
        self._dispatch.dispatch(step)
        self._rested.set()

    def _announce(self) -> None:
        """There is presence to tell."""
        self._announcing = False
        self.put(Tick())


def _is_heavy(event: Event) -> bool:
    """Whether it writes, takes away or weighs much of a document, which may be long on the quickest disk."""
    if isinstance(event, Received):
        return isinstance(event.message, Delete)
    return isinstance(event, (CompactResult, CatchUpResult))


def _counts(events: Sequence[Event], seconds: float) -> dict[str, float]:
    """The counts that a step of these events adds to the metrics."""
    counts = {"commits_total": 1, "commit_seconds_total": seconds}
    for event in events:
        match event:
            case ValidateResult():
                name = "records_refused_total" if event.refused else ""
            case CompactResult():
                name = "folds_failed_total" if event.records is None else "folds_total"
            case CatchUpResult():
                name = "condensed_total" if event.records else ""
            case _:
                continue
        if name:
            counts[name] = counts.get(name, 0) + 1
    return counts
