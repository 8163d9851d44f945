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
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ...files import replace_file

_SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
_REMEMBERED = 256
_PIECE = 4 << 20
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


class HeldFile:
    """A file held open, so that what is hashed is what was opened, whatever takes its name meanwhile.

    Raises OSError if it can't be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        # An engine that nobody closed is collected together with its files, in any order.
        self._close = weakref.finalize(self, os.close, self._fd)
        self._close.atexit = False  # background work may ask about it until the program has ended
        info = os.fstat(self._fd)
        self.identity, self.size = _identity(info), info.st_size

    def unchanged(self) -> bool:
        """Whether nobody wrote to it since it was opened, as far as the file system says."""
        return self._close.alive and _identity(os.fstat(self._fd)) == self.identity

    def named(self) -> bool:
        """Whether its path still leads to it."""
        try:
            return _identity(self.path.stat()) == self.identity
        except OSError:
            return False

    def sha256(self, on_bytes: Callable[[int], None] = lambda n: None) -> str:
        """Hex digest of its bytes. ``on_bytes``: told how many were read, a piece at a time; what it raises ends it."""
        digest = hashlib.sha256()
        os.lseek(self._fd, 0, os.SEEK_SET)
        while piece := os.read(self._fd, _PIECE):
            digest.update(piece)
            on_bytes(len(piece))
        return digest.hexdigest()

    def close(self) -> None:
        self._close()


class FileHashes:
    """SHA-256 of files, remembered in a small JSON file by device, inode, size and times of change.

    ``memo`` None remembers nothing on disk. A memo that can't be read or written is no error: it only saves time.
    """

    def __init__(self, memo: Path | None) -> None:
        self._memo = memo

    def known(self, files: Sequence[HeldFile]) -> list[str] | None:
        """Hex digests, in the order of ``files``, if all are remembered. Reads none of them."""
        known = {**self._read(), **_known_here}
        return self.of(files) if all(file.identity in known for file in files) else None

    def of(self, files: Sequence[HeldFile], on_bytes: Callable[[int], None] = lambda n: None) -> list[str]:
        """Hex digests, in the order of ``files``: remembered, or computed now. Raises OSError.

        A file that was written to meanwhile is not remembered: ask ``unchanged``.
        """
        remembered = self._read()
        known = {**remembered, **_known_here}
        digests, new = [], {}
        for file in files:
            digest = known.get(file.identity)
            if digest is None:
                digest = file.sha256(on_bytes)
            else:
                on_bytes(file.size)
            if file.unchanged() and remembered.get(file.identity) != digest:
                new[file.identity] = digest
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
        with contextlib.suppress(OSError):
            self._memo.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace_file(self._memo, text.encode())


def _identity(info: os.stat_result) -> str:
    return f"{info.st_dev}:{info.st_ino}:{info.st_size}:{info.st_mtime_ns}:{info.st_ctime_ns}"
