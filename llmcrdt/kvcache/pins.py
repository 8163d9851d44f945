"""What may not be evicted: one small file of keys per owner, beside the chunks, seen by every process that evicts."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection
from pathlib import Path

from ..files import replace_file
from .chunk_hash import ChunkKey
from .owners import keys_in, owner_name

_NAME = re.compile(r"[0-9a-f]{64}\.pin")


class Pins:
    """The pins in ``folder``. Any thread, any number of processes: a file is replaced whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def set(self, owner: str, keys: Collection[ChunkKey]) -> None:
        """``owner`` pins these from now on, and nothing else. On disk when it returns. Raises OSError."""
        replace_file(self._path(owner), "\n".join(key.hex() for key in keys).encode())

    def drop(self, owner: str) -> None:
        """Raises OSError where the file can't be deleted."""
        self._path(owner).unlink(missing_ok=True)

    def read(self) -> dict[str, frozenset[ChunkKey]]:
        """What is pinned, by ``owner_name``."""
        found: dict[str, frozenset[ChunkKey]] = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            for entry in entries:
                if _NAME.fullmatch(entry.name):
                    found[entry.name[:-4]] = frozenset(keys_in(Path(entry.path)))
        return found

    def _path(self, owner: str) -> Path:
        return self._folder / f"{owner_name(owner)}.pin"
