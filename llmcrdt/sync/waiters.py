"""Who waits until all is in step, and for what still."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from ..exceptions import MalformedFrame, RelayRefused
from ..ids import DocumentId
from .local import LocalDocuments
from .messages import ErrorCode
from .outbox_marks import OutboxMark, end_of, still_waits
from .protocol import Connection


@dataclass(slots=True, eq=False)
class SyncWaiter:
    """Somebody waits until all is in step. ``done`` is called once, with None or with what rules it out.

    ``marks``: for each document what of its outbox has to be acknowledged. ``heard``: all that the relay had when the
    goal was set is here.
    """

    done: Callable[[RelayRefused | None], None]
    marks: dict[DocumentId, OutboxMark] = field(default_factory=dict)
    heard: bool = False


@dataclass(slots=True)
class _Barrier:
    number: int
    covers: frozenset[DocumentId]
    goals: list[SyncWaiter]


class SyncWaiters:
    """All that somebody waits for on one link. ``pending``, where it is asked for: documents that are not live yet."""

    def __init__(self, local: LocalDocuments) -> None:
        self._local = local
        self._goals: list[SyncWaiter] = []
        self._barrier: _Barrier | None = None

    def set(self, done: Callable[[RelayRefused | None], None]) -> SyncWaiter:
        """All that is local now durable on the relay, all that the relay has now here."""
        marks = {document: end_of(self._local, document) for document in self._local.documents()}
        goal = SyncWaiter(done, {document: mark for document, mark in marks.items() if mark.place})
        self._goals.append(goal)
        return goal

    def forget(self, goal: SyncWaiter) -> None:
        """Nobody waits for it any more."""
        if goal in self._goals:
            self._goals.remove(goal)

    def start_over(self) -> None:
        """The connection is gone, and with it the question that was asked there."""
        self._barrier = None

    def drop(self, document: DocumentId) -> None:
        """It is followed no longer."""
        for goal in self._goals:
            goal.marks.pop(document, None)

    def mark(self, document: DocumentId, only_new: bool = False) -> None:
        """Every goal waits for all that stands in this outbox now: after a refill it has what the old one had."""
        if self._goals and (end := end_of(self._local, document)).place:
            for goal in self._goals:
                if not (only_new and document in goal.marks):
                    goal.marks[document] = end

    def check(self, document: DocumentId) -> None:
        """Strike a document off the goals that it has met."""
        for goal in self._goals:
            if document in goal.marks:
                left = still_waits(self._local, document, goal.marks[document])
                if left is None:
                    del goal.marks[document]
                else:
                    goal.marks[document] = left

    def check_all(self) -> None:
        for marked in {marked for goal in self._goals for marked in goal.marks}:
            self.check(marked)

    def ask_again(self) -> None:
        """Something was just sent, or heard, of which only the answer to a barrier behind it tells what came of it."""
        for goal in self._goals:
            goal.heard = False
        if self._barrier is not None:
            self._barrier.goals.clear()

    def reached(self, number: int, documents: Collection[DocumentId], pending: Collection[DocumentId]) -> None:
        """A barrier was reached. It counts if no document was found or started over since it was sent."""
        barrier = self._barrier
        if barrier is None or barrier.number != number:
            raise MalformedFrame("REACHED came without BARRIER.")
        self._barrier = None
        if not pending and barrier.covers.issuperset(documents):
            for goal in barrier.goals:
                goal.heard = True
                # Outboxes can also shrink without an ack, where content was erased.
                for document in tuple(goal.marks):
                    self.check(document)

    def advance(
        self,
        connection: Connection | None,
        documents: Collection[DocumentId],
        pending: Collection[DocumentId],
        refused: Mapping[DocumentId, RelayRefused],
        held_back: bool = False,
    ) -> None:
        """Bring every goal as far as it can get now. ``refused``: what rules goals out, when all else is done.
        ``held_back``: something that is part of what is local could not be sent yet."""
        if not self._goals:
            return
        for goal in tuple(self._goals):
            if not held_back and (not goal.heard or goal.marks.keys() - refused.keys()):
                continue
            # Why a document is gone the library may say, which is on its way: then it is no refusal.
            found = (why for why in refused.values() if goal.heard or why.code != ErrorCode.GONE)
            if (why := next(found, None)) is not None:
                self._goals.remove(goal)
                goal.done(why)
        for goal in tuple(self._goals):
            if goal.heard and not goal.marks:
                self._goals.remove(goal)
                goal.done(None)
        unheard = [goal for goal in self._goals if not goal.heard]
        ready = connection is not None and connection.limits is not None and not pending and not held_back
        if unheard and connection and ready and self._barrier is None:
            self._barrier = _Barrier(connection.barrier(), frozenset(documents), unheard)
