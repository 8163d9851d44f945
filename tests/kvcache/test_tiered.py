"""Memory before disk: nothing is out of reach on its way, and nobody fills memory faster than the disk takes it."""

import threading
from contextlib import closing

from llmcrdt.kvcache import Chunk, DiskCache, MemoryCache, TieredCache
from llmcrdt.testing.chunk_cache_suite import chain, keys_of


class _SlowDisk(MemoryCache):
    """A disk whose writes wait until they are let through."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def put(self, chunk: Chunk) -> bool:
        self.gate.wait()
        return super().put(chunk)


def test_omlx_1232_a_chunk_is_readable_while_it_moves_between_tiers():
    """oMLX #1232: blocks that memory had evicted could not be read before they were on disk. Here they are found."""
    disk = _SlowDisk()
    cache = TieredCache(MemoryCache(300), disk)
    chunks = chain(6)
    for chunk in chunks:
        assert cache.put(chunk)
    assert disk.match(keys_of(chunks)) == []
    assert cache.match(keys_of(chunks)) == ["memory"] * 6
    assert [cache.get(key) for key in keys_of(chunks)] == chunks
    assert cache.flush(0) is False
    disk.gate.set()
    assert cache.flush()
    assert disk.match(keys_of(chunks)) == ["memory"] * 6
    cache.close()


def test_a_disk_hit_moves_to_memory(tmp_path):
    chunks = chain(3)
    with closing(TieredCache(MemoryCache(), DiskCache(tmp_path))) as cache:
        for chunk in chunks:
            cache.put(chunk)
    with closing(TieredCache(MemoryCache(), DiskCache(tmp_path))) as cache:
        assert cache.match(keys_of(chunks)) == ["disk"] * 3
        cache.get(chunks[0].key)
        cache.get(chunks[1].key)
        assert cache.match(keys_of(chunks)) == ["memory", "memory", "disk"]


def test_put_waits_when_too_much_is_on_its_way():
    disk = _SlowDisk()
    cache = TieredCache(MemoryCache(), disk, pending_bytes=2 * chain(1)[0].size)
    chunks = chain(4)
    done = threading.Event()

    def put_all() -> None:
        for chunk in chunks:
            cache.put(chunk)
        done.set()

    thread = threading.Thread(target=put_all)
    thread.start()
    assert not done.wait(0.05)
    assert cache.stats()["pending_bytes"] <= 2 * chunks[0].size
    disk.gate.set()
    thread.join()
    assert cache.match(keys_of(chunks)) == ["memory"] * 4
    cache.close()
