"""The relay without sockets, threads and clocks: events of peers in, messages to peers out.

A document that somebody has open is a *room*. ``Rooms.step`` takes all events that came in since the last step; the
records that they push share one commit.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from llmcrdt.sync import messages
from llmcrdt.sync.messages import (
    DELETE_DONE,
    DELETE_REFUSED,
    FOLD_NEVER,
    PRESENCE,
    RESET,
    RESUMED,
    Barrier,
    Close,
    Data,
    Delete,
    Deleted,
    Discard,
    Error,
    ErrorCode,
    Fetch,
    Fold,
    Folded,
    Offer,
    Open,
    Opened,
    Push,
)

from ..log.admin import Storage
from ..log.base import LogError, Notify
from .access import Access
from .attachments import Attachments
from .catch_up import CatchUp
from .compaction import COMPACTED_KINDS, Compaction
from .deletion import Deletions
from .delivery import Delivery, Waiter, storage_error
from .events import (
    Appended,
    CatchUpResult,
    CompactRequest,
    CompactResult,
    Drop,
    Event,
    Greeted,
    Joined,
    Output,
    Send,
    Sent,
    Tick,
    document_of,
    join_pushes,
)
from .limits import Limits
from .presence import Presence
from .subscriptions import PeerState, Subscription, Subscriptions
from .validation import (
    Flush,
    Left,
    Peer,
    PresenceQuery,
    Received,
    ReplicaDropped,
    Request,
    ValidateRequest,
    ValidateResult,
    Validation,
)
from .writes import DELETED, Writes

logger = logging.getLogger(__name__)


class Rooms:
    """All rooms of one relay. Use it from one thread.

    Invariants:

    1. Nothing that a step says of a document leaves before what it did to that document is durable.
    2. A document whose commit failed is as it was before the step; whoever sent something about it in that step is
       dropped, and nothing of that is acknowledged. Other documents are not touched by it.
    3. The ack of a position is queued to a peer after all before that position were.
    4. Messages of one peer about one document are obeyed in their order.
    5. The events, the log and ``random`` decide what a step does, and nothing else.

    ``random(n)`` makes the ids of new logs, and other names. ``validation``: which records are validated, and whether
    somebody does; without it, none are. ``catch_up``: whether somebody answers CatchUpRequest. ``notify`` is called
    with documents that another process changed, on any thread: give them back as Appended.
    """

    def __init__(
        self,
        storage: Storage,
        limits: Limits | None = None,
        random: Callable[[int], bytes] = os.urandom,
        validation: Validation | None = None,
        catch_up: bool = False,
        notify: Notify | None = None,
    ) -> None:
        self.limits = limits = limits or Limits()
        self._storage, self._log = storage, storage.records
        self._validation = validation or Validation(available=False, always=False)
        self._subscriptions = Subscriptions(storage, random, notify)
        self._compaction = Compaction(storage, limits, random)
        self._catch_up: CatchUp[Waiter] = CatchUp(storage, limits, random, catch_up)
        self._presence = Presence(limits)
        self._deletions = Deletions(storage, limits, self._subscriptions)
        self._delivery = Delivery(storage, limits, self._subscriptions, self._catch_up, self._drop)
        self._attachments = Attachments(
            storage, limits, self._subscriptions, self._delivery, self._deletions, self._compaction.sweep_again
        )
        self._access = Access(self._subscriptions, self._delivery, self._close)
        self._writes = Writes(
            storage,
            limits,
            self._subscriptions,
            self._delivery,
            self._deletions,
            self._access,
            self._validation,
            self._presence,
            self._drop,
        )
        # Of this step: (peer, document) of each message.
        self._senders: list[tuple[Peer, bytes]] = []
        self.taken: list[tuple[Peer, int]] = []
        """Of the last step: the peers whose messages were dealt with, and the sizes of those."""
        self.more = self._compaction.busy
        """Whether another step has work, even without an event."""

    @property
    def documents(self) -> int:
        """How many documents are held in memory."""
        return len(self._subscriptions.rooms)

    @property
    def stuck(self) -> bool:
        """Whether something waits for a better moment: give a Tick in a while."""
        return self._compaction.stuck

    @property
    def clean(self) -> bool:
        """Whether nothing is left to be swept of what was compacted or deleted."""
        return self._compaction.clean

    @property
    def announces(self) -> bool:
        """Whether there is presence to tell: give a Tick in ``limits.presence_tick``."""
        return self._presence.waiting

    # ---------------------------------------------------------------- the order of work

    def step(
        self,
        events: Sequence[Event],
        hand_out: Callable[[Sequence[ValidateRequest | ReplicaDropped]], None] | None = None,
    ) -> list[Output]:
        """Handle all events in their order, commit once, and say what is to be sent, in order. Never raises
        LogError. ``hand_out`` gets the validator's orders before the commit, so that it needn't wait for the disk; else
        they are among the outputs."""
        self._delivery.outputs, self._writes.appender.recent = [], {}
        self.more, self.taken, self._senders = False, [], []
        failed = self._handle(join_pushes(events))
        self._check_attachments()
        if hand_out is not None:
            hand_out(self._writes.take_orders(failed))
        recent = self._writes.appender.recent
        try:
            self._delivery.outputs += self._compaction.start_requests(recent)
        except LogError as e:
            logger.error("the log can't be read: %s", e)
        failed |= self._log.commit()
        if failed:
            self._undo(failed)
        self._validation.settle()
        self._compaction.sweep()
        self._end_deleted()
        try:
            self._writes.answer_flushes()
            self._answer_compactions()
            for document, stored in recent.items():
                if stored and stored[0].position == 1:
                    self._access.end_foreign(document)
            self._delivery.deliver(recent)
            self.taken += self._attachments.serve()
            self.more = self._compaction.busy or self._delivery.has_more or self._attachments.busy
        except LogError as e:
            logger.error("the log can't be read: %s", e)
            self._drop_all(tuple(self._subscriptions.peers))
        self._delivery.answer_barriers()
        if Tick in map(type, events):
            self._delivery.tell_presence(self._presence.tick(self._delivery.is_full))
        # The last answer is not held until somebody says something.
        outputs, self._delivery.outputs = self._delivery.outputs, []
        return outputs

    def _handle(self, events: Sequence[Event]) -> dict[bytes, LogError]:
        """Handle events. The documents that failed: no later event succeeds for them."""
        failed: dict[bytes, LogError] = {}
        for event in events:
            match event:
                case Sent(peer, weight):
                    if self._delivery.drain(peer, weight):
                        self._presence.drained(peer)
                    continue
                case Received(peer, message):
                    document = document_of(message)
                    self._senders.append((peer, document))
                case ValidateResult():
                    document = self._validation.document(event)
                case _:
                    document = document_of(event)
            try:
                if document in failed:
                    self._handle_lost(event)
                else:
                    self._handle_event(event)
            except LogError as e:
                failed[document] = e
                self._handle_lost(event)
        return failed

    def _check_attachments(self) -> None:
        try:
            self._attachments.check()
        except LogError as e:
            logger.error("the log can't be read: %s", e)
            self._drop_all(self._attachments.give_up())

    def _handle_event(self, event: Event) -> None:
        match event:
            case Received(peer):
                # A peer that was dropped may have had more on its way.
                if peer in self._subscriptions.peers and not self._validation.holds(event):
                    self._handle_message(event)
                elif self._validation.waiting(peer) > self.limits.window_records:
                    self._drop(peer, Error(ErrorCode.WINDOW_EXCEEDED, "Too many messages wait for others."))
            case ValidateResult():
                self._handle_validated(event)
            case Flush(document):
                self._writes.flush(document)
            case Greeted(peer, features, subject, admin, named):
                if state := self._subscriptions.peers.get(peer):
                    state.features, state.subject, state.admin, state.named = features, subject, admin, named
            case Joined(peer):
                self._subscriptions.peers[peer] = PeerState()
            case Left(peer):
                if not self._validation.holds(event):
                    self._leave(peer)
            case CompactResult(document):
                if self._compaction.handle_result(event):
                    self._catch_up.forget(document)
                    self._writes.appender.recent.pop(document, None)
                    self._subscriptions.refresh(document)
            case CatchUpResult():
                self._delivery.end_wait(event)
            case Appended(document):
                self._handle_appended(document)

    def _handle_lost(self, event: Event) -> None:
        """A document failed, and with it what an event says of it: its peer has to send that again."""
        match event:
            case CompactResult() | CatchUpResult():
                with suppress(LogError):
                    self._handle_event(event._replace(records=None))
            case Flush():
                self._handle_event(event)
            case ValidateResult():
                found = self._validation.take(event)
                if found is not None and found[1] is not None:
                    self._validation.forget(found[1])

    def _handle_validated(self, result: ValidateResult) -> None:
        event = self._writes.finish(result)
        if event is None:
            return
        self.taken.append((event.peer, event.size))
        for held in self._validation.release(event.peer):
            if isinstance(held, Left):
                self._leave(held.peer)
            else:
                self._senders.append((held.peer, document_of(held.message)))
                self._handle_message(held)

    def _handle_appended(self, document: bytes) -> None:
        """Another process changed a document."""
        room, head = self._subscriptions.rooms.get(document), self._log.head(document)
        self._catch_up.forget(document)
        self._writes.drop_replica(document)
        if room is None:
            return
        if head is None and self._storage.tombstones.is_deleted(document):
            self._end_streams(document)
        elif head is not None and head.cursor.log != room.head.log:
            # Both began a log for it, and this one's was the second.
            error = storage_error(self.limits, "Another relay began this document; connect again.")
            for peer in tuple(room.readers):
                self._drop(peer, error)
        else:
            self._subscriptions.refresh(document)
            self._access.end_foreign(document)

    def _undo(self, failed: Mapping[bytes, LogError]) -> None:
        """Nothing that this step did to these documents is durable. Answers about them may rest on what is gone, so
        they are not sent."""
        logger.error("the log can't be written: %s", next(iter(failed.values())))
        peers = self._writes.fail(failed)
        self._delivery.outputs = [
            output
            for output in self._delivery.outputs
            if not (isinstance(output, Send) and document_of(output.message) in failed)
            and not (isinstance(output, CompactRequest) and output.document in failed)
        ]
        self._deletions.fail(failed)
        self._compaction.fail(failed)
        self._attachments.fail(failed)
        peers += [peer for peer, document in self._senders if document in failed]
        self._drop_all(dict.fromkeys(peers))
        try:
            for document in failed:
                self._subscriptions.refresh(document)
        except LogError:
            self._drop_all(tuple(self._subscriptions.peers))

    # ---------------------------------------------------------------- what peers ask for

    def _handle_message(self, event: Received) -> None:
        """A message whose turn it is: have it validated, or obey it."""
        peer, message, size = event
        if not self._access.is_for(peer, message):
            self.taken.append((peer, size))
        elif isinstance(message, Fetch):
            self._attachments.ask(event)
        elif not self._writes.begin(event):
            self.taken.append((peer, size))
            self._obey(peer, message)

    def _obey(self, peer: Peer, message: Request) -> None:
        match message:
            case Push():
                self._writes.push(peer, message, message.data)
            case Open():
                self._open(peer, message)
            case Close(document):
                self._close(peer, document)
            case Barrier(number):
                self._delivery.add_barrier(peer, number)
            case Fold(document):
                self._compact(peer, document)
            case Delete(document):
                self._delete(peer, document)
            case Offer() | Data() | Discard():
                self._attachments.obey(peer, message)
            case PresenceQuery(document):
                if document in self._subscriptions.peers[peer].subscriptions:
                    self._presence.watch(peer, document)
            case messages.Presence(document, entries):
                if why := self._presence.announce(peer, document, entries):
                    self._delivery.refuse(peer, ErrorCode.PRESENCE_REFUSED, why, document)

    def _open(self, peer: Peer, message: Open) -> None:
        state, document = self._subscriptions.peers[peer], message.document
        if document in state.subscriptions:
            self._close(peer, document)
        if self._deletions.is_deleted(document):
            return self._delivery.refuse(peer, ErrorCode.GONE, DELETED, document)
        if len(state.subscriptions) >= self.limits.documents:
            text = f"At most {self.limits.documents} documents on one connection."
            return self._delivery.refuse(peer, ErrorCode.TOO_MANY_DOCUMENTS, text, document)
        room = self._subscriptions.load(document, message.kind)
        if room.kind != message.kind:
            text = f"This document is of kind {room.kind}."
            return self._delivery.refuse(peer, ErrorCode.WRONG_KIND, text, document)
        cursor = message.cursor
        resumed = cursor is not None and self._subscriptions.holds(document, room, cursor)
        start = cursor.position if resumed and cursor else 0
        self._subscriptions.add(peer, document, room, Subscription(start, catch_up_to=room.head.position))
        if state.features & PRESENCE:
            self._presence.watch(peer, document)
        how = RESUMED if resumed else RESET
        self._delivery.send(peer, Opened(document, how, room.head, start))

    def _close(self, peer: Peer, document: bytes) -> None:
        subscription = self._subscriptions.remove(peer, document)
        if subscription is None:
            return
        self._presence.unwatch(peer, document)
        if subscription.updates_only and (drop := self._validation.unfollow(document)):
            self._delivery.outputs.append(drop)

    def _compact(self, peer: Peer, document: bytes) -> None:
        room = self._subscriptions.rooms.get(document)
        if self._deletions.is_deleted(document):
            return self._delivery.refuse(peer, ErrorCode.GONE, DELETED, document)
        if room is None or peer not in room.readers:
            return self._delivery.refuse(peer, ErrorCode.NOT_OPEN, "Open the document first.", document)
        if room.kind not in COMPACTED_KINDS:
            return self._delivery.send(peer, Folded(document, FOLD_NEVER))
        self._compaction.ask(peer, document)

    def _delete(self, peer: Peer, document: bytes) -> None:
        state = self._subscriptions.peers[peer]
        if self._deletions.count_waiting(peer) >= self.limits.deletes:
            text = f"At most {self.limits.deletes} deletions may wait for their answer."
            return self._drop(peer, Error(ErrorCode.WINDOW_EXCEEDED, text))
        if not self._deletions.may_delete(document, state.subject, state.admin):
            return self._delivery.send(peer, Deleted(document, DELETE_REFUSED))
        if self._deletions.delete(peer, document, state.subject):
            self._writes.drop_replica(document)
            self._compaction.sweep_again()

    # ---------------------------------------------------------------- after the commit

    def _end_deleted(self) -> None:
        """The deletions of this step are durable: their streams end."""
        for document in self._deletions.take_committed():
            self._compaction.drop(document)
            self._catch_up.forget(document)
            self._writes.appender.recent.pop(document, None)
            self._end_streams(document)

    def _end_streams(self, document: bytes) -> None:
        room = self._subscriptions.rooms.get(document)
        for peer in tuple(room.readers) if room else ():
            self._close(peer, document)
            self._delivery.refuse(peer, ErrorCode.GONE, DELETED, document)

    def _answer_compactions(self) -> None:
        """Peers that asked for a compaction or a deletion hear when no file holds anything of what was to go."""
        for peer, document, outcome in self._compaction.take_answers():
            if peer in self._subscriptions.peers:
                self._delivery.send(peer, Folded(document, outcome))
        if self._compaction.clean:
            for peer, document in self._deletions.take_answers():
                self._delivery.send(peer, Deleted(document, DELETE_DONE))
            self._attachments.answer_discards()

    # ---------------------------------------------------------------- the end of a connection

    def _leave(self, peer: Peer) -> None:
        state = self._subscriptions.peers.get(peer)
        if state is not None:
            for document in tuple(state.subscriptions):
                self._close(peer, document)
            del self._subscriptions.peers[peer]
            self._delivery.leave(peer)
            self._compaction.leave(peer)
            self._presence.leave(peer)
            self._deletions.leave(peer)
            self._attachments.leave(peer)
        self._validation.leave(peer)

    def _drop(self, peer: Peer, error: Error) -> None:
        self._leave(peer)
        self._delivery.outputs.append(Drop(peer, error))

    def _drop_all(self, peers: Iterable[Peer]) -> None:
        for peer in peers:
            if peer in self._subscriptions.peers:
                self._drop(peer, storage_error(self.limits))
