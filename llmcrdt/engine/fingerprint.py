"""The fingerprint: 32 bytes that differ whenever the KV state of the same tokens could differ.

llama.cpp checks only shapes when it loads state, so all the rest stands here: the weights themselves, number formats,
attention and rope settings, the engine's own code. Hashes of files are remembered by what the file system says of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

_SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
_REMEMBERED = 256
_known_here: dict[str, str] = {}  # what this process has hashed


def fingerprint(settings: Mapping[str, object]) -> bytes:
    """One hash over named settings; their order doesn't matter."""
    text = json.dumps({name: str(value) for name, value in settings.items()}, sort_keys=True)
    return hashlib.sha256(b"llmcrdt/fingerprint/1\0" + text.encode()).digest()


def model_files(path: Path) -> list[Path]:
    """The files of a model: itself, or all parts of ``name-00001-of-00003.gguf``."""
    match = _SPLIT.fullmatch(path.name)
    if not match:
        return [path]
    stem, _, count = match.groups()
    return [path.with_name(f"{stem}-{i:05d}-of-{count}.gguf") for i in range(1, int(count) + 1)]


class FileHashes:
    """SHA-256 of files, remembered in a small JSON file by device, inode, size and times of change.

    ``memo`` None remembers nothing. A memo that can't be read or written is no error: it only saves time.
    """

    def __init__(self, memo: Path | None) -> None:
        self._memo = memo

    def of(self, files: Iterable[Path]) -> list[str]:
        """Hex digests, in the order of ``files``. Raises OSError for a file that can't be read."""
        remembered = self._read()
        known = {**remembered, **_known_here}
        digests, new = [], {}
        for file in files:
            name = _identity(file)
            digest = known.get(name)
            if digest is None:
                digest = _sha256(file)
                if _identity(file) != name:  # somebody wrote to it meanwhile
                    name = ""
            if name and remembered.get(name) != digest:
                new[name] = digest
            digests.append(digest)
        if new:
            _known_here.update(new)
            self._write({**self._read(), **new})
        return digests

    def _read(self) -> dict[str, str]:
        if self._memo is None:
            return {}
        try:
            value = json.loads(self._memo.read_bytes())["files"]
            return {k: v for k, v in value.items() if isinstance(v, str) and re.fullmatch("[0-9a-f]{64}", v)}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}

    def _write(self, known: dict[str, str]) -> None:
        if self._memo is None:
            return
        text = json.dumps({"files": dict(list(known.items())[-_REMEMBERED:])}, indent=0)
        aside = self._memo.with_name(f".{self._memo.name}-{secrets.token_hex(8)}.tmp")
        with contextlib.suppress(OSError):
            self._memo.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            aside.write_text(text)
            aside.chmod(0o600)
            os.replace(aside, self._memo)


def _identity(file: Path) -> str:
    info = file.stat()
    return f"{info.st_dev}:{info.st_ino}:{info.st_size}:{info.st_mtime_ns}:{info.st_ctime_ns}"


def _sha256(file: Path) -> str:
    with open(file, "rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()
