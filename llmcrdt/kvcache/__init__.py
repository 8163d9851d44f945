"""Keys and places for KV state. Knows token ids and bytes; knows no model, no message, no engine."""

from .base import ChunkCache, NullCache, Owners, Pins, Tier
from .chunk_file import Chunk
from .chunk_hash import ChunkKey, chunk_key, chunk_keys, state_key
from .disk import DiskCache
from .forget import forget_owner
from .handover import HandoverKey
from .http_peer import HttpPeer
from .memory import MemoryCache
from .peers import Peer
from .tiered import TieredCache

__all__ = [
    "Chunk",
    "ChunkCache",
    "ChunkKey",
    "DiskCache",
    "HandoverKey",
    "HttpPeer",
    "MemoryCache",
    "NullCache",
    "Owners",
    "Peer",
    "Pins",
    "Tier",
    "TieredCache",
    "chunk_key",
    "chunk_keys",
    "forget_owner",
    "state_key",
]
