"""The documents on this device, as the sync client needs them. Bytes only: it knows no CRDT and no conversation.

One object of the kind ``LocalDocuments`` stands for the documents of one device *towards one relay*: cursors and
outboxes belong to that relay. Its parts are protocols of their own, so that each user says which of them it needs:
``Outbox`` (records to be sent), ``Deletions`` (those that a relay may have forgotten), ``PresenceSource``, and the log
itself.

All methods are called from the link's own thread, one at a time, and may block on the disk for a moment. An exception
ends the connection; the link tries again later. A document may be deleted between two calls: a method that gets a
document it doesn't know (any more) does nothing, and returns what an empty one would have.

One thing has to hold for every document that has a cursor, at any moment, also after a crash::

    (the relay's log up to the cursor)  +  (the outbox)   contain all that the document has on this device

So no method takes anything from the left side without adding it there in the same transaction. Without a cursor, or
with one that the relay no longer knows, ``refill`` makes it true again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from ..ids import DocumentId, SessionId
from .messages import Announcement, Cursor


class Record(NamedTuple):
    """One record: the ``n``-th of its session (1, 2, 3, ...), and its opaque bytes."""

    session: SessionId
    n: int
    data: bytes


class Waiting(NamedTuple):
    """A record in the outbox. ``place`` grows within a document and is never used twice, also not after a restart."""

    place: int
    record: Record


class DocumentNames(Protocol):
    """Which documents there are."""

    def documents(self) -> Sequence[DocumentId]:
        """All to follow now, most important first (the library). Asked again after ``LinkControl.notify()``, when
        ``received`` says so, and when somebody begins to wait for ``synced``."""

    def kind(self, document: DocumentId) -> str:
        """``"yjs"``, ``"automerge"``, ..."""


class Outbox(DocumentNames, Protocol):
    """Records that the relay has not acknowledged yet."""

    def outbox(self, document: DocumentId, after: int = 0, limit: int = 256) -> Sequence[Waiting]:
        """At most ``limit`` records that are not acknowledged yet and stand after place ``after``, in order. It may
        return fewer, but one if there is one: stop at about 1 MiB of data, for all of it is held in memory.

        The records of a session have no holes in n. The first one of a session has n = 1, or follows one that this
        relay acknowledged.
        """

    def outbox_end(self, document: DocumentId) -> int:
        """The place of the last record in the outbox; 0 where it is empty."""

    def outbox_ends(self) -> Mapping[DocumentId, int]:
        """The same of every outbox that is not empty."""

    def replaced(self, document: DocumentId) -> int:
        """How often all that stood in the outbox gave way to new records that cover it: at a refill, or where content
        was erased."""

    def waiting(self) -> tuple[int, int]:
        """How many records wait in all outboxes of this relay, and their bytes."""

    def pushed(self, document: DocumentId, place: int) -> None:
        """All of this outbox up to ``place`` was sent on the connection that there is now, or nothing of it (0). Only
        for showing what is on its way; nothing rests on it."""


class Deletions(DocumentNames, Protocol):
    """Deletions that the relay knew of, and may have forgotten."""

    def deleted_last(self) -> Sequence[DocumentId]:
        """A few documents that the relay was the last to delete, as it said. Asked with each connection: a relay that
        went back to an old copy forgot them, even where all logs are whole."""

    def lost(self) -> None:
        """The relay lost something that it had acknowledged: it may have forgotten which documents were deleted, even
        where the log that says so is whole. Comes before the first such ``refill``, at most once a connection."""


class PresenceSource(Protocol):
    """The people who have a document open, here and elsewhere."""

    def announced(self, document: DocumentId, *, anew: bool) -> Sequence[Announcement]:
        """All who are present in a document on this device. ``anew``: the relay may have considered them offline, so
        clocks have grown. Asked when a document is open, and after ``LinkControl.announce``."""

    def heard(self, document: DocumentId, entries: Sequence[Announcement]) -> None:
        """Others are present in a document, or gone. Kept in memory at most."""


class LocalDocuments(Outbox, Deletions, PresenceSource, Protocol):
    """The documents of this device, as one relay gets to see them."""

    def transaction(self) -> AbstractContextManager[object]:
        """All that ``received``, ``acknowledged`` and ``refill`` keep inside is kept in one transaction: on disk at the
        end, or, if anything is raised, not at all. An open document sees it at the end. Nothing but these
        methods, and those that only read, is called inside; and nothing is ``received`` of a document of which
        something was ``acknowledged`` inside: what an acknowledgement decides rests on what stands before it."""

    def cursors(self) -> Mapping[DocumentId, Cursor]:
        """The cursors of all documents that have one."""

    def cursor(self, document: DocumentId) -> Cursor | None:
        """The cursor remembered last; None before the first contact with this relay. Its log may be ``ids.NO_LOG``."""

    def acknowledged(self, document: DocumentId, names: Sequence[tuple[SessionId, int]], cursor: Cursor) -> None:
        """These records are durable at the relay: take them from the outbox and remember the cursor, in one
        transaction. A name that is not in the outbox (any more) is ignored, and so is a cursor into another log than
        the one remembered."""

    def received(self, document: DocumentId, records: Sequence[Record], cursor: Cursor | None) -> bool:
        """Apply and persist records, and remember the cursor, in one transaction. Called twice with the same record
        it changes nothing. With None for the cursor, or one into another log than the one remembered, the log of the
        one remembered becomes ``ids.NO_LOG``: should a relay know that cursor again, these records would be in neither
        log nor outbox. Returns whether ``documents()`` may name others now.

        Must not raise for a record that can't be applied: keep it aside, or it would block the document for ever.
        """

    def refill(self, document: DocumentId, log: Sequence[bytes], cursor: Cursor) -> None:
        """First contact, or the relay lost something. ``log`` is the data of all the relay has, up to ``cursor``;
        ``received`` got all of it before.

        In one transaction: put what the log lacks of this document (deletes, and updates that still wait for others,
        included) into the outbox as the first records of a new session, or nothing if it lacks nothing; drop all that
        stood in the outbox before, for the new ones cover it; remember the cursor. Local records made later follow in
        that session, or in another new one, never in one that was used before.
        """

    def refused(self, document: DocumentId, session: SessionId, n: int, why: str) -> None:
        """The relay will never take this record of the outbox: it would harm others. In one transaction: take it from
        the outbox, but keep it here; give the later ones of its session names in a new one, from 1 on, in their order.
        Later records follow in that session, or in another new one. A record that is not in the outbox (any more) is
        ignored."""
