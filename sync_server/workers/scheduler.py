"""What the workers that check records get next, and what their answers mean. No processes, threads and clocks: whoever
has those (keeper.py) hands over batches, and says what came of them and when.

There are two *lanes*, each with a worker of its own. Documents begin in the quick one, whose worker does nothing that
it estimates to take long, and is ended by the system when something takes long all the same. That document then goes
to the slow lane, where one order is a batch; so whatever it holds, it holds up only those that are slow as well.

Time is shared out equally among sources (turns.py), in each lane. An order is a slice of a push, one update, one
question, or a slice of a log.

    state      its worker    goes on with
    COLD       has nothing   FLUSHING, when it is its turn: Flush is sent
    FLUSHING   has nothing   LOADING, with Flushed: what was answered before is in the log
    LOADING    has a part    HELD, behind the last of its log
    HELD       has it        COLD: it is dropped, it moves, the worker ends, or it makes room
    AWAY       can't load it: nothing of it is looked at, and so nothing is taken

An order of which the worker died is to blame for that with those before it in the batch: they are tried again in the
slow lane, a record at a time. What dies there three times is refused. What took too long is to blame alone, and refused
where that happens in the slow lane.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import islice
from typing import NamedTuple, TypeAlias

from llmcrdt.exceptions import LLMCRDTError
from llmcrdt.sync.messages import Push

from ..core.limits import Limits
from ..core.turns import Source, Turns
from ..core.validation import DiffRequest, Flush, Flushed, MergeRequest, ReplicaDropped, ValidateRequest, ValidateResult
from ..log.admin import SnapshotStore
from ..log.base import label

logger = logging.getLogger(__name__)

Order: TypeAlias = ValidateRequest | ReplicaDropped | Flushed

_BATCH = 256
"""Orders in one batch."""
_BYTES = 1 << 20
"""Bytes in one batch, unless one order has more."""
_PIECES = 1_024
"""Records in one batch: while these are appended, the next are looked at."""
_LEAST = 64
"""Records of one push that are looked at in one turn, at least, where there are so many."""
_SLICE = 64 << 10
"""Bytes of a log that are loaded in one batch, unless one record has more."""
_LARGE = 1 << 20
"""Bytes of an update of a log from which on it is loaded, and its document held, in the slow lane."""
_OPENING = 16
"""Documents of a lane that are loaded at one time."""
_TRIES = 3
"""Times that a worker may die over something in the slow lane."""
_SLOW = 0.25
"""Seconds that one order took after which its document goes to the slow lane."""
_PENANCE = 60.0
"""Seconds that a document stays there after it was slow last, and a source's documents after the quick worker was ended
over one of them."""
_KNOWN = 10_000
"""Documents and sources that are known to be slow."""
_TURN_COST = 20e-6
"""Seconds that a turn counts beside what it took."""
_EACH = 4 << 10
"""What a document counts in ``keep`` beside its bytes, so that the smallest are not held without end."""


class State(Enum):
    COLD = auto()
    FLUSHING = auto()
    LOADING = auto()
    HELD = auto()
    AWAY = auto()


@dataclass(slots=True)
class Job:
    """``good``: how many records of a push have passed; ``single``: it is tried record by record; ``deaths``: how often
    the worker died over one of them, the ``fatal``-th."""

    todo: ValidateRequest
    good: int = 0
    single: bool = False
    fatal: int = 0
    deaths: int = 0


@dataclass(slots=True)
class Document:
    """``busy``: how many of its orders the worker has in hand; ``drop``: then it is dropped. ``opener``: on whose time
    it is loaded."""

    lane: Lane
    state: State = State.COLD
    jobs: dict[Source, deque[Job]] = field(default_factory=dict)
    opener: Source = 0
    log: Iterator[bytes] | None = None
    heal: bool = False
    failures: int = 0
    size: int = 0
    busy: int = 0
    drop: bool = False
    answered: tuple[bytes, tuple[bytes, ...]] | None = None


@dataclass(slots=True)
class Sent:
    """One order in a worker's hands: for a job, or (None) a slice of a log, or a drop."""

    document: bytes
    name: bytes
    data: Sequence[bytes]
    source: Source = 0
    job: Job | None = None


class Answer(NamedTuple):
    """What a worker says to one order (keeper_worker.py)."""

    state: bytes
    reason: str
    data: tuple[bytes, ...]


class Place(NamedTuple):
    """Where in a batch a worker was: the order, and so many ``records`` of it from the ``first`` on."""

    order: int
    first: int = 0
    records: int = 0


@dataclass(slots=True, eq=False)
class Slice:
    """A part of a document's log for the worker. ``data`` is None while it is read."""

    document: bytes
    log: Iterator[bytes]
    data: list[bytes] | None = None
    last: bool = False


class Lane:
    """One worker's. ``opening``: documents that are flushed or loaded; ``slice``: the one that is read, or is there and
    was not handed over."""

    def __init__(self, slow: bool) -> None:
        self.slow = slow
        self.ready, self.cold = Turns[bytes](), Turns[bytes]()
        self.opening: dict[bytes, None] = {}
        self.dropped: dict[bytes, None] = {}
        self.slice: Slice | None = None
        self.busy = self.loaded = False

    @property
    def wants_worker(self) -> bool:
        """Whether there is something to do, now or soon."""
        return bool(self.ready or self.cold or self.opening)


class CheckScheduler:
    """``put`` takes orders; ``batch`` gives a worker its next, and then ``answered`` or ``lost`` has to be told. Its
    own words, Checked and Flush, go to ``answer``. Logs are read by others as well: ``next_read`` says which,
    ``was_read`` takes the outcome, and ``closed`` are those that nobody needs any more. Times are arguments, in
    seconds."""

    def __init__(
        self, snapshots: SnapshotStore, limits: Limits, answer: Callable[[ValidateResult | Flush], None]
    ) -> None:
        self._snapshots, self._limits, self._answer = snapshots, limits, answer
        self.quick, self.slow = Lane(slow=False), Lane(slow=True)
        self.documents: OrderedDict[bytes, Document] = OrderedDict()
        self.closed: list[Iterator[bytes]] = []
        self.size = 0
        """Bytes of updates of all documents."""
        # How many answers to Flush are still to come.
        self._flushes: Counter[bytes] = Counter()
        # Until when documents, and all that these sources write to, belong to the slow lane.
        self._slow_until: dict[bytes | Source, float] = {}
        # Since when a source waits that something of it moves.
        self._since: dict[Source, float] = {}
        self._jobs: Counter[Source] = Counter()

    @property
    def lanes(self) -> tuple[Lane, Lane]:
        return self.quick, self.slow

    @property
    def held(self) -> int:
        """How many documents are in memory."""
        return sum(document.state is State.HELD for document in self.documents.values())

    def oldest(self, now: float) -> float:
        """For how many seconds somebody who waits has seen nothing of his being done."""
        return now - min(self._since.values(), default=now)

    # ---------------------------------------------------------------- orders

    def put(self, order: Order, now: float) -> None:
        match order:
            case ValidateRequest(_, request, _, source):
                self._enqueue(request.document, source, Job(order), now)
            case ReplicaDropped(id_):
                document = self.documents.get(id_)
                if document is not None and document.busy:
                    # What is in hand is answered by the replica as it was.
                    document.drop = True
                elif document is not None:
                    self.forget(id_)
            case Flushed(id_, position):
                # Where it was dropped meanwhile, only the answer to the last question tells of all that was answered.
                self._flushes[id_] -= 1
                if self._flushes[id_] > 0:
                    return
                del self._flushes[id_]
                document = self.documents.get(id_)
                if document is not None and document.state is State.FLUSHING:
                    document.state = State.LOADING
                    document.log = iter(self._snapshots.contents(id_, position)) if position else None

    def _enqueue(self, id_: bytes, source: Source, job: Job, now: float) -> None:
        document = self.documents.get(id_)
        if document is None:
            document = self.documents[id_] = Document(self.quick)
        if not document.busy:
            slow = max(self._slow_until.get(key, now) for key in (id_, source)) > now
            if slow:
                self._move(id_, document, self.slow)
            elif document.lane.slow and not document.jobs and document.size <= _LARGE:
                self._move(id_, document, self.quick)
        self.documents[id_] = document
        if source not in document.jobs:
            document.jobs[source] = deque()
            self._line_up(id_, document, source)
        document.jobs[source].append(job)
        self._jobs[source] += 1
        self._since.setdefault(source, now)
        if document.state is State.AWAY:
            self._refuse_all(id_, document, now)

    def _line_up(self, id_: bytes, document: Document, source: Source) -> None:
        if document.state is State.COLD:
            document.lane.cold.enter(source, id_)
        elif document.state in (State.HELD, State.AWAY) or id_ not in document.lane.opening:
            document.lane.ready.enter(source, id_)

    def forget(self, id_: bytes) -> None:
        """Its replica is no good any more."""
        document = self.documents[id_]
        lane = document.lane
        if document.log is not None:
            self.closed.append(document.log)
            if lane.slice is not None and lane.slice.log is document.log:
                lane.slice = None
        document.log, document.answered, document.drop = None, None, False
        lane.opening.pop(id_, None)
        self._grow(document, -document.size)
        if document.state in (State.HELD, State.LOADING):
            lane.dropped[id_] = None
        if document.state is not State.AWAY:
            document.state = State.COLD
            for source, jobs in document.jobs.items():
                lane.ready.leave(source, id_)
                lane.cold.enter(source, id_)
                # What passed was in the replica that is gone.
                jobs[0].good = 0
            if not document.jobs and not document.heal:
                del self.documents[id_]

    def _move(self, id_: bytes, document: Document, lane: Lane) -> None:
        before = document.lane
        if before is lane:
            return
        self.forget(id_)
        document.lane = lane
        for source in document.jobs:
            before.ready.leave(source, id_)
            before.cold.leave(source, id_)
            self._line_up(id_, document, source)

    def _banish(self, id_: bytes, now: float, *sources: Source) -> None:
        """To the slow lane, for a while."""
        for key in (id_, *sources):
            self._slow_until[key] = now + _PENANCE
        if len(self._slow_until) > _KNOWN:
            self._slow_until = {key: until for key, until in self._slow_until.items() if until > now}
            while len(self._slow_until) > _KNOWN:
                del self._slow_until[next(iter(self._slow_until))]
        if id_ in self.documents:
            self._move(id_, self.documents[id_], self.slow)

    # ---------------------------------------------------------------- what goes into a batch

    def batch(self, lane: Lane, now: float) -> list[Sent]:
        """What a lane's worker gets next, if it has anything to do."""
        self._open(lane)
        sent = self._loads(lane)
        if not (lane.slow and sent):
            sent += self._orders(lane, now)
        if not sent:
            return []
        lane.loaded, lane.busy = sent[0].job is None, True
        for order in sent:
            self.documents[order.document].busy += 1
        drops = [Sent(id_, b"drop", ()) for id_ in lane.dropped]
        lane.dropped.clear()
        return drops + sent

    def _open(self, lane: Lane) -> None:
        """Begin to load documents that wait for it."""
        while len(lane.opening) < _OPENING and (turn := lane.cold.next()):
            opener, id_ = turn
            document = self.documents[id_]
            for source in document.jobs:
                lane.cold.leave(source, id_)
            lane.opening[id_] = None
            document.state, document.opener = State.FLUSHING, opener
            lane.cold.charge(opener, _TURN_COST)
            self._flushes[id_] += 1
            self._answer(Flush(id_))

    def _loads(self, lane: Lane) -> list[Sent]:
        """Slices of logs that have been read. A document without a log is empty. In the slow lane one, and then it is
        the turn of a job, if there is one."""
        sent: list[Sent] = []
        if lane.slow and lane.loaded and lane.ready:
            return sent
        for id_ in tuple(lane.opening):
            document = self.documents[id_]
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
                self._grow(document, sum(map(len, slice_.data)))
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
        """What one source has, of one document after the other. What follows a job that isn't done waits for it."""
        places = deque((id_, 0) for id_ in islice(lane.ready.of(source), _BATCH))
        while places:
            id_, at = places.popleft()
            document = self.documents.get(id_)
            if document is None or id_ in blocked:
                continue
            jobs = document.jobs.get(source, ())
            while at == 0 and jobs and self._answered_before(id_, document, source, jobs[0], now):
                jobs = document.jobs.get(source, ())
            if at >= len(jobs):
                continue
            order, whole = _sent(id_, document, source, jobs[at], share)
            yield order
            if order.name == b"diff":
                # It may be large, and the next one may be the same.
                blocked.add(id_)
            elif whole:
                places.append((id_, at + 1))

    # ---------------------------------------------------------------- logs are read

    def next_read(self, lane: Lane) -> Slice | None:
        """The slice that is to be read while the worker is busy: one at a time, of the document whose turn it is."""
        for id_ in lane.opening if lane.slice is None else ():
            log = self.documents[id_].log
            if log is not None:
                lane.slice = Slice(id_, log)
                return lane.slice
        return None

    def was_read(self, slice_: Slice, found: tuple[list[bytes], bool] | None, now: float) -> bool:
        """``found`` is what ``read_slice`` gave. False where the log can't be read: try again in a while."""
        document = self.documents.get(slice_.document)
        if document is None or document.lane.slice is not slice_:
            return True  # it is not needed any more
        if found is None:
            self.forget(slice_.document)
            return False
        slice_.data, slice_.last = found
        if len(slice_.data[0] if slice_.data else b"") > _LARGE and not document.lane.slow:
            self._banish(slice_.document, now)
        return True

    # ---------------------------------------------------------------- answers

    def answered(self, lane: Lane, answers: Sequence[tuple[Sent, Answer, float]], now: float) -> None:
        """What a worker said to each order of its batch, and how many seconds each took."""
        lane.busy = False
        for order, _, seconds in answers:
            if order.name != b"drop":
                lane.ready.charge(order.source, seconds + _TURN_COST)
                if order.job is None:
                    lane.cold.charge(order.source, seconds + _TURN_COST)
                self._put_down(order)
        for order, answer, seconds in answers:
            self._done(lane, order, answer, now)
            if order.job is not None and seconds > _SLOW and not lane.slow:
                self._banish(order.document, now)
        for order, _, _ in answers:
            document = self.documents.get(order.document)
            if document is not None and document.drop:
                self.forget(order.document)
        self._make_room()

    def lost(self, lane: Lane, sent: Sequence[Sent], place: Place | None, overran: bool, now: float) -> None:
        """A worker is gone, with all it held; it had these orders in hand. ``place``: how far it had come; None where
        nobody knows. ``overran``: it was ended, for what it did took too long."""
        lane.busy = False
        suspects = [(order, None) for order in sent]
        if place is not None:
            suspects = [(order, None) for order in sent[: place.order]] * (not overran)
            suspects += [(order, place) for order in sent[place.order : place.order + 1]]  # type: ignore[misc]
        blamed = [self._blame(lane, order, at, overran, now) for order, at in suspects if order.name != b"drop"]
        for order in sent:
            if order.name != b"drop":
                self._put_down(order)
        for id_ in [id_ for id_, document in self.documents.items() if document.lane is lane]:
            self.forget(id_)
        lane.dropped.clear()
        for act in blamed:
            act()

    def _put_down(self, order: Sent) -> None:
        if order.document in self.documents:
            self.documents[order.document].busy -= 1

    def _blame(self, lane: Lane, order: Sent, place: Place | None, overran: bool, now: float) -> Callable[[], None]:
        """What becomes of an order that a worker may have died of, when all is forgotten that the worker held."""
        id_, job = order.document, order.job
        document = self.documents.get(id_)
        if document is None:
            return lambda: None
        if not lane.slow:
            if job is not None and isinstance(job.todo.request, Push):
                job.single = job.single or not overran
            sources = (order.source,) if overran else ()
            if overran:
                logger.warning("document %s: what was to be checked took too long", label(id_))
                return lambda: self._banish(id_, now, *sources)
            return lambda: self._move(id_, document, self.slow) if id_ in self.documents else None
        if job is None:
            document.failures += 1
            if overran or document.failures >= _TRIES:
                logger.error("document %s can't be loaded", label(id_))
                return lambda: self._put_away(id_, document, now)
            return lambda: None
        first, count = (place.first, place.records) if place else (0, len(order.data))
        if order.name == b"check" and count != 1 and len(order.data) > 1:
            job.single = True
            return lambda: None
        at = job.good + (first if order.name == b"check" else 0)
        job.deaths = job.deaths + 1 if job.fatal == at else 1
        job.fatal = at
        if overran or job.deaths >= _TRIES:
            why = "It would take the check too long." if overran else "It made the check fail."
            return lambda: self._finish(id_, order.source, job, ValidateResult(job.todo.ticket, at, (), why), now)
        return lambda: None

    def _put_away(self, id_: bytes, document: Document, now: float) -> None:
        self.documents[id_] = document
        document.state = State.AWAY
        for source in document.jobs:
            document.lane.cold.leave(source, id_)
            document.lane.ready.enter(source, id_)
        self._refuse_all(id_, document, now)

    def _done(self, lane: Lane, order: Sent, answer: Answer, now: float) -> None:
        document, job, state = self.documents.get(order.document), order.job, answer.state
        if document is None or order.name == b"drop" or document.lane is not lane:
            return
        if job is None:
            self._loaded(order, document, answer)
        elif state == b"heavy":
            self._banish(order.document, now)
        elif state in (b"gone", b"which"):
            self.forget(order.document)
            job.single = job.single or state == b"which"
        elif state != b"later":
            self._judged(order, document, job, answer, now)
            if state == b"broken" and order.document in self.documents:
                logger.warning("document %s: a record broke the CRDT core", label(order.document))
                self.forget(order.document)

    def _judged(self, order: Sent, document: Document, job: Job, answer: Answer, now: float) -> None:
        ticket, (state, reason, data) = job.todo.ticket, answer
        refused = "" if state in (b"ok", b"part") else reason
        if order.name == b"diff":
            document.answered = (order.data[0], data) if state == b"ok" else None
        else:
            document.answered = None
            if document.state is State.HELD:
                self._grow(document, sum(map(len, order.data)))
        if order.name != b"check":
            return self._finish(order.document, order.source, job, ValidateResult(ticket, 0, data, refused), now)
        good = job.good + int(data[0])
        if refused or good >= job.todo.records:
            return self._finish(order.document, order.source, job, ValidateResult(ticket, good, (), refused), now)
        job.good = good
        self._since[order.source] = now

    def _refuse_all(self, id_: bytes, document: Document, now: float) -> None:
        """Of a document that can't be loaded nothing can be told, and what is to be added can't be checked."""
        for source, jobs in tuple(document.jobs.items()):
            for job in tuple(jobs):
                self._finish(id_, source, job, ValidateResult(job.todo.ticket, failed=True), now)

    def _answered_before(self, id_: bytes, document: Document, source: Source, job: Job, now: float) -> bool:
        """Many clients that come with the same version get the same answer, which is computed once."""
        request = job.todo.request
        if not isinstance(request, DiffRequest) or document.answered is None or document.answered[0] != request.version:
            return False
        self._finish(id_, source, job, ValidateResult(job.todo.ticket, 0, document.answered[1]), now)
        return True

    def _finish(self, id_: bytes, source: Source, job: Job, answer: ValidateResult, now: float) -> None:
        document = self.documents[id_]
        jobs = document.jobs[source]
        jobs.remove(job)
        self._answer(answer)
        self.documents.move_to_end(id_)
        self._jobs[source] -= 1
        self._since[source] = now
        if not self._jobs[source]:
            del self._jobs[source], self._since[source]
        if not jobs:
            del document.jobs[source]
            document.lane.ready.leave(source, id_)
            document.lane.cold.leave(source, id_)
            if not document.jobs and document.state is State.COLD and not document.heal:
                del self.documents[id_]

    def _loaded(self, order: Sent, document: Document, answer: Answer) -> None:
        if answer.state != b"ok":
            logger.warning(
                "document %s: what the log has can't all be applied: %s", label(order.document), answer.reason
            )
            document.heal = True
            self.forget(order.document)
        elif order.name in (b"loaded", b"healed"):
            document.state, document.failures = State.HELD, 0

    def _make_room(self) -> None:
        """Throw away what was used longest ago, until the rest fits. It is asked for behind each batch, so where all
        fits it looks at none of them."""
        for id_ in tuple(self.documents) if self._is_full else ():
            if not self._is_full:
                return
            document = self.documents[id_]
            if not document.jobs and not document.busy and document.state not in (State.LOADING, State.FLUSHING):
                self.forget(id_)
                # What is known of one that can't be loaded as it is goes too: that is found out again.
                self.documents.pop(id_, None)

    @property
    def _is_full(self) -> bool:
        count = len(self.documents)
        return count > 1 and self.size + count * _EACH > self._limits.keep

    def _grow(self, document: Document, by: int) -> None:
        document.size += by
        self.size += by


def _sent(id_: bytes, document: Document, source: Source, job: Job, share: int) -> tuple[Sent, bool]:
    """The order for a job, or for the next slice of it; and whether that is all of it."""
    match job.todo.request:
        case Push(_, _, _, data):
            end = min(job.todo.records, job.good + (1 if job.single else share))
            return Sent(id_, b"check", data[job.good : end], source, job), end == job.todo.records
        case MergeRequest(_, _, update, may_append):
            return Sent(id_, b"merge" if may_append else b"cover", (update,), source, job), True
        case DiffRequest(_, _, version):
            return Sent(id_, b"diff", (version,), source, job), True


def read_answers(batch: Sequence[Sent], answers: Sequence[bytes]) -> Iterator[tuple[Sent, Answer]]:
    """Each order of a batch with its answer. Raises ValueError where they are no answers to these orders."""
    at = 0
    for order in batch:
        state, reason, count = answers[at : at + 3]
        answer = Answer(state, reason.decode(), tuple(answers[at + 3 : at + 3 + int(count)]))
        if len(answer.data) != int(count) or not _is_possible(order, answer):
            raise ValueError(f"{state!r} to {order.name!r}, with {count!r} pieces")
        yield order, answer
        at += 3 + len(answer.data)
    if at != len(answers):
        raise ValueError(f"{len(answers) - at} pieces are left over")


def _is_possible(order: Sent, answer: Answer) -> bool:
    """Whether an answer tells what its order asked for: it comes from where strangers' bytes may have had their way."""
    state, reason, data = answer
    if order.name == b"check" and state in (b"ok", b"part", b"bad", b"broken"):
        good, asked = (int(data[0]) if len(data) == 1 else -1), len(order.data)
        if state == b"part":
            return 0 < good < asked
        return good == asked if state == b"ok" else bool(reason) and 0 <= good < asked
    match state:
        case b"ok":
            return order.name == b"merge" or len(data) == (2 if order.name == b"diff" else 0)
        case b"which":
            return order.name == b"check" and len(order.data) > 1 and not data
        case b"gone":
            return order.job is not None and not data
        case b"later" | b"heavy":
            return order.job is not None and not data
        case b"bad":
            return (order.job is not None or order.name in (b"load", b"loaded")) and bool(reason) and not data
        case b"broken":
            return order.job is not None and bool(reason) and not data
        case _:
            return False


def read_slice(log: Iterator[bytes]) -> tuple[list[bytes], bool] | None:
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


def close_log(log: Iterator[bytes]) -> None:
    with suppress(LLMCRDTError):
        log.close()  # type: ignore[attr-defined]
