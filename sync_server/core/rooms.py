"""What the relay does, without sockets, threads and clocks: events of peers in, messages to peers out.

``Rooms.step`` takes all events that came in since the last one. What they push is appended in one transaction, and
nothing leaves before it is on disk: that is the group commit, and the meaning of an ack.

A document that somebody has open is a *room*. Each of its readers has a place in the log. New records go to readers
at the end straight from memory; a reader whose queue is full stays where it is, and is read to from the log later.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import NamedTuple, TypeAlias

from llmcrdt.sync import wire
from llmcrdt.sync.wire import Ack, Cursor, Error, ErrorCode, Message, Record, Records

from ..log.base import Conflict, Gap, LogError, RecordLog, Stored, label
from ..log.snapshots import Part, StoredSnapshot
from .catch_up import CatchUp, CatchUpRequest, CatchUpResult, CatchUpSnapshot
from .compaction import FOLDED_KINDS, Compaction, CompactRequest, CompactResult
from .deletion import DeletionWaiters
from .limits import Limits
from .presence import Presence
from .validation import (
    DiffRequest,
    DiffResponse,
    Flush,
    Flushed,
    Left,
    MergeRequest,
    Peer,
    PresenceQuery,
    Received,
    ReplicaDropped,
    Request,
    ValidateRequest,
    ValidateResult,
    Validation,
)

logger = logging.getLogger(__name__)


class Joined(NamedTuple):
    peer: Peer


class Greeted(NamedTuple):
    """Who a peer is. ``features``: bits of ``wire.FEATURES``, what it knows beyond what every peer knows. ``subject``:
    whose what it writes is (empty: nobody's, and never counted). ``admin``: whether it may delete what is others'."""

    peer: Peer
    features: int
    subject: str = ""
    admin: bool = True


class Tick(NamedTuple):
    """Nothing happened; some time went by."""


class Sent(NamedTuple):
    """``weight`` of what was to be sent to a peer has left."""

    peer: Peer
    weight: int


Event: TypeAlias = (
    Joined | Greeted | Left | Received | Sent | Tick | CompactResult | CatchUpResult | ValidateResult | Flush
)


class Send(NamedTuple):
    """One message for one or many peers. ``weight`` is about its size in bytes."""

    peers: Sequence[Peer]
    message: Message | DiffResponse
    weight: int


class Drop(NamedTuple):
    """Send this error to a peer, then end its connection."""

    peer: Peer
    error: Error


Output: TypeAlias = Send | Drop | CompactRequest | CatchUpRequest | ValidateRequest | ReplicaDropped | Flushed

_GONE = "This document was deleted."
_UNCHECKED = "The relay can't check what is added to this document, and takes nothing for it."
_CONTROL = 128
"""The weight of a message without records."""


@dataclass(slots=True)
class _Subscription:
    """One peer's place in one document. ``own``: what the peer pushed and was not acknowledged, by position;
    ``folded``: what it pushed and the snapshot that it is still to get stands for. ``part``: the session of the
    snapshot that it gets just now, and the next part. ``missed``: what the log had when it was opened, up to where it
    may get something shorter than the records; ``short``: that, and ``waiting``: it is still to come. ``merging``: the
    peer knows no records and no snapshots, only updates that are merged."""

    sent: int
    own: dict[int, tuple[bytes, int]] = field(default_factory=dict)
    folded: list[tuple[bytes, int]] = field(default_factory=list)
    part: tuple[bytes, int] = (b"", 0)
    missed: int = 0
    short: CatchUpSnapshot | None = None
    waiting: bool = False
    merging: bool = False

    @property
    def unacked(self) -> int:
        return len(self.own) + len(self.folded)


@dataclass(slots=True)
class _Room:
    kind: str
    head: Cursor
    fold: StoredSnapshot | None
    readers: set[Peer] = field(default_factory=set)

    def folds_over(self, position: int) -> bool:
        """Whether the record behind a position is in the snapshot."""
        return self.fold is not None and position < self.fold.position


@dataclass(slots=True)
class _Peer:
    readings: dict[bytes, _Subscription] = field(default_factory=dict)
    outstanding: int = 0
    unacked: int = 0
    features: int = 0
    subject: str = ""
    admin: bool = True
    barriers: list[tuple[int, dict[bytes, int]]] = field(default_factory=list)
    session: bytes = b""
    n: int = 0


class Rooms:
    """All rooms of one relay. Use it from one thread. ``random(n)`` makes the ids of new logs. ``checking``: what is
    checked, and by whom; without, nothing is. ``condense``: whether somebody answers CatchUpRequest."""

    def __init__(
        self,
        log: RecordLog,
        limits: Limits | None = None,
        random: Callable[[int], bytes] = os.urandom,
        checking: Validation | None = None,
        condense: bool = False,
    ) -> None:
        self.limits = limits or Limits()
        self._log = log
        self._random = random
        self._peers: dict[Peer, _Peer] = {}
        self._rooms: dict[bytes, _Room] = {}
        self._asking: set[Peer] = set()
        # Readers that are not at the end of a log, in the order they get their turn.
        self._behind: dict[tuple[Peer, bytes], None] = {}
        self._recent: dict[bytes, list[Stored]] = {}
        self._out: list[Output] = []
        self._folding = Compaction(log, self.limits, random)
        self._condensing = CatchUp[tuple[Peer, _Subscription]](log, self.limits, random, condense)
        self._presence = Presence(self.limits)
        self._deleting = DeletionWaiters()
        self._checking = checking or Validation(available=False, always=False)
        self._flushes: list[bytes] = []
        self.taken: list[tuple[Peer, int]] = []
        """Of the last step: whose messages were dealt with, and their sizes."""
        self.more = self._folding.busy
        """Whether another step has work, even without an event."""

    @property
    def documents(self) -> int:
        """How many documents are held in memory."""
        return len(self._rooms)

    @property
    def stuck(self) -> bool:
        """Whether something waits for a better moment: give a Tick in a while."""
        return self._folding.stuck

    @property
    def clean(self) -> bool:
        """Whether nothing is left to be taken away of what was folded or deleted."""
        return self._folding.clean

    @property
    def announces(self) -> bool:
        """Whether there is presence to tell: give a Tick in ``limits.presence_tick``."""
        return self._presence.waiting

    def step(self, events: Sequence[Event]) -> list[Output]:
        """Take all events in their order, commit once, and say what is to be sent, in order. Never raises LogError:
        where the log can't be written, whoever sent something in this step is dropped, and nothing is acknowledged."""
        self._out, self._recent, self.more = [], {}, False
        events = joined(events)
        self.taken = []
        done = 0
        try:
            with self._log.transaction():
                for event in events:
                    self._take(event)
                    done += 1
                self._out += self._folding.work(self._recent)
            self._checking.settle()
        except LogError as e:
            self._undo(events, done, e)
        self._end_deleted()
        try:
            self._answer_flushes()
            self._answer_folds()
            self._answer_deletes()
            self._deliver()
        except LogError as e:
            logger.error("the log can't be read: %s", e)
            self._drop_all(tuple(self._peers))
        self._answer_barriers()
        if any(isinstance(event, Tick) for event in events):
            self._tell_presence()
        return self._out

    # ---------------------------------------------------------------- events

    def _take(self, event: Event) -> None:
        match event:
            case Received(peer, _, _):
                # A peer that was dropped may have had more on its way.
                if peer in self._peers and not self._checking.holds(event):
                    self._deal(event)
                elif self._checking.waiting(peer) > self.limits.window_records:
                    self._drop(peer, Error(ErrorCode.WINDOW_EXCEEDED, "Too many messages wait for others."))
            case ValidateResult():
                self._checked(event)
            case Flush(document):
                self._flushes.append(document)
            case Sent(peer, weight):
                if peer in self._peers:
                    self._peers[peer].outstanding -= weight
                    if not self._full(peer):
                        self._presence.drained(peer)
            case Greeted(peer, features, subject, admin):
                if peer in self._peers:
                    state = self._peers[peer]
                    state.features, state.subject, state.admin = features, subject, admin
            case Joined(peer):
                self._peers[peer] = _Peer()
            case Left(peer):
                if not self._checking.holds(event):
                    self._leave(peer)
            case CompactResult(document):
                if self._folding.take(event):
                    self._condensing.forget(document)
                    if document in self._rooms:
                        self._folded(document)
            case CatchUpResult():
                self._condensed(event)

    def _deal(self, event: Received) -> None:
        """A message whose turn it is: have it checked, or obey it."""
        if not self._check(event):
            self.taken.append((event.peer, event.size))
            self._message(event.peer, event.message)

    def _check(self, event: Received) -> bool:
        """Whether a message has to be checked first, and is."""
        peer, message, _ = event
        records = 0
        if isinstance(message, DiffRequest | MergeRequest) and self._is_gone(message.document):
            self.taken.append((peer, event.size))
            self._refuse(peer, ErrorCode.GONE, _GONE, message.document)
            return True
        match message:
            case DiffRequest():
                pass
            case MergeRequest(document, kind, update):
                there = self._rooms.get(document) or self._load(document, kind)
                if self._no_room(peer, document, there, len(update)):
                    event = event._replace(message=replace(message, may_append=False))
            case wire.Push(document, session, n, data):
                room = self._rooms.get(document)
                if room is None or peer not in room.readers or not self._checking.wants(room.kind, document):
                    return False
                last = self._log.last(document, session)
                if n + len(data) - 1 <= last or n > max(last, self._checking.last(document, session)) + 1:
                    return False
                # What can't be appended in any case is not looked at: nothing must be in a replica but not in the log.
                records = len(data)
                if not self._fit(peer, document, room, data):
                    records = next((i for i, d in enumerate(data) if self._unfit(peer, document, room, d)), records)
                if records == 0:
                    return False
            case _:
                return False
        self._out.append(self._checking.check(event, records, self._peers[peer].subject or peer))
        return True

    def _checked(self, answer: ValidateResult) -> None:
        found = self._checking.take(answer)
        if found is None:
            return
        (event, _, records, _), again = found
        peer, message, size = event
        if again is not None:
            return self._out.append(again)
        self.taken.append((peer, size))
        match message:
            case wire.Push(document, session, n) if answer.failed:
                if peer in self._peers:
                    self._refuse(peer, ErrorCode.READ_ONLY, _UNCHECKED, document, session, n)
            case DiffRequest(document) | MergeRequest(document) if answer.failed:
                if peer in self._peers:
                    self._refuse(peer, ErrorCode.READ_ONLY, _UNCHECKED, document)
            case wire.Push(document, session, n, data):
                # All that was looked at is good: what comes behind can't be appended, and is refused in its turn.
                good = data if answer.good == records else data[: answer.good]
                if peer not in self._peers or self._push(peer, message, good) < answer.good:
                    self._drop_replica(document)
                if answer.refused:
                    self._set_aside(peer, document, Record(session, n + answer.good, data[answer.good]), answer.refused)
            case DiffRequest(document, kind) | MergeRequest(document, kind):
                if self._merged(peer, document, kind, answer, message) is False:
                    self._drop_replica(document)
        for held in self._checking.release(peer):
            if isinstance(held, Left):
                self._leave(held.peer)
            else:
                self._deal(held)

    def _merged(
        self, peer: Peer, document: bytes, kind: str, answer: ValidateResult, message: DiffRequest | MergeRequest
    ) -> bool:
        """Whether all that the replica got of a peer that knows no records is in the log."""
        room = self._follow(peer, document, kind) if peer in self._peers else None
        state = self._peers.get(peer)
        if room is None or state is None:
            return not answer.data or isinstance(message, DiffRequest)
        if isinstance(message, DiffRequest):
            if answer.refused:
                self._drop(peer, Error(ErrorCode.MALFORMED, answer.refused))
            else:
                weight = _CONTROL + sum(map(len, answer.data))
                state.outstanding += weight
                self._out.append(Send((peer,), DiffResponse(document, *answer.data), weight))
        elif answer.refused and not message.may_append:
            full = self._no_room(peer, document, room, len(message.update))
            self._refuse(peer, *(full or (ErrorCode.READ_ONLY, answer.refused)), document)
        elif answer.refused:
            self._set_aside(peer, document, Record(bytes(16), 0, message.update), answer.refused)
        elif answer.data:
            state.session = state.session or self._random(16)
            push = wire.Push(document, state.session, state.n + 1, answer.data)
            done = self._push(peer, push, answer.data)
            state.n += done
            return done == len(answer.data)
        return True

    def _drop_replica(self, document: bytes) -> None:
        """Whoever checks has applied what is not in the log."""
        if self._checking.available:
            self._out.append(self._checking.drop(document))

    def _follow(self, peer: Peer, document: bytes, kind: str) -> _Room | None:
        """The room of a peer that knows no records: it gets what comes from now on. None where it was refused."""
        if document in self._peers[peer].readings:
            return self._rooms[document]
        if self._is_gone(document):
            self._refuse(peer, ErrorCode.GONE, _GONE, document)
            return None
        room = self._rooms.get(document) or self._load(document, kind)
        if room.kind != kind:
            self._refuse(peer, ErrorCode.WRONG_KIND, f"This document is of kind {room.kind}.", document)
            return None
        self._rooms[document] = room
        room.readers.add(peer)
        self._peers[peer].readings[document] = _Subscription(room.head.position, merging=True)
        self._presence.watch(peer, document)
        self._checking.follow(document)
        return room

    def _set_aside(self, peer: Peer, document: bytes, record: Record, why: str) -> None:
        """A record that can't be applied is kept for the operator, and goes nowhere else."""
        logger.warning("document %s: a record was refused: %s", label(document), why)
        self._log.set_aside(document, record, why)
        if peer in self._peers:
            self._refuse(peer, ErrorCode.BAD_RECORD, why, document, record.session, record.n)

    def _message(self, peer: Peer, message: Request) -> None:
        match message:
            case wire.Push():
                self._push(peer, message, message.data)
            case wire.Open():
                self._open(peer, message)
            case wire.Close(document):
                self._close(peer, document)
            case wire.Barrier(number):
                self._barrier(peer, number)
            case wire.Fold(document):
                self._fold(peer, document)
            case wire.Delete(document):
                self._delete(peer, document)
            case PresenceQuery(document):
                if document in self._peers[peer].readings:
                    self._presence.watch(peer, document)
            case wire.Presence(document, entries):
                if why := self._presence.take(peer, document, entries):
                    self._refuse(peer, ErrorCode.PRESENCE_REFUSED, why, document)

    def _open(self, peer: Peer, message: wire.Open) -> None:
        state, document = self._peers[peer], message.document
        if document in state.readings:
            self._close(peer, document)
        if self._is_gone(document):
            return self._refuse(peer, ErrorCode.GONE, _GONE, document)
        if len(state.readings) >= self.limits.documents:
            text = f"At most {self.limits.documents} documents on one connection."
            return self._refuse(peer, ErrorCode.TOO_MANY_DOCUMENTS, text, document)
        room = self._rooms.get(document) or self._load(document, message.kind)
        if room.kind != message.kind:
            return self._refuse(peer, ErrorCode.WRONG_KIND, f"This document is of kind {room.kind}.", document)
        resumed = message.cursor is not None and self._holds(document, room, message.cursor)
        start = message.cursor.position if resumed and message.cursor else 0
        self._rooms[document] = room
        room.readers.add(peer)
        state.readings[document] = _Subscription(start, missed=room.head.position)
        if state.features & wire.PRESENCE:
            self._presence.watch(peer, document)
        if start < room.head.position:
            self._behind[peer, document] = None
        self._send(peer, wire.Opened(document, wire.RESUMED if resumed else wire.RESET, room.head, start))

    def _load(self, document: bytes, kind: str) -> _Room:
        """An empty log gets its id here, but is written with its first record: to open costs no disk."""
        head = self._log.head(document)
        if head is None:
            return _Room(kind, Cursor(self._random(16), 0, wire.START), None)
        return _Room(head.kind, head.cursor, self._log.fold(document))

    def _holds(self, document: bytes, room: _Room, cursor: Cursor) -> bool:
        if cursor.log != room.head.log:
            return False
        if cursor.position == 0:
            return cursor.chain == wire.START
        return self._log.holds(document, cursor)

    def _close(self, peer: Peer, document: bytes) -> None:
        reading = self._peers[peer].readings.pop(document, None)
        if reading is None:
            return
        if reading.merging and (drop := self._checking.unfollow(document)):
            self._out.append(drop)
        self._peers[peer].unacked -= reading.unacked
        self._presence.unwatch(peer, document)
        self._behind.pop((peer, document), None)
        room = self._rooms[document]
        room.readers.discard(peer)
        if not room.readers:
            del self._rooms[document]

    def _leave(self, peer: Peer) -> None:
        if peer in self._peers:
            for document in tuple(self._peers[peer].readings):
                self._close(peer, document)
            del self._peers[peer]
            self._asking.discard(peer)
            self._folding.leave(peer)
            self._presence.leave(peer)
            self._deleting.leave(peer)
        self._checking.leave(peer)

    def _push(self, peer: Peer, push: wire.Push, data: Sequence[bytes]) -> int:
        """Append the first records of a push. How many there are now: the first that is refused ends it."""
        state = self._peers[peer]
        reading = state.readings.get(push.document)
        where = (push.document, push.session, push.n)
        if self._is_gone(push.document):
            self._refuse(peer, ErrorCode.GONE, _GONE, *where)
            return 0
        if reading is None:
            self._refuse(peer, ErrorCode.NOT_OPEN, "Open the document first.", *where)
            return 0
        if state.unacked + len(data) > self.limits.window_records and not reading.merging:
            text = f"At most {self.limits.window_records} records may wait for their ack."
            self._drop(peer, Error(ErrorCode.WINDOW_EXCEEDED, text))
            return 0
        room = self._rooms[push.document]
        before = reading.unacked
        expected = self._log.last(push.document, push.session) + 1
        if data and push.n == expected and self._fit(peer, push.document, room, data):
            done = self._extend(peer, reading, room, push, data)
        else:
            done = self._push_each(peer, reading, room, push, data)
        if head := self._log.head(push.document):
            room.head = head.cursor
        state.unacked += reading.unacked - before
        return done

    def _extend(self, peer: Peer, reading: _Subscription, room: _Room, push: wire.Push, data: Sequence[bytes]) -> int:
        """Append records that are all new, and fit."""
        document, session = push.document, push.session
        owner = self._owner(peer, document)
        stored = self._log.extend(document, session, push.n, data, room.kind, room.head.log, owner)
        self._recent.setdefault(document, []).extend(stored)
        reading.own.update((position, (session, record.n)) for position, record in stored)
        return len(stored)

    def _push_each(
        self, peer: Peer, reading: _Subscription, room: _Room, push: wire.Push, data: Sequence[bytes]
    ) -> int:
        repeats: list[tuple[int, bytes, int]] = []
        done = 0
        for n, piece in enumerate(data, push.n):
            found = self._append(peer, push.document, room, Record(push.session, n, piece))
            if found is None:
                break
            done += 1
            position, new = found
            if new or position > reading.sent:
                reading.own[position] = (push.session, n)
            elif position == 0 and room.folds_over(reading.sent):
                reading.folded.append((push.session, n))
            else:
                # Where a folded record stood isn't known any more; any place that this peer is past will do, and
                # growing ones make one message of many.
                repeats.append((position or min(len(repeats) + 1, reading.sent), push.session, n))
        for ack in _acks(push.document, repeats):
            self._send(peer, ack)
        return done

    def _fit(self, peer: Peer, document: bytes, room: _Room, data: Sequence[bytes]) -> bool:
        """Whether a log can take all of these records. (Where it can't, it may take the first of them.)"""
        size = sum(map(len, data))
        return max(map(len, data), default=0) <= self.limits.record and not self._no_room(peer, document, room, size)

    def _unfit(self, peer: Peer, document: bytes, room: _Room, data: bytes) -> tuple[ErrorCode, str] | None:
        """Why a log can't take a record in any case."""
        if len(data) > self.limits.record:
            return ErrorCode.RECORD_TOO_LARGE, f"A record has {len(data)} bytes; {self.limits.record} are allowed."
        return self._no_room(peer, document, room, len(data))

    def _no_room(self, peer: Peer, document: bytes, room: _Room, size: int) -> tuple[ErrorCode, str] | None:
        """Why there is no room for so many bytes more."""
        if self._log.size(document) + (room.fold.size if room.fold else 0) + size > self.limits.log:
            return ErrorCode.LOG_FULL, f"The log of this document has {self.limits.log} bytes at most."
        if not self._has_room(self._owner(peer, document), size):
            return ErrorCode.SUBJECT_FULL, f"All documents of its owner have {self.limits.subject_log} bytes at most."
        return None

    def _append(self, peer: Peer, document: bytes, room: _Room, record: Record) -> tuple[int, bool] | None:
        """Where the record stands, and whether it is new; None where it was refused."""
        refused: tuple[ErrorCode, str, int]
        if unfit := self._unfit(peer, document, room, record.data):
            refused = (*unfit, record.n)
        else:
            try:
                owner = self._owner(peer, document)
                position, new = self._log.append(document, record, room.kind, room.head.log, owner)
                if new:
                    self._recent.setdefault(document, []).append(Stored(position, record))
                return position, new
            except Gap as e:
                text = f"n = {e.expected} is next in this session, not {record.n}."
                refused = (ErrorCode.GAP, text, e.expected)
            except Conflict:
                logger.warning("document %s: a record was sent again with other bytes", label(document))
                refused = (ErrorCode.CONFLICT, f"n = {record.n} of this session has other bytes.", record.n)
        code, text, n = refused
        self._refuse(peer, code, text, document, record.session, n)
        return None

    def _owner(self, peer: Peer, document: bytes) -> str:
        """Whose bytes a record of this peer is: those of the document's owner, which the first to write becomes."""
        return self._peers[peer].subject if self._log.head(document) is None else self._log.owner(document)

    def _has_room(self, owner: str, size: int) -> bool:
        return not owner or self._log.held(owner) + size <= self.limits.subject_log

    def _barrier(self, peer: Peer, number: int) -> None:
        state = self._peers[peer]
        if len(state.barriers) >= self.limits.barriers:
            return self._drop(peer, Error(ErrorCode.WINDOW_EXCEEDED, f"At most {self.limits.barriers} barriers."))
        ends = ((d, r.sent, self._rooms[d].head.position) for d, r in state.readings.items())
        state.barriers.append((number, {d: end for d, sent, end in ends if sent < end}))
        self._asking.add(peer)

    def _fold(self, peer: Peer, document: bytes) -> None:
        room = self._rooms.get(document)
        if self._is_gone(document):
            return self._refuse(peer, ErrorCode.GONE, _GONE, document)
        if room is None or peer not in room.readers:
            return self._refuse(peer, ErrorCode.NOT_OPEN, "Open the document first.", document)
        if room.kind not in FOLDED_KINDS:
            return self._send(peer, wire.Folded(document, wire.FOLD_NEVER))
        self._folding.ask(peer, document)

    def _is_gone(self, document: bytes) -> bool:
        """Whether a document was deleted, in this step or before."""
        return document in self._deleting.now or (document not in self._rooms and self._log.gone(document))

    def _delete(self, peer: Peer, document: bytes) -> None:
        state = self._peers[peer]
        if self._deleting.waits(peer) >= self.limits.deletes:
            text = f"At most {self.limits.deletes} deletions may wait for their answer."
            return self._drop(peer, Error(ErrorCode.WINDOW_EXCEEDED, text))
        if not state.admin and self._log.owner(document) not in ("", state.subject):
            return self._send(peer, wire.Deleted(document, wire.DELETE_REFUSED))
        if not self._is_gone(document):
            if self._log.head(document) is None and self._log.unknown(state.subject) >= self.limits.unknown:
                return self._send(peer, wire.Deleted(document, wire.DELETE_REFUSED))
            self._log.delete(document, state.subject)
            self._deleting.now[document] = None
            self._drop_replica(document)
            self._folding.sweep_again()
        self._deleting.wait(peer, document)

    def _end_deleted(self) -> None:
        """The deletions of this step are on disk: their streams end."""
        for document in self._deleting.ended():
            self._folding.drop(document)
            self._condensing.forget(document)
            self._recent.pop(document, None)
            room = self._rooms.get(document)
            for peer in tuple(room.readers) if room else ():
                self._close(peer, document)
                self._refuse(peer, ErrorCode.GONE, _GONE, document)

    def _folded(self, document: bytes) -> None:
        """A snapshot stands for records from now on; whoever is not past its position is behind."""
        room = self._rooms[document]
        room.fold = self._log.fold(document)
        self._recent.pop(document, None)
        for peer in room.readers:
            if self._peers[peer].readings[document].sent < room.head.position:
                self._behind[peer, document] = None

    def _condensed(self, answer: CatchUpResult) -> None:
        """Who waited for it goes on, with that or with the records."""
        waiting, short = self._condensing.take(answer)
        for peer, reading in waiting:
            state = self._peers.get(peer)
            # It may have opened the document anew, or have got a fold and asked again.
            there = state is not None and state.readings.get(answer.document) is reading
            if there and reading.waiting and reading.sent == answer.after:
                reading.waiting, reading.short = False, short
                reading.missed = reading.missed if short else 0
                self._behind[peer, answer.document] = None

    # ---------------------------------------------------------------- outputs

    def _answer_flushes(self) -> None:
        # The keeper waits for each: where the log can't be read just now, it is answered in a later step.
        while self._flushes:
            head = self._log.head(self._flushes[0])
            self._out.append(Flushed(self._flushes.pop(0), head.cursor.position if head else 0))

    def _answer_folds(self) -> None:
        for peer, document, outcome in self._folding.settle():
            if peer in self._peers:
                self._send(peer, wire.Folded(document, outcome))

    def _answer_deletes(self) -> None:
        if self._folding.clean:
            for peer, document in self._deleting.answers():
                self._send(peer, wire.Deleted(document, wire.DELETE_DONE))

    def _deliver(self) -> None:
        """One piece of log to every reader that is behind and has room in its queue."""
        for document in self._recent:
            if document in self._rooms:
                self._behind.update(((peer, document), None) for peer in self._rooms[document].readers)
        parts: dict[tuple[bytes, int], Part] = {}
        pieces: dict[tuple[bytes, int], Sequence[Stored]] = {}
        weights: dict[tuple[bytes, int], int] = {}
        together: dict[tuple[bytes, int], list[Peer]] = {}
        for peer, document in tuple(self._behind):
            state = self._peers[peer]
            if state.outstanding >= self.limits.outgoing:
                continue
            # To the back of the line, so that one long log doesn't hold up the others.
            del self._behind[peer, document]
            reading, room = state.readings[document], self._rooms[document]
            if room.folds_over(reading.sent) and reading.merging:
                self._drop(peer, Error(ErrorCode.TOO_SLOW, "It fell behind what the log still has; connect again."))
                continue
            if room.fold is not None and room.folds_over(reading.sent):
                reading.short, reading.waiting = None, False
                self._send_part(peer, document, reading, room, room.fold, partial(self._fold_part, document, parts))
                continue
            if self._waits(peer, document, reading, room):
                continue
            if reading.short is not None:
                self._send_part(peer, document, reading, room, reading.short.fold, reading.short.parts.__getitem__)
                continue
            place = (document, reading.sent)
            piece = pieces.get(place)
            if piece is None:
                piece = pieces[place] = self._piece(document, reading.sent)
            if not piece:
                continue
            reading.sent = piece[-1].position
            if reading.own:
                self._send_mixed(peer, document, reading, piece)
            else:
                if place not in weights:
                    weights[place] = _weight(piece)
                state.outstanding += weights[place]
                together.setdefault(place, []).append(peer)
            if reading.sent < room.head.position:
                self._behind[peer, document] = None
        for place, peers in together.items():
            self._send_records(peers, place[0], pieces[place], weights[place])
        room_for_more = any(self._peers[peer].outstanding < self.limits.outgoing for peer, _ in self._behind)
        self.more = self._folding.busy or room_for_more

    def _waits(self, peer: Peer, document: bytes, reading: _Subscription, room: _Room) -> bool:
        """Whether something shorter than the records that a reader missed is still to come; it is asked for here."""
        if reading.short is None and not reading.waiting and reading.sent < reading.missed:
            found = self._condensing.find((peer, reading), document, room.kind, reading.sent, reading.missed)
            if isinstance(found, CatchUpRequest):
                self._out.append(found)
            if isinstance(found, CatchUpSnapshot):
                reading.short = found
            elif found:
                reading.waiting = True
            else:
                reading.missed = 0
        return reading.waiting

    def _fold_part(self, document: bytes, parts: dict[tuple[bytes, int], Part], place: int) -> Part:
        """A part of the fold's snapshot, read once for all who get it in this step."""
        part = parts[document, place] = parts.get((document, place)) or self._log.part(document, place)
        return part

    def _send_part(
        self,
        peer: Peer,
        document: bytes,
        reading: _Subscription,
        room: _Room,
        fold: StoredSnapshot,
        part_at: Callable[[int], Part],
    ) -> None:
        """The next part of a snapshot. Behind the last, acks for what the peer pushed and the snapshot stands for."""
        session, place = reading.part
        if session != fold.session:
            place = 0
        part = part_at(place)
        weight = _CONTROL + len(part.data)
        self._peers[peer].outstanding += weight
        message = wire.Snapshot(
            document, fold.position, fold.chain, fold.session, part.n, part.of, part.size, part.offset, part.data
        )
        self._out.append(Send((peer,), message, weight))
        reading.part = (fold.session, place + 1)
        if place + 1 == fold.parts:
            self._end_snapshot(peer, document, reading, fold)
        if reading.sent < room.head.position:
            self._behind[peer, document] = None

    def _end_snapshot(self, peer: Peer, document: bytes, reading: _Subscription, fold: StoredSnapshot) -> None:
        reading.sent = fold.position
        reading.short = None
        own = [(p, *reading.own.pop(p)) for p in sorted(reading.own) if p <= fold.position]
        folded = [(min(i, fold.position), session, n) for i, (session, n) in enumerate(reading.folded, 1)]
        reading.folded = []
        self._peers[peer].unacked -= len(own) + len(folded)
        for ack in (*_acks(document, own), *_acks(document, folded)):
            self._send(peer, ack)

    def _piece(self, document: bytes, after: int) -> Sequence[Stored]:
        """The log behind a position, one message long; from memory where it was appended just now."""
        recent = self._recent.get(document)
        if not recent or recent[0].position > after + 1:
            return self._log.read(document, after, self.limits.batch, wire.MAX_RECORDS)
        start = end = after + 1 - recent[0].position
        size = 0
        while end < len(recent) and end - start < wire.MAX_RECORDS:
            size += len(recent[end].record.data)
            if end > start and size > self.limits.batch:
                break
            end += 1
        return recent[start:end]

    def _send_mixed(self, peer: Peer, document: bytes, reading: _Subscription, piece: Sequence[Stored]) -> None:
        """A piece that holds records of the peer itself: it gets acks for those, the rest as records, in order."""
        start = 0
        while start < len(piece):
            own = piece[start].position in reading.own
            end = start + 1
            while end < len(piece) and (piece[end].position in reading.own) == own:
                end += 1
            part = piece[start:end]
            if own:
                self._peers[peer].unacked -= len(part)
                for ack in _acks(document, [(s.position, *reading.own.pop(s.position)) for s in part]):
                    self._send(peer, ack)
            else:
                weight = _weight(part)
                self._peers[peer].outstanding += weight
                self._send_records([peer], document, part, weight)
            start = end

    def _send_records(self, peers: Sequence[Peer], document: bytes, piece: Sequence[Stored], weight: int) -> None:
        message = Records(document, piece[0].position, tuple(s.record for s in piece))
        self._out.append(Send(peers, message, weight))

    def _answer_barriers(self) -> None:
        for peer in tuple(self._asking):
            state = self._peers[peer]
            while state.barriers and self._reached(state, state.barriers[0][1]):
                self._send(peer, wire.Reached(state.barriers.pop(0)[0]))
            if not state.barriers:
                self._asking.discard(peer)

    def _tell_presence(self) -> None:
        for peers, document, entries in self._presence.tick(self._full):
            weight = _CONTROL + sum(len(entry.state) + 16 for entry in entries)
            for peer in peers:
                self._peers[peer].outstanding += weight
            self._out.append(Send(peers, wire.Presence(document, entries), weight))

    def _full(self, peer: Peer) -> bool:
        return self._peers[peer].outstanding >= self.limits.outgoing

    def _reached(self, state: _Peer, ends: dict[bytes, int]) -> bool:
        for document in tuple(ends):
            reading = state.readings.get(document)
            if reading is not None and reading.sent < ends[document]:
                return False
            del ends[document]
        return True

    def _send(self, peer: Peer, message: Message) -> None:
        self._peers[peer].outstanding += _CONTROL
        self._out.append(Send((peer,), message, _CONTROL))

    def _refuse(
        self, peer: Peer, code: ErrorCode, text: str, document: bytes, session: bytes | None = None, n: int = 0
    ) -> None:
        self._send(peer, Error(code, text, document, session, n))

    def _drop(self, peer: Peer, error: Error) -> None:
        self._leave(peer)
        self._out.append(Drop(peer, error))

    def _drop_all(self, peers: Iterable[Peer]) -> None:
        retry_after = int(self.limits.retry_after * 1000)
        for peer in peers:
            if peer in self._peers:
                self._drop(peer, Error(ErrorCode.STORAGE, "The relay can't use its storage.", retry_after=retry_after))

    def _undo(self, events: Sequence[Event], done: int, error: LogError) -> None:
        """Nothing of this step was written. Its answers may rest on what is gone, so they are not sent."""
        logger.error("the log can't be written: %s", error)
        peers, drops = self._checking.undo()
        for output in self._out:
            if isinstance(output, ValidateRequest):
                self._checking.forget(output)
        self._out = [*drops]
        self._deleting.ended()
        for event in events[done:]:
            if isinstance(event, CompactResult | CatchUpResult):
                self._take(event._replace(records=None))
            elif isinstance(event, ValidateResult):
                self._lose(event)
            elif not isinstance(event, Received):
                self._take(event)
        self._drop_all(dict.fromkeys([*peers, *(event.peer for event in events if isinstance(event, Received))]))
        changed, self._recent = [*self._recent, *self._folding.undo()], {}
        try:
            for document in changed:
                if document in self._rooms:
                    room, head = self._rooms[document], self._log.head(document)
                    room.head = head.cursor if head else Cursor(room.head.log, 0, wire.START)
                    room.fold = self._log.fold(document)
        except LogError:
            self._drop_all(tuple(self._peers))

    def _lose(self, answer: ValidateResult) -> None:
        """What was checked can't be appended now: its peer has to send it again."""
        found = self._checking.take(answer)
        if found is not None:
            _, again = found
            if again is not None:
                self._checking.forget(again)
            peers, drops = self._checking.undo()
            self._out += drops
            self._drop_all(peers)


def joined(events: Sequence[Event]) -> list[Event]:
    """Pushes of one peer and one session that follow one another become one: under load that saves most of the work
    for a record."""
    out: list[Event] = []
    run: list[Received] = []
    after: tuple[Peer, bytes, bytes, int] | None = None
    for event in events:
        message = event.message if isinstance(event, Received) else None
        if isinstance(message, wire.Push) and isinstance(event, Received):
            place = (event.peer, message.document, message.session, message.n)
            if place != after or message.n + len(message.data) - _first(run).n > wire.MAX_RECORDS:
                out += _as_one(run)
                run = []
            run.append(event)
            after = (event.peer, message.document, message.session, message.n + len(message.data))
        else:
            out += _as_one(run)
            out.append(event)
            run, after = [], None
    return out + _as_one(run)


def _as_one(run: Sequence[Received]) -> list[Event]:
    if len(run) < 2:
        return [*run]
    data = tuple(d for event in run for d in event.message.data)  # type: ignore[union-attr]
    push = replace(_first(run), data=data)
    return [run[0]._replace(message=push, size=sum(event.size for event in run))]


def _weight(piece: Sequence[Stored]) -> int:
    """What a piece of log counts in the queue of whoever gets it."""
    return _CONTROL + sum(len(stored.record.data) + 24 for stored in piece)


def _first(run: Sequence[Received]) -> wire.Push:
    push = run[0].message
    assert isinstance(push, wire.Push)
    return push


def _acks(document: bytes, places: Sequence[tuple[int, bytes, int]]) -> list[Ack]:
    """Acks for (position, session, n), as few as possible, in order."""
    if not places:
        return []
    breaks = [
        i
        for i, ((p, session, n), (q, other, m)) in enumerate(pairwise(places), 1)
        if (q, other, m) != (p + 1, session, n + 1)
    ]
    return [
        Ack(document, places[start][1], places[start][2], end - start, places[start][0])
        for start, end in zip([0, *breaks], [*breaks, len(places)], strict=True)
    ]
