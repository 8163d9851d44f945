"""A chunk as a value, and as bytes. The layout is normative (docs/kv.md); the decoder trusts nothing.

======  ====  =================================================================
offset  size  field (little endian)
======  ====  =================================================================
0       8     magic ``LLMCRDTK``
8       4     version, 1
12      4     n, tokens in the chunk
16      8     position of its first token
24      8     p, bytes of payload
32      32    key
64      32    parent key (the fingerprint for the first chunk)
96      32    SHA-256 over bytes 0-95, the token ids, and the payload
128     4n    token ids
...     p     payload: the engine's state of these tokens, opaque here
======  ====  =================================================================
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from functools import cached_property

from .chunk_hash import ChunkKey, chunk_key, pack_ids, unpack_ids

_MAGIC, _VERSION = b"LLMCRDTK", 1
_HEAD = struct.Struct("<8sIIQQ32s32s")
_DIGEST = 32
HEADER_BYTES = _HEAD.size + _DIGEST
MAX_TOKENS = 1 << 20
"""Far above any real chunk: a limit on what a forged header can make a reader allocate."""


class BadChunk(Exception):
    """Bytes that are not a whole, unharmed chunk. Never leaves this package: a bad chunk is a miss."""


@dataclass(frozen=True)
class Header:
    """All of a chunk but its payload. Its key was checked against its parent and its token ids."""

    key: ChunkKey
    parent: bytes
    position: int
    ids: tuple[int, ...]
    payload_bytes: int
    digest: bytes = field(repr=False)

    @property
    def size(self) -> int:
        return HEADER_BYTES + 4 * len(self.ids) + self.payload_bytes


@dataclass(frozen=True)
class Chunk:
    """The KV state of consecutive tokens, the first at ``position``. ``size`` is the bytes it takes in a store."""

    key: ChunkKey
    parent: bytes
    position: int
    ids: tuple[int, ...]
    payload: bytes = field(repr=False)

    @classmethod
    def after(cls, parent: bytes, position: int, ids: tuple[int, ...], payload: bytes) -> Chunk:
        """A new chunk, named by what it follows and what it holds."""
        return cls(chunk_key(parent, ids), parent, position, ids, payload)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over everything in the chunk. Computed when first needed: it costs a pass over the payload."""
        return _digest(_head(self), pack_ids(self.ids), self.payload)

    @property
    def size(self) -> int:
        return HEADER_BYTES + 4 * len(self.ids) + len(self.payload)


def encode(chunk: Chunk) -> bytes:
    return b"".join((_head(chunk), chunk.digest, pack_ids(chunk.ids), chunk.payload))


def decode(data: bytes) -> Chunk:
    """The chunk in ``data``, checked to the last bit. Raises BadChunk."""
    header = decode_header(data, len(data))
    start = HEADER_BYTES + 4 * len(header.ids)
    if _digest(data[: _HEAD.size], data[HEADER_BYTES:start], memoryview(data)[start:]) != header.digest:
        raise BadChunk("digest")
    return Chunk(header.key, header.parent, header.position, header.ids, data[start:])


def decode_header(data: bytes, size: int) -> Header:
    """The header at the start of ``data``, of a chunk of ``size`` bytes in all. Raises BadChunk.

    Proves that key, parent and token ids belong together. Position and payload are proved by ``decode`` alone.
    """
    tokens = token_count(data)
    *_, position, payload, key, parent = _HEAD.unpack_from(data)
    if size != HEADER_BYTES + 4 * tokens + payload or len(data) < HEADER_BYTES + 4 * tokens:
        raise BadChunk("length")
    ids = unpack_ids(data[HEADER_BYTES : HEADER_BYTES + 4 * tokens])
    if chunk_key(parent, ids) != key:
        raise BadChunk("key")
    return Header(ChunkKey(key), parent, position, ids, payload, data[_HEAD.size : HEADER_BYTES])


def token_count(data: bytes) -> int:
    """How many token ids follow the fixed part of the header. Raises BadChunk."""
    if len(data) < HEADER_BYTES:
        raise BadChunk("truncated")
    magic, version, tokens, *_ = _HEAD.unpack_from(data)
    if magic != _MAGIC or version != _VERSION:
        raise BadChunk("not a chunk of this version")
    if not 0 < tokens <= MAX_TOKENS:
        raise BadChunk("token count")
    return int(tokens)


def _head(chunk: Chunk) -> bytes:
    return _HEAD.pack(
        _MAGIC, _VERSION, len(chunk.ids), chunk.position, len(chunk.payload), bytes(chunk.key), chunk.parent
    )


def _digest(head: bytes, ids: bytes, payload: bytes | memoryview) -> bytes:
    h = hashlib.sha256(head)
    h.update(ids)
    h.update(payload)
    return h.digest()
