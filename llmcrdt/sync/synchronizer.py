"""Keeps the documents of one device in step with one relay: LocalDocuments on one side, frames on the other.

No sockets and no clock, so a test can drive it frame by frame. ``connected`` begins a connection, ``disconnected``
ends it; all that has to last in between is in LocalDocuments. The phases of a document on one connection::

    waiting -> opening -> live                       its cursor is a place in the relay's log
                       -> filling -> live            it is not: take the whole log, then send what that lacks
    any     -> refused                               the relay, or a limit, rules it out; the others go on
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import lru_cache

from ..exceptions import RelayRefused
from ..ids import DocumentId, SessionId, document_bytes, document_id, text_of
from . import events, protocol
from .compaction_requests import CompactionRequests
from .deletion_requests import DeletionRequests
from .document_sync import DocumentSync, Phase
from .local import LocalDocuments, Record
from .messages import FOLD_NEVER, NOTHING_MORE, Cursor, Error, ErrorCode
from .progress import Progress
from .sender import Sender
from .waiters import SyncWaiter, SyncWaiters

logger = logging.getLogger(__name__)

REFILL_DELAY = 2.0
"""Seconds; the longest pause before a relay that lost data is filled again."""
FILLING = 8
"""Documents taken from position 0 at one time: their logs are held in memory until the end is reached."""


class Synchronizer:
    """``random()`` gives floats from 0 to 1. One thread uses it. Exceptions of LocalDocuments pass through."""

    def __init__(self, local: LocalDocuments, random: Callable[[], float], agent: str = "", token: bytes = b"") -> None:
        self._local, self._random, self._agent, self._token = local, random, agent, token
        self._connection: protocol.Connection | None = None
        self._documents: dict[DocumentId, DocumentSync] = {}
        # Documents that are not live yet; of those, the ones taken from position 0 just now, and the ones to come.
        self._pending: set[DocumentId] = set()
        self._filling: set[DocumentId] = set()
        self._waiting: deque[DocumentSync] = deque()
        self._openings = 0
        self._timers: list[tuple[float, DocumentId, int]] = []
        self._received = self._sent = 0
        self._pushes = Sender(local)
        self._has_room = self._lost = False
        self._probed: set[bytes] = set()
        self._goals = SyncWaiters(local)
        self._folds = CompactionRequests(local)
        self._deletions = DeletionRequests(local)
        self.refused: dict[DocumentId, RelayRefused] = {}
        """Documents that are not followed on this connection, or not with all that is here, and why."""
        self.retry_after = 0.0
        """Seconds that the relay asked to wait, when it ended the connection."""

    # ---------------------------------------------------------------- for the shell

    def connected(self) -> None:
        """A new connection is there; ``take`` has its first frames."""
        self.disconnected()
        self.refused.clear()
        self.retry_after, self._lost, self._probed = 0.0, False, set()
        self._connection = protocol.Connection(self._agent, self._token)
        self._list()
        self._probe()

    def disconnected(self) -> None:
        """The connection is gone. What was not acknowledged is sent again on the next."""
        self._connection = None
        for doc in self._documents.values():
            self._pushes.start_over(doc)
        self._documents.clear()
        self._pending.clear()
        self._filling.clear()
        self._waiting.clear()
        self._timers.clear()
        self._goals.start_over()
        self._folds.start_over()
        self._deletions.start_over()

    def take(self) -> list[bytes]:
        """The frames to send now, in order."""
        return self._connection.drain_frames() if self._connection else []

    def timers(self) -> list[tuple[float, DocumentId, int]]:
        """(seconds, document, opening): call ``due(document, opening)`` after that time. Each is handed out once."""
        timers, self._timers = self._timers, []
        return timers

    def due(self, document: DocumentId, opening: int) -> None:
        """A timer has run out. One of an earlier opening is ignored."""
        doc = self._documents.get(document)
        if doc is not None and doc.opening == opening and doc.phase is Phase.FILLING:
            self._refill(doc)
        self._advance()

    def changed(self, document: DocumentId | None = None) -> None:
        """There are new local records in a document, or (None) other documents to follow."""
        if self._connection is None:
            return
        doc = self._documents.get(document) if document is not None else None
        if doc is None:
            self._list()
            self._goals.check_all()  # another link on the same file may have got the acks
        else:
            self._goals.check(doc.id)
            if doc.phase is Phase.LIVE:
                self._push(doc)
        self._advance()

    def receive(self, frame: bytes) -> None:
        """Take a frame of the relay. Raises MalformedFrame, or RelayRefused where the relay ends the connection."""
        if self._connection is None:
            return
        for event in self._connection.receive(frame):
            self._take(event)
            if isinstance(event, events.Acked | events.Refused):
                self._go_on()
        self._advance()

    def goal(self, done: Callable[[RelayRefused | None], None]) -> SyncWaiter:
        """Set a goal: all that is local now durable on the relay, all that the relay has now here."""
        goal = self._goals.set(done)
        if self._connection is not None:
            self._list()
        self._advance()
        return goal

    def fold(self, document: DocumentId, done: Callable[[int], None]) -> None:
        """Have the relay fold a document's log once all that is local now is durable there. ``done`` is called with the
        relay's answer; what no answer came to is asked again on the next connection."""
        self._folds.add(document, done)
        if self._connection is not None:
            self._folds.ask(self._connection, self._documents)

    def announce(self, document: DocumentId, *, anew: bool = False) -> None:
        """Tell the relay who is present here, if it carries presence and the document is open."""
        doc, connection = self._documents.get(document), self._connection
        if doc and connection and connection.carries_presence() and connection.is_open(doc.raw) and not doc.hushed:
            entries = self._local.announced(document, anew=anew)
            if entries:
                connection.announce(doc.raw, entries)

    def delete(self, document: DocumentId, after: DocumentId, done: Callable[[int], None]) -> None:
        """Have the relay delete a document, once all that is local now of ``after`` (the library, which says so) is
        durable there. ``done`` gets the relay's answer; it is asked on every connection until there is one."""
        self._deletions.add(document, after, done)
        self._advance()

    def forget(self, goal: SyncWaiter) -> None:
        """Nobody waits for it any more."""
        self._goals.forget(goal)

    def progress(self) -> Progress:
        """How far this has come."""
        connection, known = self._connection, len(self._documents)
        behind = sum(connection.behind(doc.raw) for doc in self._documents.values()) if connection else 0
        records, size = self._local.waiting()
        received, sent = self._received, self._sent
        return Progress(known - len(self._pending), known, received, received + behind, sent, sent + records, size)

    def missing(self, goal: SyncWaiter) -> str:
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
            self._goals.drop(gone)
        for document in named:
            if document not in self._documents:
                doc = self._documents[document] = DocumentSync(document, document_bytes(document))
                self._pending.add(document)
                self._goals.mark(document, only_new=True)
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

    def _open(self, doc: DocumentSync, cursor: Cursor | None) -> None:
        assert self._connection is not None
        self._openings += 1
        self._folds.start_over(doc.id)
        doc.phase, doc.log, doc.opening = Phase.OPENING, [], self._openings
        self._pushes.start_over(doc)
        # A log that was empty can't have lost anything.
        doc.lossy = cursor is not None and cursor.position > 0
        self._pending.add(doc.id)
        if cursor is None:
            self._filling.add(doc.id)
        self._connection.open(doc.raw, self._local.kind(doc.id), cursor)

    def _take(self, event: events.Event) -> None:
        match event:
            case events.Welcomed():
                pass
            case events.Reached(number):
                self._goals.reached(number, self._documents, self._pending)
            case events.Opened(document) if document in self._probed:
                self._probed.discard(document)
                if self._connection is not None:
                    self._connection.close(document)
                self._note_loss()
            case events.Refused(error) if error.document is not None and error.document in self._probed:
                self._probed.discard(error.document)
                if error.code == ErrorCode.WRONG_KIND:  # somebody has brought another one
                    self._note_loss()
            case events.Refused(error) if error.document is None:
                self.retry_after = error.retry_after / 1000
                raise RelayRefused(f"The relay ended the connection: {error.text}", code=error.code)
            case events.Folded(document, outcome):
                self._folds.answered(_name(document), outcome)
            case events.Present(document, entries):
                if (name := _name(document)) in self._documents:
                    self._local.heard(name, entries)
            case events.Deleted(document, outcome):
                self._deletions.answered(_name(document), outcome)
            case events.Refused(error):
                assert error.document is not None
                if doc := self._documents.get(_name(error.document)):
                    self._refused(doc, error)
            case _:
                if doc := self._documents.get(_name(event.document)):
                    self._stream(doc, event)

    def _stream(
        self, doc: DocumentSync, event: events.Opened | events.Arrived | events.Acked | events.CaughtUp
    ) -> None:
        match event:
            case events.Opened(_, reset):
                doc.position = self._position(doc)
                if reset:
                    doc.phase = Phase.FILLING
                else:
                    self._live(doc)
                self.announce(doc.id, anew=True)
            case events.Arrived(_, records, cursor):
                self._received += cursor.position - doc.position
                doc.position = cursor.position
                filling = doc.phase is Phase.FILLING
                if filling:
                    doc.log += (r.data for r in records)
                named = [Record(_session(r.session), r.n, r.data) for r in records]
                if self._local.received(doc.id, named, None if filling else cursor):
                    self._list()
            case events.Acked(_, names, cursor):
                doc.position = cursor.position
                self._sent += len(names)
                if names:
                    self._local.acknowledged(doc.id, [(_session(s), n) for s, n in names], cursor)
                    self._goals.check(doc.id)
            case events.CaughtUp() if doc.phase is Phase.FILLING:
                if doc.lossy:
                    # The relay lost something, and others notice at the same time.
                    self._timers.append((self._random() * REFILL_DELAY, doc.id, doc.opening))
                else:
                    self._refill(doc)

    def _refill(self, doc: DocumentSync) -> None:
        assert self._connection is not None
        before = self._local.cursor(doc.id)
        if before is not None and before.position > 0:
            self._note_loss()
        self._local.refill(doc.id, doc.log, self._connection.cursor(doc.raw))
        doc.log = []
        self._goals.mark(doc.id)
        self._goals.check(doc.id)
        self._live(doc)

    def _probe(self) -> None:
        """See whether the relay still knows what it was the last to delete: it says GONE then, to whoever opens it. A
        relay that went back to an old copy may have lost a deletion and no record."""
        assert self._connection is not None
        for document in self._local.deleted_last():
            if document not in self._documents:
                raw = document_bytes(document)
                self._probed.add(raw)
                self._connection.open(raw, self._local.kind(document), None)

    def _note_loss(self) -> None:
        """The relay lost something that it had acknowledged."""
        if not self._lost:
            self._lost = True
            self._local.lost()

    def _live(self, doc: DocumentSync) -> None:
        doc.phase = Phase.LIVE
        self._pending.discard(doc.id)
        self._filling.discard(doc.id)
        self._push(doc)
        self._open_waiting()

    def _refused(self, doc: DocumentSync, error: Error) -> None:
        assert self._connection is not None
        if error.code in (ErrorCode.GAP, ErrorCode.CONFLICT, ErrorCode.NOT_OPEN) and not doc.restarted:
            logger.warning("document %s: %s Sending it anew.", doc.id, error.text)
            doc.restarted = True
            self._open(doc, self._local.cursor(doc.id) if error.code == ErrorCode.NOT_OPEN else None)
        elif error.code == ErrorCode.PRESENCE_REFUSED:
            logger.warning("document %s: %s", doc.id, error.text)
            doc.hushed = True
        elif error.code == ErrorCode.READ_ONLY and error.session is None:
            self._folds.answered(doc.id, FOLD_NEVER)
        elif error.code == ErrorCode.BAD_RECORD and error.session is not None:
            # It is kept here, and what stands behind it gets other names: the rest goes on.
            self._local.refused(doc.id, _session(error.session), error.n, error.text)
            why = RelayRefused(
                f"The relay refused a record of {doc.id}, which stays here: {error.text}", code=error.code
            )
            logger.warning("%s", why)
            self.refused[doc.id] = why
            self._open(doc, self._local.cursor(doc.id))
        elif error.code in NOTHING_MORE:
            # It is read on. What is in the outbox stays there.
            doc.mute = True
            self._pushes.stalled.pop(doc.id, None)
            self.refused[doc.id] = RelayRefused(f"The relay takes nothing for {doc.id}: {error.text}", code=error.code)
        else:
            if error.code == ErrorCode.GONE:
                self._folds.gone(doc.id)
                self._list()  # deleted here as well, perhaps: then it is followed no longer, and nothing was refused
                if doc.id not in self._documents:
                    return
                self._goals.ask_again()  # the library's word may be under way: behind a barrier it is here
            hint = "What is here of it stays." if error.code == ErrorCode.GONE else ""
            self._rule_out(doc, RelayRefused(f"The relay refused {doc.id}: {error.text}", code=error.code, hint=hint))

    def _rule_out(self, doc: DocumentSync, why: RelayRefused) -> None:
        assert self._connection is not None
        logger.warning("%s", why)
        doc.phase, doc.log = Phase.REFUSED, []
        self._leave(doc)
        self.refused[doc.id] = why
        self._open_waiting()

    def _leave(self, doc: DocumentSync) -> None:
        assert self._connection is not None
        self._connection.close(doc.raw)
        self._has_room = True
        self._pushes.start_over(doc)
        self._pending.discard(doc.id)
        self._filling.discard(doc.id)

    def _go_on(self) -> None:
        """The window has room again: for what had to wait."""
        for doc in tuple(self._pushes.stalled.values()):
            self._push(doc)

    def _push(self, doc: DocumentSync) -> None:
        assert self._connection is not None
        why, before = self._pushes.send(self._connection, doc), self.refused.get(doc.id)
        if why is not None:
            # It is read on.
            logger.warning("%s", why)
            self.refused[doc.id] = why
        elif doc.stuck is None and before is not None and before.code == ErrorCode.RECORD_TOO_LARGE:
            del self.refused[doc.id]

    def _position(self, doc: DocumentSync) -> int:
        assert self._connection is not None
        return self._connection.cursor(doc.raw).position

    def _advance(self) -> None:
        """Ask what can be asked by now, and bring every goal as far as it can get."""
        connection = self._connection
        if connection is not None:
            while self._has_room:  # what was pushed of a document that was left takes none any more
                self._has_room = False
                self._go_on()
            self._folds.ask(connection, self._documents)
            if self._deletions.ask(connection, self._pending):
                self._goals.ask_again()
        self._goals.advance(connection, self._documents, self._pending, self.refused, self._deletions.held_back)


@lru_cache(4096)
def _name(raw: bytes) -> DocumentId:
    return document_id(raw)


@lru_cache(4096)
def _session(raw: bytes) -> SessionId:
    return SessionId(text_of(raw))
