"""The next batch of a worker: slices of logs, and orders for jobs, by turns."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from itertools import islice

from ..core.turns import Source
from ..core.validation import DiffRequest, Flush, Flushed, MergeRequest, ValidateResult
from ..log.admin import SnapshotStore
from .documents import LARGE, Document, Documents, Lane, State
from .log_slices import Slice
from .orders import Job, Sent, next_order

_BATCH = 256
"""Orders in one batch."""
_BYTES = 1 << 20
"""Bytes in one batch, unless one order has more."""
_PIECES = 1_024
"""Records in one batch: while these are appended, the next are looked at."""
_LEAST = 256
"""Records of one push that are looked at in one turn, at least, where there are so many."""
_OPENING = 16
"""Documents of a lane that are loaded at one time."""
TURN_COST = 20e-6
"""Seconds that a turn counts beside what it took."""


class Batches:
    """Makes batches for the workers, and says which slice of a log is to be read for the next one."""

    def __init__(self, documents: Documents, snapshots: SnapshotStore) -> None:
        self._documents, self._snapshots = documents, snapshots
        # How many answers to Flush are still to come.
        self._flushes: Counter[bytes] = Counter()

    def batch(self, lane: Lane, now: float) -> list[Sent]:
        """The next orders of a lane's worker, if it has anything to do."""
        self._open(lane)
        sent = self._loads(lane)
        if not (lane.slow and sent):
            sent += self._orders(lane, now)
        if not sent:
            return []
        lane.loaded, lane.busy = sent[0].job is None, True
        for order in sent:
            document = self._documents.by_id[order.document]
            document.busy += 1
            order.kind = document.kind
        drops = [Sent(id_, b"drop", ()) for id_ in lane.dropped]
        lane.dropped.clear()
        return drops + sent

    def _open(self, lane: Lane) -> None:
        """Begin to load documents that wait for it."""
        while len(lane.opening) < _OPENING and (turn := lane.cold.next()):
            opener, id_ = turn
            document = self._documents.by_id[id_]
            for source in document.jobs:
                lane.cold.leave(source, id_)
            lane.opening[id_] = None
            document.state, document.opener = State.FLUSHING, opener
            lane.cold.charge(opener, TURN_COST)
            self._flushes[id_] += 1
            self._documents.answer(Flush(id_))

    def handle_flushed(self, flushed: Flushed) -> None:
        """All that was answered before a document's Flush is in its log now: it can be loaded."""
        id_, position = flushed
        # If it was dropped meanwhile, only the answer to the last question tells of all that was answered.
        self._flushes[id_] -= 1
        if self._flushes[id_] > 0:
            return
        del self._flushes[id_]
        document = self._documents.by_id.get(id_)
        if document is not None and document.state is State.FLUSHING:
            document.state = State.LOADING
            document.log = iter(self._snapshots.contents(id_, position)) if position else None

    def _loads(self, lane: Lane) -> list[Sent]:
        """Slices of logs that have been read. A document without a log is empty. In the slow lane one, and then it is
        the turn of a job, if there is one."""
        sent: list[Sent] = []
        if lane.slow and lane.loaded and lane.ready:
            return sent
        for id_ in tuple(lane.opening):
            document = self._documents.by_id[id_]
            if document.state is not State.LOADING:
                continue
            slice_ = lane.slice
            if document.log is None:
                sent.append(Sent(id_, b"loaded", (), document.opener))
            elif slice_ is not None and slice_.document == id_ and slice_.data is not None:
                lane.slice = None
                # To the back of the line, so that one long log doesn't hold up the others.
                lane.opening.pop(id_)
                lane.opening[id_] = None
                self._documents.grow(document, sum(map(len, slice_.data)))
                if slice_.last:
                    document.log = None
                names = (b"heal", b"healed") if document.heal else (b"load", b"loaded")
                sent.append(Sent(id_, names[slice_.last], slice_.data, document.opener))
            else:
                continue
            if document.log is None:
                # Behind the last of its log comes at once what waits for that.
                del lane.opening[id_]
                for source in document.jobs:
                    lane.ready.enter(source, id_)
            if lane.slow:
                break
        return sent

    def _orders(self, lane: Lane, now: float) -> list[Sent]:
        """A slice for each source in its turn, and again, until the batch is full. In the slow lane just one."""
        sent: list[Sent] = []
        blocked: set[object] = set()
        share = max(_LEAST, _PIECES // max(1, lane.ready.sources))
        lines = [self._line(lane, source, share, blocked, now) for source in lane.ready.order()]
        size = count = 0
        while lines:
            rest = []
            for line in lines:
                order = next(line, None)
                if order is None:
                    continue
                size += sum(map(len, order.data))
                count += len(order.data)
                if sent and (size > _BYTES or count > _PIECES):
                    return sent
                sent.append(order)
                lane.ready.served(order.source, order.document)
                if lane.slow or len(sent) >= _BATCH:
                    return sent
                rest.append(line)
            lines = rest
        return sent

    def _line(self, lane: Lane, source: Source, share: int, blocked: set[object], now: float) -> Iterator[Sent]:
        """The orders of one source, a document at a time. All that follows a job that isn't done waits for it."""
        places = deque((id_, 0) for id_ in islice(lane.ready.of(source), _BATCH))
        while places:
            id_, at = places.popleft()
            document = self._documents.by_id.get(id_)
            if document is None or id_ in blocked:
                continue
            jobs = document.jobs.get(source, ())
            while at == 0 and jobs and self._answered_before(id_, document, source, jobs[0], now):
                jobs = document.jobs.get(source, ())
            if at >= len(jobs):
                continue
            # If a worker may be ended over it, a merge is one update: what the others of it made would be lost.
            alone = lane.slow and isinstance(jobs[at].todo.request, MergeRequest)
            order, whole = next_order(id_, source, jobs[at], 1 if alone else share)
            yield order
            if order.name == b"diff":
                # It may be large, and the next one may be the same.
                blocked.add(id_)
            elif whole:
                places.append((id_, at + 1))

    def _answered_before(self, id_: bytes, document: Document, source: Source, job: Job, now: float) -> bool:
        """Many clients that come with the same version get the same answer, which is computed once."""
        request = job.todo.request
        if not isinstance(request, DiffRequest) or document.answered is None or document.answered[0] != request.version:
            return False
        update, version, mark = document.answered[1]
        self._documents.finish(id_, source, job, ValidateResult(job.todo.ticket, 0, (update, version), mark=mark), now)
        return True

    # ---------------------------------------------------------------- logs are read

    def next_read(self, lane: Lane) -> Slice | None:
        """The slice that is to be read while the worker is busy: one at a time, of the document whose turn it is."""
        for id_ in lane.opening if lane.slice is None else ():
            log = self._documents.by_id[id_].log
            if log is not None:
                lane.slice = Slice(id_, log)
                return lane.slice
        return None

    def was_read(self, slice_: Slice, found: tuple[list[bytes], bool] | None, now: float) -> bool:
        """``found`` is what ``read_slice`` gave. False where the log can't be read: try again in a while."""
        document = self._documents.by_id.get(slice_.document)
        if document is None or document.lane.slice is not slice_:
            return True  # it is not needed any more
        if found is None:
            self._documents.forget(slice_.document)
            return False
        slice_.data, slice_.last = found
        if len(slice_.data[0] if slice_.data else b"") > LARGE and not document.lane.slow:
            self._documents.banish(slice_.document, now)
        return True
