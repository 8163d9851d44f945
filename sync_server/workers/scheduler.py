"""The scheduler of the workers that validate records: which orders they get next, and what their answers mean. No
processes, threads and clocks: the validator (validator.py) has those. It hands over batches, and says what came of them
and when.

There are two *lanes*, each with a worker of its own. Documents begin in the quick one, whose worker does nothing that
it estimates to take long, and is ended by the system when something takes long all the same. That document then goes
to the slow lane, where one order is a batch; so whatever it holds, it holds up only those that are slow as well.

Time is shared out equally among sources (turns.py), in each lane. An order is a slice of a push, one update, one
question, or a slice of a log. States of documents are in documents.py, batches in batches.py, and what answers mean in
outcomes.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

from ..core.limits import Limits
from ..core.validation import Flush, Flushed, ReplicaDropped, ValidateRequest, ValidateResult
from ..log.admin import SnapshotStore
from ..log.quarantine import Quarantine
from .batches import Batches
from .documents import Document, Documents, Lane
from .log_slices import Slice
from .orders import Answer, Job, Place, Sent
from .outcomes import Outcomes

Order: TypeAlias = ValidateRequest | ReplicaDropped | Flushed


class ValidationScheduler:
    """``put`` takes orders; ``batch`` gives a worker its next, and then ``answered`` or ``lost`` has to be told. Its
    own words, ValidateResult and Flush, go to ``answer``. Logs are read by others as well: ``next_read`` says which,
    ``was_read`` takes the outcome, and ``take_closed`` are those that nobody needs any more. Times are arguments, in
    seconds."""

    def __init__(
        self,
        snapshots: SnapshotStore,
        limits: Limits,
        answer: Callable[[ValidateResult | Flush], None],
        quarantine: Quarantine | None = None,
    ) -> None:
        self._documents = Documents(limits, answer, quarantine or Quarantine())
        self._batches = Batches(self._documents, snapshots)
        self._outcomes = Outcomes(self._documents)

    @property
    def lanes(self) -> tuple[Lane, Lane]:
        """The quick one and the slow one."""
        return self._documents.quick, self._documents.slow

    @property
    def documents(self) -> Mapping[bytes, Document]:
        """All that something waits for, or a worker holds."""
        return self._documents.by_id

    @property
    def size(self) -> int:
        """Bytes of updates of all documents."""
        return self._documents.size

    @property
    def held(self) -> int:
        """How many documents are in memory."""
        return self._documents.held

    @property
    def idle(self) -> bool:
        """Whether nobody waits for anything."""
        return self._documents.idle

    def oldest(self, now: float) -> float:
        """For how many seconds somebody who waits has seen nothing of his being done."""
        return self._documents.oldest(now)

    def put(self, order: Order, now: float) -> None:
        match order:
            case ValidateRequest(_, request, kind, _, source):
                self._documents.enqueue(request.document, kind, source, Job(order), now)
            case ReplicaDropped(id_):
                document = self.documents.get(id_)
                if document is not None and document.busy:
                    # Orders in hand are answered by the replica as it was.
                    document.drop = True
                elif document is not None:
                    self.forget(id_)
            case Flushed():
                self._batches.handle_flushed(order)

    def forget(self, id_: bytes) -> None:
        """A document's replica is no good any more."""
        self._documents.forget(id_)

    def batch(self, lane: Lane, now: float) -> list[Sent]:
        """The next orders of a lane's worker, if it has anything to do."""
        return self._batches.batch(lane, now)

    def answered(self, lane: Lane, answers: Sequence[tuple[Sent, Answer, float]], now: float) -> None:
        """A worker's answer to each order of its batch, and how many seconds each took."""
        self._outcomes.answered(lane, answers, now)

    def lost(self, lane: Lane, sent: Sequence[Sent], place: Place | None, overran: bool, now: float) -> None:
        """A worker is gone, with all it held; it had these orders in hand. ``place``: how far it had come; None where
        nobody knows. ``overran``: it was ended, for what it did took too long."""
        self._outcomes.lost(lane, sent, place, overran, now)

    def next_read(self, lane: Lane) -> Slice | None:
        """The slice of a log that is to be read while the worker is busy."""
        return self._batches.next_read(lane)

    def was_read(self, slice_: Slice, found: tuple[list[bytes], bool] | None, now: float) -> bool:
        """``found`` is what ``read_slice`` gave. False where the log can't be read: try again in a while."""
        return self._batches.was_read(slice_, found, now)

    def take_closed(self) -> list[Iterator[bytes]]:
        """Logs that nobody needs any more: close them."""
        closed, self._documents.closed = self._documents.closed, []
        return closed
