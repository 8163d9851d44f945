"""The structure of a Yjs update and state vector (encoding v1), read without building a document.

Why we read them ourselves before the CRDT core does: yrs allocates a declared count before it checks it, and block
arithmetic at clocks near 2**31 makes it panic or corrupt a replica without a word. So every count is held against the
bytes that are left, and every clock range must end below 2**31.

Format: https://github.com/yjs/yjs, src/utils/encoding.js, and lib0's encoding.js.

    update       = count client*  deletes
    client       = count id clock struct*
    struct       = GC | Skip | Item                     (low five bits of the info byte: 0, 10, or a content type)
    deletes      = count (id count (clock length)*)*
    state vector = count (id clock)*
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..exceptions import MalformedUpdate

CLOCK_END = 1 << 31
CLIENT_END = 1 << 53
_DEPTH = 64


@dataclass
class UpdateRange:
    """Per client, the first clock that an update writes, and the first after what it writes and what it deletes."""

    begun: dict[int, int] = field(default_factory=dict)
    written: dict[int, int] = field(default_factory=dict)
    deleted: dict[int, int] = field(default_factory=dict)

    def covered_by(self, state: dict[int, int]) -> bool:
        """Whether a replica with that state vector has integrated all of it."""
        return all(end <= state.get(client, 0) for ends in (self.written, self.deleted) for client, end in ends.items())

    def repeats(self, state: dict[int, int]) -> bool:
        """Whether a replica with that state vector had some of what it writes."""
        return any(start < state.get(client, 0) for client, start in self.begun.items())


def read_update(data: bytes) -> UpdateRange:
    """Check an update. Raises MalformedUpdate."""
    reader = _Reader(data)
    found = UpdateRange()
    for _ in range(reader.count()):
        _read_client(reader, found)
    for _ in range(reader.count()):
        client = reader.client()
        for _ in range(reader.count()):
            start, length = reader.uint(), reader.uint()
            if start + length >= CLOCK_END:
                raise MalformedUpdate("The update deletes past the highest clock.")
            found.deleted[client] = max(found.deleted.get(client, 0), start + length)
    reader.end()
    return found


def read_state_vector(data: bytes) -> dict[int, int]:
    """Check and read a state vector. Raises MalformedUpdate."""
    reader = _Reader(data)
    state = {}
    for _ in range(reader.count()):
        client, clock = reader.client(), reader.uint()
        if clock >= 1 << 32:
            raise MalformedUpdate("The version holds a clock past the highest one.")
        state[client] = clock
    reader.end()
    return state


def _read_client(reader: _Reader, found: UpdateRange) -> None:
    structs, client, clock = reader.count(), reader.client(), reader.uint()
    for _ in range(structs):
        info = reader.byte()
        kind = info & 0x1F
        if kind in (0, 10):
            length = reader.uint()
        else:
            _read_place(reader, info)
            length = _read_content(reader, kind)
        if length == 0:
            raise MalformedUpdate("The update holds an empty struct.")
        if kind != 10:
            found.begun[client] = min(found.begun.get(client, clock), clock)
        clock += length
        if clock >= CLOCK_END:
            raise MalformedUpdate("The update writes past the highest clock.")
        if kind != 10:
            found.written[client] = max(found.written.get(client, 0), clock)


def _read_place(reader: _Reader, info: int) -> None:
    for bit in (0x80, 0x40):  # left and right neighbour
        if info & bit:
            reader.client()
            reader.clock()
    if not info & 0xC0:
        parent = reader.uint()
        if parent == 1:
            reader.text()
        elif parent == 0:
            reader.client()
            reader.clock()
        else:
            raise MalformedUpdate("The update names a parent in an unknown way.")
        if info & 0x20:
            reader.text()


def _read_content(reader: _Reader, kind: int) -> int:
    match kind:
        case 1:  # deleted
            return reader.uint()
        case 2:  # JSON texts
            return sum(1 for _ in range(reader.count()) if reader.text() is not None)
        case 3:  # bytes
            reader.bytes()
        case 4:  # text; its length counts UTF-16 units
            return len(reader.text().encode("utf-16-le")) // 2
        case 5:  # embed
            reader.text()
        case 6:  # format
            reader.text()
            reader.text()
        case 7:  # shared type
            ref = reader.uint()
            if ref > 6:
                raise MalformedUpdate("The update holds a shared type this version doesn't know.")
            if ref in (3, 5):  # XML element and hook have a name
                reader.text()
        case 8:  # values
            count = reader.count()
            for _ in range(count):
                _read_any(reader, 0)
            return count
        case 9:  # subdocument
            reader.text()
            _read_any(reader, 0)
        case _:
            raise MalformedUpdate(f"The update holds content of an unknown kind, {kind}.")
    return 1


def _read_any(reader: _Reader, depth: int) -> None:
    if depth > _DEPTH:
        raise MalformedUpdate("The update nests values too deeply.")
    match reader.byte():
        case 127 | 126 | 121 | 120:  # undefined, null, false, true
            pass
        case 125:
            reader.sint()
        case 124:
            reader.skip(4)
        case 123 | 122:
            reader.skip(8)
        case 119:
            reader.text()
        case 118:
            for _ in range(reader.count()):
                reader.text()
                _read_any(reader, depth + 1)
        case 117:
            for _ in range(reader.count()):
                _read_any(reader, depth + 1)
        case 116:
            reader.bytes()
        case _:
            raise MalformedUpdate("The update holds a value of an unknown type.")


class _Reader:
    """lib0's variable-length integers, strings and byte arrays."""

    __slots__ = ("_at", "_data", "_size")

    def __init__(self, data: bytes) -> None:
        self._data, self._at, self._size = data, 0, len(data)

    def byte(self) -> int:
        if self._at >= self._size:
            raise MalformedUpdate("The update ends too early.")
        value = self._data[self._at]
        self._at += 1
        return value

    def uint(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 56:
                raise MalformedUpdate("The update holds a number that is too long.")

    def sint(self) -> None:
        """A signed number: the first byte holds six bits and the sign. Only skipped."""
        for _ in range(10):
            if self.byte() < 0x80:
                return
        raise MalformedUpdate("The update holds a number that is too long.")

    def count(self) -> int:
        """How many things follow: each takes a byte at least."""
        value = self.uint()
        if value > self._size - self._at:
            raise MalformedUpdate("The update declares more than it holds.")
        return value

    def client(self) -> int:
        value = self.uint()
        if value >= CLIENT_END:
            raise MalformedUpdate("The update names a client past the highest id.")
        return value

    def clock(self) -> int:
        value = self.uint()
        if value >= CLOCK_END:
            raise MalformedUpdate("The update names a clock past the highest one.")
        return value

    def skip(self, size: int) -> None:
        if size > self._size - self._at:
            raise MalformedUpdate("The update declares more than it holds.")
        self._at += size

    def bytes(self) -> bytes:
        size = self.uint()
        start = self._at
        self.skip(size)
        return self._data[start : self._at]

    def text(self) -> str:
        try:
            return self.bytes().decode("utf-8")
        except UnicodeDecodeError:
            raise MalformedUpdate("The update holds text that is not UTF-8.") from None

    def end(self) -> None:
        if self._at != self._size:
            raise MalformedUpdate("The update goes on after its end.")
