"""The files of an engine: hashed in the background, watched as long as it lives.

Until the hashes are known nobody can say which stored KV state belongs to these weights: an engine works without them,
on memory alone. If a file is written to later, what was known of it is void.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from .fingerprint import FileHashes, HeldFile

State = Literal["hashing", "known", "changed", "unreadable"]


class _Stopped(Exception):
    """Nobody needs the hashes any more."""


class Weights:
    """Holds ``files`` open, and hashes those that ``hashes`` doesn't remember on a thread of its own.

    Opened before the model is loaded from the same paths; then call ``loaded``, then ``hash``. Raises OSError.
    """

    def __init__(self, files: Sequence[Path], hashes: FileHashes) -> None:
        self._hashes = hashes
        self._files: list[HeldFile] = []
        self._stop = False
        self._hashed = 0
        self._thread: threading.Thread | None = None
        self.state: State = "hashing"
        self.digests: list[str] | None = None
        """Hex digests of the files, in their order, once they are known."""
        try:
            for file in files:
                self._files.append(HeldFile(file))
        except BaseException:
            self.close()
            raise

    def loaded(self) -> None:
        """The model was loaded from these paths."""
        if not all(file.named() for file in self._files):
            self.state = "changed"  # between being opened here and being loaded
            return
        known = self._hashes.known(self._files)
        if known is not None:
            self.state, self.digests = "known", known

    def hash(self, on_end: Callable[[], None]) -> None:
        """Hash what isn't known, on another thread; ``on_end`` is called there, once ``state`` isn't "hashing"."""
        if self.state == "hashing":
            self._thread = threading.Thread(target=self._hash, args=(on_end,), name="llmcrdt-weights", daemon=True)
            self._thread.start()

    def sound(self) -> bool:
        """Whether the files are what they were. Once they aren't, never again."""
        if self.state != "changed" and not all(file.unchanged() for file in self._files):
            self.state, self.digests = "changed", None
        return self.state != "changed"

    def wait(self, timeout: float | None) -> bool:
        """Wait until nothing is hashed any more."""
        if self._thread is not None:
            self._thread.join(timeout)
        return self.state != "hashing"

    def stop(self) -> None:
        """Hash no further."""
        self._stop = True

    def stats(self) -> dict[str, int | str]:
        return {
            "state": self.state,
            "total_bytes": sum(file.size for file in self._files),
            "hashed_bytes": self._hashed,
        }

    def close(self) -> None:
        self.stop()
        self.wait(None)
        for file in self._files:
            file.close()

    def _hash(self, on_end: Callable[[], None]) -> None:
        try:
            digests = self._hashes.of(self._files, self._count)
            if self.sound():
                self.state, self.digests = "known", digests
        except (_Stopped, OSError):
            self.state = "unreadable"
        with contextlib.suppress(Exception):  # the engine may be gone
            on_end()

    def _count(self, n: int) -> None:
        self._hashed += n
        if self._stop:
            raise _Stopped
