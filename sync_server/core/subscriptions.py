"""The peers, the documents that they have open, and how far each has been sent of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from llmcrdt.sync.chain import START
from llmcrdt.sync.messages import Cursor

from ..log.admin import Storage, StoredSnapshot
from ..log.base import Notify
from .catch_up import CatchUpSnapshot
from .own_records import OwnRecords
from .validation import Peer


@dataclass(slots=True)
class Subscription:
    """One peer's place in one document. Exactly one of these states holds, the first whose condition is true:

    ===========  ====================================  ==========================================================
    state        condition                             it ends
    ===========  ====================================  ==========================================================
    snapshot     ``room.covers(sent)``                 with the last part: ``sent`` is the snapshot's position
    waiting      ``awaits_catch_up``                   with CatchUpResult
    catch-up     ``catch_up`` is not None              with the last part: ``sent`` is the position it goes up to
    records      ``sent < room.head.position``         with the last record: ``sent`` is the end
    at the end   otherwise                             when records are appended
    ===========  ====================================  ==========================================================

    A peer that opens a document or lags asks for a catch-up snapshot where that may pay: then the state is *waiting*. A
    compaction past ``sent`` leads to *snapshot* from any state; a newer snapshot begins with its first part again. To
    open the document anew makes a new subscription.

    ``own``: what the peer pushed and was not acknowledged; ``own_compacted``: what it pushed and the snapshot that it
    is still to get stands for. ``part``: the session of the snapshot that it gets just now, and the
    index of the next part. ``catch_up_to``: the end of the log when it was opened; up to there a catch-up snapshot may
    take the place of records. ``updates_only``: the peer knows no records and no snapshots, only updates that are
    merged; ``session``, ``n``: the last record that was made of its own.
    """

    sent: int
    own: OwnRecords = field(default_factory=OwnRecords)
    own_compacted: list[tuple[bytes, int]] = field(default_factory=list)
    part: tuple[bytes, int] = (b"", 0)
    catch_up_to: int = 0
    catch_up: CatchUpSnapshot | None = None
    awaits_catch_up: bool = False
    updates_only: bool = False
    session: bytes = b""
    n: int = 0

    @property
    def follows(self) -> bool:
        """Whether no catch-up snapshot is for it."""
        return self.catch_up is None and not self.awaits_catch_up and self.sent >= self.catch_up_to

    @property
    def unacked(self) -> int:
        return self.own.count + len(self.own_compacted)


@dataclass(slots=True)
class Room:
    """A document that somebody has open: the end of its log, its snapshot, and its readers. ``mark``: a position, and
    the document's mark there (``Backend.mark``)."""

    kind: str
    head: Cursor
    snapshot: StoredSnapshot | None
    mark: tuple[int, bytes] = (0, b"")
    readers: set[Peer] = field(default_factory=set)

    def covers(self, position: int) -> bool:
        """Whether the snapshot stands for the record after a position."""
        return self.snapshot is not None and position < self.snapshot.position


@dataclass(slots=True)
class PeerState:
    """``outstanding``: the weight of what is queued to a peer. ``barriers``: number, and the position of each document
    that has to be sent before it is answered. ``named``: as in ``Greeted``."""

    subscriptions: dict[bytes, Subscription] = field(default_factory=dict)
    outstanding: int = 0
    unacked: int = 0
    features: int = 0
    subject: str = ""
    admin: bool = True
    named: Callable[[bytes], bool] | None = None
    barriers: list[tuple[int, dict[bytes, int]]] = field(default_factory=list)


class Subscriptions:
    """Invariants:

    1. A room is there as long as it has a reader; a peer reads a document if and only if it has a subscription.
    2. ``lagging`` holds every subscription that is neither at the end nor waiting, in the order of their turns.
    3. Of each room this hears of changes that other processes make, if there is a ``notify``.

    ``random(n)`` makes the ids of new logs.
    """

    def __init__(self, storage: Storage, random: Callable[[int], bytes], notify: Notify | None) -> None:
        self._storage, self.random, self._notify = storage, random, notify
        self.peers: dict[Peer, PeerState] = {}
        self.rooms: dict[bytes, Room] = {}
        self.lagging: dict[tuple[Peer, bytes], None] = {}

    def load(self, document: bytes, kind: str) -> Room:
        """The room of a document, also one that nobody reads. An empty log gets its id here, but is written with its
        first record: to open costs no disk."""
        room = self.rooms.get(document)
        if room is not None:
            return room
        head = self._storage.records.head(document)
        if head is None:
            return Room(kind, Cursor(self.random(16), 0, START), None)
        return Room(head.kind, head.cursor, self._storage.snapshots.get(document))

    def is_there(self, document: bytes) -> bool:
        """Whether a document has a record."""
        return self._storage.records.head(document) is not None

    def may_use(self, peer: Peer, document: bytes) -> bool:
        """Whether a document is for a peer: its token names it, it belongs to its subject, or it isn't there yet."""
        state = self.peers[peer]
        if state.named is None or state.named(document) or not self.is_there(document):
            return True
        return self._storage.quotas.owner(document) == state.subject

    def foreign(self, document: bytes) -> list[Peer]:
        """The readers for whom a document is not: somebody else was the first to write it."""
        room = self.rooms.get(document)
        return [peer for peer in room.readers if not self.may_use(peer, document)] if room else []

    def add(self, peer: Peer, document: bytes, room: Room, subscription: Subscription) -> None:
        """A peer reads a document. Raises LogError."""
        new = document not in self.rooms
        self.rooms[document] = room
        room.readers.add(peer)
        self.peers[peer].subscriptions[document] = subscription
        if subscription.sent < room.head.position:
            self.lagging[peer, document] = None
        if new and self._notify is not None:
            self._storage.records.subscribe(document, self._notify)
            # It may have changed since the room was loaded.
            self.refresh(document)

    def remove(self, peer: Peer, document: bytes) -> Subscription | None:
        """A peer reads a document no longer; None where it did not."""
        state = self.peers[peer]
        subscription = state.subscriptions.pop(document, None)
        if subscription is None:
            return None
        state.unacked -= subscription.unacked
        self.lagging.pop((peer, document), None)
        room = self.rooms[document]
        room.readers.discard(peer)
        if not room.readers:
            del self.rooms[document]
            if self._notify is not None:
                self._storage.records.unsubscribe(document)
        return subscription

    def holds(self, document: bytes, room: Room, cursor: Cursor) -> bool:
        """Whether a cursor is a place in the log of this room."""
        if cursor.log != room.head.log:
            return False
        if cursor.position == 0:
            return cursor.chain == START
        return self._storage.records.holds(document, cursor)

    def marked(self, document: bytes, mark: bytes) -> None:
        """The validator says how a document is marked at the end of its log; empty where nobody knows."""
        if room := self.rooms.get(document):
            room.mark = (room.head.position, mark)

    def refresh(self, document: bytes) -> None:
        """A room is as its log is, also where records that were staged are gone again. Raises LogError."""
        room = self.rooms.get(document)
        if room is None:
            return
        head = self._storage.records.head(document)
        room.head = head.cursor if head else Cursor(room.head.log, 0, START)
        room.snapshot = self._storage.snapshots.get(document)
        self.mark_lagging(document)
        for peer in room.readers:
            for _, ends in self.peers[peer].barriers:
                if document in ends:
                    ends[document] = min(ends[document], room.head.position)

    def mark_lagging(self, document: bytes) -> None:
        """Readers that are not at the end of a document get their turn."""
        room = self.rooms[document]
        for peer in room.readers:
            if self.peers[peer].subscriptions[document].sent < room.head.position:
                self.lagging[peer, document] = None

    def mark_all_lagging(self, documents: Iterable[bytes]) -> None:
        """All readers of documents that were appended to get their turn."""
        for document in documents:
            if document in self.rooms:
                self.lagging.update(((peer, document), None) for peer in self.rooms[document].readers)
