"""Which stored thing goes first: the one that saves the least work per byte, by what was used since. Pure.

    score = work / bytes * 2 ** (-age / halflife)

``age`` is counted in bytes that were stored or used in the cache since, so it is measured in turnovers of the cache,
not in hours; the half-life is a quarter of the budget. ``work`` is what it saves, in floating-point operations.

Work saved per byte is Marconi's measure (Pan et al., MLSys 2025, "FLOP-aware eviction"); that it ages as others come
in, so that nothing stays for its worth alone, is GreedyDual-Size's (Cao and Irani, USENIX ITS 1997). As a logarithm,
``used + halflife * log2(work / bytes)``, the score of a thing does not change while others are used: a heap holds it.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

from .chunk_hash import ChunkKey

SHARE = 4
"""The half-life is the budget divided by this."""


class EvictionOrder:
    """The order of eviction: the lowest score first, never anything that something present needs, never a pinned key.

    Not thread-safe; knows keys and numbers only. Keys that may go stand in a heap; entries that hold no longer are
    skipped when they surface, and swept out when they outnumber the rest.
    """

    def __init__(self, budget: int) -> None:
        self._halflife = max(1, budget) / SHARE
        self._size: dict[ChunkKey, int] = {}
        self._bonus: dict[ChunkKey, float] = {}
        self._score: dict[ChunkKey, float] = {}
        self._needs: dict[ChunkKey, bytes | None] = {}
        self._children: dict[bytes, int] = {}
        self._pinned: frozenset[ChunkKey] = frozenset()
        self._heap: list[tuple[float, ChunkKey]] = []
        self._clock = 0

    def __contains__(self, key: object) -> bool:
        return key in self._size

    def __len__(self) -> int:
        return len(self._size)

    def add(self, key: ChunkKey, needs: bytes | None, size: int, work: int, age: float | None = None) -> None:
        """A thing not present yet. ``needs``: what it is of no use without, or None. ``age``: bytes used since its last
        use, where that is known from elsewhere; it is used now unless given."""
        self._needs[key] = needs
        if needs is not None:
            self._children[needs] = self._children.get(needs, 0) + 1
        self._size[key] = size
        self._bonus[key] = self._halflife * math.log2(max(work, 1) / max(size, 1))
        if age is None:
            self.touch(key)
        else:
            self._score[key] = self._clock - age + self._bonus[key]
            self._offer(key)

    def touch(self, key: ChunkKey) -> None:
        """It is used now: all others are older by its size."""
        self._clock += self._size[key]
        self._score[key] = self._clock + self._bonus[key]
        self._offer(key)

    def remove(self, key: ChunkKey) -> None:
        if self._size.pop(key, None) is None:
            return
        del self._bonus[key], self._score[key]
        needs = self._needs.pop(key)
        if needs is None:
            return
        self._children[needs] -= 1
        if not self._children[needs]:
            del self._children[needs]
            self._offer(ChunkKey(needs))

    def pin(self, keys: frozenset[ChunkKey]) -> None:
        """Never evict these, present or not; what was pinned before, and isn't now, may go again."""
        free, self._pinned = self._pinned - keys, keys
        for key in free:
            self._offer(key)

    @property
    def pinned(self) -> frozenset[ChunkKey]:
        """The keys that ``pin`` was told last."""
        return self._pinned

    def may_go(self, key: ChunkKey) -> bool:
        """Whether it is here, not pinned, and nothing here needs it."""
        return key in self._size and key not in self._children and key not in self._pinned

    def next(self, spare: ChunkKey | None = None) -> ChunkKey | None:
        """The key to evict, or None where nothing may go. Removes nothing. ``spare``: what has just come in, and is
        not the one to go: else a cache full of what is worth more would never take in anything."""
        spared: tuple[float, ChunkKey] | None = None
        found: ChunkKey | None = None
        while self._heap and found is None:
            score, key = self._heap[0]
            if self._score.get(key) != score or not self.may_go(key):
                heapq.heappop(self._heap)
            elif key == spare:
                spared = heapq.heappop(self._heap)
            else:
                found = key
        if spared is not None:
            heapq.heappush(self._heap, spared)
        return found

    def _offer(self, key: ChunkKey) -> None:
        if not self.may_go(key):
            return
        heapq.heappush(self._heap, (self._score[key], key))
        if len(self._heap) > 64 + 4 * len(self._size):
            self._heap = [(self._score[key], key) for key in self._size if self.may_go(key)]
            heapq.heapify(self._heap)


def ages(uses: Sequence[tuple[int, int]]) -> list[float]:
    """Ages in bytes for things of which only the times of their last use are known: (time, size), the oldest first.

    Bytes of what has gone since can't be counted. So time is turned into bytes by the rate at which what is here came
    in: half of all bytes since the (byte-weighted) median.
    """
    if not uses:
        return []
    total, newest, later = sum(size for _, size in uses), uses[-1][0], 0
    median = newest
    for time, size in reversed(uses):
        later += size
        if 2 * later >= total and time < newest:
            median = time
            break
    rate = total / 2 / (newest - median) if newest > median else 0.0
    return [rate * (newest - time) for time, _ in uses]
