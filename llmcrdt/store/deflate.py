"""Deflates a document so that most of that can be taken over when it is deflated again a little changed.

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
_SIGN, _ROUND, _OF = b"{", 32, 32
"""A cut is made before this sign where a hash of the next so many bytes says so, one time of so many."""


def deflated(whole: bytes, before: bytes = b"") -> bytes:
    """``whole``, deflated. ``before``: what this function made of something similar, if anything."""
    known, table = _pieces_of(before), list[bytes]()
    out: list[bytes | memoryview] = [_HEADER]
    for piece in _cut(whole):
        digest = blake2b(piece, digest_size=16).digest()
        data = known.get(digest) or _pressed(piece)
        out.append(data)
        table.append(_ROW.pack(digest, len(data)))
    out += [_END, _CHECKSUM.pack(zlib.adler32(whole))]
    if len(table) > 1:
        out += [*table, _FOOT.pack(len(table), _MARK)]
    return b"".join(out)


def _pressed(piece: memoryview) -> bytes:
    press = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return press.compress(piece) + press.flush(zlib.Z_FULL_FLUSH)


def _cut(whole: bytes) -> Iterator[memoryview]:
    view, start = memoryview(whole), 0
    while len(whole) - start > MOST:
        at, stop = whole.find(_SIGN, start + LEAST, start + MOST), start + MOST
        while at >= 0 and zlib.crc32(view[at : at + _ROUND]) % _OF:
            at = whole.find(_SIGN, at + 1, stop)
        stop = at if at >= 0 else stop
        yield view[start:stop]
        start = stop
    yield view[start:]


def _pieces_of(data: bytes) -> dict[bytes, memoryview]:
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
