"""Keeps the documents of one device in step with one relay: LocalDocuments on one side, frames on the other.

No sockets and no clock, so a test can drive it frame by frame. ``connected`` begins a connection, ``disconnected``
ends it; all that has to last in between is in LocalDocuments. The phases of a document on one connection::

    waiting -> opening -> live                       its cursor is a place in the relay's log
                       -> filling -> live            it is not: take the whole log, then send what that lacks
    any     -> refused                               the relay, or a limit, rules it out; the others go on
"""

from __future__ import annotations

import base64
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import lru_cache
from typing import NamedTuple

from ..exceptions import MalformedFrame, RelayRefused
from ..ids import DocumentId, SessionId, document_bytes, document_id, text_of
from . import protocol, wire
from .deletions import Deletions
from .local import LocalDocuments, Record, Waiting
from .marks import Mark, end_of, still_waits
from .wire import ErrorCode

logger = logging.getLogger(__name__)

REFILL_DELAY = 2.0
"""Seconds; the longest pause before a relay that lost data is filled again."""
FILLING = 8
"""Documents taken from position 0 at one time: their logs are held in memory until the end is reached."""
BATCH = 64 << 10
"""Bytes of data in one PUSH, unless a single record is larger."""


class _Phase(Enum):
    WAITING = auto()
    OPENING = auto()
    FILLING = auto()
    LIVE = auto()
    REFUSED = auto()


@dataclass(slots=True)
class _Document:
    """One document on this connection. ``lossy``: should the relay not know the cursor, then it lost
    something. ``opening``: names the last OPEN. ``pushed``: the place in the outbox up to which all was sent."""

    id: DocumentId
    raw: bytes
    phase: _Phase = _Phase.WAITING
    lossy: bool = False
    opening: int = 0
    log: list[bytes] = field(default_factory=list)
    pushed: int = 0
    position: int = 0
    restarted: bool = False
    mute: bool = False
    hushed: bool = False


class Progress(NamedTuple):
    """How far a link has come. ``documents`` of ``of_documents`` are caught up with, or refused; both are 0 while there
    is no connection. Records ``received`` and ``sent`` (acknowledged) since the link was made, and with those that are
    known to be still to come or to go: of how many. ``bytes_waiting``: what is still to go, in bytes."""

    documents: int = 0
    of_documents: int = 0
    received: int = 0
    of_received: int = 0
    sent: int = 0
    of_sent: int = 0
    bytes_waiting: int = 0


@dataclass(slots=True, eq=False)
class Goal:
    """Somebody waits until all is in step. ``done`` is called once, with None or with what rules it out.

    ``marks``: for each document what of its outbox has to be acknowledged. ``heard``: all that the relay had when the
    goal was set is here.
    """

    done: Callable[[RelayRefused | None], None]
    marks: dict[DocumentId, Mark] = field(default_factory=dict)
    heard: bool = False


@dataclass(slots=True)
class _Fold:
    """Somebody wants a document's log folded, as soon as all of its outbox up to ``mark`` is acknowledged.

    ``answers``: how many are still to come on this connection; only the last one speaks of all that is asked.
    """

    mark: Mark
    done: list[Callable[[int], None]]
    asked: bool = False
    answers: int = 0

    def start_over(self) -> None:
        self.asked, self.answers = False, 0


@dataclass(slots=True)
class _Barrier:
    number: int
    covers: frozenset[DocumentId]
    goals: list[Goal]


class Follower:
    """``random()`` gives floats from 0 to 1. One thread uses it. Exceptions of LocalDocuments pass through."""

    def __init__(self, local: LocalDocuments, random: Callable[[], float], agent: str = "", token: bytes = b"") -> None:
        self._local, self._random, self._agent, self._token = local, random, agent, token
        self._connection: protocol.Connection | None = None
        self._documents: dict[DocumentId, _Document] = {}
        # Documents that are not live yet; of those, the ones taken from position 0 just now, and the ones to come.
        self._pending: set[DocumentId] = set()
        self._filling: set[DocumentId] = set()
        self._waiting: deque[_Document] = deque()
        self._stalled: dict[DocumentId, None] = {}
        self._openings = 0
        self._goals: list[Goal] = []
        self._barrier: _Barrier | None = None
        self._timers: list[tuple[float, DocumentId, int]] = []
        self._folds: dict[DocumentId, _Fold] = {}
        self._received = self._sent = 0
        self._deletions = Deletions(local)
        self.refused: dict[DocumentId, RelayRefused] = {}
        """Documents that are not followed on this connection, or not with all that is here, and why."""
        self.retry_after = 0.0
        """Seconds that the relay asked to wait, when it ended the connection."""

    # ---------------------------------------------------------------- for the shell

    def connected(self) -> None:
        """A new connection is there; ``take`` has its first frames."""
        self.disconnected()
        self.refused.clear()
        self.retry_after = 0.0
        self._connection = protocol.Connection(self._agent, self._token)
        self._list()

    def disconnected(self) -> None:
        """The connection is gone. What was not acknowledged is sent again on the next."""
        self._connection = None
        for doc in self._documents.values():
            self._pushed(doc, 0)
        self._documents.clear()
        self._pending.clear()
        self._filling.clear()
        self._waiting.clear()
        self._stalled.clear()
        self._timers.clear()
        self._barrier = None
        for fold in self._folds.values():
            fold.start_over()
        self._deletions.start_over()

    def take(self) -> list[bytes]:
        """The frames to send now, in order."""
        return self._connection.take() if self._connection else []

    def timers(self) -> list[tuple[float, DocumentId, int]]:
        """(seconds, document, opening): call ``due(document, opening)`` after that time. Each is handed out once."""
        timers, self._timers = self._timers, []
        return timers

    def due(self, document: DocumentId, opening: int) -> None:
        """A timer has run out. One of an earlier opening is ignored."""
        doc = self._documents.get(document)
        if doc is not None and doc.opening == opening and doc.phase is _Phase.FILLING:
            self._refill(doc)
        self._advance()

    def changed(self, document: DocumentId | None = None) -> None:
        """There are new local records in a document, or (None) other documents to follow."""
        if self._connection is None:
            return
        doc = self._documents.get(document) if document is not None else None
        if doc is None:
            self._list()
            for marked in {marked for goal in self._goals for marked in goal.marks}:
                self._check(marked)  # another link on the same file may have got the acks
        else:
            self._check(doc.id)
            if doc.phase is _Phase.LIVE:
                self._push(doc)
        self._advance()

    def receive(self, frame: bytes) -> None:
        """Take a frame of the relay. Raises MalformedFrame, or RelayRefused where the relay ends the connection."""
        if self._connection is None:
            return
        for event in self._connection.receive(frame):
            self._take(event)
            if self._stalled and isinstance(event, protocol.Acked | protocol.Refused):
                for document in tuple(self._stalled):
                    self._push(self._documents[document])
        self._advance()

    def goal(self, done: Callable[[RelayRefused | None], None]) -> Goal:
        """Set a goal: all that is local now durable on the relay, all that the relay has now here."""
        marks = {document: end_of(self._local, document) for document in self._local.documents()}
        goal = Goal(done, {document: mark for document, mark in marks.items() if mark.place})
        self._goals.append(goal)
        if self._connection is not None:
            self._list()
        self._advance()
        return goal

    def fold(self, document: DocumentId, done: Callable[[int], None]) -> None:
        """Have the relay fold a document's log once all that is local now is durable there. ``done`` is called with the
        relay's answer; what no answer came to is asked again on the next connection."""
        mark, before = end_of(self._local, document), self._folds.get(document)
        self._folds[document] = _Fold(mark, [*(before.done if before else []), done])
        self._folds[document].answers = before.answers if before else 0
        self._ask_folds()

    def announce(self, document: DocumentId, *, anew: bool = False) -> None:
        """Tell the relay who is present here, if it carries presence and the document is open."""
        doc, connection = self._documents.get(document), self._connection
        if doc and connection and connection.announces() and connection.is_open(doc.raw) and not doc.hushed:
            entries = self._local.announced(document, anew=anew)
            if entries:
                connection.announce(doc.raw, entries)

    def delete(self, document: DocumentId, after: DocumentId, done: Callable[[int], None]) -> None:
        """Have the relay delete a document, once all that is local now of ``after`` (the library, which says so) is
        durable there. ``done`` gets the relay's answer; it is asked on every connection until there is one."""
        self._deletions.add(document, after, done)
        self._advance()

    def forget(self, goal: Goal) -> None:
        """Nobody waits for it any more."""
        if goal in self._goals:
            self._goals.remove(goal)

    def progress(self) -> Progress:
        """How far this has come."""
        connection, known = self._connection, len(self._documents)
        behind = sum(connection.behind(doc.raw) for doc in self._documents.values()) if connection else 0
        records, size = self._local.waiting()
        received, sent = self._received, self._sent
        return Progress(known - len(self._pending), known, received, received + behind, sent, sent + records, size)

    def missing(self, goal: Goal) -> str:
        """What a goal still waits for, in words."""
        closed = len(self._pending)
        missing = []
        if self._connection is None:
            missing.append("the relay can't be reached just now")
        if closed:
            missing.append(f"{closed} of {len(self._documents)} documents are not caught up")
        if goal.marks:
            missing.append(f"{len(goal.marks)} documents have records that the relay did not acknowledge")
        if not goal.heard and not missing:
            missing.append("the relay did not say that all was sent")
        return "; ".join(missing)

    # ---------------------------------------------------------------- documents

    def _list(self) -> None:
        """Follow what LocalDocuments names now, and nothing else."""
        assert self._connection is not None
        named = dict.fromkeys(self._local.documents())
        for gone in [document for document in self._documents if document not in named]:
            self._leave(self._documents.pop(gone))
            self.refused.pop(gone, None)
            for goal in self._goals:
                goal.marks.pop(gone, None)
        for document in named:
            if document not in self._documents:
                doc = self._documents[document] = _Document(document, document_bytes(document))
                self._pending.add(document)
                self._mark(document, only_new=True)
                if (cursor := self._local.cursor(document)) is not None:
                    self._open(doc, cursor)
                else:
                    self._waiting.append(doc)
        self._open_waiting()

    def _open_waiting(self) -> None:
        """Documents without a cursor come a few at a time, for their logs are held in memory."""
        while self._waiting and len(self._filling) < FILLING:
            doc = self._waiting.popleft()
            if self._documents.get(doc.id) is doc:
                self._open(doc, None)

    def _open(self, doc: _Document, cursor: wire.Cursor | None) -> None:
        assert self._connection is not None
        self._openings += 1
        if doc.id in self._folds:
            self._folds[doc.id].start_over()
        doc.phase, doc.log, doc.opening = _Phase.OPENING, [], self._openings
        self._pushed(doc, 0)
        # A log that was empty can't have lost anything.
        doc.lossy = cursor is not None and cursor.position > 0
        self._stalled.pop(doc.id, None)
        self._pending.add(doc.id)
        if cursor is None:
            self._filling.add(doc.id)
        self._connection.open(doc.raw, self._local.kind(doc.id), cursor)

    def _take(self, event: protocol.Event) -> None:
        match event:
            case protocol.Welcomed():
                pass
            case protocol.Reached(number):
                self._heard(number)
            case protocol.Refused(error) if error.document is None:
                self.retry_after = error.retry_after / 1000
                raise RelayRefused(f"The relay ended the connection: {error.text}", code=error.code)
            case protocol.Folded(document, outcome):
                self._folded(_name(document), outcome)
            case protocol.Present(document, entries):
                if (name := _name(document)) in self._documents:
                    self._local.heard(name, entries)
            case protocol.Deleted(document, outcome):
                self._deletions.answered(_name(document), outcome)
            case protocol.Refused(error):
                assert error.document is not None
                if doc := self._documents.get(_name(error.document)):
                    self._refused(doc, error)
            case _:
                if doc := self._documents.get(_name(event.document)):
                    self._stream(doc, event)

    def _stream(
        self, doc: _Document, event: protocol.Opened | protocol.Arrived | protocol.Acked | protocol.CaughtUp
    ) -> None:
        match event:
            case protocol.Opened(_, reset):
                doc.position = self._position(doc)
                if reset:
                    doc.phase = _Phase.FILLING
                else:
                    self._live(doc)
                self.announce(doc.id, anew=True)
            case protocol.Arrived(_, records, cursor):
                self._received += cursor.position - doc.position
                doc.position = cursor.position
                filling = doc.phase is _Phase.FILLING
                if filling:
                    doc.log += (r.data for r in records)
                named = [Record(_session(r.session), r.n, r.data) for r in records]
                if self._local.received(doc.id, named, None if filling else cursor):
                    self._list()
            case protocol.Acked(_, names, cursor):
                doc.position = cursor.position
                self._sent += len(names)
                if names:
                    self._local.acknowledged(doc.id, [(_session(s), n) for s, n in names], cursor)
                    self._check(doc.id)
            case protocol.CaughtUp() if doc.phase is _Phase.FILLING:
                if doc.lossy:
                    # The relay lost something, and others notice at the same time.
                    self._timers.append((self._random() * REFILL_DELAY, doc.id, doc.opening))
                else:
                    self._refill(doc)

    def _refill(self, doc: _Document) -> None:
        assert self._connection is not None
        self._local.refill(doc.id, doc.log, self._connection.cursor(doc.raw))
        doc.log = []
        self._mark(doc.id)
        self._check(doc.id)
        self._live(doc)

    def _live(self, doc: _Document) -> None:
        doc.phase = _Phase.LIVE
        self._pending.discard(doc.id)
        self._filling.discard(doc.id)
        self._push(doc)
        self._open_waiting()

    def _refused(self, doc: _Document, error: wire.Error) -> None:
        assert self._connection is not None
        if error.code in (ErrorCode.GAP, ErrorCode.CONFLICT, ErrorCode.NOT_OPEN) and not doc.restarted:
            logger.warning("document %s: %s Sending it anew.", doc.id, error.text)
            doc.restarted = True
            self._open(doc, self._local.cursor(doc.id) if error.code == ErrorCode.NOT_OPEN else None)
        elif error.code == ErrorCode.PRESENCE_REFUSED:
            logger.warning("document %s: %s", doc.id, error.text)
            doc.hushed = True
        elif error.code == ErrorCode.READ_ONLY and error.session is None:
            self._folded(doc.id, wire.FOLD_NEVER)
        elif error.code == ErrorCode.BAD_RECORD and error.session is not None:
            # It is kept here, and what stands behind it gets other names: the rest goes on.
            self._local.refused(doc.id, _session(error.session), error.n, error.text)
            why = RelayRefused(
                f"The relay refused a record of {doc.id}, which stays here: {error.text}", code=error.code
            )
            logger.warning("%s", why)
            self.refused[doc.id] = why
            self._open(doc, self._local.cursor(doc.id))
        elif error.code in wire.NOTHING_MORE:
            # It is read on. What is in the outbox stays there.
            doc.mute = True
            self._stalled.pop(doc.id, None)
            self.refused[doc.id] = RelayRefused(f"The relay takes nothing for {doc.id}: {error.text}", code=error.code)
        else:
            fold = self._folds.pop(doc.id, None) if error.code == ErrorCode.GONE else None
            for done in fold.done if fold else ():
                done(wire.FOLD_DONE)
            if error.code == ErrorCode.GONE:
                self._list()  # deleted here as well, perhaps: then it is followed no longer, and nothing was refused
                if doc.id not in self._documents:
                    return
            hint = "What is here of it stays." if error.code == ErrorCode.GONE else ""
            self._rule_out(doc, RelayRefused(f"The relay refused {doc.id}: {error.text}", code=error.code, hint=hint))

    def _rule_out(self, doc: _Document, why: RelayRefused) -> None:
        assert self._connection is not None
        logger.warning("%s", why)
        doc.phase, doc.log = _Phase.REFUSED, []
        self._leave(doc)
        self.refused[doc.id] = why
        self._open_waiting()

    def _leave(self, doc: _Document) -> None:
        assert self._connection is not None
        self._connection.close(doc.raw)
        self._pushed(doc, 0)
        self._pending.discard(doc.id)
        self._filling.discard(doc.id)
        self._stalled.pop(doc.id, None)

    # ---------------------------------------------------------------- the outbox

    def _push(self, doc: _Document) -> None:
        """Send what the outbox holds, as far as the window goes."""
        connection = self._connection
        assert connection is not None
        self._stalled.pop(doc.id, None)
        while doc.phase is _Phase.LIVE and not doc.mute:
            waiting = self._local.outbox(doc.id, doc.pushed)
            if not waiting:
                return
            while waiting and doc.phase is _Phase.LIVE:
                run = self._run(doc, waiting)
                if not run:
                    if doc.phase is _Phase.LIVE:
                        self._stalled[doc.id] = None
                    return
                waiting = waiting[len(run) :]
                self._pushed(doc, run[-1].place)
                session = _raw_session(run[0].record.session)
                connection.push(doc.raw, [wire.Record(session, w.record.n, w.record.data) for w in run])

    def _pushed(self, doc: _Document, place: int) -> None:
        if place != doc.pushed:
            doc.pushed = place
            self._local.pushed(doc.id, place)

    def _position(self, doc: _Document) -> int:
        assert self._connection is not None
        return self._connection.cursor(doc.raw).position

    def _run(self, doc: _Document, waiting: Sequence[Waiting]) -> list[Waiting]:
        """The first records that can go in one PUSH. Empty where the window is full, or the document is ruled out."""
        assert self._connection is not None
        limits = self._connection.limits
        run: list[Waiting] = []
        size = 0
        for w in waiting:
            session, n, data = w.record
            if limits is not None and len(data) > limits.record_bytes:
                if not run:
                    text = f"A record of {doc.id} has {len(data)} bytes; the relay takes {limits.record_bytes}."
                    self._rule_out(doc, RelayRefused(text, code=ErrorCode.RECORD_TOO_LARGE))
                break
            if run and ((session, n) != (run[-1].record.session, run[-1].record.n + 1) or size + len(data) > BATCH):
                break
            if len(run) == wire.MAX_RECORDS or not self._connection.fits(size + len(data), len(run)):
                break
            size += len(data)
            run.append(w)
        return run

    # ---------------------------------------------------------------- folds

    def _ask_folds(self) -> None:
        for document, fold in self._folds.items():
            doc = self._documents.get(document)
            if fold.asked or doc is None or doc.phase is not _Phase.LIVE:
                continue
            left = still_waits(self._local, document, fold.mark)
            if left is not None:
                fold.mark = left
            else:
                assert self._connection is not None
                fold.asked, fold.answers = True, fold.answers + 1
                self._connection.fold(doc.raw)

    def _folded(self, document: DocumentId, outcome: int) -> None:
        fold = self._folds.get(document)
        if fold is None or not fold.answers:
            return
        fold.answers -= 1
        if fold.asked and not fold.answers:
            del self._folds[document]
            for done in fold.done:
                done(outcome)

    # ---------------------------------------------------------------- goals

    def _mark(self, document: DocumentId, only_new: bool = False) -> None:
        """Every goal waits for all that stands in this outbox now: after a refill it has what the old one had."""
        if self._goals and (end := end_of(self._local, document)).place:
            for goal in self._goals:
                if not (only_new and document in goal.marks):
                    goal.marks[document] = end

    def _check(self, document: DocumentId) -> None:
        """Strike a document off the goals that it has met."""
        for goal in self._goals:
            if document in goal.marks:
                left = still_waits(self._local, document, goal.marks[document])
                if left is None:
                    del goal.marks[document]
                else:
                    goal.marks[document] = left

    def _heard(self, number: int) -> None:
        """A barrier was reached. It counts if no document was found or started over since it was sent."""
        barrier = self._barrier
        if barrier is None or barrier.number != number:
            raise MalformedFrame("REACHED came without BARRIER.")
        self._barrier = None
        if not self._pending and barrier.covers.issuperset(self._documents):
            for goal in barrier.goals:
                goal.heard = True
                # Outboxes can also shrink without an ack, where content was erased.
                for document in tuple(goal.marks):
                    self._check(document)

    def _advance(self) -> None:
        """Bring every goal as far as it can get now."""
        if self._folds:
            self._ask_folds()
        if self._connection is not None and self._deletions.ask(self._connection):
            # They are part of what is local: a barrier behind them tells that the relay has taken or refused them.
            for goal in self._goals:
                goal.heard = False
            if self._barrier is not None:
                self._barrier.goals.clear()
        if not self._goals:
            return
        for goal in tuple(self._goals):
            # Why a document is gone the library may say, which is on its way: then it is no refusal.
            found = (why for why in self.refused.values() if goal.heard or why.code != ErrorCode.GONE)
            if (why := next(found, None)) is not None:
                self._goals.remove(goal)
                goal.done(why)
        for goal in tuple(self._goals):
            if goal.heard and not goal.marks:
                self._goals.remove(goal)
                goal.done(None)
        unheard = [goal for goal in self._goals if not goal.heard]
        connection = self._connection
        if unheard and connection and connection.limits and self._barrier is None and not self._pending:
            self._barrier = _Barrier(connection.barrier(), frozenset(self._documents), unheard)


@lru_cache(4096)
def _name(raw: bytes) -> DocumentId:
    return document_id(raw)


@lru_cache(4096)
def _session(raw: bytes) -> SessionId:
    return SessionId(text_of(raw))


@lru_cache(4096)
def _raw_session(session: SessionId) -> bytes:
    return base64.urlsafe_b64decode(session + "==")
