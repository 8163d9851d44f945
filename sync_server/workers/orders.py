"""Orders for a worker that validates, and what it may answer (validator_worker.py)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llmcrdt.sync.messages import Push

from ..core.turns import Source
from ..core.validation import DiffRequest, MergeRequest, ValidateRequest, rest_of


@dataclass(slots=True)
class Job:
    """``todo``: of a push, the records that have not passed, and of a merge the updates; ``single``: it is tried one by
    one; ``deaths``: how often the worker died over one of them, the ``fatal``-th."""

    todo: ValidateRequest
    single: bool = False
    fatal: int = 0
    deaths: int = 0

    def advance(self, count: int) -> None:
        """The first records of the push, or updates of the merge, are answered."""
        request = self.todo.request
        assert isinstance(request, (Push, MergeRequest))
        self.todo = self.todo._replace(request=rest_of(request, count), records=self.todo.records - count)
        self.fatal -= count


@dataclass(slots=True)
class Sent:
    """One order in a worker's hands: for a job, or (None) a slice of a log, or a drop. ``kind``: the document's."""

    document: bytes
    name: bytes
    data: Sequence[bytes]
    source: Source = 0
    job: Job | None = None
    kind: bytes = b""


class Answer(NamedTuple):
    """The answer of a worker to one order (validator_worker.py)."""

    state: bytes
    reason: str
    data: tuple[bytes, ...]


class Place(NamedTuple):
    """The place in a batch where a worker was: the order, and so many ``records`` of it from the ``first`` on."""

    order: int
    first: int = 0
    records: int = 0


def next_order(id_: bytes, source: Source, job: Job, share: int) -> tuple[Sent, bool]:
    """The order for a job, or for the next slice of it; and whether that is all of it."""
    match job.todo.request:
        case Push(_, _, _, data):
            count = min(job.todo.records, 1 if job.single else share)
            return Sent(id_, b"check", data[:count], source, job), count == job.todo.records
        case MergeRequest(_, _, updates, may_append=True):
            count = min(job.todo.records, 1 if job.single else share)
            return Sent(id_, b"merge", updates[:count], source, job), count == job.todo.records
        case MergeRequest(_, _, updates):
            return Sent(id_, b"cover", updates, source, job), True
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
    if order.name in (b"check", b"merge") and state in (b"ok", b"part", b"bad", b"broken"):
        told = len(data) == 2 or (order.name == b"merge" and len(data) > 2)
        good, asked = (int(data[0]) if told else -1), len(order.data)
        if state == b"part":
            return 0 < good < asked
        return good == asked if state == b"ok" else bool(reason) and 0 <= good < asked
    match state:
        case b"ok":
            return len(data) == (3 if order.name == b"diff" else 0)
        case b"which":
            return order.name in (b"check", b"merge") and len(order.data) > 1 and not data
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
