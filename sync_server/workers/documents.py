"""The documents that workers validate for, and the state of each.

state      its worker    goes on with
COLD       has nothing   FLUSHING, when it is its turn: Flush is sent
FLUSHING   has nothing   LOADING, with Flushed: what was answered before is in the log
LOADING    has a part    HELD, after the last of its log
HELD       has it        COLD: it is dropped, it moves, the worker ends, or it makes room
AWAY       can't load it: nothing of   COLD, where its mark in the quarantine is lifted
           it is validated, or taken
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

from ..core.limits import Limits
from ..core.turns import Source, Turns
from ..core.validation import Flush, ValidateResult
from ..log.quarantine import Quarantine
from .log_slices import Slice
from .orders import Job

LARGE = 1 << 20
"""Bytes of an update of a log from which on it is loaded, and its document held, in the slow lane."""
PENANCE = 60.0
"""Seconds that a document stays there after it was slow last, and a source's documents after the quick worker was ended
over one of them."""
_KNOWN = 10_000
"""Documents and sources that are known to be slow."""
_EACH = 4 << 10
"""The price of a document in ``keep`` beside its bytes, so that the smallest are not held without end."""


class State(Enum):
    COLD = auto()
    FLUSHING = auto()
    LOADING = auto()
    HELD = auto()
    AWAY = auto()


@dataclass(slots=True)
class Document:
    """``busy``: how many of its orders the worker has in hand; ``drop``: then it is dropped. ``opener``: on whose time
    it is loaded; ``marked``: it is in quarantine."""

    lane: Lane
    kind: bytes = b""
    state: State = State.COLD
    jobs: dict[Source, deque[Job]] = field(default_factory=dict)
    opener: Source = 0
    log: Iterator[bytes] | None = None
    heal: bool = False
    failures: int = 0
    marked: bool = False
    size: int = 0
    busy: int = 0
    drop: bool = False
    answered: tuple[bytes, tuple[bytes, ...]] | None = None


class Lane:
    """The documents and turns of one worker. ``opening``: documents that are flushed or loaded; ``slice``: the one that
    is read, or is there and was not handed over."""

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


class Documents:
    """All documents that something waits for or a worker holds, by id, those used last at the end. ``answer`` gets
    results, and Flush. ``quarantine``: the documents that nobody is to load."""

    def __init__(
        self, limits: Limits, answer: Callable[[ValidateResult | Flush], None], quarantine: Quarantine
    ) -> None:
        self._limits, self.answer, self._quarantine = limits, answer, quarantine
        self.quick, self.slow = Lane(slow=False), Lane(slow=True)
        self.by_id: OrderedDict[bytes, Document] = OrderedDict()
        self.closed: list[Iterator[bytes]] = []
        """Logs that nobody needs any more."""
        self.size = 0
        """Bytes of updates of all documents."""
        # Until when documents, and all that these sources write to, belong to the slow lane.
        self._slow_until: dict[bytes | Source, float] = {}
        # Since when a source waits that something of it moves.
        self._since: dict[Source, float] = {}
        self._jobs: Counter[Source] = Counter()

    @property
    def idle(self) -> bool:
        """Whether nobody waits for anything."""
        return not self._jobs and not self._since

    @property
    def held(self) -> int:
        """How many documents are in memory."""
        return sum(document.state is State.HELD for document in self.by_id.values())

    def oldest(self, now: float) -> float:
        """For how many seconds somebody who waits has seen nothing of his being done."""
        return now - min(self._since.values(), default=now)

    def report(self, source: Source, part: ValidateResult, now: float) -> None:
        """Some records of a push have passed."""
        self.answer(part)
        self._since[source] = now

    # ---------------------------------------------------------------- jobs

    def enqueue(self, id_: bytes, kind: str, source: Source, job: Job, now: float) -> None:
        document = self.by_id.get(id_)
        if document is None:
            document = self.by_id[id_] = Document(self.quick, kind.encode())
            if id_ in self._quarantine:
                document.state, document.marked = State.AWAY, True
        elif document.marked and id_ not in self._quarantine:
            document.state, document.marked, document.failures = State.COLD, False, 0
        if not document.busy:
            slow = max(self._slow_until.get(key, now) for key in (id_, source)) > now
            if slow:
                self.move(id_, document, self.slow)
            elif document.lane.slow and not document.jobs and document.size <= LARGE:
                self.move(id_, document, self.quick)
        if not document.jobs and not document.busy and document.kind != kind.encode():
            self.forget(id_)
            document.kind = kind.encode()
        self.by_id[id_] = document
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

    def finish(self, id_: bytes, source: Source, job: Job, answer: ValidateResult, now: float) -> None:
        document = self.by_id[id_]
        jobs = document.jobs[source]
        jobs.remove(job)
        self.answer(answer)
        self.by_id.move_to_end(id_)
        self._jobs[source] -= 1
        self._since[source] = now
        if not self._jobs[source]:
            del self._jobs[source], self._since[source]
        if not jobs:
            del document.jobs[source]
            document.lane.ready.leave(source, id_)
            document.lane.cold.leave(source, id_)
            if not document.jobs and document.state is State.COLD and not document.heal:
                del self.by_id[id_]

    def _refuse_all(self, id_: bytes, document: Document, now: float) -> None:
        """Of a document that can't be loaded nothing can be told, and what is to be added can't be checked."""
        for source, jobs in tuple(document.jobs.items()):
            for job in tuple(jobs):
                self.finish(id_, source, job, ValidateResult(job.todo.ticket, failed=True), now)

    # ---------------------------------------------------------------- states

    def forget(self, id_: bytes) -> None:
        """Its replica is no good any more."""
        document = self.by_id[id_]
        lane = document.lane
        if document.log is not None:
            self.closed.append(document.log)
            if lane.slice is not None and lane.slice.log is document.log:
                lane.slice = None
        document.log, document.answered, document.drop = None, None, False
        lane.opening.pop(id_, None)
        self.grow(document, -document.size)
        if document.state in (State.HELD, State.LOADING):
            lane.dropped[id_] = None
        if document.state is not State.AWAY:
            document.state = State.COLD
            for source in document.jobs:
                lane.ready.leave(source, id_)
                lane.cold.enter(source, id_)
            if not document.jobs and not document.heal:
                del self.by_id[id_]

    def move(self, id_: bytes, document: Document, lane: Lane) -> None:
        before = document.lane
        if before is lane:
            return
        self.forget(id_)
        document.lane = lane
        for source in document.jobs:
            before.ready.leave(source, id_)
            before.cold.leave(source, id_)
            self._line_up(id_, document, source)

    def banish(self, id_: bytes, now: float, *sources: Source) -> None:
        """To the slow lane, for a while."""
        for key in (id_, *sources):
            self._slow_until[key] = now + PENANCE
        if len(self._slow_until) > _KNOWN:
            self._slow_until = {key: until for key, until in self._slow_until.items() if until > now}
            while len(self._slow_until) > _KNOWN:
                del self._slow_until[next(iter(self._slow_until))]
        if id_ in self.by_id:
            self.move(id_, self.by_id[id_], self.slow)

    def put_away(self, id_: bytes, document: Document, now: float, mark: str = "") -> None:
        """``mark``: why it goes into quarantine; else it is tried again when there was no room for it, or after a
        restart."""
        if mark:
            self._quarantine.put(id_, mark)
            document.marked = True
        self.by_id[id_] = document
        document.state = State.AWAY
        for source in document.jobs:
            document.lane.cold.leave(source, id_)
            document.lane.ready.enter(source, id_)
        self._refuse_all(id_, document, now)

    def make_room(self) -> None:
        """Throw away what was used longest ago, until the rest fits. It is asked for behind each batch, so where all
        fits it looks at none of them."""
        for id_ in tuple(self.by_id) if self._is_full else ():
            if not self._is_full:
                return
            document = self.by_id[id_]
            if not document.jobs and not document.busy and document.state not in (State.LOADING, State.FLUSHING):
                self.forget(id_)
                # Knowledge of one that can't be loaded as it is goes too: that is found out again.
                self.by_id.pop(id_, None)

    @property
    def _is_full(self) -> bool:
        count = len(self.by_id)
        return count > 1 and self.size + count * _EACH > self._limits.keep

    def grow(self, document: Document, by: int) -> None:
        document.size += by
        self.size += by
