"""The validator of a simulated relay: the real one and the real worker's code, in this process and on virtual time.

The worker may die at any exchange. It always dies over a record with DEADLY in it, and the CRDT core panics over one
with PANIC in it, as over bytes that make yrs go wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, NoReturn

from llmcrdt.crdt.backend import ParsedUpdate
from llmcrdt.crdt.yjs.replica import YjsReplica
from sync_server.core.limits import Limits
from sync_server.core.validation import Flush, ValidateResult
from sync_server.log.admin import SnapshotStore
from sync_server.workers import validator_worker
from sync_server.workers.documents import Lane, State
from sync_server.workers.log_slices import Slice, close_log, read_slice
from sync_server.workers.orders import Place, Sent, read_answers
from sync_server.workers.scheduler import Order, ValidationScheduler

DEADLY, PANIC = b"a deadly word", b"a word to panic at"
_INNOCENT = 2
"""Deaths in a row that something innocent may see alone in the worker's hands; past the next it is to blame."""


class FragileReplica(YjsReplica):
    """All that a worker holds. Its core panics where it must."""

    def apply(self, update: bytes) -> Any:
        if PANIC in update:
            with self._guarded("The update broke the CRDT core."):
                self._panic(update)
        return super().apply(update)

    def _load(self, groups: Sequence[tuple[ParsedUpdate, Sequence[bytes]]], snapshot: bytes | None = None) -> None:
        bad = next((place for place, (whole, _) in enumerate(groups) if PANIC in whole.data), None)
        if bad is not None:
            super()._load(groups[:bad], snapshot)
            with self._guarded("The updates broke the CRDT core."):
                self._panic(groups[bad][0].data)
        super()._load(groups, snapshot)

    def _panic(self, update: bytes) -> NoReturn:
        self._doc.apply_update(update)
        raise _Panic


class _Panic(BaseException):
    """As pyo3's PanicException: no Exception."""


class SimulatedValidator:
    """Has no loop: ``turn`` does what comes next on it. ``crashes``: exchanges still to come that a worker does not
    survive. Workers look at their clock now and then, and find the turn over: so pushes are answered in parts."""

    def __init__(
        self, log: SnapshotStore, limits: Limits, answer: Callable[[ValidateResult | Flush], None], rng: Random
    ) -> None:
        self.scheduler = ValidationScheduler(log, limits, answer)
        self.rng, self.crashes, self.restarts = rng, 0, 0
        self._limits = limits
        self._blamed: Counter[object] = Counter()
        self._here: dict[bool, validator_worker.ValidatorWorker] = {}
        self._later: list[Callable[[], None]] = []
        self._now = 0.0
        self._looks = 0

    @property
    def idle(self) -> bool:
        documents = self.scheduler.documents.values()
        waits = all(document.state is State.FLUSHING for document in documents if document.jobs)
        return waits and not self._later

    def put(self, order: Order) -> None:
        self.scheduler.put(order, self._now)

    def turn(self) -> None:
        """All that the thread has read comes, then one of the workers gets a batch."""
        later, self._later = self._later, []
        for call in later:
            call()
        self._now += 1.0
        for lane in self.rng.sample(self.scheduler.lanes, 2):
            worker = self._up(lane.slow)
            if worker is not None and (batch := self.scheduler.batch(lane, self._now)):
                try:
                    answers = self._exchange(worker, batch)
                except _Dead as dead:
                    del self._here[lane.slow]
                    self.restarts += 1
                    self.scheduler.lost(lane, batch, dead.place, False, self._now)
                else:
                    timed = [(order, answer, 0.0) for order, answer in read_answers(batch, answers)]
                    self.scheduler.answered(lane, timed, self._now)
            self._read(lane)

    def _read(self, lane: Lane) -> None:
        for log in self.scheduler.take_closed():
            close_log(log)
        slice_ = self.scheduler.next_read(lane)
        if slice_ is not None:
            self._later.append(lambda: self._was_read(slice_))

    def _was_read(self, slice_: Slice) -> None:
        self.scheduler.was_read(slice_, read_slice(slice_.log), self._now)

    def die(self) -> None:
        """The relay's process is gone."""
        for document in tuple(self.scheduler.documents):
            self.scheduler.forget(document)
        for log in self.scheduler.take_closed():
            close_log(log)

    # ---------------------------------------------------------------- the worker

    def _up(self, slow: bool) -> validator_worker.ValidatorWorker | None:
        if slow not in self._here and not (self.crashes and self.rng.random() < 0.3):
            self._here[slow] = validator_worker.ValidatorWorker(self._limits.record, clock=self._clock)
        return self._here.get(slow)

    def _clock(self) -> float:
        self._looks += 1
        return self._looks // 5 * 2 * validator_worker._TURN

    def _exchange(self, worker: validator_worker.ValidatorWorker, sent: Sequence[Sent]) -> list[bytes]:
        answers: list[bytes] = []
        dies_at = self.rng.randrange(len(sent) + 1) if self._crashes(sent) else None
        for place, order in enumerate(sent):
            if place == dies_at or any(DEADLY in data for data in order.data):
                raise _Dead(Place(place, 0, len(order.data)))
            answers += worker.obey(order.name, order.kind, order.document, order.data)
        if dies_at is not None:
            raise _Dead(Place(len(sent) - 1))
        return answers

    def _crashes(self, sent: Sequence[Sent]) -> bool:
        """Whether it dies, for no fault of what it has in hand."""
        if not self.crashes:
            return False
        orders = [order for order in sent if order.name != b"drop"]
        if len(orders) == 1:
            (order,) = orders
            suspect = (order.document, order.job is None, order.job and tuple(order.data))
            if self._blamed[suspect] == _INNOCENT:
                return False
            self._blamed[suspect] += 1
        self.crashes -= 1
        return True


class _Dead(Exception):
    """A worker is gone; ``place``: where it had come to."""

    def __init__(self, place: Place) -> None:
        self.place = place
