"""Appends what peers push, and says what may be acknowledged at once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from llmcrdt.sync.messages import Ack, ErrorCode, Push, Record

from ..log.admin import Storage
from ..log.base import Conflict, Gap, Origin, Stored, label
from .limits import Limits
from .own_records import Run
from .subscriptions import Room, Subscription

logger = logging.getLogger(__name__)


class Refusal(NamedTuple):
    """The reason why a record is not appended. ``n``: the n that the error names; None: the record's own."""

    code: ErrorCode
    text: str
    n: int | None = None


class Pushed(NamedTuple):
    """``done``: how many records of a push are in the log now, from the first on. ``repeats``: acks for records that
    the peer has been sent already, as its own or as others'. ``refusal``: what is wrong with the next record."""

    done: int
    repeats: Sequence[Ack] = ()
    refusal: Refusal | None = None


class Appender:
    """Stages records; the commit is the caller's.

    Invariants:

    1. A record that is new is noted in ``Subscription.own`` at its position; its ack takes the record's place in what
       the peer is sent. So an ack of a position comes after all before it.
    2. ``recent`` holds the records of this step, by document, in the order of the log.
    """

    def __init__(self, storage: Storage, limits: Limits) -> None:
        self._storage, self._log, self._limits = storage, storage.records, limits
        self.recent: dict[bytes, list[Stored]] = {}

    def append(self, subject: str, room: Room, subscription: Subscription, push: Push, data: Sequence[bytes]) -> Pushed:
        """Append the first records of a push. The first that is refused ends it."""
        document = push.document
        expected = self._log.last(document, push.session) + 1
        if data and push.n == expected and self.fits(subject, document, room, data):
            pushed = self._append_new(subject, room, subscription, push, data)
        else:
            pushed = self._append_each(subject, room, subscription, push, data)
        if head := self._log.head(document):
            room.head = head.cursor
        return pushed

    def _append_new(
        self, subject: str, room: Room, subscription: Subscription, push: Push, data: Sequence[bytes]
    ) -> Pushed:
        """Append records that are all new, and fit."""
        session = push.session
        origin = Origin(room.kind, room.head.log, self._owner(subject, push.document))
        stored = self._log.append(push.document, session, push.n, data, origin)
        self.recent.setdefault(push.document, []).extend(stored)
        subscription.own.add(Run(stored[0].position, session, push.n, len(stored)))
        return Pushed(len(stored))

    def _append_each(
        self, subject: str, room: Room, subscription: Subscription, push: Push, data: Sequence[bytes]
    ) -> Pushed:
        repeats: list[tuple[int, bytes, int]] = []
        done, refusal = 0, None
        for n, piece in enumerate(data, push.n):
            position, new, refusal = self._append_one(subject, push.document, room, Record(push.session, n, piece))
            if refusal is not None:
                break
            done += 1
            if new or position > subscription.sent:
                subscription.own.add(Run(position, push.session, n, 1))
            elif position == 0 and room.covers(subscription.sent):
                subscription.own_compacted.append((push.session, n))
            else:
                # The position of a compacted record isn't known any more; any place that this peer is past will do,
                # and growing ones make one message of many.
                repeats.append((position or min(len(repeats) + 1, subscription.sent), push.session, n))
        return Pushed(done, acks(push.document, repeats), refusal)

    def _append_one(
        self, subject: str, document: bytes, room: Room, record: Record
    ) -> tuple[int, bool, Refusal | None]:
        """The record's position, and whether it is new."""
        if unfit := self.unfit(subject, document, room, record.data):
            return 0, False, unfit
        try:
            if record.n <= self._log.last(document, record.session):
                return self._log.find(document, record), False, None
            origin = Origin(room.kind, room.head.log, self._owner(subject, document))
            stored = self._log.append(document, record.session, record.n, (record.data,), origin)
        except Gap as e:
            text = f"n = {e.expected} is next in this session, not {record.n}."
            return 0, False, Refusal(ErrorCode.GAP, text, e.expected)
        except Conflict:
            logger.warning("document %s: a record was sent again with other bytes", label(document))
            text = f"n = {record.n} of this session has other bytes."
            return 0, False, Refusal(ErrorCode.CONFLICT, text)
        self.recent.setdefault(document, []).extend(stored)
        return stored[0].position, True, None

    # ---------------------------------------------------------------- room for records

    def fits(self, subject: str, document: bytes, room: Room, data: Sequence[bytes]) -> bool:
        """Whether a log can take all of these records. (If it can't, it may still take the first of them.)"""
        size = sum(map(len, data))
        return max(map(len, data), default=0) <= self._limits.record and not self.full(subject, document, room, size)

    def unfit(self, subject: str, document: bytes, room: Room, data: bytes) -> Refusal | None:
        """The reason why a log can't take a record in any case."""
        if len(data) > self._limits.record:
            text = f"A record has {len(data)} bytes; {self._limits.record} are allowed."
            return Refusal(ErrorCode.RECORD_TOO_LARGE, text)
        return self.full(subject, document, room, len(data))

    def full(self, subject: str, document: bytes, room: Room, size: int) -> Refusal | None:
        """The reason why there is no room for so many bytes more."""
        snapshot = room.snapshot.size if room.snapshot else 0
        if self._storage.snapshots.tail_size(document) + snapshot + size > self._limits.log:
            return Refusal(ErrorCode.LOG_FULL, f"The log of this document has {self._limits.log} bytes at most.")
        owner = self._owner(subject, document)
        if owner and self._storage.quotas.used(owner) + size > self._limits.subject_log:
            text = f"All documents of its owner have {self._limits.subject_log} bytes at most."
            return Refusal(ErrorCode.SUBJECT_FULL, text)
        return None

    def _owner(self, subject: str, document: bytes) -> str:
        """The owner of a record's bytes: that of the document, which the first to write becomes."""
        return subject if self._log.head(document) is None else self._storage.quotas.owner(document)


def acks(document: bytes, records: Sequence[tuple[int, bytes, int]]) -> list[Ack]:
    """Acks for (position, session, n), as few as possible, in order."""
    if not records:
        return []
    breaks = [
        i
        for i, ((p, session, n), (q, other, m)) in enumerate(pairwise(records), 1)
        if (q, other, m) != (p + 1, session, n + 1)
    ]
    return [
        Ack(document, records[start][1], records[start][2], end - start, records[start][0])
        for start, end in zip([0, *breaks], [*breaks, len(records)], strict=True)
    ]
