"""Pieces of bytes between the relay and a worker process: each with its length (8 bytes, big endian) before it, and
2^64-1 behind the last."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO

_END = (1 << 64) - 1
_MOST = 1 << 40
"""No piece is larger: the process at the other end is gone mad."""


def write(stream: IO[bytes], pieces: Iterable[bytes]) -> None:
    """All pieces, and the end mark."""
    for piece in pieces:
        stream.write(len(piece).to_bytes(8, "big"))
        stream.write(piece)
    stream.write(_END.to_bytes(8, "big"))
    stream.flush()


def joined(pieces: Iterable[bytes]) -> bytes:
    """The bytes that ``write`` writes."""
    return b"".join(part for p in pieces for part in (len(p).to_bytes(8, "big"), p)) + _END.to_bytes(8, "big")


class Reader:
    """Puts pieces together out of what a stream brings, in whatever cuts."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._whole: list[bytes] = []

    def feed(self, data: bytes) -> list[bytes] | None:
        """All pieces, when the end mark has come, and nothing may come behind it; else None. Raises EOFError where the
        stream says what can't be."""
        self._rest += data
        at = 0
        while len(self._rest) - at >= 8:
            size = int.from_bytes(self._rest[at : at + 8], "big")
            if size == _END:
                whole, self._whole, self._rest = self._whole, [], bytearray()
                return whole
            if size > _MOST:
                raise EOFError
            if len(self._rest) - at - 8 < size:
                break
            self._whole.append(bytes(self._rest[at + 8 : at + 8 + size]))
            at += 8 + size
        del self._rest[:at]
        return None


def read(stream: IO[bytes]) -> Iterator[bytes]:
    """The pieces up to the end mark. Raises EOFError where the stream ends before, or says what can't be."""
    while (size := int.from_bytes(_exactly(stream, 8), "big")) != _END:
        if size > _MOST:
            raise EOFError
        yield _exactly(stream, size)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return data
