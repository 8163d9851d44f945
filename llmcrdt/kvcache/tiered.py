"""Memory before disk. A chunk is readable at every instant, also while it is on its way from one to the other."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Collection, Sequence

from ..at_exit import end_at_exit
from .chunk_cache import ChunkCache, MemoryCache, Tier
from .chunk_file import Chunk, Header
from .chunk_hash import ChunkKey

PENDING_BYTES = 256 << 20
"""How much may be on its way to disk, beside what memory may hold."""


class TieredCache:
    """What is put is in ``memory`` at once and is written to ``disk`` by a thread of its own; disk hits move to memory.

    Chunks not yet on disk are kept, at most ``pending_bytes`` of them beside memory's budget; then ``put`` waits for
    the disk.
    """

    def __init__(self, memory: MemoryCache, disk: ChunkCache, *, pending_bytes: int = PENDING_BYTES) -> None:
        self._memory, self._disk = memory, disk
        self._limit = pending_bytes
        self._pending: dict[ChunkKey, Chunk] = {}
        self._pending_bytes = 0
        self._changed = threading.Condition()
        self._queue: queue.SimpleQueue[Chunk | tuple[str, list[ChunkKey]] | None] = queue.SimpleQueue()
        self._claims = 0  # on their way to disk
        self._unnoted: set[ChunkKey] = set()  # whose claim the disk did not take: they stay in memory
        self._closed = False
        self._writer = threading.Thread(target=self._write_all, name="llmcrdt-kv-writer", daemon=True)
        self._writer.start()
        end_at_exit(self, finish=lambda self, seconds: self.close())
        memory.set_pins(disk.pins())

    @property
    def capacity(self) -> int:
        return max(self._memory.capacity, self._disk.capacity)

    def match(self, keys: Sequence[ChunkKey]) -> list[Tier]:
        run: list[Tier] = []
        while len(run) < len(keys) and not self._closed:
            rest = keys[len(run) :]
            found = self._memory.match(rest) or self._in_flight(rest) or self._disk.match(self._not_above(rest))
            if not found:
                break
            run += found
        return run

    def header(self, key: ChunkKey) -> Header | Chunk | None:
        if self._closed:
            return None
        return self._memory.header(key) or self._pending.get(key) or self._disk.header(key)

    def get(self, key: ChunkKey) -> Chunk | None:
        if self._closed:
            return None
        chunk = self._memory.get(key) or self._pending.get(key)
        if chunk is None:
            chunk = self._disk.get(key)
            if chunk is not None:
                self._memory.put(chunk)
        return chunk

    def put(self, chunk: Chunk) -> bool:
        with self._changed:
            if self._closed:
                return False
            while self._pending and self._pending_bytes + chunk.size > self._limit:
                self._changed.wait()
            # Pending first: between the two it would be in neither place.
            if chunk.key not in self._pending and not self._disk.match([chunk.key]):
                self._pending[chunk.key] = chunk
                self._pending_bytes += chunk.size
                self._queue.put(chunk)
        return self._memory.put(chunk) or chunk.key in self._pending or bool(self._disk.match([chunk.key]))

    def discard(self, key: ChunkKey) -> None:
        with self._changed:
            while key in self._pending:
                self._changed.wait()
            self._memory.discard(key)
            self._disk.discard(key)

    def drop(self, keys: Collection[ChunkKey]) -> int:
        with self._changed:
            while any(key in self._pending for key in keys):
                self._changed.wait()
            gone = self._disk.drop(keys)
            return max(gone, self._memory.drop([key for key in keys if not self._disk.match([key])]))

    def pin(self, owner: str, keys: Collection[ChunkKey]) -> bool:
        kept = self._disk.pin(owner, keys)
        self._memory.set_pins(self._disk.pins())
        return kept

    def unpin(self, owner: str) -> None:
        self._disk.unpin(owner)
        self._memory.set_pins(self._disk.pins())

    def pins(self) -> dict[str, frozenset[ChunkKey]]:
        return self._disk.pins()

    def claim(self, owner: str, keys: Sequence[ChunkKey]) -> bool:
        """Noted here at once, and on disk before any chunk that is put from now on: nobody waits for it."""
        with self._changed:
            if self._closed:
                return False
            self._memory.claim(owner, keys)
            self._claims += 1
            self._queue.put((owner, list(keys)))
        return True

    def owned(self, owner: str) -> set[ChunkKey]:
        return self._memory.owned(owner) | self._disk.owned(owner)

    def forget(self, owner: str, also: Collection[ChunkKey] = ()) -> set[ChunkKey]:
        with self._changed:
            while (self._pending or self._claims) and not self._closed:
                self._changed.wait()
            found, before = self._disk.forget(owner, self._memory.owned(owner) | set(also)), -1
            while len(found) != before:  # a chunk in one tier may follow one that only the other has
                before = len(found)
                found = self._disk.forget(owner, self._memory.forget(owner, found))
            return found

    def flush(self, timeout: float | None = None) -> bool:
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while self._pending or self._claims:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def stats(self) -> dict[str, int]:
        memory, disk = self._memory.stats(), self._disk.stats()
        both = {f"memory_{name}": value for name, value in memory.items()}
        return both | {f"disk_{name}": value for name, value in disk.items()} | {"pending_bytes": self._pending_bytes}

    def close(self) -> None:
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._writer.join()
        self._memory.close()
        self._disk.close()

    def _in_flight(self, keys: Sequence[ChunkKey]) -> list[Tier]:
        return ["memory"] if keys[0] in self._pending else []

    def _not_above(self, keys: Sequence[ChunkKey]) -> Sequence[ChunkKey]:
        """The keys up to the first that a faster tier has: so that its tier is named, and no header read for it."""
        for i, key in enumerate(keys):
            if self._memory.match([key]):
                return keys[:i]
        return keys

    def _write_all(self) -> None:
        while (item := self._queue.get()) is not None:
            if isinstance(item, tuple):
                self._note(*item)
                continue
            chunk = item
            with contextlib.suppress(Exception):  # a chunk that can't be written is a chunk less
                if chunk.key not in self._unnoted:
                    self._disk.put(chunk)
            with self._changed:
                del self._pending[chunk.key]
                self._pending_bytes -= chunk.size
                self._changed.notify_all()

    def _note(self, owner: str, keys: list[ChunkKey]) -> None:
        noted = False
        with contextlib.suppress(Exception):
            noted = self._disk.claim(owner, keys)
        (self._unnoted.difference_update if noted else self._unnoted.update)(keys)
        with self._changed:
            self._claims -= 1
            self._changed.notify_all()
