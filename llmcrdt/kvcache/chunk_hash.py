"""Names of chunks: a hash chain over token ids, so that a name stands for a chunk and for all that came before it.

The first parent is a fingerprint of all that decides what KV state a token sequence has (weights, number formats,
engine build ...). Equal key: equal state. Pure; the layout is normative (docs/kv.md).
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Sequence
from typing import NewType

ChunkKey = NewType("ChunkKey", bytes)
"""32 bytes of SHA-256."""

KEY_BYTES = 32
_TAG = b"llmcrdt/chunk/1\0"
_STATE_TAG = b"llmcrdt/state/1\0"


def chunk_key(parent: bytes, ids: Sequence[int]) -> ChunkKey:
    """The key of the chunk ``ids`` after ``parent``: a key, or the fingerprint for the first. Raises ValueError."""
    if len(parent) != KEY_BYTES:
        raise ValueError(f"a parent has {KEY_BYTES} bytes, not {len(parent)}")
    if not ids:
        raise ValueError("a chunk holds at least one token")
    return ChunkKey(hashlib.sha256(_TAG + parent + pack_ids(ids)).digest())


def chunk_keys(fingerprint: bytes, ids: Sequence[int], chunk: int) -> list[ChunkKey]:
    """Keys of all whole chunks of ``chunk`` tokens at the start of ``ids``; what is left over has no key."""
    keys: list[ChunkKey] = []
    parent = fingerprint
    for start in range(0, len(ids) - chunk + 1, chunk):
        parent = chunk_key(parent, ids[start : start + chunk])
        keys.append(parent)
    return keys


def state_key(end: ChunkKey) -> ChunkKey:
    """The key of the recurrent state after all tokens that ``end``, the key of the last whole chunk, stands for."""
    return ChunkKey(hashlib.sha256(_STATE_TAG + end).digest())


def pack_ids(ids: Sequence[int]) -> bytes:
    """Token ids as little-endian 32-bit integers. Raises ValueError for what is not such an integer."""
    try:
        packed = array("i", ids)
    except (OverflowError, TypeError):
        raise ValueError("token ids are 32-bit integers") from None
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def unpack_ids(data: bytes | memoryview) -> tuple[int, ...]:
    """The inverse of ``pack_ids``."""
    ids = array("i")
    ids.frombytes(data)
    if sys.byteorder == "big":
        ids.byteswap()
    return tuple(ids)
