"""Forgetting without an engine: what an erase does to a cache folder whose engine is closed or elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

from .disk import DiskCache
from .paths import chunk_folder


def forget_owner(cache: str | os.PathLike[str], owner: str) -> int:
    """Delete every chunk in a cache folder that was computed for ``owner``, of whatever model and settings, and what
    follows it. Returns how many there were to look for. Raises OSError where a file can't be deleted: then ask again.

    An engine that is open on the folder has its own memory as well: ask it too (``engine.forget``).
    """
    folder = chunk_folder(Path(cache))
    return len(DiskCache(folder).forget(owner)) if folder.is_dir() else 0
