"""Keys and places for KV state. Knows token ids and bytes; knows no model, no message, no engine."""

from .chunk_cache import ChunkCache, MemoryCache, NullCache, Tier
from .chunk_file import Chunk
from .chunk_hash import ChunkKey, chunk_key, chunk_keys, state_key
from .disk import DiskCache
from .forget import forget_owner
from .tiered import TieredCache

__all__ = [
    "Chunk",
    "ChunkCache",
    "ChunkKey",
    "DiskCache",
    "MemoryCache",
    "NullCache",
    "Tier",
    "TieredCache",
    "chunk_key",
    "chunk_keys",
    "forget_owner",
    "state_key",
]
