"""One connection to a relay, seen from the client: frames in, events and frames out. No sockets, no clock.

It keeps the promises of docs/protocol.md that can be kept without looking at content; log_stream.py has those about one
log. A connection, from its first frame to its last::

    state      frame                      then
    greeting   WELCOME                    greeted: Welcomed, and ``limits`` are known
    greeting   anything but ERROR         MalformedFrame
    greeted    WELCOME                    MalformedFrame
    any        ERROR without a document   over: Refused; whoever uses it ends the connection

A document on it, where *n* OPENs wait for their answers. Only the last one counts: what comes before its answer is of
an earlier opening, and is ignored::

    document            frame                            then
    not asked for       what answers an OPEN             MalformedFrame
    asked for (n > 1)   what answers an OPEN             n - 1
    asked for (n = 1)   OPENED                           open: Opened
    asked for (n = 1)   a refusal that answers an OPEN   not asked for: Refused
    open                RECORDS, SNAPSHOT, ACK           open: Arrived, Acked, CaughtUp (log_stream.py)
    open                PRESENCE                         open: Present
    open                OPENED                           MalformedFrame
    open                a refusal that answers an OPEN   not asked for: Refused
    open                another refusal                  open: Refused
    closed (n > 0)      what answers an OPEN             n - 1, and not asked for when that is 0
    any                 GONE                             not asked for, no answer to come; Refused where it was open or
                                                         asked for
    any                 anything else                    ignored

OPENED answers an OPEN, and so does every ERROR but NOT_OPEN and those of records and presence (codes 20 to 29). FOLDED,
DELETED and REACHED answer what was asked, in whatever state a document is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..exceptions import MalformedFrame, SyncError
from . import codec, messages
from .events import Deleted, Event, Folded, Present, Reached, Refused, Welcomed
from .log_stream import Arriving, LogStream, Window
from .messages import Cursor, Message, Record

MAX_WINDOW: Final = 16 << 20
"""Bytes of records that are pushed before any of them is acknowledged, whatever the relay allows."""

MAX_UNSENT: Final = 64 << 20
"""Bytes that wait to be sent, after which nothing more is taken from the relay. 10,000 documents ask with 1 MB."""


class Connection:
    """Call ``open``, ``push``, ...; send the frames of ``drain_frames``; give ``receive`` what comes in.

    ``receive`` raises MalformedFrame where the relay breaks the protocol: end the connection then.
    """

    def __init__(self, agent: str = "", token: bytes = b"") -> None:
        self.limits: messages.Welcome | None = None
        self._streams: dict[bytes, LogStream] = {}
        # Documents closed while OPENs were under way: so many answers are still to come, and to be ignored.
        self._closing: dict[bytes, int] = {}
        self._frames: list[bytes] = [codec.encode(messages.Hello(agent, token, messages.FEATURES))]
        self._frames_size = 0
        self._barriers = 0
        self._window, self._arriving = Window(), Arriving()

    def drain_frames(self) -> list[bytes]:
        """The frames to send now, in order. Each is handed out once."""
        frames, self._frames, self._frames_size = self._frames, [], 0
        return frames

    def open(self, document: bytes, kind: str, cursor: Cursor | None) -> None:
        """Ask for a document from a cursor on, or from the beginning; an open one is started over."""
        before = self._streams.get(document)
        openings = (before.openings if before else self._closing.pop(document, 0)) + 1
        self._forget(document)
        self._streams[document] = LogStream(document, cursor, openings, self._window, self._arriving)
        self._send(messages.Open(document, kind, cursor))

    def close(self, document: bytes) -> None:
        """Follow a document no longer."""
        stream = self._streams.get(document)
        if stream is not None:
            self._forget(document)
            if stream.openings:
                self._closing[document] = stream.openings
            self._send(messages.Close(document))

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
        return stream.behind() if stream else 0

    def arriving(self, document: bytes | None = None) -> int:
        """Bytes of snapshots of which parts are still to come, of one document or of all."""
        if document is None:
            return self._arriving.size
        stream = self._streams.get(document)
        return stream.arriving if stream else 0

    def fits(self, size: int, more: int = 0) -> bool:
        """Whether the window has room for ``more`` + 1 records of ``size`` bytes together. One record always fits an
        empty window. A device holds no more than ``MAX_WINDOW``."""
        limits, records = self.limits, self._window.records + more
        if limits is None:
            return False
        most = min(limits.window_bytes, MAX_WINDOW)
        return records == 0 or (records < limits.window_records and self._window.size + size <= most)

    def push(self, document: bytes, records: Sequence[Record]) -> None:
        """Send records of one session, with n growing by one, on an open document. Ask ``fits`` before each."""
        self._streams[document].push(records)
        first = records[0]
        self._send(messages.Push(document, first.session, first.n, tuple(r.data for r in records)))

    def request_compaction(self, document: bytes) -> None:
        """Ask the relay to compact an open document's log; the answer is ``Folded``."""
        self._send(messages.Fold(document))

    def carries_presence(self) -> bool:
        """Whether the relay has greeted, and carries presence."""
        return self.limits is not None and bool(self.limits.features & messages.PRESENCE)

    def announce(self, document: bytes, entries: Sequence[messages.Announcement]) -> None:
        """Say who is here, for an open document. Only where the relay ``carries_presence``."""
        self._send(messages.Presence(document, tuple(entries)))

    def can_delete(self) -> bool:
        """Whether the relay has greeted, and can delete documents."""
        return self.limits is not None and bool(self.limits.features & messages.DELETION)

    def delete(self, document: bytes) -> None:
        """Ask the relay to delete a document, open or not; the answer is Deleted. Only where it ``can_delete``."""
        self._send(messages.Delete(document))

    def barrier(self) -> int:
        """Ask whether all that the relay has of the open documents is here; the answer is Reached with this number."""
        self._barriers += 1
        self._send(messages.Barrier(self._barriers))
        return self._barriers

    def receive(self, frame: bytes) -> list[Event]:
        """The events of a frame from the relay. Raises MalformedFrame; and SyncError where too much waits that the
        relay does not read, for what it sends may need answers."""
        if self._frames_size > MAX_UNSENT:
            raise SyncError(
                f"The relay reads nothing, and {MAX_UNSENT >> 20} MiB wait for it.", hint="Try again later."
            )
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
                return stream.records(message, stream.cursor) if stream and stream.cursor else []
            case messages.Snapshot(document):
                stream = self._streams.get(document)
                return stream.snapshot(message, stream.cursor) if stream and stream.cursor else []
            case messages.Ack(document):
                stream = self._streams.get(document)
                return stream.acked(message, stream.cursor) if stream and stream.cursor else []
            case messages.Presence(document, entries):
                return [Present(document, entries)] if self.is_open(document) else []
            case messages.Folded(document, outcome):
                return [Folded(document, outcome)]
            case messages.Deleted(document, outcome):
                return [Deleted(document, outcome)]
            case messages.Reached(number):
                return [Reached(number)]
            case messages.Error():
                return self._refused(message)
        raise MalformedFrame(f"{type(message).__name__.upper()} is not for a relay to send.")

    # ---------------------------------------------------------------- inside

    def _send(self, message: Message) -> None:
        frame = codec.encode(message)
        self._frames.append(frame)
        self._frames_size += len(frame)

    def _opened(self, message: messages.Opened) -> list[Event]:
        stream = self._streams.get(message.document)
        if stream is None:
            self._closed_opening_answered(message.document)
            return []
        stream.openings -= 1
        if stream.openings > 0:
            return []
        if stream.openings < 0:
            raise MalformedFrame("OPENED came without OPEN.")
        return stream.opened(message)

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
                self._closed_opening_answered(error.document)
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
            stream.release()
        return [Refused(error)]

    def _closed_opening_answered(self, document: bytes) -> None:
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
            stream.forget()
