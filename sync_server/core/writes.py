"""The writes of peers: records of native clients, updates of clients that know no records. Both may be validated
first."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

from llmcrdt.sync.messages import Error, ErrorCode, Push, Record

from ..log.admin import Storage
from ..log.base import label
from .access import Access
from .appender import Appender
from .deletion import Deletions
from .delivery import Delivery
from .events import CONTROL_WEIGHT, Output, Send
from .limits import Limits
from .presence import Presence
from .subscriptions import Room, Subscription, Subscriptions
from .turns import Source
from .validation import (
    CHECKED_KINDS,
    DiffRequest,
    DiffResponse,
    Flushed,
    MergeRequest,
    Peer,
    Received,
    ReplicaDropped,
    ValidateRequest,
    ValidateResult,
    Validation,
)

logger = logging.getLogger(__name__)

DELETED = "This document was deleted."
UNCHECKED = "The relay can't check what is added to this document, and takes nothing for it."


class Writes:
    """A message takes one of these ways:

    ===========================  ===================================  ==========================================
    a message                    ``begin``                            ``finish``, with the validator's answer
    ===========================  ===================================  ==========================================
    Push, not to be validated    False: ``push`` appends it
    Push, to be validated        ValidateRequest                      the good records are appended, as they pass;
                                                                      the next one is rejected where the validator
                                                                      says so
    DiffRequest                  ValidateRequest                      DiffResponse
    MergeRequest                 ValidateRequest                      the records that the validator made of it are
                                                                      appended, part by part; an update is rejected
                                                                      where the validator says so, and the rest goes on
    ===========================  ===================================  ==========================================

    Invariant: where the validator's replica holds what the log doesn't, ReplicaDropped goes out in the same step.

    ``drop`` ends a peer's connection.
    """

    def __init__(
        self,
        storage: Storage,
        limits: Limits,
        subscriptions: Subscriptions,
        delivery: Delivery,
        deletions: Deletions,
        access: Access,
        validation: Validation,
        presence: Presence,
        drop: Callable[[Peer, Error], None],
    ) -> None:
        self._storage, self._limits = storage, limits
        self._subscriptions, self._delivery, self._deletions = subscriptions, delivery, deletions
        self._access = access
        self._validation, self._presence, self._drop = validation, presence, drop
        self._flushes: list[bytes] = []
        self.appender = Appender(storage, limits)

    # ---------------------------------------------------------------- before the validator

    def begin(self, event: Received) -> bool:
        """Have a message validated, where it has to be. Whether that is so; else ``push`` appends it, and others are
        refused here."""
        match event.message:
            case Push():
                records = self._to_validate(event.peer, event.message)
                if records == 0:
                    return False
                kind = self._subscriptions.rooms[event.message.document].kind
                self._delivery.outputs.append(self._validation.check(event, kind, records, self._source(event.peer)))
            case DiffRequest(document, kind) | MergeRequest(document, kind):
                if self._is_refused(event.peer, document, kind):
                    return False
                for part in self._with_rights(event):
                    request = self._validation.check(part, kind, source=self._source(event.peer))
                    self._delivery.outputs.append(request)
            case _:
                return False
        return True

    def _is_refused(self, peer: Peer, document: bytes, kind: str) -> bool:
        """Whether a document can't be read or written as one of this kind. No worker is to load it as another."""
        found = self._subscriptions.load(document, kind).kind
        if self._deletions.is_deleted(document):
            self._delivery.refuse(peer, ErrorCode.GONE, DELETED, document)
        elif found != kind:
            self._delivery.refuse(peer, ErrorCode.WRONG_KIND, f"This document is of kind {found}.", document)
        elif kind not in CHECKED_KINDS:
            self._delivery.refuse(peer, ErrorCode.READ_ONLY, UNCHECKED, document)
        else:
            return False
        return True

    def _source(self, peer: Peer) -> Source:
        """On whose time a message is validated: the subject's, or the connection's where it has none."""
        return self._subscriptions.peers[peer].subject or peer

    def _to_validate(self, peer: Peer, push: Push) -> int:
        """How many records of a push are to be validated."""
        document, session, n, data = push.document, push.session, push.n, push.data
        room = self._subscriptions.rooms.get(document)
        if room is None or peer not in room.readers or not self._validation.wants(room.kind, document):
            return 0
        last = self._storage.records.last(document, session)
        if n + len(data) - 1 <= last or n > max(last, self._validation.last(document, session)) + 1:
            return 0
        # Records that can't be appended in any case are not validated: nothing must be in a replica but not in the log.
        subject, appender = self._subscriptions.peers[peer].subject, self.appender
        if appender.fits(subject, document, room, data):
            return len(data)
        unfit = (i for i, piece in enumerate(data) if appender.unfit(subject, document, room, piece))
        return next(unfit, len(data))

    def _with_rights(self, event: Received) -> Iterator[Received]:
        """An update that has no room in the log must say nothing new. If not all have room, each is for itself."""
        message = event.message
        if not isinstance(message, MergeRequest):
            yield event
            return
        room = self._subscriptions.load(message.document, message.kind)
        subject = self._subscriptions.peers[event.peer].subject
        if not self.appender.full(subject, message.document, room, message.size):
            yield event
        elif len(message.updates) == 1:
            yield event._replace(message=replace(message, may_append=False))
        else:
            size = event.size
            for left, update in zip(range(len(message.updates), 0, -1), message.updates, strict=True):
                part = size // left
                size -= part
                yield from self._with_rights(Received(event.peer, replace(message, updates=(update,)), part))

    # ---------------------------------------------------------------- after the validator

    def finish(self, result: ValidateResult) -> Received | None:
        """Do what the validator says of a message, or of a part of it. The message; None where it is asked again, or
        forgotten."""
        found = self._validation.take(result)
        if found is None:
            return None
        job, again = found
        if again is not None:
            self._delivery.outputs.append(again)
            return None
        peer, message, _ = job.event
        match message:
            case Push(document, session, n) if result.failed:
                if peer in self._subscriptions.peers:
                    self._delivery.refuse(peer, ErrorCode.READ_ONLY, UNCHECKED, document, session, n)
            case DiffRequest(document) | MergeRequest(document) if result.failed:
                if peer in self._subscriptions.peers:
                    self._delivery.refuse(peer, ErrorCode.READ_ONLY, UNCHECKED, document)
            case Push(document, session, n, data):
                # All that was validated is good: what comes after it can't be appended, and is refused in its turn.
                good = data if result.good == job.records else data[: result.good]
                if peer not in self._subscriptions.peers or self.push(peer, message, good) < result.good:
                    self.drop_replica(document)
                elif result.mark and not job.stale:
                    self._subscriptions.marked(document, result.mark)
                if result.refused:
                    record = Record(session, n + result.good, data[result.good])
                    self._reject(peer, document, record, result.refused)
            case DiffRequest(document) | MergeRequest(document):
                if not self._finish_merge(peer, result, message):
                    self.drop_replica(document)
                elif result.mark:
                    self._subscriptions.marked(document, result.mark)
        return job.event

    def _finish_merge(self, peer: Peer, result: ValidateResult, message: DiffRequest | MergeRequest) -> bool:
        """Whether all that the replica got of a peer that knows no records is in the log."""
        document, state = message.document, self._subscriptions.peers.get(peer)
        room = self._follow(peer, document, message.kind) if state is not None else None
        if room is None or state is None:
            # One that is refused may have been loaded as what it is not.
            return not result.data or (isinstance(message, DiffRequest) and state is None)
        if isinstance(message, DiffRequest):
            if result.refused:
                self._drop(peer, Error(ErrorCode.MALFORMED, result.refused))
            else:
                response = DiffResponse(document, *result.data)
                weight = CONTROL_WEIGHT + sum(map(len, result.data))
                self._delivery.send_heavy((peer,), Send((peer,), response, weight))
        elif result.refused and not message.may_append:
            full = self.appender.full(state.subject, document, room, message.size)
            code, text = full[:2] if full else (ErrorCode.READ_ONLY, result.refused)
            self._delivery.refuse(peer, code, text, document)
        else:
            subscription = state.subscriptions[document]
            subscription.session = subscription.session or self._subscriptions.random(16)
            push = Push(document, subscription.session, subscription.n + 1, result.data)
            count = self.push(peer, push, result.data) if result.data else 0
            subscription.n += count
            if result.refused:
                self._reject(peer, document, Record(bytes(16), 0, message.updates[result.good]), result.refused)
            return count == len(result.data)
        return True

    def _follow(self, peer: Peer, document: bytes, kind: str) -> Room | None:
        """The room of a peer that knows no records: it gets what comes from now on. None where it was refused."""
        if document in self._subscriptions.peers[peer].subscriptions:
            return self._subscriptions.rooms[document]
        if self._is_refused(peer, document, kind):
            return None
        if len(self._subscriptions.peers[peer].subscriptions) >= self._limits.documents:
            text = f"At most {self._limits.documents} documents on one connection."
            self._delivery.refuse(peer, ErrorCode.TOO_MANY_DOCUMENTS, text, document)
            return None
        if not self._subscriptions.may_use(peer, document):
            self._access.refuse(peer, document)
            return None
        room = self._subscriptions.load(document, kind)
        self._subscriptions.add(peer, document, room, Subscription(room.head.position, updates_only=True))
        self._presence.watch(peer, document)
        self._validation.follow(document)
        return room

    def _reject(self, peer: Peer, document: bytes, record: Record, reason: str) -> None:
        """A record that can't be applied is kept for the operator, and goes nowhere else."""
        logger.warning("document %s: a record was refused: %s", label(document), reason)
        self._storage.rejected.keep(document, record, reason)
        if peer in self._subscriptions.peers:
            self._delivery.refuse(peer, ErrorCode.BAD_RECORD, reason, document, record.session, record.n)

    # ---------------------------------------------------------------- appending

    def push(self, peer: Peer, push: Push, data: Sequence[bytes]) -> int:
        """Append the first records of a push. How many are in the log now: the first that is refused ends it."""
        state = self._subscriptions.peers[peer]
        document = push.document
        subscription = state.subscriptions.get(document)
        name = (document, push.session, push.n)
        if self._deletions.is_deleted(document):
            self._delivery.refuse(peer, ErrorCode.GONE, DELETED, *name)
            return 0
        if subscription is None:
            self._delivery.refuse(peer, ErrorCode.NOT_OPEN, "Open the document first.", *name)
            return 0
        if state.unacked + len(data) > self._limits.window_records and not subscription.updates_only:
            text = f"At most {self._limits.window_records} records may wait for their ack."
            self._drop(peer, Error(ErrorCode.WINDOW_EXCEEDED, text))
            return 0
        before = subscription.unacked
        room = self._subscriptions.rooms[document]
        count, repeats, refusal = self.appender.append(state.subject, room, subscription, push, data)
        if refusal is not None:
            code, text, n = refusal
            refused = push.n + count if n is None else n
            self._delivery.refuse(peer, code, text, document, push.session, refused)
        for ack in repeats:
            self._delivery.send(peer, ack)
        state.unacked += subscription.unacked - before
        return count

    # ---------------------------------------------------------------- replicas

    def flush(self, document: bytes) -> None:
        """The validator asks up to where the log goes once all that it answered before is in it."""
        self._flushes.append(document)

    def answer_flushes(self) -> None:
        """After the commit. The validator waits for each: where the log can't be read just now (LogError), it is
        answered in a later step."""
        while self._flushes:
            head = self._storage.records.head(self._flushes[0])
            flushed = Flushed(self._flushes.pop(0), head.cursor.position if head else 0)
            self._delivery.outputs.append(flushed)

    def drop_replica(self, document: bytes) -> None:
        """The validator may have applied what is not in the log, or lacks what is."""
        self._subscriptions.marked(document, b"")
        if self._validation.available:
            self._delivery.outputs.append(self._validation.drop(document))

    def take_orders(self, failed: Collection[bytes]) -> list[ValidateRequest | ReplicaDropped]:
        """The validator's orders of this step, but for documents that failed, which are outputs no more. If the commit
        fails then, the answers come to peers that are gone, or rest on a replica that was dropped."""
        orders: list[ValidateRequest | ReplicaDropped] = []
        if not self._delivery.outputs:
            return orders
        kept: list[Output] = []
        for output in self._delivery.outputs:
            match output:
                case ValidateRequest(_, request) if request.document not in failed:
                    orders.append(output)
                case ReplicaDropped(document) if document not in failed:
                    orders.append(output)
                case _:
                    kept.append(output)
        self._delivery.outputs = kept
        return orders

    def fail(self, documents: Collection[bytes]) -> list[Peer]:
        """The commit failed for these documents. The peers whose messages are lost with it."""
        peers, drops = self._validation.undo(documents)
        kept = []
        for output in self._delivery.outputs:
            if isinstance(output, ValidateRequest) and output.request.document in documents:
                self._validation.forget(output)
            else:
                kept.append(output)
        self._delivery.outputs = [*kept, *drops]
        for document in documents:
            self.appender.recent.pop(document, None)
        return peers
