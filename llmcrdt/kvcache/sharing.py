"""One cache for each folder in a process: engines on one folder share its memory tier, and its budget."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .disk import DiskCache
from .memory import MemoryCache
from .tiered import TieredCache

_lock = threading.Lock()
_open: dict[tuple[int, Path], _Shared] = {}  # a forked process has none of its parent's threads


@dataclass
class _Shared:
    memory: MemoryCache
    disk: DiskCache
    tiers: TieredCache
    asked: list[tuple[int, int]] = field(default_factory=list)

    def resize(self) -> None:
        self.memory.resize(max(memory for memory, _ in self.asked))
        self.disk.resize(max(disk for _, disk in self.asked))


def open_shared(folder: Path, memory: int, disk: int) -> tuple[TieredCache, Callable[[], None]]:
    """The cache over chunk folder ``folder``, and what gives it back; the last to do so closes it.

    Budgets in bytes; the largest that is asked for counts, as long as it is asked. Raises OSError where the folder
    can't be made.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = (os.getpid(), folder.resolve())
    asked = (memory, disk)
    with _lock:
        shared = _open.get(key)
        if shared is None:
            near, far = MemoryCache(memory), DiskCache(folder, disk)
            shared = _open[key] = _Shared(near, far, TieredCache(near, far))
        shared.asked.append(asked)
        shared.resize()

    def give_back() -> None:
        with _lock:
            with contextlib.suppress(ValueError):
                shared.asked.remove(asked)
            if shared.asked:
                shared.resize()
                return
            if _open.get(key) is shared:
                del _open[key]
            shared.tiers.close()

    return shared.tiers, give_back
