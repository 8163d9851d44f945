"""Pieces of bytes between the relay and a worker process, in groups: how many there are, the length of each, and then
all of them (numbers of 8 bytes, big endian). An empty group is the end."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import IO

_NUMBER = 8
_END = bytes(_NUMBER)
_MOST = 1 << 40
"""No group is larger: the process at the other end is gone mad."""
_BYTES, _PIECES = 64 << 10, 1_024
"""A group of what is made piece by piece: so many bytes, unless one piece has more, and so many pieces."""


def write(stream: IO[bytes], pieces: Iterable[bytes]) -> None:
    """All pieces, as they are made, and the end mark."""
    group: list[bytes] = []
    size = 0
    for piece in pieces:
        if group and (size + len(piece) > _BYTES or len(group) >= _PIECES):
            stream.write(_group(group))
            group, size = [], 0
        group.append(piece)
        size += len(piece)
    stream.write(joined(group))
    stream.flush()


def joined(pieces: Sequence[bytes]) -> bytes:
    """All pieces in one group, and the end mark."""
    return _group(pieces) + _END if pieces else _END


def _group(pieces: Sequence[bytes]) -> bytes:
    return b"".join((struct.pack(f">{1 + len(pieces)}Q", len(pieces), *map(len, pieces)), *pieces))


def _numbers(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f">{len(data) // _NUMBER}Q", data)


class Reader:
    """Puts pieces together out of what a stream brings, in whatever cuts."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._whole: list[bytes] = []
        # Of the group that comes: how many pieces, then the length of each; and the bytes that come next.
        self._count, self._next = 0, _NUMBER
        self._sizes: tuple[int, ...] = ()

    def feed(self, data: bytes) -> list[bytes] | None:
        """All pieces, when the end mark has come, and nothing may come after it; else None. Raises EOFError where the
        stream says what can't be."""
        self._rest += data
        while len(self._rest) >= self._next:
            part = bytes(memoryview(self._rest)[: self._next])
            del self._rest[: self._next]
            if self._sizes:
                self._whole += _cut(part, self._sizes)
                self._count, self._sizes, self._next = 0, (), _NUMBER
            elif self._count:
                self._sizes = _numbers(part)
                self._next = _sum(self._sizes)
            elif count := int.from_bytes(part, "big"):
                self._count, self._next = count, _size_of(count)
            else:
                whole, self._whole, self._rest = self._whole, [], bytearray()
                return whole
        return None


def read(stream: IO[bytes]) -> Iterator[bytes]:
    """The pieces up to the end mark. Raises EOFError where the stream ends before, or says what can't be."""
    while (count := int.from_bytes(_exactly(stream, _NUMBER), "big")) != 0:
        sizes = _numbers(_exactly(stream, _size_of(count)))
        yield from _cut(_exactly(stream, _sum(sizes)), sizes)


def _size_of(numbers: int) -> int:
    """Bytes of so many numbers. Raises EOFError where that can't be."""
    if numbers * _NUMBER > _MOST:
        raise EOFError
    return numbers * _NUMBER


def _sum(sizes: Sequence[int]) -> int:
    if (size := sum(sizes)) > _MOST:
        raise EOFError
    return size


def _cut(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    return [data[start:stop] for start, stop in pairwise(accumulate(sizes, initial=0))]


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return data
