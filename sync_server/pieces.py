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
