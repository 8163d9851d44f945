"""One document's log as it comes in on one connection: positions without holes, and the chain computed along.

A stream is *asked for* until the relay answers OPENED, and *open* from then on. Its cursor only grows::

    state       message    then
    asked for   OPENED     open, at the cursor that was given or (reset) at position 0
    open        RECORDS    cursor over the records, each one position further
    open        SNAPSHOT   cursor at the snapshot's position, once its last part has come
    open        ACK        cursor over the acknowledged records that are new to it

Anything else is the relay's fault, and MalformedFrame:

1. A record, own or another's, stands at the next position; a snapshot at a later one.
2. Parts of a snapshot come in order, and no record between them. A newer snapshot may take the place of one that was
   under way.
3. A cursor that comes to the head that OPENED named is that head, chain included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..exceptions import MalformedFrame
from . import chain, messages
from .chain import START
from .events import Acked, Arrived, CaughtUp, Event, Opened
from .messages import Cursor, Record


@dataclass(slots=True)
class Window:
    """Records that were pushed and are not acknowledged yet, and their bytes: over all documents of a connection."""

    records: int = 0
    size: int = 0


_PIECE = 128
"""The weight of a part of a snapshot beside its bytes: to Python a small one is mostly an object."""


@dataclass(slots=True)
class Arriving:
    """Bytes of snapshots of which parts are still to come: over all documents of a connection."""

    size: int = 0


@dataclass(slots=True)
class _Partial:
    """A snapshot of which parts have come: whole records, and pieces of the next. ``held``: the bytes of both."""

    session: bytes
    records: list[Record] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    size: int = 0
    held: int = 0


class LogStream:
    """Of one opening. ``cursor``: how far the log is known; None until the stream is open.

    ``openings`` counts the OPENs of this document whose answers are still to come: only the last one is about this
    stream.
    """

    __slots__ = ("_arriving", "_asked", "_document", "_head", "_partial", "_unacked", "_window", "cursor", "openings")

    def __init__(
        self, document: bytes, asked: Cursor | None, openings: int, window: Window, arriving: Arriving
    ) -> None:
        self._document, self._asked, self.openings = document, asked, openings
        self._window, self._arriving = window, arriving
        self.cursor: Cursor | None = None
        self._head: Cursor | None = None
        self._partial: _Partial | None = None
        # By name: the digest of what was pushed, and its bytes.
        self._unacked: dict[tuple[bytes, int], tuple[bytes, int]] = {}

    def behind(self) -> int:
        """How many positions are still to come of those that the relay had when the document was opened."""
        return self._head.position - self.cursor.position if self._head and self.cursor else 0

    @property
    def arriving(self) -> int:
        """Bytes of a snapshot of which parts are still to come."""
        return self._partial.held if self._partial else 0

    def opened(self, message: messages.Opened) -> list[Event]:
        """OPENED answers the last OPEN."""
        reset = message.how == messages.RESET
        if reset:
            self.cursor = Cursor(message.head.log, 0, START)
        elif self._asked and (self._asked.log, self._asked.position) == (message.head.log, message.position):
            self.cursor = self._asked
        else:
            raise MalformedFrame("The relay resumed at another place than the cursor.")
        self._head = message.head
        return [Opened(self._document, reset), *self._caught_up(self.cursor)]

    def records(self, message: messages.Records, cursor: Cursor) -> list[Event]:
        """Records of others. ``cursor``: the stream's, which is open."""
        if message.position != cursor.position + 1 or self._partial:
            raise MalformedFrame(f"Position {message.position} came after {cursor.position}.")
        records = tuple(message.records)
        for record in records:
            cursor = self._advance(cursor, chain.digest(self._document, record))
        return [Arrived(self._document, records, cursor), *self._caught_up(cursor)]

    def snapshot(self, message: messages.Snapshot, cursor: Cursor) -> list[Event]:
        """A part of a compacted log. The cursor moves, over all that was compacted, when the last has come."""
        if message.position <= cursor.position:
            raise MalformedFrame(f"A snapshot of position {message.position} came after {cursor.position}.")
        partial = self._partial
        if partial is None or partial.session != message.session:
            self._drop_partial()
            partial = self._partial = _Partial(message.session)
        if (message.n, message.offset) != (len(partial.records) + 1, partial.size):
            raise MalformedFrame("A part of a snapshot is missing.")
        partial.pieces.append(message.data)
        partial.size += len(message.data)
        partial.held += len(message.data) + _PIECE
        self._arriving.size += len(message.data) + _PIECE
        if partial.size == message.size:
            partial.records.append(Record(message.session, message.n, b"".join(partial.pieces)))
            partial.pieces, partial.size = [], 0
        if not message.last:
            return []
        self._drop_partial()
        cursor = self.cursor = Cursor(cursor.log, message.position, message.chain)
        self._compare(cursor)
        return [Arrived(self._document, tuple(partial.records), cursor), *self._caught_up(cursor)]

    def push(self, records: Sequence[Record]) -> None:
        """Records that are sent now."""
        for record in records:
            if (record.session, record.n) not in self._unacked:
                self._window.records += 1
                self._window.size += len(record.data)
            self._unacked[record.session, record.n] = (chain.digest(self._document, record), len(record.data))

    def acked(self, message: messages.Ack, cursor: Cursor) -> list[Event]:
        """Records of ours are durable."""
        names: list[tuple[bytes, int]] = []
        for i in range(message.count):
            name, position = (message.session, message.n + i), message.position + i
            known = self._unacked.pop(name, None)
            if known is not None:
                names.append(name)
                self._window.records -= 1
                self._window.size -= known[1]
            if position > cursor.position:
                if position != cursor.position + 1 or known is None:
                    raise MalformedFrame(f"Position {position} was acknowledged after {cursor.position}.")
                cursor = self._advance(cursor, known[0])
        acked: list[Event] = [Acked(self._document, tuple(names), cursor)]
        return acked + self._caught_up(cursor)

    def forget(self) -> None:
        """Nothing of this stream takes room any more."""
        self._drop_partial()
        self.release()

    def _drop_partial(self) -> None:
        self._arriving.size -= self.arriving
        self._partial = None

    def release(self) -> None:
        """Nothing that was pushed takes room in the window any more."""
        self._window.records -= len(self._unacked)
        self._window.size -= sum(size for _, size in self._unacked.values())
        self._unacked.clear()

    def _advance(self, cursor: Cursor, digest: bytes) -> Cursor:
        cursor = self.cursor = chain.advance(cursor, digest)
        self._compare(cursor)
        return cursor

    def _compare(self, cursor: Cursor) -> None:
        if self._head and cursor.position == self._head.position and cursor != self._head:
            raise MalformedFrame("The relay's log is not what its chain says.")

    def _caught_up(self, cursor: Cursor) -> list[Event]:
        if self._head is None or cursor.position < self._head.position:
            return []
        self._head = None
        return [CaughtUp(self._document)]
