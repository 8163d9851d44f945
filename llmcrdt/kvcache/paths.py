"""The places of a cache on this device."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def user_cache() -> Path:
    """The folder for everything that can be computed again: ``$XDG_CACHE_HOME/llmcrdt/kv``, or the system's own
    place."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):
        home = Path(base)
    elif sys.platform == "darwin":
        home = Path.home() / "Library/Caches"
    elif sys.platform == "win32":
        home = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
    else:
        home = Path.home() / ".cache"
    return home / "llmcrdt" / "kv"


def chunk_folder(cache: Path) -> Path:
    """The folder of the chunk files in a cache folder."""
    return cache / "chunks"


def hashes_file(cache: Path) -> Path:
    """The file that remembers hashes of model files."""
    return cache / "files.json"


def speeds_folder(cache: Path) -> Path:
    """The folder that remembers how fast models are on this machine."""
    return cache / "speeds"


def exactness_folder(cache: Path) -> Path:
    """The folder that remembers whether models are exact on this machine."""
    return cache / "exactness"
