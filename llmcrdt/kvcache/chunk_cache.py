"""Places for chunks: the contract, the memory tier, and the control that never hits.

All methods may be called from any thread. A cache may forget any chunk at any moment, and never hands out a wrong one.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, Protocol

from .chunk_file import Chunk, Header
from .chunk_hash import ChunkKey
from .eviction import EvictionOrder
from .owners import owner_name, with_descendants

Tier = Literal["memory", "disk"]


class ChunkCache(Protocol):
    """What an engine needs of a place for chunks."""

    @property
    def capacity(self) -> int:
        """The budget of its largest tier, in bytes."""
        ...

    def match(self, keys: Sequence[ChunkKey]) -> list[Tier]:
        """The longest run of ``keys`` present, from the first on: where each of them is.

        Reads headers only, and changes nothing, not even the order of eviction (a bad file is set aside). True at the
        moment of the call: a chunk named here may be gone, or turn out bad, when ``get`` asks for it.
        """
        ...

    def header(self, key: ChunkKey) -> Header | Chunk | None:
        """What is known of a chunk that is here, without its payload. Changes nothing, as ``match``."""
        ...

    def get(self, key: ChunkKey) -> Chunk | None:
        """The chunk, whole and verified, or None. Marks it as used; may move it to a faster tier.

        A chunk found bad is set aside, counted, and None from then on.
        """
        ...

    def put(self, chunk: Chunk) -> bool:
        """Keep ``chunk`` if the budget allows; may evict others: what saves the least work per byte, by its age
        (``eviction.EvictionOrder``), nothing that another one needs, nothing pinned.

        One that needs what is not here evicts nothing: it would be out of reach, and push out what isn't.

        True if the chunk is here now. A second ``put`` of a key changes nothing but its use.
        """
        ...

    def discard(self, key: ChunkKey) -> None:
        """Forget ``key`` in every tier: the engine found that its payload doesn't load. Unknown keys are no error."""
        ...

    def drop(self, keys: Collection[ChunkKey]) -> int:
        """Delete these in every tier, but what is pinned or needed by another one here. How many went."""
        ...

    def pin(self, owner: str, keys: Collection[ChunkKey]) -> bool:
        """From now on these are not evicted, present or not yet; ``owner``'s earlier pins end. They count against the
        budget: pins as large as it leave room for nothing else. False where that can't be kept."""
        ...

    def unpin(self, owner: str) -> None:
        """What only ``owner`` had pinned may be evicted again. Nothing pinned is no error."""
        ...

    def pins(self) -> dict[str, frozenset[ChunkKey]]:
        """What is pinned, by ``owners.owner_name`` of who did."""
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
        files and half-written ones and its pins included. Other owners lose what they share with this one, and compute
        it again.

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


class NullCache:
    """The control: keeps nothing, finds nothing. What an engine computes with it is the truth for all other caches."""

    capacity = 0

    def match(self, keys: Sequence[ChunkKey]) -> list[Tier]:
        return []

    def header(self, key: ChunkKey) -> Header | Chunk | None:
        return None

    def get(self, key: ChunkKey) -> Chunk | None:
        return None

    def put(self, chunk: Chunk) -> bool:
        return False

    def discard(self, key: ChunkKey) -> None:
        pass

    def drop(self, keys: Collection[ChunkKey]) -> int:
        return 0

    def pin(self, owner: str, keys: Collection[ChunkKey]) -> bool:
        return False

    def unpin(self, owner: str) -> None:
        pass

    def pins(self) -> dict[str, frozenset[ChunkKey]]:
        return {}

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


class MemoryCache:
    """Chunks in this process, at most ``budget`` bytes of them, counted as they would be stored on disk."""

    def __init__(self, budget: int = 1 << 30) -> None:
        self._budget = budget
        self._chunks: dict[ChunkKey, Chunk] = {}
        self._order = EvictionOrder(budget)
        self._pins: dict[str, frozenset[ChunkKey]] = {}
        self._bytes = 0
        self._lock = threading.Lock()
        self._count = {"hits": 0, "misses": 0, "puts": 0, "evictions": 0, "discarded": 0, "forgotten": 0}
        self._owners: dict[str, set[ChunkKey]] = {}

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
                self._drop(chunk.key)
            return chunk.key in self._chunks

    def discard(self, key: ChunkKey) -> None:
        with self._lock:
            if key in self._chunks:
                self._drop(key)
                self._count["discarded"] += 1

    def drop(self, keys: Collection[ChunkKey]) -> int:
        with self._lock:
            gone = [key for key in keys if self._order.may_go(key)]
            for key in gone:
                self._drop(key)
            return len(gone)

    def pin(self, owner: str, keys: Collection[ChunkKey]) -> bool:
        self.set_pins({**self.pins(), owner_name(owner): frozenset(keys)})
        return True

    def unpin(self, owner: str) -> None:
        self.set_pins({name: keys for name, keys in self.pins().items() if name != owner_name(owner)})

    def set_pins(self, pins: Mapping[str, frozenset[ChunkKey]]) -> None:
        """Make these the pins, in place of all there are."""
        with self._lock:
            self._pins = dict(pins)
            self._order.pin(frozenset().union(*pins.values()))

    def pins(self) -> dict[str, frozenset[ChunkKey]]:
        with self._lock:
            return dict(self._pins)

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
            found = with_descendants(keys, {key: chunk.made_from for key, chunk in self._chunks.items()})
            for key in found & self._chunks.keys():
                self._drop(key)
                self._count["forgotten"] += 1
        self.unpin(owner)
        return found

    def drain(self) -> tuple[list[Chunk], dict[str, set[ChunkKey]]]:
        """All chunks, and the keys that each owner claimed; nothing of either is here any more."""
        with self._lock:
            chunks, owners = list(self._chunks.values()), self._owners
            self._chunks, self._owners, self._bytes = {}, {}, 0
            self._order = EvictionOrder(self._budget)
            return chunks, owners

    def resize(self, budget: int) -> None:
        """Another budget, in bytes; what is too much goes. When each chunk was used is forgotten."""
        with self._lock:
            if budget == self._budget:
                return
            self._budget, self._order = budget, EvictionOrder(budget)
            for chunk in self._chunks.values():
                self._order.add(chunk.key, chunk.needs, chunk.size, chunk.work)
            self._order.pin(frozenset().union(*self._pins.values()))
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
                "pinned": sum(key in self._chunks for key in frozenset().union(*self._pins.values())),
                "held_bytes": self._bytes,
                "budget_bytes": self._budget,
            }

    def close(self) -> None:
        with self._lock:
            self._budget, self._bytes = -1, 0
            self._chunks.clear()
            self._order = EvictionOrder(0)

    def _evict(self, spare: ChunkKey | None = None) -> None:
        while self._bytes > self._budget and (victim := self._order.next(spare)) is not None:
            self._drop(victim)
            self._count["evictions"] += 1

    def _drop(self, key: ChunkKey) -> None:
        self._bytes -= self._chunks.pop(key).size
        self._order.remove(key)
