"""Keeps the documents of one device in step with one relay: LocalDocuments on one side, frames on the other.

No sockets and no clock, so a test can drive it frame by frame. ``connected`` begins a connection, ``disconnected`` ends
it; connection_sync.py has what happens to documents in between. All that has to last is in LocalDocuments, but for
requests: they are asked again on each connection until there is an answer.
"""

from __future__ import annotations

from collections.abc import Callable

from ..exceptions import RelayRefused
from ..ids import DocumentId
from .compaction_requests import CompactionRequests
from .connection_sync import ConnectionSync, RelayState
from .deletion_requests import DeletionRequests
from .local import LocalDocuments
from .progress import Progress
from .protocol import Connection
from .waiters import SyncWaiter, SyncWaiters


class Synchronizer:
    """``random()`` gives floats from 0 to 1. One thread uses it. Exceptions of LocalDocuments pass through."""

    def __init__(self, local: LocalDocuments, random: Callable[[], float], agent: str = "", token: bytes = b"") -> None:
        self._local, self._random, self._agent = local, random, agent
        self.token = token
        """Shown to the relay when the next connection begins."""
        self._waiters = SyncWaiters(local)
        self._compactions = CompactionRequests(local)
        self._deletions = DeletionRequests(local)
        self._state = RelayState(local, self._waiters, self._compactions, self._deletions)
        self._current: ConnectionSync | None = None
        self.retry_after = 0.0
        """Seconds that the relay asked to wait, when it ended the connection."""

    @property
    def refused(self) -> dict[DocumentId, RelayRefused]:
        """Documents that are not followed on this connection, or not with all that is here, and why."""
        return self._state.refused

    # ---------------------------------------------------------------- the connection

    def connected(self) -> None:
        """A new connection is there; ``drain_frames`` has its first frames."""
        self.disconnected()
        self.refused.clear()
        self.retry_after = 0.0
        self._current = current = ConnectionSync(Connection(self._agent, self.token), self._state, self._random)
        current.update_documents()
        current.loss.probe(current.documents)

    def disconnected(self) -> None:
        """The connection is gone. All that was not acknowledged is sent again on the next."""
        current, self._current = self._current, None
        if current is not None:
            current.end()
        self._waiters.start_over()
        self._compactions.start_over()
        self._deletions.start_over()

    def receive(self, *frames: bytes) -> None:
        """Handle frames of the relay, in order: those that come together are kept together, which costs little more
        than one. Raises MalformedFrame, or RelayRefused where the relay ends the connection; whatever is raised, the
        connection is over then, for what was to be sent may rest on what was not kept."""
        if self._current is None:
            return
        try:
            self._current.receive(frames)
        except BaseException:
            self.retry_after = self._current.retry_after
            self.disconnected()
            raise
        self._advance()

    def drain_frames(self) -> list[bytes]:
        """The frames to send now, in order."""
        return self._current.connection.drain_frames() if self._current else []

    def drain_timers(self) -> list[tuple[float, DocumentId, int]]:
        """(seconds, document, opening): call ``timer_expired(document, opening)`` after that time. Each is handed out
        once."""
        if self._current is None:
            return []
        timers, self._current.timers = self._current.timers, []
        return timers

    def timer_expired(self, document: DocumentId, opening: int) -> None:
        """A timer has run out. One of an earlier opening is ignored."""
        if self._current is not None:
            self._current.timer_expired(document, opening)
        self._advance()

    # ---------------------------------------------------------------- this device

    def local_changed(self, document: DocumentId | None = None) -> None:
        """There are new local records in a document, or (None) other documents to follow."""
        current = self._current
        if current is None:
            return
        doc = current.documents.get(document) if document is not None else None
        if doc is None:
            current.update_documents()
            self._waiters.check_all()  # another link on the same file may have got the acks
        else:
            self._waiters.check(doc.id)
            current.local_changed(doc)
        self._advance()

    def announce(self, document: DocumentId) -> None:
        """Tell the relay who is present here, if it carries presence and the document is open."""
        if self._current is not None and (doc := self._current.documents.get(document)):
            self._current.announce(doc)

    def request_compaction(self, document: DocumentId, done: Callable[[int], None]) -> None:
        """Have the relay compact a document's log once all that is local now is durable there. ``done`` is called with
        the relay's answer; it is asked on every connection until there is one."""
        self._compactions.add(document, done)
        if self._current is not None:
            self._compactions.ask(self._current.connection, self._current.documents)

    def request_deletion(self, document: DocumentId, after: DocumentId, done: Callable[[int], None]) -> None:
        """Have the relay delete a document, once all that is local now of ``after`` (the library, which says so) is
        durable there. ``done`` gets the relay's answer; it is asked on every connection until there is one."""
        self._deletions.add(document, after, done)
        self._advance()

    # ---------------------------------------------------------------- whoever waits

    def add_waiter(self, done: Callable[[RelayRefused | None], None]) -> SyncWaiter:
        """Wait until all that is local now is durable on the relay, and all that the relay has now is here. ``done`` is
        called once, with None or with the refusal that rules it out."""
        waiter = self._waiters.add(done)
        if self._current is not None:
            self._current.update_documents()
        self._advance()
        return waiter

    def remove_waiter(self, waiter: SyncWaiter) -> None:
        """Nobody waits for it any more."""
        self._waiters.remove(waiter)

    def describe_missing(self, waiter: SyncWaiter) -> str:
        """In words, all that a waiter still waits for."""
        current, missing = self._current, []
        if current is None:
            missing.append("the relay can't be reached just now")
        elif current.openings.pending:
            missing.append(f"{len(current.openings.pending)} of {len(current.documents)} documents are not caught up")
        if waiter.marks:
            missing.append(f"{len(waiter.marks)} documents have records that the relay did not acknowledge")
        if not waiter.received_all and not missing:
            missing.append("the relay did not say that all was sent")
        return "; ".join(missing)

    def progress(self) -> Progress:
        """How far this has come."""
        known = caught_up = behind = 0
        if (current := self._current) is not None:
            known = len(current.documents)
            caught_up = known - len(current.openings.pending)
            behind = sum(current.connection.behind(doc.raw) for doc in current.documents.values())
        records, size = self._local.waiting()
        received, sent = self._state.received, self._state.sent
        return Progress(caught_up, known, received, received + behind, sent, sent + records, size)

    def in_step(self) -> bool:
        """Whether nothing is known that is still to come or to go. A relay that refuses something leaves it to go."""
        if (current := self._current) is None or current.connection.limits is None or current.openings.pending:
            return False
        if any(current.connection.behind(doc.raw) for doc in current.documents.values()):
            return False
        return not self._local.outbox_ends()

    def _advance(self) -> None:
        """Ask what can be asked by now, and bring every waiter as far as it can get."""
        if (current := self._current) is None:
            self._waiters.advance(None, (), (), self.refused)
            return
        current.send_requests()
        pending, held_back = current.openings.pending, self._deletions.held_back
        self._waiters.advance(current.connection, current.documents, pending, self.refused, held_back)
