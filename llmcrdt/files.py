"""Files that are there after a power failure, whole or not at all, and that their owner alone may read.

A file is not changed in place: a new one is written under a temporary name, brought to disk, and renamed. After that
its folder is brought to disk: a name is durable only when its folder is. So a crash leaves the old file or the new one,
and at most a file under a temporary name; the owner of the folder clears those away.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path
from types import TracebackType

StrPath = str | os.PathLike[str]

_BINARY = getattr(os, "O_BINARY", 0)  # Windows


class NewFile:
    """A new private file (mode 0600), under a temporary name until ``commit``; deleted where the block ends before.

    with NewFile(path) as new:
        new.file.write(content)
        new.commit(path)

    ``aside``: the temporary name, in the folder of the final one. Raises OSError, also where there is such a file.
    """

    def __init__(self, aside: StrPath) -> None:
        self._aside = aside
        handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o600)
        self.file = os.fdopen(handle, "wb")
        self._committed = False

    def commit(self, path: StrPath, *, must_be_new: bool = False) -> None:
        """Put it in the place of ``path``. On disk when this returns, name and content. Raises OSError: then ``path``
        is what it was, unless the folder alone could not be brought to disk. ``must_be_new``: raises FileExistsError
        where there is a file."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        if not must_be_new:
            os.replace(self._aside, path)
        elif os.name == "posix":
            os.link(self._aside, path)
            os.unlink(self._aside)
        else:
            os.rename(self._aside, path)
        self._committed = True
        sync_folder(os.path.dirname(path) or os.curdir)

    def __enter__(self) -> NewFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._committed:
            with contextlib.suppress(OSError):
                self.file.close()  # it may try once more to write what could not be written
            with contextlib.suppress(OSError):
                os.unlink(self._aside)


def aside_name(folder: StrPath) -> str:
    """A temporary name in ``folder`` that nobody else takes: hidden, and it ends in ``.tmp``."""
    return os.path.join(folder, f".{os.getpid()}-{secrets.token_hex(8)}.tmp")


def replace_file(path: Path, content: bytes, aside: StrPath | None = None, *, must_be_new: bool = False) -> None:
    """Put a private file with ``content`` in the place of ``path``, whole or not at all, on disk when this returns.

    ``aside``: its temporary name, if not ``aside_name``. ``must_be_new``: raise FileExistsError where there is a file.
    Raises OSError: then ``path`` is what it was, unless its folder alone could not be brought to disk.
    """
    with NewFile(aside or aside_name(path.parent)) as new:
        new.file.write(content)
        new.commit(path, must_be_new=must_be_new)


def append_file(path: Path, content: bytes) -> None:
    """Append ``content`` to a file, which is made, private, where there is none. On disk when this returns. Raises
    OSError; a part may be written then. A power failure may leave any part of it, with zeros in place of the rest."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | _BINARY
    with os.fdopen(os.open(path, flags, 0o600), "wb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size == 0:
            # First, so that a file that has content has a name on disk, also where whoever made it was killed.
            sync_folder(path.parent)
        view = memoryview(content)
        while view:
            view = view[file.write(view) or 0 :]
        os.fsync(file.fileno())


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Make a folder, and those above it that are not there. Their names are on disk when this returns, also where
    another process made the last one just now. Raises OSError."""
    missing = [folder]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    for each in reversed(missing):
        try:
            os.mkdir(each, mode)
        except FileExistsError:
            if not each.is_dir():
                raise
            with contextlib.suppress(PermissionError):  # another's folder
                sync_folder(each.parent)
        else:
            sync_folder(each.parent)


def sync_folder(folder: StrPath) -> None:
    """Bring a folder's names to disk. Does nothing where a system (Windows) or a file system has no such call."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(handle)
