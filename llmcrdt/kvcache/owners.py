"""The owners of chunks, that is of the words in them: in memory, and as one small file of keys per owner, so that all
of an owner's chunks can be forgotten.

A key is noted on disk before its chunk is written, so no chunk is ever there without its owner's note. The name of a
file is a hash of the owner's name. Keys are appended as lines; a line that a crash cut short says nothing, and breaks
nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ..files import append_file
from .chunk_hash import KEY_BYTES, ChunkKey

_TAG = b"llmcrdt/owner/1\0"
_LINE = 2 * KEY_BYTES
_STALE_SECONDS = 24 * 3600.0
NAME = re.compile(r"[0-9a-f]{64}\.own")


class MemoryOwners:
    """``base.Owners`` in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: dict[str, set[ChunkKey]] = {}

    def claim(self, owner: str, keys: Sequence[ChunkKey]) -> bool:
        with self._lock:
            self._keys.setdefault(owner, set()).update(keys)
        return True

    def owned(self, owner: str) -> set[ChunkKey]:
        with self._lock:
            return set(self._keys.get(owner, ()))

    def pop(self, owner: str) -> set[ChunkKey]:
        """Forget what ``owner`` claimed; returns it."""
        with self._lock:
            return self._keys.pop(owner, set())

    def drain(self) -> dict[str, set[ChunkKey]]:
        """Forget all claims; returns them."""
        with self._lock:
            keys, self._keys = self._keys, {}
            return keys


class FileOwners:
    """``base.Owners`` in ``folder``, shared by any number of processes. Any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._closed = False
        self._lock = threading.Lock()
        self.write_errors = 0
        """How often ``claim`` could not write."""
        self._seen: dict[str, tuple[tuple[int, int, int], set[ChunkKey]]] = {}
        self._claimed: dict[str, set[ChunkKey]] = {}  # by this process: it may write these after another has forgotten

    def claim(self, owner: str, keys: Sequence[ChunkKey]) -> bool:
        """As the contract says. On disk when it returns True."""
        if self._closed:
            return False
        try:
            self._note(owner, keys)
        except OSError:
            self.write_errors += 1
            return False
        return True

    def close(self) -> None:
        """Refuse claims from now on."""
        self._closed = True

    def owned(self, owner: str) -> set[ChunkKey]:
        """All keys noted for ``owner``, by whatever process, and those this one ever noted."""
        with self._lock:
            return self._noted(owner) | self._claimed.get(owner, set())

    def drop(self, owner: str) -> None:
        """Forget the note itself: a key is a hash of words."""
        with self._lock:
            with contextlib.suppress(FileNotFoundError):
                self._path(owner).unlink()
            self._seen.pop(owner, None)

    def prune(self, present: Collection[ChunkKey]) -> int:
        """Delete notes that name no chunk in ``present``, and that nobody has claimed by for a day. How many."""
        kept, count, before = set(present), 0, time.time() - _STALE_SECONDS
        for path in self._folder.iterdir():
            with contextlib.suppress(OSError):
                old = NAME.fullmatch(path.name) and path.stat().st_mtime < before
                if old and not keys_in(path) & kept:
                    path.unlink()
                    count += 1
        return count

    def _note(self, owner: str, keys: Sequence[ChunkKey]) -> None:
        with self._lock:
            noted = self._noted(owner)
            self._claimed.setdefault(owner, set()).update(keys)
            new = [key for key in dict.fromkeys(keys) if key not in noted]
            if not new:
                os.utime(self._path(owner))  # in use: not to be pruned
                return
            # A line begins with its break: what a crash left of the line before stays apart.
            append_file(self._path(owner), "".join(f"\n{key.hex()}" for key in new).encode())

    def _noted(self, owner: str) -> set[ChunkKey]:
        path = self._path(owner)
        try:
            info = path.stat()
        except FileNotFoundError:
            return set()
        state = (info.st_ino, info.st_size, info.st_mtime_ns)
        seen = self._seen.get(owner)
        if seen is None or seen[0] != state:
            seen = self._seen[owner] = (state, keys_in(path))
        return seen[1]

    def _path(self, owner: str) -> Path:
        return self._folder / f"{owner_name(owner)}.own"


def owner_name(owner: str) -> str:
    """The name of an owner in the folder: 64 hex digits."""
    return hashlib.sha256(_TAG + owner.encode()).hexdigest()


def with_descendants(keys: Collection[ChunkKey], made_from: Mapping[ChunkKey, Collection[bytes]]) -> set[ChunkKey]:
    """``keys``, and whatever was computed from them (``made_from``: key -> keys of what came before it)."""
    after: dict[bytes, list[ChunkKey]] = {}
    for key, sources in made_from.items():
        for source in sources:
            after.setdefault(source, []).append(key)
    found, todo = set(keys), list(keys)
    while todo:
        for later in after.get(todo.pop(), ()):
            if later not in found:
                found.add(later)
                todo.append(later)
    return found


def keys_in(path: Path) -> set[ChunkKey]:
    """The keys in a file of lines; of a line that is no key, nothing."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return set()
    return {ChunkKey(bytes.fromhex(line.decode())) for line in lines if re.fullmatch(rb"[0-9a-f]{%d}" % _LINE, line)}
