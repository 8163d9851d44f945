"""Memory before disk. A chunk is readable at every instant, also while it is on its way from one to the other."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..at_exit import end_at_exit
from .base import ChunkCache, Pins, Tier
from .chunk_file import Chunk, Header
from .chunk_hash import ChunkKey
from .disk_writer import DiskWriter
from .memory import MemoryCache

PENDING_BYTES = 256 << 20
"""How much may be on its way to disk, beside what memory may hold."""


class TieredCache:
    """A ChunkCache of two: what is put is in ``memory`` at once, and a thread writes it to ``disk``; disk hits move to
    memory.

    Chunks not yet on disk are kept, at most ``pending_bytes`` of them beside memory's budget; then ``put`` waits for
    the disk.
    """

    def __init__(self, memory: MemoryCache, disk: ChunkCache, *, pending_bytes: int = PENDING_BYTES) -> None:
        self._memory, self._disk = memory, disk
        self._writer = DiskWriter(disk, pending_bytes)
        self.pins = TieredPins(memory, disk.pins)
        self.owners = TieredOwners(memory, disk, self._writer)
        end_at_exit(self, finish=lambda self, seconds: self.close())

    @property
    def capacity(self) -> int:
        return max(self._memory.capacity, self._disk.capacity)

    def match(self, keys: Sequence[ChunkKey]) -> list[Tier]:
        run: list[Tier] = []
        while len(run) < len(keys) and not self._writer.closed:
            rest = keys[len(run) :]
            found = self._memory.match(rest) or self._on_its_way(rest) or self._disk.match(self._not_in_memory(rest))
            if not found:
                break
            run += found
        return run

    def header(self, key: ChunkKey) -> Header | Chunk | None:
        if self._writer.closed:
            return None
        return self._memory.header(key) or self._writer.get(key) or self._disk.header(key)

    def get(self, key: ChunkKey) -> Chunk | None:
        if self._writer.closed:
            return None
        chunk = self._memory.get(key) or self._writer.get(key)
        if chunk is None:
            chunk = self._disk.get(key)
            if chunk is not None:
                self._memory.put(chunk)
        return chunk

    def put(self, chunk: Chunk) -> bool:
        if not self._writer.add(chunk):  # before memory: between the two it would be in neither place
            return False
        here = self._memory.put(chunk) or self._writer.get(chunk.key) is not None
        return here or bool(self._disk.match([chunk.key]))

    def discard(self, key: ChunkKey) -> None:
        with self._writer.without([key]):
            self._memory.discard(key)
            self._disk.discard(key)

    def drop(self, keys: Collection[ChunkKey]) -> int:
        with self._writer.without(keys):
            gone = self._disk.drop(keys)
            return max(gone, self._memory.drop([key for key in keys if not self._disk.match([key])]))

    def forget(self, owner: str, also: Collection[ChunkKey] = ()) -> set[ChunkKey]:
        with self._writer.empty():
            found, before = self._disk.forget(owner, self._memory.owners.owned(owner) | set(also)), -1
            while len(found) != before:  # a chunk in one tier may follow one that only the other has
                before = len(found)
                found = self._disk.forget(owner, self._memory.forget(owner, found))
            return found

    def flush(self, timeout: float | None = None) -> bool:
        return self._writer.flush(timeout)

    def stats(self) -> dict[str, int]:
        memory, disk = self._memory.stats(), self._disk.stats()
        both = {f"memory_{name}": value for name, value in memory.items()}
        return both | {f"disk_{name}": value for name, value in disk.items()} | {"pending_bytes": self._writer.bytes}

    def close(self) -> None:
        if self._writer.close():
            self._memory.close()
            self._disk.close()

    def _on_its_way(self, keys: Sequence[ChunkKey]) -> list[Tier]:
        return [] if self._writer.get(keys[0]) is None else ["memory"]

    def _not_in_memory(self, keys: Sequence[ChunkKey]) -> Sequence[ChunkKey]:
        """The keys before the first that memory has: so that its tier is named, and no header read for it."""
        for i, key in enumerate(keys):
            if self._memory.match([key]):
                return keys[:i]
        return keys


class TieredPins:
    """The disk's pins, which other processes may change; memory is told of them at each change here."""

    def __init__(self, memory: MemoryCache, disk: Pins) -> None:
        self._memory, self._disk = memory, disk
        memory.pins.replace(disk.all())

    def set(self, owner: str, keys: Collection[ChunkKey]) -> bool:
        kept = self._disk.set(owner, keys)
        self._memory.pins.replace(self._disk.all())
        return kept

    def drop(self, owner: str) -> None:
        self._disk.drop(owner)
        self._memory.pins.replace(self._disk.all())

    def all(self) -> dict[str, frozenset[ChunkKey]]:
        return self._disk.all()


class TieredOwners:
    """Claimed in memory at once, and on disk before any chunk that is put from now on: nobody waits for it."""

    def __init__(self, memory: MemoryCache, disk: ChunkCache, writer: DiskWriter) -> None:
        self._memory, self._disk, self._writer = memory, disk, writer

    def claim(self, owner: str, keys: Sequence[ChunkKey]) -> bool:
        return self._memory.owners.claim(owner, keys) and self._writer.claim(owner, keys)

    def owned(self, owner: str) -> set[ChunkKey]:
        return self._memory.owners.owned(owner) | self._disk.owners.owned(owner)
