"""The vocabulary of the rooms: the events that come in, and the outputs that go out.

==================  ==============================================  ===========================================
an event            comes from                                      and what it may lead to
==================  ==============================================  ===========================================
Joined, Greeted     the shell: a connection begins, and says hello
Received            a peer                                          Send, Drop, ValidateRequest, ReplicaDropped
Sent                the shell: queued bytes have left               Send
Left                the shell: a connection ended                   ReplicaDropped
Tick                the shell: some time went by                    Send
ValidateResult      the validator, for one ValidateRequest          Send, ValidateRequest, ReplicaDropped
Flush               the validator                                   Flushed
CompactResult       the compactor, for one CompactRequest           Send
CatchUpResult       the compactor, for one CatchUpRequest           Send
Appended            the log: another process changed a document     Send, Drop, ReplicaDropped
==================  ==============================================  ===========================================

Any step may also lead to CompactRequest and CatchUpRequest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeAlias

from llmcrdt.sync.messages import MAX_RECORDS, Cursor, Error, Message, Push

from .validation import (
    DiffResponse,
    Flush,
    Flushed,
    Left,
    Peer,
    Received,
    ReplicaDropped,
    Updates,
    ValidateRequest,
    ValidateResult,
)

CONTROL_WEIGHT = 128
"""The weight of a message without records."""


class Joined(NamedTuple):
    peer: Peer


class Greeted(NamedTuple):
    """A peer said hello. ``features``: bits of ``wire.FEATURES``, what it knows beyond what every peer knows.
    ``subject``: the owner of what it writes (empty: nobody's, and never counted). ``admin``: whether it may delete the
    documents of others. ``named``: which documents it may use whoever they belong to; others only where they belong to
    its subject, or aren't there yet. None: every one that its door lets through."""

    peer: Peer
    features: int
    subject: str = ""
    admin: bool = True
    named: Callable[[bytes], bool] | None = None


class Tick(NamedTuple):
    """Nothing happened; some time went by."""


class Sent(NamedTuple):
    """``weight`` of what was to be sent to a peer has left."""

    peer: Peer
    weight: int


class Appended(NamedTuple):
    """Another process appended to a document, compacted or deleted it. It may come for a document that did not
    change."""

    document: bytes


class CompactRequest(NamedTuple):
    """Compact a log up to a place. CompactResult is the answer."""

    document: bytes
    upto: Cursor


class CompactResult(NamedTuple):
    """The answer to CompactRequest: records that stand for all up to a place; None where that failed."""

    document: bytes
    upto: Cursor
    records: Sequence[bytes] | None


class CatchUpRequest(NamedTuple):
    """Compact the records after ``after``, up to ``upto``, for devices that missed them. CatchUpResult is the
    answer."""

    document: bytes
    after: int
    upto: int


class CatchUpResult(NamedTuple):
    """The answer to CatchUpRequest: records that say what the others add to those before them, none where that can't be
    said; None where it was too late or failed, which may be otherwise the next time."""

    document: bytes
    after: int
    upto: int
    records: Sequence[bytes] | None


Event: TypeAlias = (
    Joined | Greeted | Left | Received | Sent | Tick | Appended | CompactResult | CatchUpResult | ValidateResult | Flush
)


PeerMessage: TypeAlias = Message | DiffResponse | Updates
"""The messages that a peer is sent, in the words of its door."""


class Send(NamedTuple):
    """One message for one or many peers. ``weight`` is about its size in bytes."""

    peers: Sequence[Peer]
    message: PeerMessage
    weight: int


class Drop(NamedTuple):
    """Send this error to a peer, then end its connection."""

    peer: Peer
    error: Error


Output: TypeAlias = Send | Drop | CompactRequest | CatchUpRequest | ValidateRequest | ReplicaDropped | Flushed


def document_of(thing: object) -> bytes:
    """The document that a message, event or output names; empty where it names none."""
    document: bytes = getattr(thing, "document", b"")
    return document


def join_pushes(events: Sequence[Event]) -> list[Event]:
    """Pushes of one peer and one session that follow one another become one: under load that saves most of the work
    for a record."""
    if len(events) < 2:
        return [*events]
    out: list[Event] = []
    run: list[Received] = []
    after: tuple[Peer, bytes, bytes, int] | None = None
    for event in events:
        message = event.message if isinstance(event, Received) else None
        if isinstance(message, Push) and isinstance(event, Received):
            name = (event.peer, message.document, message.session, message.n)
            if name != after or message.n + len(message.data) - _first(run).n > MAX_RECORDS:
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
    data = tuple(d for event in run if isinstance(event.message, Push) for d in event.message.data)
    push = replace(_first(run), data=data)
    return [run[0]._replace(message=push, size=sum(event.size for event in run))]


def _first(run: Sequence[Received]) -> Push:
    push = run[0].message
    assert isinstance(push, Push)
    return push
