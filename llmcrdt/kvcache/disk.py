"""Chunks on disk: one file each, named by its key, shared by any number of processes without a lock.

A crash, a full disk or a second process can cost a chunk, never falsify one. There is no index to fall out of step: the
files are the index (``chunk_folder``); what is remembered of them (``disk_index``) only saves reading.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TypeVar

from .base import Tier
from .chunk_file import BadChunk, Chunk, Header
from .chunk_folder import ChunkFolder
from .chunk_hash import ChunkKey
from .disk_index import DiskIndex
from .owners import FileOwners, with_descendants
from .pins import FilePins

_Found = TypeVar("_Found")


class DiskCache:
    """A ChunkCache of at most ``budget`` bytes of files in ``directory``, which is made with mode 0700.

    Several processes may share the directory. Each counts what the others wrote whenever it lists the files, at least
    once per twentieth of the budget that it writes itself; so n processes may pass it by n twentieths for a while.
    """

    def __init__(self, directory: str | os.PathLike[str], budget: int = 8 << 30) -> None:
        """Opens, and clears away what dead writers left. Raises OSError if the directory can't be made."""
        self._folder = folder = ChunkFolder(Path(directory))
        self._index = DiskIndex(folder)
        self.owners = FileOwners(folder.path)
        self.pins = FilePins(folder.path)
        self._budget = budget
        self._lock = threading.Lock()
        self._count = dict.fromkeys(
            ("hits", "misses", "puts", "evictions", "bad", "discarded", "forgotten", "write_errors"), 0
        )
        self._closed = False
        self._unlisted = 0  # bytes written since the files were listed
        self._bytes = sum(file.size for file in folder.files())
        folder.sweep()

    @property
    def directory(self) -> Path:
        return self._folder.path

    @property
    def capacity(self) -> int:
        return self._budget

    def resize(self, budget: int) -> None:
        """Another budget, in bytes; what is too much goes when something is put."""
        self._budget = budget

    def match(self, keys: Sequence[ChunkKey]) -> list[Tier]:
        run: list[Tier] = []
        for key in keys:
            if self.header(key) is None:
                break
            run.append("disk")
        return run

    def header(self, key: ChunkKey) -> Header | Chunk | None:
        return None if self._closed else self._checked(key, self._folder.header)

    def get(self, key: ChunkKey) -> Chunk | None:
        chunk = None if self._closed else self._load(key)
        if chunk is not None:
            with contextlib.suppress(OSError):
                self._folder.touch(key)
        with self._lock:
            self._count["misses" if chunk is None else "hits"] += 1
        return chunk

    def put(self, chunk: Chunk) -> bool:
        """As the contract says. An error of the file system (no space, say) is counted and means False."""
        if self._closed or chunk.size > self._budget:
            return False
        with self._lock:
            try:
                if self._folder.has(chunk.key):
                    self._folder.touch(chunk.key)
                    return True
                if not self._make_room(chunk):
                    return False
                self._folder.write(chunk)
            except OSError:
                self._count["write_errors"] += 1
                return False
            self._index.add(chunk)
            self._bytes += chunk.size
            self._unlisted += chunk.size
            self._count["puts"] += 1
        return True

    def discard(self, key: ChunkKey) -> None:
        with self._lock:
            self._set_aside(key, "discarded")

    def drop(self, keys: Collection[ChunkKey]) -> int:
        """As the contract says. A file that can't be deleted stays."""
        with self._lock:
            keys = [key for key in keys if self._folder.has(key)]
            if not keys:
                return 0
            near = [file for file in self._folder.files() if file.key in keys or self._needed(file.key) in keys]
            order, sizes, gone = self._index.order(near, self._budget, self.pins.keys()), _sizes(near), 0
            for key in keys:
                with contextlib.suppress(OSError):
                    if order.may_go(key):
                        self._delete(key, sizes[key])
                        gone += 1
            return gone

    def forget(self, owner: str, also: Collection[ChunkKey] = ()) -> set[ChunkKey]:
        """As the contract says; also after ``close``. Raises OSError where a file can't be deleted: then ask again."""
        with self._lock:
            if not self._folder.path.is_dir():
                return set()
            keys = self.owners.owned(owner) | set(also)
            found = with_descendants(keys, {file.key: self._index.made_from(file.key) for file in self._folder.files()})
            self._folder.delete_traces(found)
            for key in found:
                with contextlib.suppress(FileNotFoundError):
                    self._delete(key, self._folder.size(key))
                    self._count["forgotten"] += 1
                self._index.remove(key)
            self.pins.drop(owner)
            self._folder.sync()
            self.owners.drop(owner)  # last: a crash before this leaves enough to begin again
            self._folder.sync()
            return found

    def verify(self) -> dict[str, int]:
        """Read every chunk whole; bad ones are set aside. Returns counts: ``chunks``, ``held_bytes``, ``bad``."""
        before, chunks, held = self._count["bad"], 0, 0
        for file in list(self._folder.files()):
            if self._load(file.key) is not None:
                chunks, held = chunks + 1, held + file.size
        return {"chunks": chunks, "held_bytes": held, "bad": self._count["bad"] - before}

    def prune(self, budget: int) -> dict[str, int]:
        """Delete bad files, and chunks until at most ``budget`` bytes are left, or only what is pinned: what would be
        evicted first. How many chunks and bytes went, and are left."""
        with self._lock:
            self._folder.delete_bad()
            files = list(self._folder.files())
            order, sizes = self._index.order(files, self._budget, self.pins.keys()), _sizes(files)
            total = left = sum(sizes.values())
            gone = 0
            while left > budget and (victim := order.next()) is not None:
                order.remove(victim)
                with contextlib.suppress(FileNotFoundError):
                    self._delete(victim, sizes[victim])
                left -= sizes[victim]
                gone += 1
            self._bytes = left
            self.owners.prune([file.key for file in self._folder.files()])
            return {
                "chunks": len(files) - gone, "held_bytes": left, "deleted": gone, "deleted_bytes": total - left,
            }  # fmt: skip

    def flush(self, timeout: float | None = None) -> bool:
        return True

    def stats(self) -> dict[str, int]:
        files, pinned = list(self._folder.files()), self.pins.keys()
        with self._lock:
            states = [file.size for file in files if self._index.facts(file.key).state]
            errors = self._count["write_errors"] + self.owners.write_errors + self.pins.write_errors
            return {
                **self._count,
                "write_errors": errors,
                "chunks": len(files) - len(states),
                "states": len(states),
                "state_bytes": sum(states),
                "pinned": sum(file.key in pinned for file in files),
                "held_bytes": sum(file.size for file in files),
                "budget_bytes": self._budget,
            }

    def close(self) -> None:
        self._closed = True
        self.owners.close()

    def _load(self, key: ChunkKey) -> Chunk | None:
        return self._checked(key, lambda key: self._folder.read(key, self._budget))

    def _checked(self, key: ChunkKey, read: Callable[[ChunkKey], _Found]) -> _Found | None:
        """The answer of ``read``; a bad file is set aside, and None."""
        try:
            return read(key)
        except BadChunk:
            with self._lock:
                self._set_aside(key, "bad")
        except (OSError, MemoryError):
            pass
        return None

    def _needed(self, key: ChunkKey) -> bytes | None:
        return self._index.facts(key).needs

    def _make_room(self, chunk: Chunk) -> bool:
        """Evict until ``chunk`` fits; a twentieth more than needed, so that listing is rare. False if it can't fit."""
        slack, size = self._budget // 20, chunk.size
        if self._bytes + size <= self._budget and self._unlisted <= slack:
            return True
        files = list(self._folder.files())
        self._bytes, self._unlisted = sum(file.size for file in files), 0
        if self._bytes + size <= self._budget:
            return True
        if chunk.needs is not None and not self._folder.has(ChunkKey(chunk.needs)):
            return False
        self._folder.sweep()
        order, sizes = self._index.order(files, self._budget, self.pins.keys()), _sizes(files)
        order.add(chunk.key, chunk.needs, size, chunk.work, age=0)  # so that what it needs stays
        while self._bytes + size > self._budget - slack and (victim := order.next(chunk.key)) is not None:
            order.remove(victim)
            with contextlib.suppress(FileNotFoundError):
                self._delete(victim, sizes[victim])
            self._count["evictions"] += 1
        return self._bytes + size <= self._budget

    def _delete(self, key: ChunkKey, size: int) -> None:
        self._folder.delete(key)
        self._index.remove(key)
        self._bytes = max(0, self._bytes - size)

    def _set_aside(self, key: ChunkKey, counter: str) -> None:
        with contextlib.suppress(OSError):
            size = self._folder.set_aside(key)
            self._bytes = max(0, self._bytes - size)
            self._count[counter] += 1
            self._folder.sweep()


def _sizes(files: Collection[tuple[ChunkKey, int, int]]) -> dict[ChunkKey, int]:
    return {key: size for key, size, _ in files}
