"""Every ChunkCache of this library against the acceptance suite."""

import pytest

from llmcrdt.kvcache import ChunkCache, DiskCache, MemoryCache, NullCache, TieredCache
from llmcrdt.testing.chunk_cache_suite import ChunkCacheSuite


class TestMemoryCache(ChunkCacheSuite):
    def make(self, budget: int) -> ChunkCache:
        return MemoryCache(budget)


class TestNullCache(ChunkCacheSuite):
    keeps = False

    def make(self, budget: int) -> ChunkCache:
        return NullCache()


class TestDiskCache(ChunkCacheSuite):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path):
        self.folder, self.made = tmp_path, 0

    def make(self, budget: int) -> ChunkCache:
        self.made += 1
        return DiskCache(self.folder / str(self.made), budget)


class TestTieredCache(TestDiskCache):
    """Memory holds next to nothing, so that most chunks are on their way or on disk."""

    def make(self, budget: int) -> ChunkCache:
        return TieredCache(MemoryCache(300), super().make(budget), pending_bytes=600)

    def held(self, cache: ChunkCache) -> int:
        cache.flush()
        return cache.stats()["disk_held_bytes"]

    exact = False  # memory may hold a chunk that the disk has evicted

    def test_no_parent_goes_before_its_child(self) -> None:
        """Holds in each tier by itself; a child in memory may outlive its parent on disk."""
