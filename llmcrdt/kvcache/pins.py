"""Keys that may not be evicted: in memory, and as one small file per owner, seen by every process that evicts."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from ..files import replace_file
from .chunk_hash import ChunkKey
from .owners import keys_in, owner_name

_NAME = re.compile(r"[0-9a-f]{64}\.pin")


class MemoryPins:
    """``base.Pins`` in this process. ``on_change`` is told all keys that are pinned, each time they change."""

    def __init__(self, on_change: Callable[[frozenset[ChunkKey]], None]) -> None:
        self._on_change = on_change
        self._lock = threading.Lock()
        self._pins: dict[str, frozenset[ChunkKey]] = {}

    def set(self, owner: str, keys: Collection[ChunkKey]) -> bool:
        with self._lock:
            self._put({**self._pins, owner_name(owner): frozenset(keys)})
        return True

    def drop(self, owner: str) -> None:
        with self._lock:
            self._put({name: keys for name, keys in self._pins.items() if name != owner_name(owner)})

    def all(self) -> dict[str, frozenset[ChunkKey]]:
        with self._lock:
            return dict(self._pins)

    def replace(self, pins: Mapping[str, frozenset[ChunkKey]]) -> None:
        """Make these the pins, by ``owner_name``, in place of all there are."""
        with self._lock:
            self._put(dict(pins))

    def _put(self, pins: dict[str, frozenset[ChunkKey]]) -> None:
        self._pins = pins
        self._on_change(frozenset().union(*pins.values()))


class FilePins:
    """``base.Pins`` in ``folder``. Any thread, any number of processes: a file is replaced whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.write_errors = 0
        """How often ``set`` could not write."""

    def set(self, owner: str, keys: Collection[ChunkKey]) -> bool:
        """As the contract says. On disk when it returns True."""
        try:
            replace_file(self._path(owner), "\n".join(key.hex() for key in keys).encode())
        except OSError:
            self.write_errors += 1
            return False
        return True

    def drop(self, owner: str) -> None:
        self._path(owner).unlink(missing_ok=True)

    def all(self) -> dict[str, frozenset[ChunkKey]]:
        found: dict[str, frozenset[ChunkKey]] = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            for entry in entries:
                if _NAME.fullmatch(entry.name):
                    found[entry.name[:-4]] = frozenset(keys_in(Path(entry.path)))
        return found

    def keys(self) -> frozenset[ChunkKey]:
        """All keys that are pinned, by whomever."""
        return frozenset().union(*self.all().values())

    def _path(self, owner: str) -> Path:
        return self._folder / f"{owner_name(owner)}.pin"
