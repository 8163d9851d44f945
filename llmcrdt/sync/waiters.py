"""Waiting until all is in step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from ..exceptions import MalformedFrame, RelayRefused
from ..ids import DocumentId
from .local import Outbox
from .messages import ErrorCode
from .outbox_marks import OutboxMark, end_of, ends_of, still_waits
from .protocol import Connection


@dataclass(slots=True, eq=False)
class SyncWaiter:
    """Somebody waits until all is in step. ``done`` is called once, with None or with the refusal that rules it out.

    ``marks``: for each document, how much of its outbox has to be acknowledged. ``received_all``: all that the relay
    had when the wait began is here.
    """

    done: Callable[[RelayRefused | None], None]
    marks: dict[DocumentId, OutboxMark] = field(default_factory=dict)
    received_all: bool = False


@dataclass(slots=True)
class _Barrier:
    """One that was sent. ``covers``: the documents that were open then. ``waiters``: those whom its answer concerns."""

    number: int
    covers: frozenset[DocumentId]
    waiters: list[SyncWaiter]


class SyncWaiters:
    """All who wait on one link. ``pending``, where it is asked for: documents that are not live yet."""

    def __init__(self, local: Outbox) -> None:
        self._local = local
        self._waiters: list[SyncWaiter] = []
        self._barrier: _Barrier | None = None

    def add(self, done: Callable[[RelayRefused | None], None]) -> SyncWaiter:
        """All that is local now durable on the relay, all that the relay has now here."""
        waiting = ends_of(self._local)
        waiter = SyncWaiter(
            done, {document: waiting[document] for document in self._local.documents() if document in waiting}
        )
        self._waiters.append(waiter)
        return waiter

    def remove(self, waiter: SyncWaiter) -> None:
        """Nobody waits for it any more."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def start_over(self) -> None:
        """The connection is gone, and with it the question that was asked there."""
        self._barrier = None

    def drop(self, document: DocumentId) -> None:
        """It is followed no longer."""
        for waiter in self._waiters:
            waiter.marks.pop(document, None)

    def mark(self, document: DocumentId) -> None:
        """Everybody waits for all that stands in this outbox now: after a refill it has what the old one had."""
        if self._waiters:
            end = end_of(self._local, document)
            for waiter in self._waiters:
                if end.place:
                    waiter.marks[document] = end
                else:
                    waiter.marks.pop(document, None)

    def mark_new(self, documents: Collection[DocumentId]) -> None:
        """The same for documents that are followed from now on, where nobody waits for them yet."""
        if self._waiters and documents:
            waiting = ends_of(self._local)
            for document in documents:
                if document in waiting:
                    for waiter in self._waiters:
                        waiter.marks.setdefault(document, waiting[document])

    def check(self, document: DocumentId) -> None:
        """Nobody waits any more for a document of which enough is acknowledged."""
        for waiter in self._waiters:
            if document in waiter.marks:
                left = still_waits(self._local, document, waiter.marks[document])
                if left is None:
                    del waiter.marks[document]
                else:
                    waiter.marks[document] = left

    def check_all(self) -> None:
        for marked in {marked for waiter in self._waiters for marked in waiter.marks}:
            self.check(marked)

    def ask_again(self) -> None:
        """Something was just sent, or came in, whose outcome only the answer to a later barrier tells."""
        for waiter in self._waiters:
            waiter.received_all = False
        if self._barrier is not None:
            self._barrier.waiters.clear()

    def reached(self, number: int, documents: Collection[DocumentId], pending: Collection[DocumentId]) -> None:
        """A barrier was reached. It counts if no document was found or started over since it was sent."""
        barrier = self._barrier
        if barrier is None or barrier.number != number:
            raise MalformedFrame("REACHED came without BARRIER.")
        self._barrier = None
        if not pending and barrier.covers.issuperset(documents):
            for waiter in barrier.waiters:
                waiter.received_all = True
                # Outboxes can also shrink without an ack, where content was erased.
                for document in tuple(waiter.marks):
                    self.check(document)

    def advance(
        self,
        connection: Connection | None,
        documents: Collection[DocumentId],
        pending: Collection[DocumentId],
        refused: Mapping[DocumentId, RelayRefused],
        held_back: bool = False,
    ) -> None:
        """Bring everybody as far as they can get now. ``refused``: the refusals that end a wait, when all else is done.
        ``held_back``: something that is part of what is local could not be sent yet."""
        if not self._waiters:
            return
        for waiter in tuple(self._waiters):
            if not held_back and (not waiter.received_all or waiter.marks.keys() - refused.keys()):
                continue
            # A library update that is still on its way may explain why a document is gone: then it is no refusal.
            found = (why for why in refused.values() if waiter.received_all or why.code != ErrorCode.GONE)
            if (why := next(found, None)) is not None:
                self._waiters.remove(waiter)
                waiter.done(why)
        for waiter in tuple(self._waiters):
            if waiter.received_all and not waiter.marks:
                self._waiters.remove(waiter)
                waiter.done(None)
        waiting = [waiter for waiter in self._waiters if not waiter.received_all]
        ready = connection is not None and connection.limits is not None and not pending and not held_back
        if waiting and connection and ready and self._barrier is None:
            self._barrier = _Barrier(connection.barrier(), frozenset(documents), waiting)
