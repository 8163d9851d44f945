"""The keeper of a simulated relay: the real one and the real worker's code, in this process and on virtual time.

The worker may die at any exchange. It always dies over a record with DEADLY in it, and the CRDT core panics over one
with PANIC in it, as over bytes that make yrs go wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, NoReturn

from llmcrdt.crdt.yjs.replica import YjsReplica
from llmcrdt.crdt.yjs.update import UpdateRange
from sync_server.core.limits import Limits
from sync_server.core.validation import Flush, ValidateResult
from sync_server.log.admin import SnapshotStore
from sync_server.workers import validator_worker as keeper_worker
from sync_server.workers.validator import T, Validator, _read_answers, _State

DEADLY, PANIC = b"a deadly word", b"a word to panic at"
_INNOCENT = 2
"""Deaths in a row that something innocent may see alone in the worker's hands; past the next it is to blame."""


class FragileReplica(YjsReplica):
    """What a worker holds. Its core panics where it must."""

    def apply(self, update: bytes) -> Any:
        if PANIC in update:
            with self._guarded("The update broke the CRDT core."):
                self._panic(update)
        return super().apply(update)

    def _load(self, updates: Sequence[tuple[bytes, UpdateRange]], snapshot: bytes | None = None) -> None:
        bad = next((place for place, (update, _) in enumerate(updates) if PANIC in update), None)
        if bad is not None:
            super()._load(updates[:bad], snapshot)
            with self._guarded("The updates broke the CRDT core."):
                self._panic(updates[bad][0])
        super()._load(updates, snapshot)

    def _panic(self, update: bytes) -> NoReturn:
        self._doc.apply_update(update)
        raise _Panic


class _Panic(BaseException):
    """As pyo3's PanicException: no Exception."""


class SimulatedKeeper(Validator):
    """Has no loop: ``turn`` does what comes next on it. ``crashes``: exchanges still to come that the worker does not
    survive."""

    def __init__(
        self, log: SnapshotStore, limits: Limits, answer: Callable[[ValidateResult | Flush], None], rng: Random
    ) -> None:
        super().__init__(log, limits, answer)
        self.rng, self.crashes = rng, 0
        self._blamed: Counter[object] = Counter()
        self._here: keeper_worker.ValidatorWorker | None = None
        self._later: list[Callable[[], None]] = []

    @property
    def idle(self) -> bool:
        waits = all(self._documents[id_].state is _State.FLUSHING for id_ in self._active)
        return waits and not self._later and not self._orders

    def turn(self) -> None:
        """What the thread has read comes, then the worker gets a batch."""
        later, self._later = self._later, []
        for call in later:
            call()
        self._receive_all()
        worker = self._up()
        if worker is not None and (batch := self._batch()):
            try:
                answers = self._exchange(worker, batch)
            except EOFError:
                self._here, self.restarts = None, self.restarts + 1
                self._lost(batch)
            else:
                self._answered(list(_read_answers(batch, answers)))

    def _go_on(self) -> None:
        pass

    def _pause(self) -> None:
        pass

    def _on_thread(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        self._later.append(lambda: then(work()))

    def die(self) -> None:
        """The relay's process is gone."""
        for document in tuple(self._documents):
            self._forget(document)
        for call in self._later:
            call()

    # ---------------------------------------------------------------- the worker

    def _up(self) -> keeper_worker.ValidatorWorker | None:
        if self._here is None and not (self.crashes and self.rng.random() < 0.3):
            self._here = keeper_worker.ValidatorWorker(self._limits.record)
        return self._here

    def _exchange(self, worker: keeper_worker.ValidatorWorker, sent: Sequence[Any]) -> list[bytes]:
        answers: list[bytes] = []
        dies_at = self.rng.randrange(len(sent) + 1) if self._crashes(sent) else None
        for place, order in enumerate(sent):
            if place == dies_at or any(DEADLY in data for data in order.data):
                raise EOFError
            answers += worker.obey(order.name, order.document, order.data)
        if dies_at is not None:
            raise EOFError
        return answers

    def _crashes(self, sent: Sequence[Any]) -> bool:
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
