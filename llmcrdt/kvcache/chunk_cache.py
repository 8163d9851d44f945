"""Places for chunks: the contract, the memory tier, and the control that never hits.

All methods may be called from any thread. A cache may forget any chunk at any moment, and never hands out a wrong one.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Collection, Sequence
from typing import Literal, Protocol

from .chunk_file import Chunk
from .chunk_hash import ChunkKey
from .owners import with_descendants

Tier = Literal["memory", "disk"]


class ChunkCache(Protocol):
    """What an engine needs of a place for chunks."""

    def match(self, keys: Sequence[ChunkKey]) -> list[Tier]:
        """The longest run of ``keys`` present, from the first on: where each of them is.

        Reads headers only, and changes nothing, not even the order of eviction (a bad file is set aside). True at the
        moment of the call: a chunk named here may be gone, or turn out bad, when ``get`` asks for it.
        """
        ...

    def get(self, key: ChunkKey) -> Chunk | None:
        """The chunk, whole and verified, or None. Marks it as used; may move it to a faster tier.

        A chunk found bad is set aside, counted, and None from then on.
        """
        ...

    def put(self, chunk: Chunk) -> bool:
        """Keep ``chunk`` if the budget allows; may evict others, least recently used first, no parent before its child.

        One whose parent is not here evicts nothing: it would be out of reach, and push out what isn't.

        True if the chunk is here now. A second ``put`` of a key changes nothing but its use.
        """
        ...

    def discard(self, key: ChunkKey) -> None:
        """Forget ``key`` in every tier: the engine found that its payload doesn't load. Unknown keys are no error."""
        ...

    def claim(self, owner: str, keys: Sequence[ChunkKey]) -> bool:
        """Note that the chunks of these names hold words of ``owner``: before they are put.

        False where that can't be kept; then they must not be put, or ``forget`` would miss them.
        """
        ...

    def owned(self, owner: str) -> set[ChunkKey]:
        """The keys that were claimed for ``owner``, and not forgotten since."""
        ...

    def forget(self, owner: str, also: Collection[ChunkKey] = ()) -> set[ChunkKey]:
        """Delete every chunk that ``owner`` claimed, those in ``also``, and all that follow them: in every tier, bad
        files and half-written ones included. Other owners lose what they share with this one, and compute it again.

        Returns the keys that were looked for. A chunk put later under one of them is kept.
        """
        ...

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until what was put is in its last tier. False if that took longer than ``timeout`` seconds."""
        ...

    def stats(self) -> dict[str, int]:
        """Counters since this cache was opened. Names end in ``_bytes`` where bytes are counted."""
        ...

    def close(self) -> None:
        """Flush and release. Twice is harmless; afterwards nothing is found and nothing is kept."""
        ...


class NeverCache:
    """The control: keeps nothing, finds nothing. What an engine computes with it is the truth for all other caches."""

    def match(self, keys: Sequence[ChunkKey]) -> list[Tier]:
        return []

    def get(self, key: ChunkKey) -> Chunk | None:
        return None

    def put(self, chunk: Chunk) -> bool:
        return False

    def discard(self, key: ChunkKey) -> None:
        pass

    def claim(self, owner: str, keys: Sequence[ChunkKey]) -> bool:
        return False

    def owned(self, owner: str) -> set[ChunkKey]:
        return set()

    def forget(self, owner: str, also: Collection[ChunkKey] = ()) -> set[ChunkKey]:
        return set(also)

    def flush(self, timeout: float | None = None) -> bool:
        return True

    def stats(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        pass


class EvictionOrder:
    """Which key goes first: least recently used, no parent before its child. Not thread-safe; knows keys only.

    Only keys without a present child may go. They stand in a heap by last use; entries that no longer hold are
    skipped when they surface, and swept out when they outnumber the rest.
    """

    def __init__(self) -> None:
        self._used: dict[ChunkKey, int] = {}
        self._parent: dict[ChunkKey, bytes] = {}
        self._children: dict[bytes, int] = {}
        self._heap: list[tuple[int, ChunkKey]] = []
        self._clock = 0

    def __contains__(self, key: object) -> bool:
        return key in self._used

    def __len__(self) -> int:
        return len(self._used)

    def add(self, key: ChunkKey, parent: bytes, used: int | None = None) -> None:
        """``used`` is a time of last use from outside (files have one); later than all others unless given."""
        if key not in self._used:
            self._parent[key] = parent
            self._children[parent] = self._children.get(parent, 0) + 1
        self._stamp(key, used)

    def touch(self, key: ChunkKey) -> None:
        self._stamp(key, None)

    def remove(self, key: ChunkKey) -> None:
        if self._used.pop(key, None) is None:
            return
        parent = self._parent.pop(key)
        self._children[parent] -= 1
        if not self._children[parent]:
            del self._children[parent]
            if parent in self._used:
                self._push(ChunkKey(parent))

    def next(self) -> ChunkKey | None:
        """The key to evict, or None where nothing is left. Removes nothing."""
        while self._heap:
            used, key = self._heap[0]
            if self._used.get(key) == used and key not in self._children:
                return key
            heapq.heappop(self._heap)
        return None

    def _stamp(self, key: ChunkKey, used: int | None) -> None:
        self._clock = max(self._clock + 1, used or 0)
        self._used[key] = self._clock if used is None else used
        if key not in self._children:
            self._push(key)

    def _push(self, key: ChunkKey) -> None:
        heapq.heappush(self._heap, (self._used[key], key))
        if len(self._heap) > 64 + 4 * len(self._used):
            self._heap = [(used, key) for key, used in self._used.items() if key not in self._children]
            heapq.heapify(self._heap)


class MemoryCache:
    """Chunks in this process, at most ``budget`` bytes of them, counted as they would be stored on disk."""

    def __init__(self, budget: int = 1 << 30) -> None:
        self._budget = budget
        self._chunks: dict[ChunkKey, Chunk] = {}
        self._order = EvictionOrder()
        self._bytes = 0
        self._lock = threading.Lock()
        self._count = {"hits": 0, "misses": 0, "puts": 0, "evictions": 0, "discarded": 0, "forgotten": 0}
        self._owners: dict[str, set[ChunkKey]] = {}

    def match(self, keys: Sequence[ChunkKey]) -> list[Tier]:
        run: list[Tier] = []
        with self._lock:
            for key in keys:
                if key not in self._chunks:
                    break
                run.append("memory")
        return run

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
            orphan = chunk.position > 0 and chunk.parent not in self._chunks
            if chunk.size > self._budget - (self._bytes if orphan else 0):
                return False
            self._chunks[chunk.key] = chunk
            self._order.add(chunk.key, chunk.parent)
            self._bytes += chunk.size
            self._count["puts"] += 1
            while self._bytes > self._budget and (victim := self._order.next()) is not None:
                self._drop(victim)
                self._count["evictions"] += 1
            return chunk.key in self._chunks

    def discard(self, key: ChunkKey) -> None:
        with self._lock:
            if key in self._chunks:
                self._drop(key)
                self._count["discarded"] += 1

    def claim(self, owner: str, keys: Sequence[ChunkKey]) -> bool:
        with self._lock:
            self._owners.setdefault(owner, set()).update(keys)
        return True

    def owned(self, owner: str) -> set[ChunkKey]:
        with self._lock:
            return set(self._owners.get(owner, ()))

    def forget(self, owner: str, also: Collection[ChunkKey] = ()) -> set[ChunkKey]:
        with self._lock:
            keys = self._owners.pop(owner, set()) | set(also)
            found = with_descendants(keys, {key: chunk.parent for key, chunk in self._chunks.items()})
            for key in found & self._chunks.keys():
                self._drop(key)
                self._count["forgotten"] += 1
            return found

    def flush(self, timeout: float | None = None) -> bool:
        return True

    def stats(self) -> dict[str, int]:
        with self._lock:
            return {**self._count, "chunks": len(self._chunks), "held_bytes": self._bytes, "budget_bytes": self._budget}

    def close(self) -> None:
        with self._lock:
            self._budget, self._bytes = -1, 0
            self._chunks.clear()
            self._order = EvictionOrder()

    def _drop(self, key: ChunkKey) -> None:
        self._bytes -= self._chunks.pop(key).size
        self._order.remove(key)
