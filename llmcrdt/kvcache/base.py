"""The ChunkCache protocol: where an engine keeps chunks of KV state, and finds them again.

An engine hashes a prompt into keys, asks ``match`` how many of the first are here, loads those with ``get``, evaluates
the rest, and hands it over with ``put``. A key stands for all tokens up to the end of its chunk (``chunk_hash``), so a
cache knows nothing of conversations, models or engines.

Invariants at every moment, for every thread, whoever else uses the cache:

1. **Never wrong.** ``get`` gives exactly what was put under the key, checked to the last bit, or None. A cache may
   forget any chunk at any moment, and may keep none at all (``NullCache``): answers take longer then, and are the same.
2. **Readable throughout.** What ``put`` took is found at every instant until it is evicted, dropped or forgotten, also
   while it moves from one tier to another.
3. **Bounded.** No tier holds more than its budget, in bytes of whole files (``Chunk.size``).
4. **Chains from the tail.** Nothing is evicted while something else here needs it (``needs``), so what is kept is in
   reach. In tiers this holds for each tier by itself.
5. **Pinned stays.** What is in ``pins`` is not evicted, and counts against the budget.
6. **Owned before kept.** Chunks that hold somebody's words are put only after ``owners.claim`` said True; so ``forget``
   misses none.
7. **Closed is empty.** After ``close`` nothing is found and nothing is kept, and no method fails. Files on disk can
   still be forgotten.

All methods may be called from any thread. Their answers were true at the moment of the call.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, Protocol

from .chunk_file import Chunk, Header
from .chunk_hash import ChunkKey

Tier = Literal["memory", "disk"]
Place = Literal["memory", "disk", "peer"]
"""The origin of stored state: a tier of the cache, or a peer that hands it over (``peers.Peers``)."""


class ChunkCache(Protocol):
    """The contract is in the module's docstring; ``llmcrdt.testing.chunk_cache_suite`` tests an implementation."""

    @property
    def capacity(self) -> int:
        """The budget of its largest tier, in bytes; 0 where nothing is ever kept."""
        ...

    def match(self, keys: Sequence[ChunkKey]) -> list[Tier]:
        """The longest run of ``keys`` that are here, from the first on: in which tier each of them is.

        Reads headers only. Changes nothing, not even what is evicted next; but a file found bad is set aside. A chunk
        named here may be gone, or turn out bad, when ``get`` asks for it.
        """
        ...

    def header(self, key: ChunkKey) -> Header | Chunk | None:
        """All that is known of a chunk but its payload; None where it is not here. Changes nothing, as ``match``."""
        ...

    def get(self, key: ChunkKey) -> Chunk | None:
        """The chunk, whole and verified, or None. Marks it as used; may move it to a faster tier.

        A chunk found bad is set aside, counted, and None from then on.
        """
        ...

    def put(self, chunk: Chunk) -> bool:
        """Keep ``chunk`` if the budget allows. True if it is here now; putting it again changes only when it was used.

        May evict others: first what saves the least work per byte, by its age (``eviction.EvictionOrder``). A chunk
        that needs one that is not here evicts nothing: nobody could reach it.
        """
        ...

    def discard(self, key: ChunkKey) -> None:
        """Forget ``key`` in every tier, pinned or not: the engine found that its payload doesn't load."""
        ...

    def drop(self, keys: Collection[ChunkKey]) -> int:
        """Delete these in every tier, except what is pinned or needed by another one here. Returns how many went."""
        ...

    @property
    def pins(self) -> Pins:
        """The keys that may not be evicted."""
        ...

    @property
    def owners(self) -> Owners:
        """The owners of the words that the chunks hold."""
        ...

    def forget(self, owner: str, also: Collection[ChunkKey] = ()) -> set[ChunkKey]:
        """Delete every chunk that ``owner`` claimed, those in ``also``, and all that was computed from them: in every
        tier, with the owner's pins and claims, bad files and half-written ones. Other owners lose what they share with
        this one, and compute it again.

        Returns the keys that were looked for. A chunk put under one of them after this call is kept. Raises OSError
        where a file can't be deleted: then ask again.
        """
        ...

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until what was put is in its last tier. False if that took longer than ``timeout`` seconds."""
        ...

    def stats(self) -> dict[str, int]:
        """Counters since this cache was opened. Names end in ``_bytes`` where bytes are counted."""
        ...

    def close(self) -> None:
        """Flush and release. A second call is harmless."""
        ...


class Pins(Protocol):
    """Keys that are not evicted, present or not yet, by who wants that. Pins as large as the budget leave room for
    nothing else."""

    def set(self, owner: str, keys: Collection[ChunkKey]) -> bool:
        """``owner`` pins these from now on, in place of what it had pinned before. False where that can't be kept."""
        ...

    def drop(self, owner: str) -> None:
        """End the pins of ``owner``: keys that nobody else has pinned may be evicted again. Nothing pinned is no error.
        Raises OSError where that can't be noted."""
        ...

    def all(self) -> dict[str, frozenset[ChunkKey]]:
        """The pinned keys, by ``owners.owner_name`` of who pinned them."""
        ...


class Owners(Protocol):
    """Which chunks hold whose words. A name stays claimed until ``ChunkCache.forget``, also after its chunk is gone."""

    def claim(self, owner: str, keys: Sequence[ChunkKey]) -> bool:
        """Note that the chunks of these names hold words of ``owner``: before they are put.

        False where that can't be kept; then they must not be put, or ``forget`` would miss them.
        """
        ...

    def owned(self, owner: str) -> set[ChunkKey]:
        """The keys that were claimed for ``owner``, and not forgotten since; there may be some that were."""
        ...


class NullCache:
    """The control: keeps nothing, finds nothing. An engine's answers with it are the truth for all other caches."""

    capacity = 0

    def __init__(self) -> None:
        self.pins, self.owners = _NoPins(), _NoOwners()

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

    def forget(self, owner: str, also: Collection[ChunkKey] = ()) -> set[ChunkKey]:
        return set(also)

    def flush(self, timeout: float | None = None) -> bool:
        return True

    def stats(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        pass


class _NoPins:
    def set(self, owner: str, keys: Collection[ChunkKey]) -> bool:
        return False

    def drop(self, owner: str) -> None:
        pass

    def all(self) -> dict[str, frozenset[ChunkKey]]:
        return {}


class _NoOwners:
    def claim(self, owner: str, keys: Sequence[ChunkKey]) -> bool:
        return False

    def owned(self, owner: str) -> set[ChunkKey]:
        return set()
