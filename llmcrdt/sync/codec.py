"""The messages of the native sync protocol as bytes: one codec for both sides. docs/protocol.md is the norm.

``decode`` takes a frame from a stranger. Nothing but MalformedFrame leaves it, and it checks every length and count
against the bytes that are really there before it allocates.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice, pairwise, repeat
from operator import eq
from typing import Final

from ..exceptions import MalformedFrame
from ..varint import MAX_UINT, write_uint
from .json_check import is_object
from .lazy_sequence import LazySequence, places
from .messages import (
    DELETE_DONE,
    DELETE_REFUSED,
    FOLD_DONE,
    FOLD_FAILED,
    KIND,
    MAX_AGENT,
    MAX_ATTACHMENT,
    MAX_FRAME,
    MAX_PIECE,
    MAX_PRESENCE,
    MAX_PRESENT,
    MAX_RECORD,
    MAX_RECORDS,
    MAX_SNAPSHOT,
    MAX_STATE,
    MAX_TEXT,
    MAX_TOKEN,
    PLAIN,
    RESET,
    SEALED,
    Ack,
    Announcement,
    AttachmentName,
    Barrier,
    Close,
    Cursor,
    Data,
    Delete,
    Deleted,
    Discard,
    Error,
    Fetch,
    Fold,
    Folded,
    Held,
    Hello,
    Message,
    Offer,
    Open,
    Opened,
    Presence,
    Push,
    Reached,
    Record,
    Records,
    Snapshot,
    Welcome,
)

_FEW: Final = 16
"""So many things are made when a frame is read; of more it is noted where they are, and they are cut when asked for."""
_FEW_PRESENT: Final = 4


# ---------------------------------------------------------------- writing


def _bytes(data: bytes) -> bytes:
    return write_uint(len(data)) + data


def _text(text: str, limit: int) -> bytes:
    """Cut to the limit, at a whole character: these texts are for people."""
    return _bytes(text.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore").encode())


def _cursor(c: Cursor) -> bytes:
    return c.log + write_uint(c.position) + c.chain


def _name(name: AttachmentName) -> bytes:
    return write_uint(name.form) + name.hash


def _runs(records: Sequence[Record]) -> list[bytes]:
    sessions, numbers, data = zip(*records, strict=True) if records else ((), (), ())
    if records and sessions.count(sessions[0]) == len(records) and _count_up(numbers):
        starts = [0]  # the records of one writer
    else:
        names = pairwise(zip(sessions, numbers, strict=True))
        starts = [0, *(i for i, ((s, n), (t, m)) in enumerate(names, 1) if s != t or n + 1 != m)]
    out = [write_uint(len(starts))]
    for start, end in zip(starts, [*starts[1:], len(records)], strict=True):
        out += (records[start].session, write_uint(records[start].n), write_uint(end - start))
        out += _pieces(data[start:end])
    return out


def _count_up(numbers: Sequence[int]) -> bool:
    return all(map(eq, numbers, range(numbers[0], numbers[0] + len(numbers))))


def _pieces(data: Sequence[bytes]) -> Iterable[bytes]:
    """Each with its length before it."""
    return chain.from_iterable(zip(map(write_uint, map(len, data)), data, strict=True))


def encode(message: Message) -> bytes:
    """A message as one frame. Raises ValueError for a number that the protocol can't carry."""
    match message:
        case Records(document, position, records):
            return b"".join((b"\x08", document, write_uint(position), *_runs(records)))
        case Push(document, session, n, data):
            return b"".join((b"\x06", document, session, write_uint(n), write_uint(len(data)), *_pieces(data)))
        case Ack(document, session, n, count, position):
            return b"".join((b"\x07", document, session, write_uint(n), write_uint(count), write_uint(position)))
        case Hello(agent, token, features):
            return b"\x01" + write_uint(features) + _bytes(token) + _text(agent, MAX_AGENT)
        case Welcome():
            limits = (message.record_bytes, message.window_records, message.window_bytes, message.documents)
            head = b"\x02" + write_uint(message.features) + _text(message.agent, MAX_AGENT)
            return b"".join((head, *map(write_uint, limits)))
        case Open(document, kind, cursor):
            rest = b"\x00" if cursor is None else b"\x01" + _cursor(cursor)
            return b"\x03" + document + _bytes(kind.encode("ascii")) + rest
        case Opened(document, how, head_cursor, position):
            return b"\x04" + document + write_uint(how) + _cursor(head_cursor) + write_uint(position)
        case Close(document):
            return b"\x05" + document
        case Snapshot():
            place = (message.n, message.count, message.size, message.offset, len(message.data))
            head = b"\x0c" + message.document + write_uint(message.position) + message.chain + message.session
            return b"".join((head, *map(write_uint, place), message.data))
        case Fold(document):
            return b"\x0d" + document
        case Folded(document, outcome):
            return b"\x0e" + document + write_uint(outcome)
        case Presence(document, entries):
            pieces = (p for e in entries for p in (write_uint(e.client), write_uint(e.clock), _bytes(e.state.encode())))
            return b"".join((b"\x0f", document, write_uint(len(entries)), *pieces))
        case Delete(document):
            return b"\x11" + document
        case Deleted(document, outcome):
            return b"\x12" + document + write_uint(outcome)
        case Offer(document, name, size):
            return b"\x13" + document + _name(name) + write_uint(size)
        case Data(document, name, size, offset, piece):
            return b"".join((b"\x14", document, _name(name), write_uint(size), write_uint(offset), _bytes(piece)))
        case Fetch(document, name, offset, length):
            return b"\x15" + document + _name(name) + write_uint(offset) + write_uint(length)
        case Discard(document, name):
            return b"\x16" + document + _name(name)
        case Held(document, name, outcome, size, held):
            numbers = (outcome, size, held)
            return b"".join((b"\x17", document, _name(name), *map(write_uint, numbers)))
        case Barrier(id_):
            return b"\x09" + write_uint(id_)
        case Reached(id_):
            return b"\x0a" + write_uint(id_)
        case Error():
            where = b"\x00" if message.document is None else b"\x01" + message.document
            which = b"\x00" if message.session is None else b"\x01" + message.session + write_uint(message.n)
            head = b"\x0b" + write_uint(message.code) + where + which
            return head + write_uint(message.retry_after) + _text(message.text, MAX_TEXT)


# ---------------------------------------------------------------- reading


class Reader:
    """Reads a frame from left to right. Every method raises MalformedFrame rather than read past the end."""

    __slots__ = ("at", "frame")

    def __init__(self, frame: bytes) -> None:
        self.frame = frame
        self.at = 0

    def take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self.frame):
            raise MalformedFrame(f"The frame ends at byte {len(self.frame)}, but byte {end} was announced.")
        piece = self.frame[self.at : end]
        self.at = end
        return piece

    def id(self) -> bytes:
        return self.take(16)

    def uint(self, low: int = 0, high: int = MAX_UINT) -> int:
        n, frame, at = 0, self.frame, self.at
        for shift in range(0, 56, 7):
            if at >= len(frame):
                raise MalformedFrame("The frame ends inside a number.")
            byte = frame[at]
            at += 1
            n |= (byte & 0x7F) << shift
            if byte < 0x80:
                if byte == 0 and shift:
                    raise MalformedFrame("A number is not in its shortest form.")
                if not low <= n <= high:
                    raise MalformedFrame(f"{n} is not between {low} and {high}.")
                self.at = at
                return n
        raise MalformedFrame("A number has more than 8 bytes.")

    def blob(self, high: int, low: int = 0) -> bytes:
        return self.take(self.uint(low, high))

    def text(self, high: int) -> str:
        try:
            return self.blob(high).decode("utf-8")
        except UnicodeDecodeError:
            raise MalformedFrame("A text is not UTF-8.") from None

    def present(self) -> bool:
        return self.uint(0, 1) == 1

    def count(self, limit: int, each: int) -> int:
        """A count of things that take at least ``each`` bytes, so it can't promise more than the frame holds."""
        n = self.uint(1, limit)
        if n * each > len(self.frame) - self.at:
            raise MalformedFrame(f"{n} things are announced; the frame has no room for them.")
        return n

    def cursor(self) -> Cursor:
        return Cursor(self.id(), self.uint(), self.take(32))

    def kind(self) -> str:
        kind = self.blob(16).decode("latin-1")
        if not KIND.fullmatch(kind):
            raise MalformedFrame("A kind is 1 to 16 of a-z, 0-9 and -.")
        return kind

    def data(self, count: int) -> Sequence[bytes]:
        if count > _FEW:
            starts = places()
            self.skip(count, starts)
            return LazySequence(self.frame, starts, _cut_data)
        frame, at, end = self.frame, self.at, len(self.frame)
        pieces = []
        for _ in range(count):
            size = frame[at] if at < end else 0
            if 0 < size < 0x80 and at + size < end:
                # The length is one byte: so it is with nearly every record of a stream.
                at += 1
                piece = frame[at : at + size]
                at += size
            else:
                self.at = at
                piece = self.blob(MAX_RECORD, 1)
                at = self.at
            pieces.append(piece)
        self.at = at
        return tuple(pieces)

    def skip(self, count: int, starts: array[int]) -> None:
        """As ``data``, but say only where each begins."""
        frame, at, end = self.frame, self.at, len(self.frame)
        for _ in range(count):
            starts.append(at)
            size = frame[at] if at < end else 0
            if 0 < size < 0x80 and at + size < end:
                at += 1 + size
            else:
                self.at = at
                size = self.uint(1, MAX_RECORD)
                at = self.at + size
                if at > end:
                    raise MalformedFrame(f"The frame ends at byte {end}, but byte {at} was announced.")
        self.at = at

    def name(self, count: int) -> int:
        """The n of the first of ``count`` records, the last of which must still be a number."""
        return self.uint(1, MAX_UINT - count)


def _read_push(r: Reader) -> Push:
    document, session, n = r.id(), r.id(), r.name(MAX_RECORDS)
    return Push(document, session, n, r.data(r.count(MAX_RECORDS, 2)))


PUSH_NAME: Final = 33
"""Bytes of a PUSH frame up to the session's end: its type, document and session."""


def read_following(name: bytes, n: int, frame: bytes) -> Sequence[bytes]:
    """The data of a PUSH frame that begins with ``name`` and has ``n`` for its first record; nothing where it is
    anything else. For who reads a stream of them: it costs a fraction of ``decode``."""
    if 0 < n <= MAX_UINT - MAX_RECORDS:
        head = name + write_uint(n) + b"\x01"
        at = len(head)
        if frame.startswith(head) and 0 < len(frame) - at - 1 == frame[at] < 0x80:
            # One short record: so is nearly every frame of a stream.
            return (frame[at + 1 :],)
    if not frame.startswith(name):
        return ()
    reader = Reader(frame)
    reader.at = PUSH_NAME
    try:
        if reader.name(MAX_RECORDS) != n:
            return ()
        data = reader.data(reader.count(MAX_RECORDS, 2))
    except MalformedFrame:
        return ()
    return data if reader.at == len(frame) else ()


def _read_ack(r: Reader) -> Ack:
    document, session, n = r.id(), r.id(), r.name(MAX_RECORDS)
    return Ack(document, session, n, r.uint(1, MAX_RECORDS), r.name(MAX_RECORDS))


def _cut_data(frame: bytes, starts: Sequence[int], first: int) -> Iterator[bytes]:
    for at in islice(starts, first, None):
        size = frame[at]
        if size < 0x80:
            yield frame[at + 1 : at + 1 + size]
        else:
            reader = Reader(frame)
            reader.at = at
            yield reader.blob(MAX_RECORD)


def _read_records(r: Reader) -> Records:
    document, position, runs, at = r.id(), r.name(MAX_RECORDS), r.count(MAX_RECORDS, 20), r.at
    records: list[Record] = []
    for _ in range(runs):
        session, n = r.id(), r.name(MAX_RECORDS)
        count = r.count(MAX_RECORDS - len(records), 2) if len(records) < MAX_RECORDS else r.uint(1, 0)
        if len(records) + count > _FEW:
            r.at = at
            return Records(document, position, _many_records(r, runs))
        records += (Record(session, number, data) for number, data in enumerate(r.data(count), n))
    return Records(document, position, tuple(records))


def _many_records(r: Reader, count: int) -> LazySequence[Record]:
    # The places where each record and each run begins, and which record is a run's first.
    starts, runs, firsts = places(), places(), places()
    for _ in range(count):
        runs.append(r.at)
        firsts.append(len(starts))
        r.take(16)
        r.name(MAX_RECORDS)
        r.skip(r.count(MAX_RECORDS - len(starts), 2) if len(starts) < MAX_RECORDS else r.uint(1, 0), starts)

    def cut(frame: bytes, starts: Sequence[int], first: int) -> Iterator[Record]:
        data = _cut_data(frame, starts, first)
        for run in range(bisect_right(firsts, first) - 1, len(runs)):
            reader = Reader(frame)
            reader.at = runs[run]
            session, n = reader.id(), reader.uint() - firsts[run]
            end = firsts[run + 1] if run + 1 < len(runs) else len(starts)
            # The numbers end first, so that no data is lost.
            yield from map(Record._make, zip(repeat(session), range(n + first, n + end), data, strict=False))
            first = end

    return LazySequence(r.frame, starts, cut)


def _read_snapshot(r: Reader) -> Snapshot:
    document, position, chain, session = r.id(), r.uint(1), r.take(32), r.id()
    n, count, size, offset = r.uint(1), r.uint(1), r.uint(1, MAX_SNAPSHOT), r.uint(0, MAX_SNAPSHOT)
    if n > count or offset >= size:
        raise MalformedFrame("A part lies outside its snapshot.")
    data = r.blob(min(MAX_RECORD, size - offset), 1)
    return Snapshot(document, position, chain, session, n, count, size, offset, data)


def _cut_announcements(frame: bytes, starts: Sequence[int], first: int) -> Iterator[Announcement]:
    reader = Reader(frame)
    for at in islice(starts, first, None):
        reader.at = at
        yield Announcement(reader.uint(), reader.uint(), reader.text(MAX_STATE))


def _read_presence(r: Reader) -> Presence:
    document, count, starts, size = r.id(), r.count(MAX_PRESENT, 3), places(), 0
    for _ in range(count):
        starts.append(r.at)
        r.uint()
        r.uint()
        length = r.uint(0, MAX_STATE)
        end, size = r.at + length, size + length
        if size > MAX_PRESENCE:
            raise MalformedFrame(f"The states of a message have {MAX_PRESENCE} bytes at most.")
        if length and (end > len(r.frame) or not is_object(r.frame, r.at, end)):
            raise MalformedFrame("A presence state is the text of a JSON object.")
        r.at = end
    entries = LazySequence(r.frame, starts, _cut_announcements)
    return Presence(document, tuple(entries) if count <= _FEW_PRESENT else entries)


def _read_name(r: Reader) -> AttachmentName:
    return AttachmentName(r.uint(PLAIN, SEALED), r.take(32))


def _read_data(r: Reader) -> Data:
    document, name, size = r.id(), _read_name(r), r.uint(0, MAX_ATTACHMENT - 1)
    offset = r.uint(0, size)
    return Data(document, name, size, offset, r.blob(min(MAX_PIECE, size - offset)))


def _read_held(r: Reader) -> Held:
    document, name, outcome, size = r.id(), _read_name(r), r.uint(), r.uint(0, MAX_ATTACHMENT - 1)
    return Held(document, name, outcome, size, r.uint(0, size))


def _read_hello(r: Reader) -> Hello:
    features, token = r.uint(), r.blob(MAX_TOKEN)
    return Hello(r.text(MAX_AGENT), token, features)


def _read_welcome(r: Reader) -> Welcome:
    features, agent = r.uint(), r.text(MAX_AGENT)
    return Welcome(agent, r.uint(1, MAX_RECORD), r.uint(1), r.uint(1), r.uint(1), features)


def _read_open(r: Reader) -> Open:
    return Open(r.id(), r.kind(), r.cursor() if r.present() else None)


def _read_opened(r: Reader) -> Opened:
    opened = Opened(r.id(), r.uint(0, 1), r.cursor(), r.uint())
    if opened.position > opened.head.position or (opened.how == RESET and opened.position):
        raise MalformedFrame("A log can't be opened there.")
    return opened


def _read_error(r: Reader) -> Error:
    code, document = r.uint(1), r.id() if r.present() else None
    session, n = (r.id(), r.uint()) if r.present() else (None, 0)
    retry_after = r.uint()
    return Error(code, r.text(MAX_TEXT), document, session, n, retry_after)


_READERS: Final[dict[int, Callable[[Reader], Message]]] = {
    0x01: _read_hello,
    0x02: _read_welcome,
    0x03: _read_open,
    0x04: _read_opened,
    0x05: lambda r: Close(r.id()),
    0x06: _read_push,
    0x07: _read_ack,
    0x08: _read_records,
    0x09: lambda r: Barrier(r.uint()),
    0x0A: lambda r: Reached(r.uint()),
    0x0B: _read_error,
    0x0C: _read_snapshot,
    0x0D: lambda r: Fold(r.id()),
    0x0E: lambda r: Folded(r.id(), r.uint(FOLD_DONE, FOLD_FAILED)),
    0x0F: _read_presence,
    0x11: lambda r: Delete(r.id()),
    0x12: lambda r: Deleted(r.id(), r.uint(DELETE_DONE, DELETE_REFUSED)),
    0x13: lambda r: Offer(r.id(), _read_name(r), r.uint(0, MAX_ATTACHMENT - 1)),
    0x14: _read_data,
    0x15: lambda r: Fetch(r.id(), _read_name(r), r.uint(0, MAX_ATTACHMENT - 1), r.uint(1, MAX_PIECE)),
    0x16: lambda r: Discard(r.id(), _read_name(r)),
    0x17: _read_held,
}


def decode(frame: bytes) -> Message:
    """The message that a frame holds. Raises MalformedFrame, and nothing else, for bytes that are none."""
    if not 0 < len(frame) <= MAX_FRAME:
        raise MalformedFrame(f"A frame has 1 to {MAX_FRAME} bytes, not {len(frame)}.")
    read = _READERS.get(frame[0])
    if read is None:
        raise MalformedFrame(f"{frame[0]:#04x} is not a type of message.")
    reader = Reader(frame)
    reader.at = 1
    message = read(reader)
    if reader.at != len(frame):
        raise MalformedFrame(f"{len(frame) - reader.at} bytes are left over.")
    return message
