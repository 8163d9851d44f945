"""The model that KV state belongs to, and so the place where it may be kept: known once the weights are, void when they
change.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Literal

from ...kvcache import ChunkCache, MemoryCache, NullCache
from ...kvcache.rekey import rename
from ...kvcache.tiered import PENDING_BYTES
from .weights import Weights

_MOST_READ = 2000  # headers


class Provenance:
    """``cache`` and ``fingerprint`` are what counts now. While the weights aren't known, they are memory of this engine
    alone and a name that nobody else has; once they are, what was kept meanwhile moves to ``lasting``.

    ``fingerprint_of`` makes the fingerprint from the digests of the files; ``memory`` is a budget in bytes (what may be
    on its way to disk may wait there in any case). ``update``
    belongs to the engine's thread, all else to any.
    """

    def __init__(
        self, weights: Weights, lasting: ChunkCache, memory: int, fingerprint_of: Callable[[list[str]], bytes]
    ) -> None:
        self._weights, self._lasting, self._memory = weights, lasting, memory
        self._fingerprint_of = fingerprint_of
        self._stage: Literal["early", "named", "void"] = "early"
        self._decided = threading.Event()
        self.cache, self.fingerprint = self._nameless()
        self.update()

    def update(self) -> bool:
        """Go by what is known of the weights now. True where the context's own state is void as well."""
        if not self._weights.sound():
            if self._stage == "void":
                return False
            self._stage = "void"
            self.cache, self.fingerprint = self._nameless()
            self._decided.set()
            return True
        digests = self._weights.digests
        if self._stage == "early" and digests is not None:
            fingerprint = self._fingerprint_of(digests)
            if isinstance(self.cache, MemoryCache):
                rename(self.cache, self.fingerprint, fingerprint, self._lasting)
            self._stage, self.cache, self.fingerprint = "named", self._lasting, fingerprint
        if self._weights.state != "hashing":
            self._decided.set()
        return False

    @property
    def named(self) -> bool:
        """Whether ``fingerprint`` is one that other processes would find as well."""
        return self._stage == "named"

    @property
    def waiting(self) -> bool:
        """Whether chunks wait for the weights to be known."""
        return self._stage == "early" and bool(self.cache.stats().get("held_bytes"))

    def sound(self) -> bool:
        """Whether what was computed just now may be kept."""
        return self._weights.sound() or self._stage == "void"

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until an ``update`` has seen what became of the weights."""
        return self._decided.wait(timeout)

    def named_otherwise(self, owner: str, first: tuple[int, ...]) -> bool:
        """Whether state that begins with these ids is kept for ``owner`` under another fingerprint."""
        for key in sorted(self._lasting.owners.owned(owner))[:_MOST_READ]:
            found = self._lasting.header(key)
            if found and not found.position and found.parent != self.fingerprint and found.ids[: len(first)] == first:
                return True
        return False

    def forget(self, owner: str) -> int:
        """As ``ChunkCache.forget``, wherever it is kept. How many keys were looked for."""
        found = self._lasting.forget(owner)
        return len(found if self.cache is self._lasting else found | self.cache.forget(owner))

    def flush(self, timeout: float | None) -> bool:
        return self._lasting.flush(timeout)

    def stats(self) -> dict[str, int]:
        return self.cache.stats()

    def _nameless(self) -> tuple[ChunkCache, bytes]:
        keeps = not isinstance(self._lasting, NullCache)
        return MemoryCache(max(self._memory, PENDING_BYTES)) if keeps else self._lasting, os.urandom(32)
