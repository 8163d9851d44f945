"""Columns of Automerge's binary format, read run by run, and written.

A column holds one value for each operation, or for each change. Its runs are read as (count, value), so a run that says
"a billion times" costs no more than its bytes; whoever counts the operations refuses it. Values that stand alone come
one by one.

Everything here raises MalformedUpdate for bytes that are no column.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from ...exceptions import MalformedUpdate
from ...varint import write_uint

MAX_NUMBER = 1 << 53
"""No number may be larger: JavaScript's Automerge holds no other."""

Runs = Iterator[tuple[int, int | None]]
TextRuns = Iterator[tuple[int, str | None]]


class Reader:
    """A place in bytes."""

    __slots__ = ("data", "end", "place")

    def __init__(self, data: bytes, place: int = 0, end: int | None = None) -> None:
        self.data = data
        self.place = place
        self.end = len(data) if end is None else end

    def uint(self) -> int:
        """An unsigned LEB128 number."""
        number, shift, place, data = 0, 0, self.place, self.data
        if place < self.end and (byte := data[place]) < 0x80:  # nearly always
            self.place = place + 1
            return byte
        while place < self.end and shift < 63:
            byte = data[place]
            place += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                if number > MAX_NUMBER or (byte == 0 and shift):
                    raise MalformedUpdate("A number is out of range.")
                self.place = place
                return number
            shift += 7
        raise MalformedUpdate("The bytes end inside a number.")

    def sint(self) -> int:
        """A signed LEB128 number."""
        number, shift, place, data = 0, 0, self.place, self.data
        if place < self.end and (byte := data[place]) < 0x80:  # nearly always
            self.place = place + 1
            return byte - 0x80 if byte & 0x40 else byte
        while place < self.end and shift < 63:
            byte = data[place]
            place += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                if byte & 0x40:
                    number -= 1 << shift
                if not -MAX_NUMBER <= number <= MAX_NUMBER:
                    raise MalformedUpdate("A number is out of range.")
                self.place = place
                return number
        raise MalformedUpdate("The bytes end inside a number.")

    def take(self, length: int) -> bytes:
        place = self.place
        if length > self.end - place:
            raise MalformedUpdate("The bytes end too early.")
        self.place = place + length
        return self.data[place : self.place]

    def prefixed(self) -> bytes:
        """Bytes after their length."""
        return self.take(self.uint())

    def text(self) -> str:
        """Text after its length."""
        try:
            return self.prefixed().decode()
        except UnicodeDecodeError:
            raise MalformedUpdate("A text is not UTF-8.") from None

    @property
    def left(self) -> bool:
        return self.place < self.end


def read_uints(data: bytes) -> Runs:
    """A column of unsigned numbers."""
    reader = Reader(data)
    while reader.left:
        count = reader.sint()
        if count > 0:
            yield count, reader.uint()
        elif count == 0:
            yield reader.uint(), None
        else:
            for _ in range(-count):
                yield 1, reader.uint()


def read_deltas(data: bytes, least: int = 0) -> Iterator[tuple[int, int, int | None]]:
    """A column of numbers that is told by differences: (count, value before the run, what each adds)."""
    reader, value = Reader(data), 0
    while reader.left:
        count = reader.sint()
        if count == 0:
            yield reader.uint(), value, None
            continue
        times = max(count, 1)
        for _ in range(max(-count, 1)):
            step = reader.sint()
            yield times, value, step
            value += times * step
            if not least <= value <= MAX_NUMBER:
                raise MalformedUpdate("A number is out of range.")


def read_texts(data: bytes) -> TextRuns:
    """A column of texts."""
    reader = Reader(data)
    while reader.left:
        count = reader.sint()
        if count > 0:
            yield count, reader.text()
        elif count == 0:
            yield reader.uint(), None
        else:
            for _ in range(-count):
                yield 1, reader.text()


def read_bools(data: bytes) -> Iterator[tuple[int, bool]]:
    """A column of yes and no."""
    reader, value = Reader(data), False
    while reader.left:
        yield reader.uint(), value
        value = not value


def count_runs(runs: Iterable[tuple[int, object]]) -> int:
    """The number of values in a column."""
    return sum(count for count, _ in runs)


def spread_deltas(runs: Iterable[tuple[int, int, int | None]]) -> Iterator[int | None]:
    """Each value of a column that is told by differences. Count first, then spread."""
    for count, value, step in runs:
        if step is None:
            yield from (None for _ in range(count))
        else:
            yield from (value + step * n for n in range(1, count + 1))


def spread(runs: Iterable[tuple[int, int | None]]) -> Iterator[int | None]:
    """Each value of a column. Count first, then spread."""
    for count, value in runs:
        yield from (value for _ in range(count))


def spread_texts(runs: TextRuns) -> Iterator[str | None]:
    for count, value in runs:
        yield from (value for _ in range(count))


def write_sint(n: int) -> bytes:
    """A signed LEB128 number."""
    out = bytearray()
    while True:
        byte = n & 0x7F
        n >>= 7
        if (n == 0 and not byte & 0x40) or (n == -1 and byte & 0x40):
            out.append(byte)
            return bytes(out)
        out.append(byte | 0x80)


def write_column(values: Iterable[bytes | None]) -> bytes:
    """A column of values, each as its own bytes, as Automerge writes it: the longest runs, nothing where all are
    absent."""
    runs = [(value, len(list(same))) for value, same in groupby(values)]
    if all(value is None for value, _ in runs):
        return b""
    out, alone = list[bytes](), list[bytes]()

    def end_alone() -> None:
        if alone:
            out.extend((write_sint(-len(alone)), *alone))
            alone.clear()

    for value, count in runs:
        if value is not None and count == 1:
            alone.append(value)
            continue
        end_alone()
        out.append(b"\x00" + write_uint(count) if value is None else write_sint(count) + value)
    end_alone()
    return b"".join(out)


def write_deltas(values: Iterable[int | None]) -> bytes:
    """A column of numbers, told by differences."""
    steps, before = list[bytes | None](), 0
    for value in values:
        steps.append(None if value is None else write_sint(value - before))
        before = before if value is None else value
    return write_column(steps)


def write_bools(values: Iterable[bool]) -> bytes:
    """A column of yes and no."""
    out, expected = bytearray(), False
    for value, same in groupby(values):
        if value is not expected:
            out.append(0)
            expected = value
        out += write_uint(len(list(same)))
        expected = not expected
    return bytes(out)
