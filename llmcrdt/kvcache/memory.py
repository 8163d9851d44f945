"""Chunks in this process's memory."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence

from .base import Tier
from .chunk_file import Chunk, Header
from .chunk_hash import ChunkKey
from .eviction import EvictionOrder
from .owners import MemoryOwners, with_descendants
from .pins import MemoryPins


class MemoryCache:
    """A ChunkCache in this process: at most ``budget`` bytes, counted as they would be stored on disk."""

    def __init__(self, budget: int = 1 << 30) -> None:
        self._budget = budget
        self._chunks: dict[ChunkKey, Chunk] = {}
        self._order = EvictionOrder(budget)
        self._bytes = 0
        self._lock = threading.Lock()
        self._count = {"hits": 0, "misses": 0, "puts": 0, "evictions": 0, "discarded": 0, "forgotten": 0}
        self.pins = MemoryPins(self._keep_pinned)
        self.owners = MemoryOwners()

    @property
    def capacity(self) -> int:
        return self._budget

    def match(self, keys: Sequence[ChunkKey]) -> list[Tier]:
        run: list[Tier] = []
        with self._lock:
            for key in keys:
                if key not in self._chunks:
                    break
                run.append("memory")
        return run

    def header(self, key: ChunkKey) -> Header | Chunk | None:
        with self._lock:
            return self._chunks.get(key)

    def get(self, key: ChunkKey) -> Chunk | None:
        with self._lock:
            chunk = self._chunks.get(key)
            self._count["misses" if chunk is None else "hits"] += 1
            if chunk is not None:
                self._order.touch(key)
            return chunk

    def put(self, chunk: Chunk) -> bool:
        with self._lock:
            if chunk.key in self._chunks:
                self._order.touch(chunk.key)
                return True
            orphan = chunk.needs is not None and chunk.needs not in self._chunks
            if chunk.size > self._budget - (self._bytes if orphan else 0):
                return False
            self._chunks[chunk.key] = chunk
            self._order.add(chunk.key, chunk.needs, chunk.size, chunk.work)
            self._bytes += chunk.size
            self._count["puts"] += 1
            self._evict(spare=chunk.key)
            if self._bytes > self._budget:  # all others are pinned, or needed
                self._remove(chunk.key)
            return chunk.key in self._chunks

    def discard(self, key: ChunkKey) -> None:
        with self._lock:
            if key in self._chunks:
                self._remove(key)
                self._count["discarded"] += 1

    def drop(self, keys: Collection[ChunkKey]) -> int:
        with self._lock:
            gone = [key for key in keys if self._order.may_go(key)]
            for key in gone:
                self._remove(key)
            return len(gone)

    def forget(self, owner: str, also: Collection[ChunkKey] = ()) -> set[ChunkKey]:
        with self._lock:
            keys = self.owners.pop(owner) | set(also)
            found = with_descendants(keys, {key: chunk.made_from for key, chunk in self._chunks.items()})
            for key in found & self._chunks.keys():
                self._remove(key)
                self._count["forgotten"] += 1
        self.pins.drop(owner)
        return found

    def drain(self) -> tuple[list[Chunk], dict[str, set[ChunkKey]]]:
        """Take out all chunks, and the keys that each owner claimed; nothing of either is here any more."""
        with self._lock:
            chunks, owners = list(self._chunks.values()), self.owners.drain()
            self._chunks, self._bytes = {}, 0
            pinned, self._order = self._order.pinned, EvictionOrder(self._budget)
            self._order.pin(pinned)
            return chunks, owners

    def resize(self, budget: int) -> None:
        """Another budget, in bytes; what is too much goes. When each chunk was used is forgotten."""
        with self._lock:
            if budget == self._budget:
                return
            pinned = self._order.pinned
            self._budget, self._order = budget, EvictionOrder(budget)
            for chunk in self._chunks.values():
                self._order.add(chunk.key, chunk.needs, chunk.size, chunk.work)
            self._order.pin(pinned)
            self._evict()

    def flush(self, timeout: float | None = None) -> bool:
        return True

    def stats(self) -> dict[str, int]:
        with self._lock:
            states = [chunk.size for chunk in self._chunks.values() if chunk.link]
            return {
                **self._count,
                "chunks": len(self._chunks) - len(states),
                "states": len(states),
                "state_bytes": sum(states),
                "pinned": sum(key in self._chunks for key in self._order.pinned),
                "held_bytes": self._bytes,
                "budget_bytes": self._budget,
            }

    def close(self) -> None:
        with self._lock:
            self._budget, self._bytes = -1, 0
            self._chunks.clear()
            self._order = EvictionOrder(0)

    def _keep_pinned(self, keys: frozenset[ChunkKey]) -> None:
        with self._lock:
            self._order.pin(keys)

    def _evict(self, spare: ChunkKey | None = None) -> None:
        while self._bytes > self._budget and (victim := self._order.next(spare)) is not None:
            self._remove(victim)
            self._count["evictions"] += 1

    def _remove(self, key: ChunkKey) -> None:
        self._bytes -= self._chunks.pop(key).size
        self._order.remove(key)
