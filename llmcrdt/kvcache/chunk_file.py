"""Stored KV state as a value, and as bytes. The layouts are normative (docs/kv.md); the decoder trusts nothing.

======  ====  =================================================================
offset  size  field (little endian)
======  ====  =================================================================
0       8     magic ``LLMCRDTK`` (a chunk) or ``LLMCRDTS`` (a recurrent state)
8       4     version: 2 of a chunk, 1 of a state
12      4     n, tokens in it
16      8     position of its first token; 0 in a state
24      8     p, bytes of payload
32      32    key
64      32    parent key (the fingerprint for the first chunk, and for a state)
96      8     work: about how many floating-point operations it saves
104     4     link: tokens per chunk in the chain that a state's key ends; 0 in a chunk
108     4     1 for a state that rests on the chunks of its tokens, else 0
112     32    SHA-256 over bytes 0-111, the token ids, and the payload
144     4n    token ids
...     p     payload: the engine's state of these tokens, opaque here
======  ====  =================================================================
"""

from __future__ import annotations

import hashlib
import io
import struct
from dataclasses import dataclass, field
from functools import cached_property
from typing import BinaryIO

from .chunk_hash import ChunkKey, chunk_key, chunk_keys, pack_ids, state_key, unpack_ids

_CHUNK, _STATE = b"LLMCRDTK", b"LLMCRDTS"
_VERSIONS = {_CHUNK: 2, _STATE: 1}
_HEAD = struct.Struct("<8sIIQQ32s32sQII")
_DIGEST = 32
HEADER_BYTES = _HEAD.size + _DIGEST
MAX_TOKENS = 1 << 20
"""Far above any real chunk or context: a limit on what a forged header can make a reader allocate."""
_MAX_LINKS = 1 << 17  # and compute


class BadChunk(Exception):
    """Bytes that are not a whole, unharmed chunk or state. Never leaves this package: a bad chunk is a miss."""


class _Placed:
    """The place of a stored thing.

    A chunk has the state of ``ids``, the first of them at ``position``, and follows ``parent``. A recurrent state
    (``link`` > 0) is what all of ``ids``, from the first on, have made of it; ``parent`` is the fingerprint. One that
    ``rests`` is of use only together with the chunks of its tokens (a hybrid model). ``work``: about how many
    floating-point operations it saves; only eviction reads it.
    """

    parent: bytes
    position: int
    ids: tuple[int, ...]
    link: int
    rests: bool

    @cached_property
    def made_from(self) -> tuple[bytes, ...]:
        """Keys of what it was computed from: the chunk before, or every chunk whose tokens a state has read."""
        return tuple(chunk_keys(self.parent, self.ids, self.link)) if self.link else (self.parent,)

    @cached_property
    def needs(self) -> bytes | None:
        """The key without which it is out of reach."""
        if self.link:
            return self.made_from[-1] if self.rests else None
        return self.parent if self.position else None


@dataclass(frozen=True)
class Header(_Placed):
    """All of a chunk or state but its payload. Its key was checked against its parent and its token ids."""

    key: ChunkKey
    parent: bytes
    position: int
    ids: tuple[int, ...]
    payload_bytes: int
    digest: bytes = field(repr=False)
    work: int
    link: int
    rests: bool

    @property
    def size(self) -> int:
        return HEADER_BYTES + 4 * len(self.ids) + self.payload_bytes


@dataclass(frozen=True)
class Chunk(_Placed):
    """A chunk, or a recurrent state, with its payload. ``size`` is the bytes it takes in a store."""

    key: ChunkKey
    parent: bytes
    position: int
    ids: tuple[int, ...]
    payload: bytes = field(repr=False)
    work: int = 0
    link: int = 0
    rests: bool = False

    @classmethod
    def after(
        cls, parent: bytes, position: int, ids: tuple[int, ...], payload: bytes, work: int | None = None
    ) -> Chunk:
        """A new chunk, named by what it follows and what it holds. ``work``: one per token unless given."""
        return cls(chunk_key(parent, ids), parent, position, ids, payload, len(ids) if work is None else work)

    @classmethod
    def state(
        cls,
        fingerprint: bytes,
        ids: tuple[int, ...],
        payload: bytes,
        *,
        link: int,
        rests: bool,
        work: int | None = None,
    ) -> Chunk:
        """The recurrent state after ``ids``, whole chunks of ``link`` tokens. Raises ValueError for others."""
        if not ids or link <= 0 or len(ids) % link:
            raise ValueError("a state stands at the end of a chunk")
        key = state_key(chunk_keys(fingerprint, ids, link)[-1])
        return cls(key, fingerprint, 0, ids, payload, len(ids) if work is None else work, link, rests)

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
    """The chunk or state in ``data``, checked to the last bit. Raises BadChunk."""
    return read(io.BytesIO(data), len(data))


def read(file: BinaryIO, size: int) -> Chunk:
    """The chunk or state in an open file of ``size`` bytes, checked to the last bit. Raises BadChunk and OSError.

    The payload is read to where it stays: copying it once more would take as long as reading it.
    """
    head = file.read(HEADER_BYTES)
    head += file.read(4 * token_count(head))
    h = decode_header(head, size)
    payload = file.read(h.payload_bytes)
    if len(payload) != h.payload_bytes:
        raise BadChunk("length")
    if _digest(head[: _HEAD.size], head[HEADER_BYTES:], payload) != h.digest:
        raise BadChunk("digest")
    return Chunk(h.key, h.parent, h.position, h.ids, payload, h.work, h.link, h.rests)


def decode_header(data: bytes, size: int) -> Header:
    """The header at the start of ``data``, of a chunk or state of ``size`` bytes in all. Raises BadChunk.

    Proves that key, parent and token ids belong together. ``decode`` alone proves the rest, and the payload.
    """
    tokens = token_count(data)
    magic, _, _, position, payload, key, parent, work, link, rests = _HEAD.unpack_from(data)
    if size != HEADER_BYTES + 4 * tokens + payload or len(data) < HEADER_BYTES + 4 * tokens:
        raise BadChunk("length")
    ids = unpack_ids(data[HEADER_BYTES : HEADER_BYTES + 4 * tokens])
    header = Header(
        ChunkKey(key), parent, position, ids, payload, data[_HEAD.size : HEADER_BYTES], work, link, bool(rests)
    )
    if magic == _CHUNK:
        if link or rests:
            raise BadChunk("fields of a state")
        right = chunk_key(parent, ids)
    else:
        if position or rests > 1 or not link or tokens % link or tokens // link > _MAX_LINKS:
            raise BadChunk("not the end of a chunk")
        right = state_key(ChunkKey(header.made_from[-1]))
    if right != key:
        raise BadChunk("key")
    return header


def token_count(data: bytes) -> int:
    """How many token ids follow the fixed part of the header. Raises BadChunk."""
    if len(data) < HEADER_BYTES:
        raise BadChunk("truncated")
    magic, version, tokens, *_ = _HEAD.unpack_from(data)
    if version != _VERSIONS.get(magic):
        raise BadChunk("not a chunk of this version")
    if not 0 < tokens <= MAX_TOKENS:
        raise BadChunk("token count")
    return int(tokens)


def is_state(data: bytes) -> bool:
    """Whether a file calls itself a recurrent state."""
    return data.startswith(_STATE)


def names(data: bytes) -> tuple[bytes, bytes]:
    """Key and parent as the beginning of a file states them, unproved; empty where it is cut short."""
    return data[32:64], data[64:96]


def _head(chunk: Chunk) -> bytes:
    magic = _STATE if chunk.link else _CHUNK
    sizes = (len(chunk.ids), chunk.position, len(chunk.payload))
    keys = (bytes(chunk.key), chunk.parent)
    return _HEAD.pack(magic, _VERSIONS[magic], *sizes, *keys, chunk.work, chunk.link, chunk.rests)


def _digest(head: bytes, ids: bytes, payload: bytes) -> bytes:
    h = hashlib.sha256(head)
    h.update(ids)
    h.update(payload)
    return h.digest()
