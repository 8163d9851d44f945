"""The thread that writes to disk what memory took already, so that nobody who computes waits for a disk."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Collection, Iterator, Sequence

from .base import ChunkCache
from .chunk_file import Chunk
from .chunk_hash import ChunkKey


class DiskWriter:
    """Claims and chunks on their way to ``disk``, in the order they came. Any thread.

    A chunk is here until it is on disk. At most ``limit`` bytes are; then ``add`` waits. A claim is on disk before any
    chunk that came after it; chunks whose claim the disk did not take are not written.
    """

    def __init__(self, disk: ChunkCache, limit: int) -> None:
        self._disk, self._limit = disk, limit
        self._changed = threading.Condition()
        self._queue: queue.SimpleQueue[Chunk | tuple[str, list[ChunkKey]] | None] = queue.SimpleQueue()
        self._chunks: dict[ChunkKey, Chunk] = {}
        self._bytes = 0
        self._claims = 0
        self._unclaimed: set[ChunkKey] = set()  # whose claim the disk did not take
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="llmcrdt-kv-writer", daemon=True)
        self._thread.start()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def bytes(self) -> int:
        """Of chunks that are not on disk yet."""
        return self._bytes

    def get(self, key: ChunkKey) -> Chunk | None:
        """A chunk that is on its way."""
        return self._chunks.get(key)

    def claim(self, owner: str, keys: Sequence[ChunkKey]) -> bool:
        """Claim these on disk, before any chunk that is added from now on. Waits for nothing. False after ``close``."""
        with self._changed:
            if self._closed:
                return False
            self._claims += 1
            self._queue.put((owner, list(keys)))
        return True

    def add(self, chunk: Chunk) -> bool:
        """Write a chunk that is not on disk yet; waits while too much is on its way. False after ``close``."""
        with self._changed:
            if self._closed:
                return False
            while self._chunks and self._bytes + chunk.size > self._limit:
                self._changed.wait()
            if chunk.key not in self._chunks and not self._disk.match([chunk.key]):
                self._chunks[chunk.key] = chunk
                self._bytes += chunk.size
                self._queue.put(chunk)
        return True

    @contextlib.contextmanager
    def without(self, keys: Collection[ChunkKey]) -> Iterator[None]:
        """Wait until none of ``keys`` is on its way; none comes while the block runs."""
        with self._changed:
            while any(key in self._chunks for key in keys):
                self._changed.wait()
            yield

    @contextlib.contextmanager
    def empty(self) -> Iterator[None]:
        """Wait until nothing is on its way; nothing comes while the block runs."""
        with self._changed:
            while (self._chunks or self._claims) and not self._closed:
                self._changed.wait()
            yield

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until nothing is on its way. False if that took longer than ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while self._chunks or self._claims:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def close(self) -> bool:
        """Write what is here, and end. False where that was asked before."""
        with self._changed:
            if self._closed:
                return False
            self._closed = True
            self._queue.put(None)
        self._thread.join()
        return True

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if isinstance(item, tuple):
                self._claim(*item)
            else:
                self._write(item)

    def _write(self, chunk: Chunk) -> None:
        with contextlib.suppress(Exception):  # a chunk that can't be written is a chunk less
            if chunk.key not in self._unclaimed:
                self._disk.put(chunk)
        with self._changed:
            del self._chunks[chunk.key]
            self._bytes -= chunk.size
            self._changed.notify_all()

    def _claim(self, owner: str, keys: list[ChunkKey]) -> None:
        noted = False
        with contextlib.suppress(Exception):
            noted = self._disk.owners.claim(owner, keys)
        (self._unclaimed.difference_update if noted else self._unclaimed.update)(keys)
        with self._changed:
            self._claims -= 1
            self._changed.notify_all()
