"""Files with secrets beside the database: readable by their owner only, and never changed in place.

A new file is written aside, brought to disk, and put in the old one's place, so a crash leaves one of the two.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..exceptions import KeyringUnusable
from ..files import replace_file


def open_private(path: Path) -> BinaryIO | None:
    """The file, to be read; None where there is none. Raises KeyringUnusable where others may read or write it."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KeyringUnusable(f"{path} can't be read: {error.strerror}.", hint="Check its owner.") from None
    file = os.fdopen(handle, "rb")
    mode = os.fstat(handle).st_mode
    if os.name == "posix" and mode & 0o077:
        file.close()
        raise KeyringUnusable(
            f"{path} holds secrets, and others may read or write it (mode {stat.S_IMODE(mode):04o}).",
            hint=f"Run: chmod 600 {path}. If others could read it, replace what it holds: rotate keys, revoke tokens.",
        )
    return file


def replace_private(path: Path, content: bytes) -> None:
    """Put a new file in the place of the old one. Call it under ``locked(path)``: files that a writer who died left
    aside are taken for nobody's."""
    for left in path.parent.glob(f"{path.name}.*.new"):
        left.unlink(missing_ok=True)
    replace_file(path, content, path.with_name(f"{path.name}.{os.getpid()}.new"))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time may change a file. The lock, a file beside it, goes when its holder dies."""
    handle = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
