"""One connection to a relay, seen from the client: frames in, events and frames out. No sockets, no clock.

It keeps the promises of docs/protocol.md that can be kept without looking at content: positions without holes, the
chain computed along and compared with the relay's head, records and acks of an earlier opening ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from ..exceptions import MalformedFrame
from . import chain, codec, messages
from .chain import START
from .messages import Cursor, Record


class Welcomed(NamedTuple):
    limits: messages.Welcome


class Opened(NamedTuple):
    """The stream of a document begins: behind the cursor that was given, or (``reset``) at position 0."""

    document: bytes
    reset: bool


class Arrived(NamedTuple):
    """Records of others. ``cursor`` stands behind the last."""

    document: bytes
    records: tuple[Record, ...]
    cursor: Cursor


class Acked(NamedTuple):
    """Records of ours, named by (session, n), are durable. ``cursor``: how far the document is known now."""

    document: bytes
    names: tuple[tuple[bytes, int], ...]
    cursor: Cursor


class CaughtUp(NamedTuple):
    """The end that the log had when the document was opened is reached. Comes once for each opening."""

    document: bytes


class Reached(NamedTuple):
    barrier: int


class Folded(NamedTuple):
    """The relay's answer to ``fold``: FOLD_DONE, FOLD_NEVER or FOLD_FAILED."""

    document: bytes
    outcome: int


class Present(NamedTuple):
    """Who else has a document open, and what they announce."""

    document: bytes
    entries: Sequence[messages.Announcement]


class Deleted(NamedTuple):
    """The relay's answer to ``delete``: DELETE_DONE or DELETE_REFUSED."""

    document: bytes
    outcome: int


class Refused(NamedTuple):
    """The relay refused something. Without a document, the connection ends."""

    error: messages.Error


Event: TypeAlias = Welcomed | Opened | Arrived | Acked | CaughtUp | Reached | Folded | Present | Deleted | Refused


@dataclass(slots=True)
class _Partial:
    """A snapshot of which parts have come: whole records, and pieces of the next."""

    session: bytes
    records: list[Record] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    size: int = 0


@dataclass(slots=True)
class _Stream:
    """One document. ``cursor`` is None until OPENED; ``openings`` counts the OPENs that wait for their answer."""

    asked: Cursor | None
    openings: int = 1
    cursor: Cursor | None = None
    head: Cursor | None = None
    partial: _Partial | None = None
    unacked: dict[tuple[bytes, int], tuple[bytes, int]] = field(default_factory=dict)


class Connection:
    """Call ``open``, ``push``, ...; send the frames that ``take`` hands out; give ``receive`` what comes in.

    ``receive`` raises MalformedFrame where the relay breaks the protocol: end the connection then.
    """

    def __init__(self, agent: str = "", token: bytes = b"") -> None:
        self.limits: messages.Welcome | None = None
        self._streams: dict[bytes, _Stream] = {}
        # Documents closed while an OPEN was under way: its answer is still to come, and to be ignored.
        self._closing: dict[bytes, int] = {}
        self._frames: list[bytes] = [codec.encode(messages.Hello(agent, token, messages.FEATURES))]
        self._barriers = 0
        self._records = 0
        self._bytes = 0

    def take(self) -> list[bytes]:
        """The frames to send now, in order. Each is handed out once."""
        frames, self._frames = self._frames, []
        return frames

    def open(self, document: bytes, kind: str, cursor: Cursor | None) -> None:
        """Ask for a document from a cursor on, or from the beginning; an open one is started over."""
        before = self._streams.get(document)
        openings = (before.openings if before else self._closing.pop(document, 0)) + 1
        self._forget(document)
        self._streams[document] = _Stream(cursor, openings)
        self._frames.append(codec.encode(messages.Open(document, kind, cursor)))

    def close(self, document: bytes) -> None:
        """Follow a document no longer."""
        stream = self._streams.get(document)
        if stream is not None:
            self._forget(document)
            if stream.openings:
                self._closing[document] = stream.openings
            self._frames.append(codec.encode(messages.Close(document)))

    def is_open(self, document: bytes) -> bool:
        stream = self._streams.get(document)
        return stream is not None and stream.cursor is not None

    def cursor(self, document: bytes) -> Cursor:
        """How far an open document is known."""
        cursor = self._streams[document].cursor
        assert cursor is not None
        return cursor

    def behind(self, document: bytes) -> int:
        """How many positions are still to come of those that the relay had when a document was opened."""
        stream = self._streams.get(document)
        if stream is None or stream.head is None or stream.cursor is None:
            return 0
        return stream.head.position - stream.cursor.position

    def fits(self, size: int, more: int = 0) -> bool:
        """Whether the window has room for ``more`` + 1 records of ``size`` bytes together. One record always fits an
        empty window."""
        limits = self.limits
        if limits is None:
            return False
        if self._records + more == 0:
            return True
        return self._records + more < limits.window_records and self._bytes + size <= limits.window_bytes

    def push(self, document: bytes, records: Sequence[Record]) -> None:
        """Send records of one session, with n growing by one, on an open document. Ask ``fits`` before each."""
        unacked = self._streams[document].unacked
        for record in records:
            if (record.session, record.n) not in unacked:
                self._records += 1
                self._bytes += len(record.data)
            unacked[record.session, record.n] = (chain.digest(document, record), len(record.data))
        first = records[0]
        message = messages.Push(document, first.session, first.n, tuple(r.data for r in records))
        self._frames.append(codec.encode(message))

    def fold(self, document: bytes) -> None:
        """Ask the relay to fold an open document's log; the answer is Folded."""
        self._frames.append(codec.encode(messages.Fold(document)))

    def announces(self) -> bool:
        """Whether the relay carries presence."""
        return self.limits is not None and bool(self.limits.features & messages.PRESENCE)

    def announce(self, document: bytes, entries: Sequence[messages.Announcement]) -> None:
        """Say who is here, for an open document. Ask ``announces`` before."""
        self._frames.append(codec.encode(messages.Presence(document, tuple(entries))))

    def deletes(self) -> bool:
        """Whether the relay has greeted, and can delete documents."""
        return self.limits is not None and bool(self.limits.features & messages.DELETION)

    def delete(self, document: bytes) -> None:
        """Ask the relay to delete a document, open or not; the answer is Deleted. Only where it ``deletes``."""
        self._frames.append(codec.encode(messages.Delete(document)))

    def barrier(self) -> int:
        """Ask whether all that the relay has of the open documents is here; the answer is Reached with this number."""
        self._barriers += 1
        self._frames.append(codec.encode(messages.Barrier(self._barriers)))
        return self._barriers

    def receive(self, frame: bytes) -> list[Event]:
        """What a frame of the relay means. Raises MalformedFrame."""
        message = codec.decode(frame)
        if self.limits is None and not isinstance(message, messages.Welcome | messages.Error):
            raise MalformedFrame("The relay did not greet first.")
        match message:
            case messages.Welcome() if self.limits is None:
                self.limits = message
                return [Welcomed(message)]
            case messages.Opened():
                return self._opened(message)
            case messages.Records(document):
                stream = self._streams.get(document)
                return self._arrived(stream, message) if stream and stream.cursor else []
            case messages.Snapshot(document):
                stream = self._streams.get(document)
                return self._snapshot(stream, message) if stream and stream.cursor else []
            case messages.Folded(document, outcome):
                return [Folded(document, outcome)]
            case messages.Presence(document, entries):
                stream = self._streams.get(document)
                return [Present(document, entries)] if stream and stream.cursor else []
            case messages.Deleted(document, outcome):
                return [Deleted(document, outcome)]
            case messages.Ack(document):
                stream = self._streams.get(document)
                return self._acked(stream, message) if stream and stream.cursor else []
            case messages.Reached(number):
                return [Reached(number)]
            case messages.Error():
                return self._refused(message)
        raise MalformedFrame(f"{type(message).__name__.upper()} is not for a relay to send.")

    # ---------------------------------------------------------------- inside

    def _opened(self, message: messages.Opened) -> list[Event]:
        document = message.document
        stream = self._streams.get(document)
        if stream is None:
            self._answered(document)
            return []
        stream.openings -= 1
        if stream.openings > 0:
            return []
        if stream.openings < 0:
            raise MalformedFrame("OPENED came without OPEN.")
        reset = message.how == messages.RESET
        if reset:
            stream.cursor = Cursor(message.head.log, 0, START)
        elif stream.asked and (stream.asked.log, stream.asked.position) == (message.head.log, message.position):
            stream.cursor = stream.asked
        else:
            raise MalformedFrame("The relay resumed at another place than the cursor.")
        stream.head = message.head
        return [Opened(document, reset), *self._caught_up(document, stream)]

    def _arrived(self, stream: _Stream, message: messages.Records) -> list[Event]:
        cursor, document = stream.cursor, message.document
        assert cursor is not None
        if message.position != cursor.position + 1 or stream.partial:
            raise MalformedFrame(f"Position {message.position} came behind {cursor.position}.")
        records = tuple(message.records)
        for record in records:
            cursor = self._advance(stream, chain.digest(document, record))
        return [Arrived(document, records, cursor), *self._caught_up(document, stream)]

    def _snapshot(self, stream: _Stream, message: messages.Snapshot) -> list[Event]:
        """A part of what the log was folded to. The cursor moves, over all that was folded, when the last has come."""
        cursor, document = stream.cursor, message.document
        assert cursor is not None
        if message.position <= cursor.position:
            raise MalformedFrame(f"A snapshot of position {message.position} came behind {cursor.position}.")
        partial = stream.partial
        if partial is None or partial.session != message.session:
            # A newer fold takes the place of one that was under way.
            partial = stream.partial = _Partial(message.session)
        if (message.n, message.offset) != (len(partial.records) + 1, partial.size):
            raise MalformedFrame("A part of a snapshot is missing.")
        partial.pieces.append(message.data)
        partial.size += len(message.data)
        if partial.size == message.size:
            partial.records.append(Record(message.session, message.n, b"".join(partial.pieces)))
            partial.pieces, partial.size = [], 0
        if not message.last:
            return []
        stream.partial = None
        stream.cursor = Cursor(cursor.log, message.position, message.chain)
        self._compare(stream)
        return [Arrived(document, tuple(partial.records), stream.cursor), *self._caught_up(document, stream)]

    def _acked(self, stream: _Stream, message: messages.Ack) -> list[Event]:
        names: list[tuple[bytes, int]] = []
        for i in range(message.count):
            name, position = (message.session, message.n + i), message.position + i
            known = stream.unacked.pop(name, None)
            if known is not None:
                names.append(name)
                self._records -= 1
                self._bytes -= known[1]
            assert stream.cursor is not None
            if position > stream.cursor.position:
                if position != stream.cursor.position + 1 or known is None:
                    raise MalformedFrame(f"Position {position} was acknowledged behind {stream.cursor.position}.")
                self._advance(stream, known[0])
        assert stream.cursor is not None
        acked: list[Event] = [Acked(message.document, tuple(names), stream.cursor)]
        return acked + self._caught_up(message.document, stream)

    def _advance(self, stream: _Stream, digest: bytes) -> Cursor:
        assert stream.cursor is not None
        stream.cursor = chain.advance(stream.cursor, digest)
        self._compare(stream)
        return stream.cursor

    def _compare(self, stream: _Stream) -> None:
        assert stream.cursor is not None
        if stream.head and stream.cursor.position == stream.head.position and stream.cursor != stream.head:
            raise MalformedFrame("The relay's log is not what its chain says.")

    def _caught_up(self, document: bytes, stream: _Stream) -> list[Event]:
        assert stream.cursor is not None
        if stream.head is None or stream.cursor.position < stream.head.position:
            return []
        stream.head = None
        return [CaughtUp(document)]

    def _refused(self, error: messages.Error) -> list[Event]:
        if error.document is None:
            return [Refused(error)]
        stream = self._streams.get(error.document)
        if error.code == messages.ErrorCode.GONE:
            # It ends the stream, and answers what was sent meanwhile: more than one may come, and nothing else.
            self._forget(error.document)
            self._closing.pop(error.document, None)
            return [Refused(error)] if stream else []
        answers_open = error.code != messages.ErrorCode.NOT_OPEN and not 20 <= error.code < 30
        if stream is None:
            if answers_open:
                self._answered(error.document)
            return []
        if stream.openings and not answers_open:
            # It is about what was sent before the document was opened again.
            return []
        if stream.openings > 1:
            stream.openings -= 1
            return []
        if answers_open:
            self._forget(error.document)
        elif error.code in messages.NOTHING_MORE:
            self._release(stream)
        return [Refused(error)]

    def _answered(self, document: bytes) -> None:
        left = self._closing.get(document, 0) - 1
        if left < 0:
            raise MalformedFrame("OPENED came without OPEN.")
        if left:
            self._closing[document] = left
        else:
            self._closing.pop(document)

    def _forget(self, document: bytes) -> None:
        stream = self._streams.pop(document, None)
        if stream is not None:
            self._release(stream)

    def _release(self, stream: _Stream) -> None:
        """What was pushed there takes no room in the window any more."""
        self._records -= len(stream.unacked)
        self._bytes -= sum(size for _, size in stream.unacked.values())
        stream.unacked.clear()
