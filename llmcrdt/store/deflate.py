"""Cuts a document into pieces that are deflated apart, so that most of them stay as they are when it has changed a
little, and any of them can be read by itself.

A cut is made where the content says so: a change moves what follows it, and leaves the other pieces as they are.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

LEVEL = 6
LEAST, MOST = 16 << 10, 32_000
"""Bytes of a piece before it is deflated; the last one may have fewer. zlib looks back no further."""
_CUT_BEFORE, _HASHED = re.compile(rb"\{"), 32
"""A cut is made before one of these signs: the one where a hash of the ``_HASHED`` bytes from it on is least."""


def cut(data: bytes) -> Iterator[bytes]:
    """The pieces of ``data``: together they are all of it."""
    start = 0
    while len(data) - start > MOST:
        signs = [sign.start() for sign in _CUT_BEFORE.finditer(data, start + LEAST, start + MOST)]
        stop = min(signs, key=lambda at: zlib.crc32(data[at : at + _HASHED]), default=start + MOST)
        yield data[start:stop]
        start = stop
    if start < len(data):
        yield data[start:]


def deflate(piece: bytes) -> bytes:
    """A piece, deflated, with a checksum."""
    return zlib.compress(piece, LEVEL)


def inflate(data: bytes) -> bytes:
    """The piece that ``deflate`` made something of. Raises zlib.error."""
    return zlib.decompress(data, bufsize=MOST + 1)


class Leaning:
    """Deflates short texts that lean on one piece: what stands in it too takes a few bytes."""

    def __init__(self, piece: bytes) -> None:
        # It is copied for each text, so it is small.
        self._begun = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, memLevel=5, zdict=piece)

    def deflate(self, data: bytes) -> bytes:
        """``data``, without what can be found in the piece."""
        compressor = self._begun.copy()
        return compressor.compress(data) + compressor.flush()


def inflate_leaning(data: bytes, piece: bytes) -> bytes:
    """The bytes that ``Leaning(piece)`` made ``data`` of. Raises zlib.error."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS, zdict=piece)
    return inflater.decompress(data) + inflater.flush()
