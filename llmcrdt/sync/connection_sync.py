"""All documents of a device on one connection to a relay: opened, filled, kept live (document_sync.py has the phases).

Made when a connection is there, and dropped with it; LocalDocuments and RelayState have all that lasts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from ..exceptions import RelayRefused, SyncError
from ..ids import DocumentId, SessionId, document_bytes, document_id, text_of
from .compaction_requests import CompactionRequests
from .deletion_requests import DeletionRequests
from .document_sync import DocumentSync, Phase
from .events import Acked, Arrived, CaughtUp, Deleted, Event, Folded, Opened, Present, Reached, Refused, Welcomed
from .group_commit import GroupCommit
from .local import LocalDocuments, Record
from .loss_detector import LossDetector
from .messages import FOLD_NEVER, MAX_SNAPSHOT, NOTHING_MORE, Cursor, Error, ErrorCode
from .opening_queue import OpeningQueue
from .protocol import Connection
from .sender import Sender
from .waiters import SyncWaiters

logger = logging.getLogger(__name__)

REFILL_DELAY = 2.0
"""Seconds; the longest pause before a relay that lost data is filled again."""

ROOM: Final = 64 << 20
"""Bytes that are held of documents that have come in part, all but the largest together; past it they come one after
the other."""
ROOM_FOR_ONE: Final = MAX_SNAPSHOT
"""The same for one document; a larger one is not followed."""
LOOK: Final = 1 << 20
"""Bytes that come in between two looks at what is held."""
_RECORD: Final = 128
"""The weight of a record beside its bytes: to Python a small one is mostly an object."""


@dataclass(slots=True)
class RelayState:
    """All that lasts from one connection to a relay to the next. ``refused``: documents that are not followed on this
    one, or not with all that is here, and why. ``received``, ``sent``: records. ``openings``: OPENs sent."""

    local: LocalDocuments
    waiters: SyncWaiters
    compactions: CompactionRequests
    deletions: DeletionRequests
    refused: dict[DocumentId, RelayRefused] = field(default_factory=dict)
    received: int = 0
    sent: int = 0
    openings: int = 0


class ConnectionSync:
    """``documents``: all that are followed. ``openings.pending``: those that are not live yet. ``timers``: (seconds,
    document, opening) to be started; each ends in ``timer_expired``. ``retry_after``: seconds that the relay asked to
    wait when it ended the connection."""

    def __init__(self, connection: Connection, state: RelayState, random: Callable[[], float]) -> None:
        self.connection, self._state, self._random = connection, state, random
        self._local = state.local
        self.documents: dict[DocumentId, DocumentSync] = {}
        self.timers: list[tuple[float, DocumentId, int]] = []
        self.retry_after = 0.0
        self.openings = OpeningQueue()
        self.loss = LossDetector(state.local, connection)
        self._sender = Sender(state.local)
        self._window_freed = False
        # Whether there may be other documents to follow.
        self._more_named = False
        # Bytes that came since it was looked at what is held; documents of which records were held at some time since.
        self._came = 0
        self._filled: dict[DocumentId, DocumentSync] = {}

    def end(self) -> None:
        """The connection is gone. Nothing that was not acknowledged counts as sent any more."""
        for doc in self.documents.values():
            self._sender.start_over(doc)

    def update_documents(self) -> None:
        """Follow what LocalDocuments names now, and nothing else."""
        named = dict.fromkeys(self._local.documents())
        for gone in [document for document in self.documents if document not in named]:
            self._leave(self.documents.pop(gone))
            self._state.refused.pop(gone, None)
            self._state.waiters.drop(gone)
        new = [document for document in named if document not in self.documents]
        if new:
            cursors, waiting = self._local.cursors(), self._local.outbox_ends()
            self._state.waiters.mark_new(new)
            for document in new:
                doc = self.documents[document] = DocumentSync(document, document_bytes(document))
                if (cursor := cursors.get(document)) is not None:
                    self._open(doc, cursor)
                    doc.quiet = document not in waiting
                else:
                    self.openings.add(doc)
        self._open_ready()

    def local_changed(self, doc: DocumentSync) -> None:
        """There are new local records in a document."""
        doc.quiet = False
        if doc.phase is Phase.LIVE:
            self.push(doc)

    def push(self, doc: DocumentSync) -> None:
        """Send what the outbox of a live document holds, as far as the window goes."""
        refused = self._state.refused
        why, before = self._sender.send(self.connection, doc), refused.get(doc.id)
        if why is not None:
            # Reading continues; only this outbox is held back.
            logger.warning("%s", why)
            refused[doc.id] = why
        elif doc.outbox_refused is None and before is not None and before.code == ErrorCode.RECORD_TOO_LARGE:
            del refused[doc.id]

    def announce(self, doc: DocumentSync, *, anew: bool = False) -> None:
        """Tell the relay who is present here, if it carries presence and the document is open."""
        connection = self.connection
        if connection.carries_presence() and connection.is_open(doc.raw) and not doc.presence_refused:
            entries = self._local.announced(doc.id, anew=anew)
            if entries:
                connection.announce(doc.raw, entries)

    def send_requests(self) -> None:
        """Send what the window has room for again, and ask for what can be asked by now."""
        while self._window_freed:
            self._window_freed = False
            self._resume_stalled()
        self._state.compactions.ask(self.connection, self.documents)
        if self._state.deletions.ask(self.connection, self.openings.pending):
            self._state.waiters.ask_again()

    def timer_expired(self, document: DocumentId, opening: int) -> None:
        """The pause before a refill is over."""
        doc = self.documents.get(document)
        if doc is not None and doc.opening == opening and doc.phase is Phase.FILLING:
            self._refill(doc)

    def receive(self, frames: Sequence[bytes]) -> None:
        """Handle frames, all that they say of logs with one commit, as far as nothing else comes between. Raises
        MalformedFrame, and RelayRefused where the relay ends the connection."""
        with GroupCommit(self._local, self._follow_more) as commit:
            for frame in frames:
                try:
                    events = self.connection.receive(frame)
                except SyncError:
                    commit.end()  # the frames before it were good
                    raise
                for event in events:
                    commit.before(event)
                    self.handle_event(event)
                self.make_room(len(frame))
            commit.end()

    def _follow_more(self) -> None:
        if self._more_named:
            self._more_named = False
            self.update_documents()

    def handle_event(self, event: Event) -> None:
        """Raises RelayRefused where the relay ends the connection."""
        if self.loss.handle_event(event):
            return
        match event:
            case Welcomed():
                pass
            case Reached(number):
                self._state.waiters.reached(number, self.documents, self.openings.pending)
            case Refused(error) if error.document is None:
                self.retry_after = error.retry_after / 1000
                raise RelayRefused(f"The relay ended the connection: {error.text}", code=error.code)
            case Folded(document, outcome):
                self._state.compactions.answered(_name(document), outcome)
            case Deleted(document, outcome):
                self._state.deletions.answered(_name(document), outcome)
            case Present(document, entries):
                if (name := _name(document)) in self.documents:
                    self._local.heard(name, entries)
            case Refused(error):
                assert error.document is not None
                if doc := self.documents.get(_name(error.document)):
                    self._refused(doc, error)
            case _:
                if doc := self.documents.get(_name(event.document)):
                    self._handle_log(doc, event)
        if isinstance(event, Acked | Refused):
            self._resume_stalled()

    # ---------------------------------------------------------------- one document

    def _handle_log(self, doc: DocumentSync, event: Opened | Arrived | Acked | CaughtUp) -> None:
        match event:
            case Opened(_, reset):
                doc.position = self.connection.cursor(doc.raw).position
                if reset:
                    doc.enter(Phase.FILLING)
                else:
                    self._go_live(doc)
                self.announce(doc, anew=True)
            case Arrived(_, records, cursor):
                self._state.received += cursor.position - doc.position
                doc.position = cursor.position
                filling = doc.phase is Phase.FILLING
                if filling:
                    self._filled[doc.id] = doc
                    doc.log += (r.data for r in records)
                    doc.log_size += sum(len(r.data) + _RECORD for r in records)
                named = [Record(_session(r.session), r.n, r.data) for r in records]
                self._more_named |= self._local.received(doc.id, named, None if filling else cursor)
            case Acked(_, names, cursor):
                doc.position = cursor.position
                self._state.sent += len(names)
                if names:
                    self._local.acknowledged(doc.id, [(_session(s), n) for s, n in names], cursor)
                    self._state.waiters.check(doc.id)
            case CaughtUp() if doc.phase is Phase.FILLING:
                if doc.had_cursor:
                    # The relay lost something, and others notice at the same time.
                    self.timers.append((self._random() * REFILL_DELAY, doc.id, doc.opening))
                else:
                    self._refill(doc)
        self._give_turn(doc)

    def _give_turn(self, doc: DocumentSync) -> None:
        """The next of those that come one at a time, where nothing of this one is still to come."""
        if not self.openings.one_at_a_time or doc.phase is not Phase.LIVE:
            return
        if not self.connection.behind(doc.raw) and not self.connection.arriving(doc.raw):
            self.openings.done(doc)
            self._open_ready()

    def make_room(self, came: int) -> None:
        """So many bytes came. A relay may send what it likes, also parts of snapshots that never end."""
        self._came += came
        if self._came < LOOK:
            return
        self._came = 0
        self._filled = {i: doc for i, doc in self._filled.items() if doc.log_size and i in self.documents}
        some = self.documents if self.connection.arriving() else self._filled
        held = [doc for doc in some.values() if self._held(doc)]
        if not held:
            return
        largest = max(held, key=self._held)
        others = [doc for doc in held if doc is not largest]
        if self._held(largest) > ROOM_FOR_ONE:
            text = f"The relay sends more than {ROOM_FOR_ONE >> 20} MiB of {largest.id} at once; no device takes that."
            hint = "All else goes on. Ask whoever runs the relay: no document is so large there (inspect)."
            self._stop(largest, RelayRefused(text, hint=hint))
        elif sum(map(self._held, others)) > ROOM:
            for doc in others:
                doc.enter(Phase.WAITING)
                self._leave(doc)
            self.openings.postpone(others, largest)

    def _held(self, doc: DocumentSync) -> int:
        """Bytes that are in memory of a document that has come in part."""
        return doc.log_size + self.connection.arriving(doc.raw)

    def _open(self, doc: DocumentSync, cursor: Cursor | None) -> None:
        self._state.openings += 1
        self._state.compactions.start_over(doc.id)
        doc.enter(Phase.OPENING)
        doc.quiet = False
        self._sender.start_over(doc)
        # A log that was empty can't have lost anything.
        doc.opening, doc.had_cursor = self._state.openings, cursor is not None and cursor.position > 0
        self.openings.opened(doc, from_start=cursor is None)
        self.connection.open(doc.raw, self._local.kind(doc.id), cursor)

    def _open_ready(self) -> None:
        for doc in self.openings.ready():
            self._open(doc, self._local.cursor(doc.id))

    def _refill(self, doc: DocumentSync) -> None:
        before = self._local.cursor(doc.id)
        if before is not None and before.position > 0:
            self.loss.note_loss()
        self._local.refill(doc.id, doc.log, self.connection.cursor(doc.raw))
        doc.quiet = False
        self._state.waiters.mark(doc.id)
        self._go_live(doc)
        self._give_turn(doc)

    def _go_live(self, doc: DocumentSync) -> None:
        self.openings.live(doc)
        doc.enter(Phase.LIVE)
        if not doc.quiet:
            self.push(doc)
        self._open_ready()

    def _refused(self, doc: DocumentSync, error: Error) -> None:
        """Each code has one consequence; docs/protocol.md, section 5, says what it means."""
        code, waiters = error.code, self._state.waiters
        if code in (ErrorCode.GAP, ErrorCode.CONFLICT, ErrorCode.NOT_OPEN) and not doc.sent_anew:
            logger.warning("document %s: %s Sending it anew.", doc.id, error.text)
            doc.sent_anew = True
            self._open(doc, self._local.cursor(doc.id) if code == ErrorCode.NOT_OPEN else None)
        elif code == ErrorCode.PRESENCE_REFUSED:
            logger.warning("document %s: %s", doc.id, error.text)
            doc.presence_refused = True
        elif code == ErrorCode.READ_ONLY and error.session is None:
            self._state.compactions.answered(doc.id, FOLD_NEVER)
        elif code == ErrorCode.BAD_RECORD and error.session is not None:
            # The record stays here, and those after it get other names: all else goes on.
            self._local.refused(doc.id, _session(error.session), error.n, error.text)
            text = f"The relay refused a record of {doc.id}, which stays here: {error.text}"
            self._note_refusal(doc, RelayRefused(text, code=code))
            self._open(doc, self._local.cursor(doc.id))
        elif code in NOTHING_MORE:
            # Reading continues, and what is in the outbox stays there.
            doc.records_refused = True
            self._sender.stalled.pop(doc.id, None)
            self._state.refused[doc.id] = RelayRefused(f"The relay takes nothing for {doc.id}: {error.text}", code=code)
        elif code == ErrorCode.GONE:
            self._state.compactions.gone(doc.id)
            self.update_documents()
            if doc.id in self.documents:  # else it is deleted here as well, and nothing was refused
                # A library update that explains it comes before the answer to a barrier.
                waiters.ask_again()
                self._rule_out(doc, error, "All that is here of it stays.")
        else:
            self._rule_out(doc, error)

    def _rule_out(self, doc: DocumentSync, error: Error, hint: str = "") -> None:
        why = RelayRefused(f"The relay refused {doc.id}: {error.text}", code=error.code, hint=hint)
        self._stop(doc, why)

    def _stop(self, doc: DocumentSync, why: RelayRefused) -> None:
        """It is followed no longer on this connection."""
        doc.enter(Phase.REFUSED)
        self._leave(doc)
        self._note_refusal(doc, why)
        self._open_ready()

    def _note_refusal(self, doc: DocumentSync, why: RelayRefused) -> None:
        logger.warning("%s", why)
        self._state.refused[doc.id] = why

    def _leave(self, doc: DocumentSync) -> None:
        self.connection.close(doc.raw)
        self._window_freed = True
        self._sender.start_over(doc)
        self.openings.done(doc)

    def _resume_stalled(self) -> None:
        """The window has room again."""
        for doc in tuple(self._sender.stalled.values()):
            self.push(doc)


@lru_cache(4096)
def _name(raw: bytes) -> DocumentId:
    return document_id(raw)


@lru_cache(4096)
def _session(raw: bytes) -> SessionId:
    return SessionId(text_of(raw))
