"""The document to which something is applied just now, in a file that outlives the process: should the process die of
that, the next one to open the database knows.

The file is mapped into memory, so a mark costs a copy of a few bytes, and the system keeps them when the process is
gone. Each process that has the database open has one, and holds a lock on it; one that gets this lock knows that the
other process is gone.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
from pathlib import Path
from types import TracebackType

_SIZE = 64


class Mark:
    """A context manager that may be entered again and again."""

    def __init__(self, marks: Applying, document: str) -> None:
        self._marks, self._document = marks, document

    def __enter__(self) -> None:
        self._marks.begin(self._document)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._marks.end()


class Applying:
    """The marks beside one database. There are none if no file can be written."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._file = database.with_name(f"{database.name}.applying-{os.urandom(8).hex()}")
        self._handle = -1
        self._map: mmap.mmap | None = None
        self._opened = str(database) == ":memory:"

    def mark(self, document: str) -> Mark:
        """To be entered while something is applied to this document."""
        return Mark(self, document)

    def begin(self, document: str) -> None:
        """From now on something is applied to this document."""
        if not self._opened:
            self._open()
        if self._map is not None:
            name = document.encode()[: _SIZE - 1]
            self._map[: len(name) + 1] = bytes((len(name),)) + name

    def end(self) -> None:
        """It is through, or was refused."""
        if self._map is not None:
            self._map[0] = 0

    def left(self) -> set[str]:
        """The documents that processes were at when they died. Only one caller is told of each."""
        found: set[str] = set()
        for file in self._database.parent.glob(f"{self._database.name}.applying-*"):
            with contextlib.suppress(OSError):
                handle = os.open(file, os.O_RDWR)
                try:
                    if _lock(handle):
                        content = os.read(handle, _SIZE)
                        if content and content[0]:
                            found.add(content[1 : 1 + content[0]].decode(errors="replace"))
                        file.unlink()
                finally:
                    os.close(handle)
        return found

    def close(self) -> None:
        """Twice is harmless."""
        if self._map is not None:
            self.leave()
            with contextlib.suppress(OSError):
                self._file.unlink()
        self._opened = True

    def leave(self) -> None:
        """Let go of the file as the system does when the process dies: its mark stays."""
        self._opened = True
        if self._map is not None:
            self._map.close()
            self._map = None
            os.close(self._handle)

    def _open(self) -> None:
        self._opened = True
        with contextlib.suppress(OSError):
            self._handle = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            _lock(self._handle)
            os.write(self._handle, bytes(_SIZE))
            self._map = mmap.mmap(self._handle, _SIZE)


def _lock(handle: int) -> bool:
    """Lock a file for as long as this process has it open. False where another process has."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
