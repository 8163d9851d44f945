"""Cuts a document into pieces that are deflated apart, so that most of them stay as they are when it has changed a
little, and any of them can be read by itself.

A cut is made where the content says so: a change moves what follows it, and leaves the other pieces as they are.

A piece is deflated in blocks, so that whoever wants an entry of it inflates a quarter of it. Deflated, it is the number
of its blocks (one byte), the length of each (two bytes, big-endian), the Adler-32 of the piece (four bytes), and the
blocks: raw deflate streams, and all but the first have the first ``HEAD`` bytes of the piece as their dictionary. Older
versions made one zlib stream of it, which begins with 0x78: it counts as one block.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from itertools import accumulate

LEVEL = 6
LEAST, MOST = 16 << 10, 32_000
"""Bytes of a piece before it is deflated; the last one may have fewer. zlib looks back no further."""
BLOCK = 6_000
"""Bytes of a block, before it is deflated, at least; but for the last one of a piece. It ends where an entry begins."""
HEAD = 1_500
"""A part of the format of a file, as is all that the first lines here say."""
_ZLIB = b"\x78"
_LEAST_WINDOW = 10  # zlib makes windows of 1 KB for less, or none
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


def deflate(piece: bytes, begins: Iterable[int] = ()) -> bytes:
    """A piece, deflated, with a checksum. ``begins``: where entries begin in it."""
    first, *rest = _cut_in_blocks(piece, begins)
    blocks = [_deflate_raw(first, b""), *(_deflate_raw(block, piece[:HEAD]) for block in rest)]
    return struct.pack(f">B{len(blocks)}HI", len(blocks), *map(len, blocks), zlib.adler32(piece)) + b"".join(blocks)


def inflate(data: bytes) -> bytes:
    """The piece that ``deflate`` made something of. Raises zlib.error."""
    return Blocks(data).join()


class Blocks:
    """The blocks of a deflated piece, each inflated when it is asked for; all of this may raise zlib.error. ``named``:
    there may be several, so whoever leans on one says on which; otherwise an older version made the piece."""

    def __init__(self, data: bytes) -> None:
        self.named = data[:1] != _ZLIB
        self._data, self._head = data, b""
        if self.named:
            try:
                _, *lengths, self._checksum = struct.unpack_from(f">B{data[0]}HI", data)
            except (struct.error, IndexError) as error:
                raise zlib.error(f"The piece is damaged: {error}.") from None
            self._ends = list(accumulate(lengths, initial=5 + 2 * len(lengths)))

    def __iter__(self) -> Iterator[bytes]:
        return map(self.read, range(len(self._ends) - 1 if self.named else 1))

    def read(self, number: int) -> bytes:
        """One of them. It is not checked."""
        if not self.named:
            return zlib.decompress(self._data, bufsize=MOST + 1)
        if number and not self._head:
            self._head = zlib.decompressobj(-zlib.MAX_WBITS).decompress(self._slice(0), HEAD)
        return _inflate_raw(self._slice(number), self._head if number else b"")

    def join(self) -> bytes:
        """The piece, checked."""
        piece = b"".join(self)
        if self.named and (zlib.adler32(piece) != self._checksum or self._ends[-1] != len(self._data)):
            raise zlib.error("The piece is damaged: it is not what was deflated.")
        return piece

    def _slice(self, number: int) -> bytes:
        return self._data[self._ends[number] : self._ends[number + 1]]


def _cut_in_blocks(piece: bytes, begins: Iterable[int]) -> Iterator[bytes]:
    start = 0
    for at in sorted(begins):
        if at - start >= BLOCK:
            yield piece[start:at]
            start = at
    yield piece[start:]


class Leaning:
    """Deflates short texts that lean on a piece, or on a block of one: what stands in it too takes a few bytes."""

    def __init__(self, piece: bytes) -> None:
        # It is copied for each text, so it is small.
        window = min(zlib.MAX_WBITS, max(_LEAST_WINDOW, (2 * len(piece)).bit_length()))
        self._begun = zlib.compressobj(LEVEL, zlib.DEFLATED, -window, memLevel=5, zdict=piece)

    def deflate(self, data: bytes) -> bytes:
        """``data``, without what can be found in the piece."""
        compressor = self._begun.copy()
        return compressor.compress(data) + compressor.flush()


def inflate_leaning(data: bytes, piece: bytes) -> bytes:
    """The bytes that ``Leaning(piece)`` made ``data`` of. Raises zlib.error."""
    return _inflate_raw(data, piece)


def _deflate_raw(data: bytes, dictionary: bytes) -> bytes:
    deflater = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zdict=dictionary)
    return deflater.compress(data) + deflater.flush()


def _inflate_raw(data: bytes, dictionary: bytes) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS, zdict=dictionary)
    found = inflater.decompress(data)
    if not inflater.eof:
        raise zlib.error("What was deflated is damaged: it has no end.")
    return found
