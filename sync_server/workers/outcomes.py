"""The meaning of a worker's answers, and what its end means for the orders that it had in hand.

When a worker dies, the order it was at and those before it in the batch are suspects: they are tried again in the slow
lane, a record at a time. A record that kills the worker there three times is refused. An order that took too long is
to blame alone, and refused where that happens in the slow lane.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from llmcrdt.sync.messages import Push

from ..core.validation import MergeRequest, ValidateResult
from ..log.base import label
from .batches import TURN_COST
from .documents import Document, Documents, Lane, State
from .orders import Answer, Job, Place, Sent

logger = logging.getLogger(__name__)

_TRIES = 3
"""Times that a worker may die over something in the slow lane."""
_SLOW = 0.25
"""Seconds that one order took after which its document goes to the slow lane."""


class Outcomes:
    """Moves documents and jobs on after a batch."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def answered(self, lane: Lane, answers: Sequence[tuple[Sent, Answer, float]], now: float) -> None:
        """The answer of a worker to each order of its batch, and how many seconds each took."""
        lane.busy = False
        for order, _, seconds in answers:
            if order.name != b"drop":
                lane.ready.charge(order.source, seconds + TURN_COST)
                if order.job is None:
                    lane.cold.charge(order.source, seconds + TURN_COST)
                self._put_down(order)
        for order, answer, seconds in answers:
            self._handle_answer(lane, order, answer, now)
            if order.job is not None and seconds > _SLOW and not lane.slow:
                self._documents.banish(order.document, now)
        for order, _, _ in answers:
            document = self._documents.by_id.get(order.document)
            if document is not None and document.drop:
                self._documents.forget(order.document)
        self._documents.make_room()

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
        for id_ in [id_ for id_, document in self._documents.by_id.items() if document.lane is lane]:
            self._documents.forget(id_)
        lane.dropped.clear()
        for act in blamed:
            act()

    def _put_down(self, order: Sent) -> None:
        if order.document in self._documents.by_id:
            self._documents.by_id[order.document].busy -= 1

    def _blame(self, lane: Lane, order: Sent, place: Place | None, overran: bool, now: float) -> Callable[[], None]:
        """The fate of an order that a worker may have died of, when all is forgotten that the worker held."""
        id_, job = order.document, order.job
        document = self._documents.by_id.get(id_)
        if document is None:
            return lambda: None
        if not lane.slow:
            if job is not None and isinstance(job.todo.request, (Push, MergeRequest)):
                job.single = job.single or not overran
            sources = (order.source,) if overran else ()
            if overran:
                logger.warning("document %s: what was to be checked took too long", label(id_))
                return lambda: self._documents.banish(id_, now, *sources)
            return lambda: (
                self._documents.move(id_, document, self._documents.slow) if id_ in self._documents.by_id else None
            )
        if job is None:
            document.failures += 1
            if overran or document.failures >= _TRIES:
                logger.error("document %s can't be loaded", label(id_))
                # An order that takes too long on a busy machine may not another time.
                mark = "" if overran else "It makes the check fail when it is loaded."
                return lambda: self._documents.put_away(id_, document, now, mark)
            return lambda: None
        first, count = (place.first, place.records) if place else (0, len(order.data))
        if order.name == b"check" and count != 1 and len(order.data) > 1:
            job.single = True
            return lambda: None
        at = first if order.name == b"check" else 0
        job.deaths = job.deaths + 1 if job.fatal == at else 1
        job.fatal = at
        if overran or job.deaths >= _TRIES:
            why = "It would take the check too long." if overran else "It made the check fail."
            return lambda: self._documents.finish(
                id_, order.source, job, ValidateResult(job.todo.ticket, at, (), why), now
            )
        return lambda: None

    def _handle_answer(self, lane: Lane, order: Sent, answer: Answer, now: float) -> None:
        document, job, state = self._documents.by_id.get(order.document), order.job, answer.state
        if document is None or order.name == b"drop" or document.lane is not lane:
            return
        if job is None:
            self._handle_loaded(order, document, answer)
        elif state == b"heavy":
            self._documents.banish(order.document, now)
        elif state in (b"gone", b"which"):
            self._documents.forget(order.document)
            job.single = job.single or state == b"which"
        elif state != b"later":
            self._handle_verdict(order, document, job, answer, now)
            if state == b"broken" and order.document in self._documents.by_id:
                logger.warning("document %s: a record broke the CRDT core", label(order.document))
                self._documents.forget(order.document)

    def _handle_verdict(self, order: Sent, document: Document, job: Job, answer: Answer, now: float) -> None:
        ticket, (state, reason, data) = job.todo.ticket, answer
        refused = "" if state in (b"ok", b"part") else reason
        if order.name == b"diff":
            document.answered = (order.data[0], data) if state == b"ok" else None
        else:
            document.answered = None
            if document.state is State.HELD:
                self._documents.grow(document, sum(map(len, order.data)))
        if order.name not in (b"check", b"merge"):
            result = ValidateResult(ticket, 0, data[:2], refused, mark=b"".join(data[2:]))
            return self._documents.finish(order.document, order.source, job, result, now)
        result = ValidateResult(ticket, int(data[0]), data[2:], refused, mark=data[1])
        # Of a push nothing can be appended behind a record that is refused; of a merge each update is for itself.
        if result.done >= job.todo.records or (refused and order.name == b"check"):
            return self._documents.finish(order.document, order.source, job, result, now)
        job.advance(result.done)
        self._documents.report(order.source, result._replace(more=True), now)

    def _handle_loaded(self, order: Sent, document: Document, answer: Answer) -> None:
        if answer.state != b"ok":
            logger.warning(
                "document %s: what the log has can't all be applied: %s", label(order.document), answer.reason
            )
            document.heal = True
            self._documents.forget(order.document)
        elif order.name in (b"loaded", b"healed"):
            document.state, document.failures = State.HELD, 0
