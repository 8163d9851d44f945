"""The work that workers get next, and what becomes of it when they answer, or end. No processes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcrdt.sync.messages import Push
from sync_server.core.limits import Limits
from sync_server.core.validation import (
    DiffRequest,
    Flush,
    Flushed,
    MergeRequest,
    ReplicaDropped,
    ValidateRequest,
    ValidateResult,
)
from sync_server.log.base import Origin
from sync_server.log.file import DATABASE
from sync_server.log.sqlite import SqliteStorage
from sync_server.workers import batches, documents, process, validator_worker
from sync_server.workers.documents import Lane, State
from sync_server.workers.log_slices import read_slice
from sync_server.workers.orders import Answer, Place, Sent, read_answers
from sync_server.workers.scheduler import ValidationScheduler

from ...hostile.updates import all_between_two, far_apart, text
from ..core.test_validation import edits, pieces
from ..yjs_peers import update

D, E, F, S = b"d" * 16, b"e" * 16, b"f" * 16, b"s" * 16


class Scheduled:
    """A scheduler over a real log that is empty where nobody wrote to it, and the rooms' part in it. Time stands still
    until somebody moves it."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        self.log = SqliteStorage(folder / DATABASE)
        self.now, self.ticket = 0.0, 0
        self.answers: dict[int, ValidateResult] = {}
        self.parts: dict[int, list[int]] = {}
        self.scheduler = ValidationScheduler(self.log.snapshots, Limits(**limits), self._take)
        self.quick, self.slow = self.scheduler.lanes
        self._flushes: list[Flush] = []

    def _take(self, answer: ValidateResult | Flush) -> None:
        if isinstance(answer, Flush):
            self._flushes.append(answer)
        else:
            assert answer.ticket not in self.answers
            parts = self.parts.setdefault(answer.ticket, [])
            parts.append(answer.good)
            assert answer.good or not answer.more
            if not answer.more:
                self.answers[answer.ticket] = answer._replace(good=sum(parts))

    def put(self, request: Push | DiffRequest | MergeRequest, source: int | str = 1) -> int:
        self.ticket += 1
        self.scheduler.put(ValidateRequest(self.ticket, request, "yjs", pieces(request), source), self.now)
        return self.ticket

    def push(self, document: bytes, *data: bytes, source: int | str = 1, n: int = 1) -> int:
        return self.put(Push(document, S, n, data), source)

    def batch(self, lane: Lane) -> list[Sent]:
        """A lane's worker's next work; what has to come first does."""
        for _ in range(4):
            if batch := self.scheduler.batch(lane, self.now):
                return batch
            flushes, self._flushes = self._flushes, []
            for flush in flushes:
                head = self.log.records.head(flush.document)
                self.scheduler.put(Flushed(flush.document, head.cursor.position if head else 0), self.now)
            if slice_ := self.scheduler.next_read(lane):
                assert self.scheduler.was_read(slice_, read_slice(slice_.log), self.now)
        return []

    def say(self, lane: Lane, batch: Sequence[Sent], seconds: float = 0.0, **states: Answer) -> None:
        """The worker says that all is well, but for orders by name."""
        said = [(order, states.get(order.name.decode(), _fine(order)), seconds) for order in batch]
        self.scheduler.answered(lane, said, self.now)

    def append(self, document: bytes, *data: bytes) -> None:
        first = self.log.records.last(document, S) + 1
        self.log.records.append(document, S, first, data, Origin("yjs", b"l" * 16))
        assert not self.log.records.commit()

    def run(self, most: int = 100) -> None:
        """Workers say that all is well, until nothing is left to do."""
        for _ in range(most):
            for lane in self.scheduler.lanes:
                if batch := self.batch(lane):
                    self.say(lane, batch)


def _fine(order: Sent) -> Answer:
    match order.name:
        case b"check" | b"merge":
            return Answer(b"ok", "", (b"%d" % len(order.data), b""))
        case b"diff":
            return Answer(b"ok", "", (b"update", b"version", b""))
        case _:
            return Answer(b"ok", "", ())


@pytest.fixture
def scheduled(tmp_path: Path) -> Iterator[Scheduled]:
    scheduled = Scheduled(tmp_path)
    with closing(scheduled.log):
        yield scheduled


def names(batch: Sequence[Sent]) -> list[tuple[bytes, bytes]]:
    return [(order.name, order.document[:1]) for order in batch]


def test_a_batch_has_a_slice_of_each_source_before_a_second_of_any(scheduled: Scheduled) -> None:
    scheduled.push(D, *edits(1), source=1)
    scheduled.push(E, *edits(1), source=2)
    scheduled.say(scheduled.quick, scheduled.batch(scheduled.quick))
    for n in range(300):
        scheduled.push(D, *edits(1), source=1, n=n + 1)
    scheduled.push(E, *edits(1), source=2)
    batch = scheduled.batch(scheduled.quick)
    assert {order.source for order in batch[:2]} == {1, 2}
    assert len(batch) == batches._BATCH


def test_a_long_push_is_cut_and_others_come_between(scheduled: Scheduled) -> None:
    records = [b"%d" % n for n in range(1_000)]
    long = scheduled.push(D, *records, source=1)
    others, seen = [], []
    for _ in range(40):
        others.append(scheduled.push(E, *edits(1), source=2))
        batch = scheduled.batch(scheduled.quick)
        seen += [record for order in batch if order.name == b"check" and order.document == D for record in order.data]
        scheduled.say(scheduled.quick, batch, 0.01)
        assert others[-1] in scheduled.answers, "one has its answer in each batch"
        if long in scheduled.answers:
            break
    assert scheduled.answers[long].good == 1_000 and len(others) > 1
    assert seen == records, "each is looked at once, in its order"
    assert len(scheduled.parts[long]) == len(others), "what has passed is told with each batch, and can be appended"


def test_what_a_worker_left_is_asked_for_again(scheduled: Scheduled) -> None:
    a, b, c = (
        scheduled.push(D, *edits(10)),
        scheduled.put(MergeRequest(D, "yjs", (b"m",))),
        scheduled.put(DiffRequest(D, "yjs", b"v")),
    )
    batch = scheduled.batch(scheduled.quick)
    later = Answer(b"later", "", ())
    scheduled.say(scheduled.quick, batch, check=Answer(b"part", "", (b"4", b"")), merge=later, diff=later)
    assert not scheduled.answers
    again = scheduled.batch(scheduled.quick)
    assert [order.name for order in again] == [b"check", b"merge", b"diff"] and len(again[0].data) == 6
    scheduled.say(scheduled.quick, again)
    assert scheduled.answers[a].good == 10 and {a, b, c} == scheduled.answers.keys()


def test_a_heavy_record_moves_its_document_to_the_slow_lane_where_it_is_alone(scheduled: Scheduled) -> None:
    heavy, other = scheduled.push(D, b"heavy"), scheduled.push(E, *edits(1), source=2)
    batch = scheduled.batch(scheduled.quick)
    scheduled.scheduler.answered(
        scheduled.quick,
        [(o, Answer(b"heavy", "", ()) if o.document == D and o.job else _fine(o), 0.0) for o in batch],
        0.0,
    )
    assert other in scheduled.answers and heavy not in scheduled.answers
    more = scheduled.push(D, *edits(1), source=2)
    assert names(scheduled.batch(scheduled.slow)) == [(b"loaded", b"d")]
    # The slow worker's doings meanwhile are none of the quick one's business.
    scheduled.push(E, *edits(1), source=2)
    quick = scheduled.batch(scheduled.quick)
    assert names(quick) == [(b"drop", b"d"), (b"check", b"e")]
    scheduled.say(scheduled.quick, quick)
    scheduled.say(scheduled.slow, [Sent(D, b"loaded", ())])
    scheduled.run()
    assert scheduled.answers.keys() >= {heavy, more}


def test_a_document_comes_back_when_it_was_not_slow_for_a_while(scheduled: Scheduled) -> None:
    scheduled.push(D, *edits(1))
    scheduled.say(scheduled.quick, scheduled.batch(scheduled.quick), seconds=1.0)
    document = scheduled.scheduler.documents.get(D)
    assert document is None or document.lane.slow
    scheduled.now = documents.PENANCE - 1
    scheduled.push(D, *edits(1))
    assert scheduled.scheduler.documents[D].lane.slow
    scheduled.run()
    scheduled.now = documents.PENANCE + 1
    scheduled.push(D, *edits(1))
    assert not scheduled.scheduler.documents[D].lane.slow
    scheduled.run()
    assert len(scheduled.answers) == 3


def overrun(scheduled: Scheduled, lane: Lane, place: Place) -> None:
    batch = scheduled.batch(lane)
    while not any(order.job for order in batch):
        scheduled.say(lane, batch)
        batch = scheduled.batch(lane)
    scheduled.scheduler.lost(lane, batch, place, True, scheduled.now)


def test_what_runs_out_of_time_is_to_blame_alone_and_tried_once_more_in_the_slow_lane(scheduled: Scheduled) -> None:
    first, bad, last = (scheduled.push(d, *edits(3), source=d[0]) for d in (D, E, F))
    # Three empty documents are loaded, and their records are checked behind that: order 4 is of the second.
    batch = scheduled.batch(scheduled.quick)
    at = next(place for place, order in enumerate(batch) if order.document == E and order.job)
    scheduled.scheduler.lost(scheduled.quick, batch, Place(at, 0, 3), True, 0.0)
    quick = scheduled.batch(scheduled.quick)
    assert {order.document for order in quick} == {D, F}, "the others go on where they were"
    scheduled.say(scheduled.quick, quick)
    assert scheduled.answers.keys() == {first, last}
    overrun(scheduled, scheduled.slow, Place(0, 2, 1))
    assert scheduled.answers[bad] == ValidateResult(bad, 2, (), "It would take the check too long.")
    assert scheduled.scheduler.oldest(100.0) == 0


def test_a_source_that_ran_out_of_time_brings_its_next_documents_to_the_slow_lane_at_once(scheduled: Scheduled) -> None:
    scheduled.push(D, *edits(1), source="slow one")
    overrun(scheduled, scheduled.quick, Place(1, 0, 1))
    scheduled.push(E, *edits(1), source="slow one")
    scheduled.push(F, *edits(1), source="other")
    assert scheduled.scheduler.documents[E].lane.slow
    assert not scheduled.scheduler.documents[F].lane.slow


def test_where_nobody_knows_how_far_a_worker_came_all_are_tried_alone_and_none_refused(scheduled: Scheduled) -> None:
    tickets = [scheduled.push(d, *edits(3), source=d[0]) for d in (D, E, F)]
    batch = scheduled.batch(scheduled.quick)
    scheduled.scheduler.lost(scheduled.quick, batch, None, False, 0.0)
    assert not scheduled.answers
    assert all(document.lane.slow for document in scheduled.scheduler.documents.values())
    scheduled.run()
    assert [scheduled.answers[ticket].good for ticket in tickets] == [3, 3, 3]


def test_a_log_with_a_large_update_is_loaded_in_the_slow_lane(scheduled: Scheduled) -> None:
    scheduled.append(D, b"x" * (documents.LARGE + 1))
    scheduled.append(E, b"x")
    asked = scheduled.put(DiffRequest(D, "yjs", b"\x00"))
    assert scheduled.batch(scheduled.quick) == []
    assert scheduled.scheduler.documents[D].lane.slow
    scheduled.run()
    assert asked in scheduled.answers
    scheduled.now = documents.PENANCE + 1
    scheduled.put(DiffRequest(D, "yjs", b"\x01"))
    assert scheduled.scheduler.documents[D].lane.slow, "it is held there"
    assert scheduled.scheduler.documents[D].state is State.HELD


def test_no_more_than_some_documents_are_loaded_at_one_time_and_each_source_has_its_turn(scheduled: Scheduled) -> None:
    for n in range(100):
        scheduled.put(DiffRequest(bytes([n]) * 16, "yjs", b"\x00"), source="greedy")
    scheduled.put(DiffRequest(b"z" * 16, "yjs", b"\x00"), source="modest")
    scheduled.scheduler.batch(scheduled.quick, 0.0)
    assert len(scheduled.quick.opening) == batches._OPENING
    assert b"z" * 16 in scheduled.quick.opening
    scheduled.run()
    assert len(scheduled.answers) == 101


def test_a_replica_that_is_dropped_while_it_is_in_hand_is_dropped_behind_that(scheduled: Scheduled) -> None:
    scheduled.push(D, *edits(1))
    scheduled.say(scheduled.quick, scheduled.batch(scheduled.quick))
    first = scheduled.push(D, *edits(100))
    batch = scheduled.batch(scheduled.quick)
    scheduled.scheduler.put(ReplicaDropped(D), 0.0)
    scheduled.say(scheduled.quick, batch, check=Answer(b"part", "", (b"40", b"")))
    again = scheduled.batch(scheduled.quick)
    assert names(again) == [(b"drop", b"d"), (b"loaded", b"d"), (b"check", b"d")]
    assert len(again[-1].data) == 60, "what passed was told, and is in the log before that is loaded"
    scheduled.say(scheduled.quick, again)
    assert scheduled.parts[first] == [40, 60]


def test_the_answer_of_a_replica_that_is_dropped_meanwhile_is_given_to_nobody_else(scheduled: Scheduled) -> None:
    first = scheduled.put(DiffRequest(D, "yjs", b"v"))
    batch = scheduled.batch(scheduled.quick)
    scheduled.scheduler.put(ReplicaDropped(D), 0.0)
    scheduled.say(scheduled.quick, batch)
    assert first in scheduled.answers
    again = scheduled.put(DiffRequest(D, "yjs", b"v"))
    batch = scheduled.batch(scheduled.quick)
    assert again not in scheduled.answers
    assert names(batch)[-1] == (b"diff", b"d")


def test_it_tells_for_how_long_somebody_waits_in_vain_but_not_for_his_own_queue(scheduled: Scheduled) -> None:
    for n in range(3):
        scheduled.push(D, *edits(200), source="busy", n=n + 1)
    for _ in range(5):
        scheduled.now += 4.0
        batch = scheduled.batch(scheduled.quick)
        scheduled.say(scheduled.quick, batch, check=Answer(b"part", "", (b"1", b"")))
        assert scheduled.scheduler.oldest(scheduled.now) == 0
    scheduled.push(E, *edits(1), source="waits")
    scheduled.now += 7.0
    assert scheduled.scheduler.oldest(scheduled.now) == 7.0
    scheduled.run()
    assert scheduled.scheduler.oldest(scheduled.now) == 0


# ---------------------------------------------------------------- against the worker's own code


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 30))
def test_everything_is_answered_once_and_in_order_whatever_workers_leave_or_die_of(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    """Workers with a clock of their own, that sometimes die, in the order of one peer's messages on a document."""
    rng = random.Random(seed)
    scheduled = Scheduled(tmp_path_factory.mktemp("scheduled"), keep=rng.choice((20_000, 1 << 20)))
    order: list[int] = []
    take = scheduled._take
    scheduled.scheduler._documents.answer = lambda answer: (  # type: ignore[assignment]
        order.append(answer.ticket) if isinstance(answer, ValidateResult) and not answer.more else None,
        take(answer),
    )
    clock = [0.0]

    def now() -> float:
        clock[0] += rng.choice((0.0, 0.001, 0.03))
        return clock[0]

    workers: dict[bool, validator_worker.ValidatorWorker] = {}
    made = edits(60)
    asked: dict[tuple[int, bytes], list[int]] = {}
    deaths, todo = rng.randint(0, 2), rng.randint(10, 60)
    while todo or any(document.jobs for document in scheduled.scheduler.documents.values()):
        if todo and rng.random() < 0.5:
            todo -= 1
            source, document = rng.choice((1, 2)), rng.choice((D, E, F))
            size = rng.choice((1, 1, 30))
            data = rng.choices(made, k=size) if rng.random() < 0.9 else [far_apart(700)]
            request = rng.choice((Push(document, S, 1, tuple(data)), MergeRequest(document, "yjs", tuple(data))))
            asked.setdefault((source, document), []).append(scheduled.put(request, source))
        lane = rng.choice(scheduled.scheduler.lanes)
        batch = scheduled.batch(lane)
        if not batch:
            continue
        heavy = 0.0 if lane.slow else 0.15
        worker = workers.setdefault(lane.slow, validator_worker.ValidatorWorker(1 << 20, heavy, clock=now))
        if deaths and rng.random() < 0.1:
            deaths -= 1
            del workers[lane.slow]
            at = rng.randrange(len(batch))
            scheduled.scheduler.lost(lane, batch, Place(at, 0, len(batch[at].data)), False, clock[0])
            continue
        orders = [p for s in batch for p in (s.name, s.kind, s.document, b"%d" % len(s.data), *s.data)]
        answers = list(worker.work(orders))
        scheduled.scheduler.answered(lane, [(o, a, 0.0) for o, a in read_answers(batch, answers)], clock[0])
    assert sorted(order) == list(range(1, scheduled.ticket + 1))
    assert not any(answer.refused or answer.failed for answer in scheduled.answers.values())
    for tickets in asked.values():
        assert [ticket for ticket in order if ticket in set(tickets)] == tickets
    assert scheduled.scheduler.idle
    for id_ in tuple(scheduled.scheduler.documents):
        scheduled.scheduler.forget(id_)
    assert scheduled.scheduler.size == 0
    scheduled.log.close()


def worker(heavy: float = 0.15, clock: Any = lambda: 0.0) -> validator_worker.ValidatorWorker:
    made = validator_worker.ValidatorWorker(1 << 20, heavy, clock=clock)
    assert made.obey(b"loaded", b"yjs", D, [text(8_000)])[0] == b"ok"
    return made


def test_a_quick_worker_does_not_begin_with_what_would_take_long() -> None:
    hard, (easy,) = far_apart(8_000), edits(1)
    quick = worker()
    before = quick.obey(b"diff", b"yjs", D, [b"\x00"])
    for order in (b"check", b"merge", b"cover"):
        assert quick.obey(order, b"yjs", D, [hard]) == [b"heavy", b"", b"0"]
    assert quick.obey(b"diff", b"yjs", D, [b"\x00"]) == before
    assert quick.obey(b"check", b"yjs", D, [easy, hard, easy]) == [b"part", b"", b"2", b"1", b""]
    assert quick.obey(b"check", b"yjs", D, [hard, easy]) == [b"heavy", b"", b"0"]
    assert quick.obey(b"check", b"yjs", D, [all_between_two(100, 9)]) == [b"ok", b"", b"2", b"1", b""]


def test_a_document_that_has_grown_full_of_blocks_makes_later_records_heavy() -> None:
    """Each is small; together they would take as long as one that is not."""
    quick, said = worker(), []
    for client in range(60):
        made = update(f"k{client}", 1)
        assert quick.obey(b"check", b"yjs", D, [made])[0] == b"ok"
        said.append(quick.obey(b"check", b"yjs", D, [far_apart(400, 200_000 + client)])[0])
    assert said[0] == b"ok" and said[-1] == b"heavy"


def test_what_a_batch_has_no_time_for_is_left_and_of_a_document_nothing_goes_past() -> None:
    times = iter([0.0, 0.0, 0.0, 0.0] + [1.0] * 100)
    one = worker(clock=lambda: next(times))
    (made,) = edits(1)
    pieces = [
        p
        for name in (b"check", b"check", b"diff")
        for p in (name, b"yjs", D, b"1", made if name != b"diff" else b"\x00")
    ]
    answers = list(one.work(pieces))
    assert answers[0] == b"ok" and answers[-3] == b"later"
    assert answers.count(b"later") >= 1
    calm = worker()
    cut = [
        b"check",
        b"yjs",
        D,
        b"2",
        made,
        far_apart(8_000),
        b"merge",
        b"yjs",
        D,
        b"1",
        made,
        b"check",
        b"yjs",
        E,
        b"1",
        made,
    ]
    assert [a for a in calm.work(cut) if len(a) > 2] == [b"part", b"later", b"gone"]


def test_how_far_a_worker_came_is_seen_by_others(tmp_path: Path) -> None:
    file = process.shared_file()
    if file < 0:
        pytest.skip("needs a file without a name")
    here, there = process.Progress(file), process.Progress(file)
    one = validator_worker.ValidatorWorker(1 << 20, progress=there, clock=count(0.0, 0.001).__next__)
    one.obey(b"loaded", b"yjs", D, [text(500)])
    made = edits(3)
    list(one.work([b"diff", b"yjs", D, b"1", b"\x00", b"check", b"yjs", D, b"4", *made, far_apart(400)]))
    assert here.place() == (1, 3, 1), "a record that takes some time is applied alone"
    assert 0 < here.seconds(0) < 0.1 and here.seconds(process.Progress.ORDERS) == 0.0
    with pytest.raises(ValueError, match="part"):
        list(read_answers([Sent(D, b"check", made)], [b"part", b"", b"2", b"3", b""]))
