"""Deflates a document in pieces, so that most of them can be taken over when it has changed a little.

The outcome is one zlib stream, which ``zlib.decompress`` reads. It is made of pieces that stand for themselves, cut
where the content says so: a change moves what follows it, and leaves the other pieces as they are. After the stream,
where zlib doesn't look, stands a table with the digest of what each piece says.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from hashlib import blake2b

LEVEL = 6
LEAST, MOST = 32 << 10, 256 << 10
"""Bytes of a piece before it is deflated; the last one may have fewer."""
_HEADER, _END, _CHECKSUM = b"\x78\x9c", b"\x03\x00", struct.Struct(">I")
_ROW, _FOOT, _MARK = struct.Struct(">16sI"), struct.Struct(">I8s"), b"\0pieces1"
_CUT_BEFORE, _HASHED, _ONE_IN = b"{", 32, 32
"""A cut is made before one in ``_ONE_IN`` of these signs, drawn by a hash of the ``_HASHED`` bytes from it on."""


def deflated(data: bytes, before: bytes = b"") -> bytes:
    """``data``, deflated. ``before``: what this function made of something similar, if anything."""
    known, table = _read_table(before), list[bytes]()
    out: list[bytes | memoryview] = [_HEADER]
    for piece in _pieces(data):
        digest = blake2b(piece, digest_size=16).digest()
        short = known.get(digest) or _deflate_piece(piece)
        out.append(short)
        table.append(_ROW.pack(digest, len(short)))
    out += [_END, _CHECKSUM.pack(zlib.adler32(data))]
    if len(table) > 1:
        out += [*table, _FOOT.pack(len(table), _MARK)]
    return b"".join(out)


def _deflate_piece(piece: memoryview) -> bytes:
    compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return compressor.compress(piece) + compressor.flush(zlib.Z_FULL_FLUSH)


def _pieces(data: bytes) -> Iterator[memoryview]:
    view, start = memoryview(data), 0
    while len(data) - start > MOST:
        at, stop = data.find(_CUT_BEFORE, start + LEAST, start + MOST), start + MOST
        while at >= 0 and zlib.crc32(view[at : at + _HASHED]) % _ONE_IN:
            at = data.find(_CUT_BEFORE, at + 1, stop)
        stop = at if at >= 0 else stop
        yield view[start:stop]
        start = stop
    yield view[start:]


def _read_table(data: bytes) -> dict[bytes, memoryview]:
    """The pieces of something deflated by their digests; none where it has no table."""
    view, foot = memoryview(data), len(data) - _FOOT.size
    if foot < 0:
        return {}
    count, mark = _FOOT.unpack_from(data, foot)
    begin = foot - count * _ROW.size
    if mark != _MARK or begin < 0:
        return {}
    found: dict[bytes, memoryview] = {}
    at = len(_HEADER)
    for digest, size in _ROW.iter_unpack(view[begin:foot]):
        found[digest] = view[at : at + size]
        at += size
    return found if at + len(_END) + _CHECKSUM.size == begin else {}
