"""Records of kinds that have a backend are validated before they are appended. No threads: the validator gets
ValidateRequest and answers ValidateResult.

The validator holds *replicas* of documents. Push: its records are applied to the replica; those that can't be are
refused. MergeRequest: updates of a client that knows no records are applied, together where that can be; the document's
own updates become records. DiffRequest: the update that somebody at a version lacks.

Messages of one peer about one document keep their order, and a peer that leaves or asks for a barrier waits for the
messages that it sent before. Everything else goes past messages that are under way.

A replica has to hold what the log holds, no more. If something that was applied doesn't get into the log,
ReplicaDropped says so, and answers that rest on it are asked for again. To load a replica, the validator first sends
Flush through the rooms: when Flushed comes back, all that it answered before is in the log.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import NamedTuple, TypeAlias

from llmcrdt.crdt.registry import kinds
from llmcrdt.sync.messages import (
    Barrier,
    Close,
    Data,
    Delete,
    Discard,
    Fetch,
    Fold,
    Offer,
    Open,
    Presence,
    Push,
    Record,
)

from .turns import Source

Peer: TypeAlias = int

CHECKED_KINDS = kinds()
"""Kinds of documents whose records can be checked."""


@dataclass(frozen=True, slots=True)
class DiffRequest:
    """Somebody at ``version`` asks for what it lacks of the document, in the words of the CRDT's own sync protocol
    (``Backend.reply``). DiffResponse is the answer."""

    document: bytes
    kind: str
    version: bytes


@dataclass(frozen=True, slots=True)
class DiffResponse:
    """The answer to DiffRequest: an update, or a message of the CRDT's own sync protocol, and the version of the
    document itself."""

    document: bytes
    update: bytes
    version: bytes


@dataclass(frozen=True, slots=True)
class MergeRequest:
    """Updates to be merged into the document, one after the other. If the peer may not append, it is one, which must
    say nothing new. ``question``: the version of a DiffRequest that came with them, and is asked after them."""

    document: bytes
    kind: str
    updates: tuple[bytes, ...]
    may_append: bool = True
    question: bytes = b""

    @property
    def size(self) -> int:
        return sum(map(len, self.updates))


@dataclass(frozen=True, slots=True)
class Updates:
    """Records for a peer that knows updates only, without its own. ``mark``: the document's mark after them
    (``Backend.mark``)."""

    document: bytes
    records: Sequence[Record]
    mark: bytes


@dataclass(frozen=True, slots=True)
class PresenceQuery:
    """A question: who is present in the document?"""

    document: bytes


Request: TypeAlias = (
    Open
    | Close
    | Push
    | Barrier
    | Fold
    | Presence
    | Delete
    | Offer
    | Data
    | Fetch
    | Discard
    | DiffRequest
    | MergeRequest
    | PresenceQuery
)
"""The messages that a peer may send to the rooms."""


class Received(NamedTuple):
    """A message of a peer; ``size`` is the frame's, for whoever counts what is still in progress."""

    peer: Peer
    message: Request
    size: int = 0


class Left(NamedTuple):
    peer: Peer


class ValidateRequest(NamedTuple):
    """Validate a message; ValidateResult with the same ticket is the answer. ``kind``: the document's. Of a Push the
    first ``records``, of a MergeRequest all its updates. ``source``: on whose time."""

    ticket: int
    request: Push | DiffRequest | MergeRequest
    kind: str
    records: int = 0
    source: Source = 0


class ValidateResult(NamedTuple):
    """``good``: how many records of a Push, or updates of a merge, passed, from the first on that was not answered
    before. ``data``: what is to be appended of a merge, or the update and the version of a diff. ``mark``: the
    document's after that (``Backend.mark``). ``refused``: why the
    next one did not pass. ``failed``: the document can't be loaded, so nothing that comes for it can be validated.
    ``more``: the rest is validated still, and has the same ticket."""

    @property
    def done(self) -> int:
        """How many records or updates are answered with this."""
        return self.good + bool(self.refused)

    ticket: int
    good: int = 0
    data: tuple[bytes, ...] = ()
    refused: str = ""
    failed: bool = False
    more: bool = False
    mark: bytes = b""


class ReplicaDropped(NamedTuple):
    """The replica of a document holds what the log does not: throw it away."""

    document: bytes


class Flush(NamedTuple):
    """The validator asks to be told when all that it answered before is in the log."""

    document: bytes


class Flushed(NamedTuple):
    """The answer: the log goes up to ``position`` now."""

    document: bytes
    position: int


class Job(NamedTuple):
    """``epoch``: how often the replica was dropped before; ``records``: how many records or updates are validated;
    ``source``: on whose time; ``stale``: the answer rests on a replica that was dropped since."""

    event: Received
    epoch: int
    records: int
    source: Source
    stale: bool = False

    def divide(self, count: int) -> tuple[Job, Job]:
        """The first records of a Push, or updates of a merge, and the rest, each with its part of the frame's size."""
        peer, message, size = self.event
        if isinstance(message, Push):
            part = size * count // len(message.data)
            begin: Push | MergeRequest = replace(message, data=message.data[:count])
        else:
            assert isinstance(message, MergeRequest)
            part = size * count // len(message.updates)
            begin = replace(message, updates=message.updates[:count])
        return self._replace(event=Received(peer, begin, part), records=count), self._replace(
            event=Received(peer, rest_of(message, count), size - part), records=self.records - count
        )


@dataclass(slots=True)
class _PeerQueue:
    """One peer's messages: how many of each document are being validated, and those that wait for them."""

    checked: Counter[bytes] = field(default_factory=Counter)
    held: deque[Received | Left] = field(default_factory=deque)


class Validation:
    """``always``: all records of CHECKED_KINDS are checked; else only those of documents that somebody follows who
    knows no records. ``available`` False: there is no validator, and nothing is checked."""

    def __init__(self, available: bool, always: bool) -> None:
        self.available, self._always = available, available and always
        self._tickets = count(1)
        self._jobs: dict[int, Job] = {}
        self._queues: dict[Peer, _PeerQueue] = {}
        # Per document: jobs under way, followers, and how often its replica was dropped meanwhile.
        self._busy: Counter[bytes] = Counter()
        self._followers: Counter[bytes] = Counter()
        self._epochs: Counter[bytes] = Counter()
        # Of sessions with records under way: how many jobs, and the n of the last.
        self._names: dict[tuple[bytes, bytes], tuple[int, int]] = {}
        self._taken: list[Job] = []

    @property
    def busy(self) -> bool:
        """Whether something is being validated."""
        return bool(self._jobs)

    # ---------------------------------------------------------------- order

    def holds(self, event: Received | Left) -> bool:
        """Whether an event has to wait for what its peer sent before; then ``release`` gives it out."""
        queue = self._queues.get(event.peer)
        if queue is None or not _waits(event, queue, queue.held):
            return False
        queue.held.append(event)
        return True

    def waiting(self, peer: Peer) -> int:
        """How many messages of a peer are held."""
        return len(self._queues[peer].held) if peer in self._queues else 0

    def release(self, peer: Peer) -> Iterator[Received | Left]:
        """The messages that need not wait any longer. Deal with each before the next is taken."""
        queue = self._queues.get(peer)
        if queue is None:
            return
        held, queue.held = queue.held, deque()
        for event in held:
            if _waits(event, queue, queue.held):
                queue.held.append(event)
            elif self._queues.get(peer) is queue:
                yield event
        if not queue.checked and not queue.held and self._queues.get(peer) is queue:
            del self._queues[peer]

    def leave(self, peer: Peer) -> None:
        """A peer is gone: what it sent and was not dealt with is not any more."""
        self._queues.pop(peer, None)

    # ---------------------------------------------------------------- validation

    def wants(self, kind: str, document: bytes) -> bool:
        """Whether records of this document are to be checked."""
        return self.available and kind in CHECKED_KINDS and self._is_followed(document)

    def _is_followed(self, document: bytes) -> bool:
        """Whether records of this document are checked, where their kind can be."""
        return self._always or document in self._followers or document in self._busy

    def last(self, document: bytes, session: bytes) -> int:
        """The n of the last record of a session that is under way; 0 if none is."""
        return self._names.get((document, session), (0, 0))[1]

    def check(self, event: Received, kind: str, records: int = 0, source: Source = 0) -> ValidateRequest:
        """Have a message about a document of this kind validated, on somebody's time; of a Push so many records."""
        message = event.message
        assert isinstance(message, (Push, DiffRequest, MergeRequest))
        if isinstance(message, MergeRequest):
            records = len(message.updates)
        document, ticket = message.document, next(self._tickets)
        self._jobs[ticket] = Job(event, self._epochs[document], records, source)
        self._busy[document] += 1
        self._queues.setdefault(event.peer, _PeerQueue()).checked[document] += 1
        if isinstance(message, Push):
            jobs, last = self._names.get((document, message.session), (0, 0))
            self._names[document, message.session] = (jobs + 1, max(last, message.n + records - 1))
        return ValidateRequest(ticket, message, kind, records, source)

    def document(self, answer: ValidateResult) -> bytes:
        """The document that an answer is about; empty where its message was forgotten."""
        job = self._jobs.get(answer.ticket)
        return job.event.message.document if job else b""  # type: ignore[union-attr]

    def take(self, answer: ValidateResult) -> tuple[Job, ValidateRequest | None] | None:
        """The message that was validated, or the part of it that was. With ValidateRequest: the answer rests on a
        replica that was dropped since, so it is to be validated again. None where it was forgotten."""
        job = self._jobs.pop(answer.ticket, None)
        if job is None:
            return None
        if answer.more:
            job, self._jobs[answer.ticket] = job.divide(answer.done)
        self._taken.append(job)
        message = job.event.message
        assert isinstance(message, (Push, DiffRequest, MergeRequest))
        job = job._replace(stale=job.epoch != self._epochs[message.document])
        again = None
        if job.stale and job.event.peer in self._queues and not isinstance(message, Push):
            again = self.check(job.event, message.kind, source=job.source)
        if not answer.more:
            self._finish(job.event.peer, message)
        return job, again

    def drop(self, document: bytes) -> ReplicaDropped:
        if document in self._busy:
            self._epochs[document] += 1
        return ReplicaDropped(document)

    def follow(self, document: bytes) -> None:
        self._followers[document] += 1

    def unfollow(self, document: bytes) -> ReplicaDropped | None:
        """Somebody follows it no longer. If others' records are not checked, its replica is no use any more."""
        _less(self._followers, document)
        return None if self.available and self._is_followed(document) else self.drop(document)

    def settle(self) -> None:
        """The commit of this step is through."""
        self._taken.clear()

    def undo(self, failed: Collection[bytes]) -> tuple[list[Peer], list[ReplicaDropped]]:
        """The commit of this step failed for these documents: whose messages are lost with it, and which replicas are
        wrong."""
        taken = [job for job in self._taken if job.event.message.document in failed]  # type: ignore[union-attr]
        self._taken.clear()
        documents = dict.fromkeys(job.event.message.document for job in taken)  # type: ignore[union-attr]
        return [job.event.peer for job in taken], [self.drop(document) for document in documents]

    def forget(self, todo: ValidateRequest) -> None:
        """It was never handed out."""
        if (job := self._jobs.pop(todo.ticket, None)) is not None:
            self._finish(job.event.peer, todo.request)

    def _finish(self, peer: Peer, message: Push | DiffRequest | MergeRequest) -> None:
        document = message.document
        if _less(self._busy, document) == 0:
            self._epochs.pop(document, None)
        if peer in self._queues:
            _less(self._queues[peer].checked, document)
        if isinstance(message, Push):
            jobs, last = self._names[document, message.session]
            if jobs == 1:
                del self._names[document, message.session]
            else:
                self._names[document, message.session] = (jobs - 1, last)


def rest_of(message: Push | MergeRequest, count: int) -> Push | MergeRequest:
    """A push without its first records, or a merge without its first updates."""
    if isinstance(message, Push):
        return replace(message, n=message.n + count, data=message.data[count:])
    return replace(message, updates=message.updates[count:])


def _waits(event: Received | Left, queue: _PeerQueue, before: deque[Received | Left]) -> bool:
    if isinstance(event, Left) or isinstance(event.message, Barrier):
        return bool(queue.checked or before)
    document = event.message.document
    if any(
        isinstance(e, Received) and not isinstance(e.message, Barrier) and e.message.document == document
        for e in before
    ):
        return True
    return document in queue.checked and not isinstance(event.message, (Push, DiffRequest, MergeRequest))


def _less(counter: Counter[bytes], key: bytes) -> int:
    """One less; what comes to nothing is gone."""
    counter[key] -= 1
    left = counter[key]
    if left <= 0:
        del counter[key]
    return left
