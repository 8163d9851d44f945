"""Facts of chunk files that eviction and forgetting ask for; remembered, since each costs an open and a read."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from .chunk_file import BadChunk, Chunk
from .chunk_folder import ChunkFile, ChunkFolder
from .chunk_hash import ChunkKey
from .eviction import EvictionOrder, ages


@dataclass(frozen=True)
class Facts:
    """``needs``: the key without which a chunk is out of reach. ``state``: whether it is a recurrent state."""

    needs: bytes | None
    work: int
    state: bool


class DiskIndex:
    """Facts of the files in ``folder``, from their headers. Not thread-safe."""

    def __init__(self, folder: ChunkFolder) -> None:
        self._folder = folder
        self._facts: dict[ChunkKey, Facts] = {}

    def add(self, chunk: Chunk) -> None:
        """It was written just now."""
        self._facts[chunk.key] = Facts(chunk.needs, chunk.work, bool(chunk.link))

    def remove(self, key: ChunkKey) -> None:
        self._facts.pop(key, None)

    def facts(self, key: ChunkKey) -> Facts:
        """Of a file that can't say what it is: worth nothing, and in need of nothing."""
        if key not in self._facts:
            try:
                header = self._folder.stated(key)
            except (BadChunk, OSError):
                return Facts(None, 0, False)
            self._facts[key] = Facts(header.needs, header.work, bool(header.link))
        return self._facts[key]

    def made_from(self, key: ChunkKey) -> tuple[bytes, ...]:
        """Keys of what it was computed from; of none where it can't say."""
        try:
            return self._folder.stated(key).made_from
        except (BadChunk, OSError):
            return ()

    def order(self, files: Iterable[ChunkFile], budget: int, pinned: Collection[ChunkKey]) -> EvictionOrder:
        """The order of eviction among these. A file that can't say what it is goes when its turn comes."""
        order = EvictionOrder(budget)
        order.pin(frozenset(pinned))
        by_use = sorted(files, key=lambda file: file.used)
        for file, age in zip(by_use, ages([(file.used, file.size) for file in by_use]), strict=True):
            facts = self.facts(file.key)
            order.add(file.key, facts.needs, file.size, facts.work, age)
        return order
