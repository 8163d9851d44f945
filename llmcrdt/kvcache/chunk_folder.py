"""The chunk files of one folder: one each, named by its key. Knows no budget, no eviction, no lock.

A file appears under its name whole or not at all, and whoever reads it checks it first. The time of last use is the
file's modification time. A bad file is renamed to ``.bad``: never read again, but there to be looked at.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from ..files import NewFile, aside_name, sync_folder
from .chunk_file import HEADER_BYTES, BadChunk, Chunk, Header, decode_header, encode, is_state, names, read, token_count
from .chunk_hash import ChunkKey

_NAME = re.compile(r"[0-9a-f]{64}\.kv")
_STALE_SECONDS = 3600.0  # a temporary file this old belongs to a process that died
_KEPT_BAD = 8  # bad files kept for a look; more are deleted
_GUESS_IDS = 256  # token ids read along with the fixed header: one read for usual chunks


class ChunkFile(NamedTuple):
    """A file by its name: nothing of it is proved. ``size`` in bytes, ``used`` in nanoseconds since 1970."""

    key: ChunkKey
    size: int
    used: int


class ChunkFolder:
    """The files in ``path``. Any thread, any number of processes."""

    def __init__(self, path: Path) -> None:
        """Makes the folder, with mode 0700. Raises OSError."""
        self.path = path
        self._prefix = os.path.join(path, "")
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.chmod(0o700)

    def files(self) -> Iterator[ChunkFile]:
        """Every chunk file there is; none where the folder is gone."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self.path) as entries:
            for entry in entries:
                if _NAME.fullmatch(entry.name):
                    with contextlib.suppress(OSError):  # another process may delete it at this moment
                        info = entry.stat(follow_symlinks=False)
                        yield ChunkFile(ChunkKey(bytes.fromhex(entry.name[:-3])), info.st_size, info.st_mtime_ns)

    def has(self, key: ChunkKey) -> bool:
        return os.path.exists(self._of(key))

    def size(self, key: ChunkKey) -> int:
        """Bytes of a file. Raises OSError."""
        return os.stat(self._of(key)).st_size

    def stated(self, key: ChunkKey) -> Header:
        """The header in a file, of whatever key it says. Raises BadChunk or OSError."""
        with open(self._of(key), "rb", buffering=0) as file:
            data = file.read(HEADER_BYTES + 4 * _GUESS_IDS)
            ids_end = HEADER_BYTES + 4 * token_count(data)
            if len(data) < ids_end:
                data += file.read(ids_end - len(data))
            return decode_header(data, os.fstat(file.fileno()).st_size)

    def header(self, key: ChunkKey) -> Header:
        """The header of this chunk. Raises BadChunk, also for another chunk under this name, or OSError."""
        header = self.stated(key)
        if header.key != key:
            raise BadChunk("another chunk's name")
        return header

    def read(self, key: ChunkKey, most: int) -> Chunk:
        """This chunk, checked to the last bit, if its file has at most ``most`` bytes. Raises BadChunk or OSError."""
        with open(self._of(key), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                raise BadChunk("larger than the whole budget")
            chunk = read(file, size)
        if chunk.key != key:
            raise BadChunk("another chunk's name")
        return chunk

    def write(self, chunk: Chunk) -> None:
        """Write a chunk, used now. On disk when this returns. Raises OSError: then it isn't there."""
        with NewFile(aside_name(self._prefix)) as new:
            new.file.write(encode(chunk))
            new.file.flush()  # else it would be written, and stamped, once more after this stamp
            _stamp(new.file.fileno())
            new.commit(self._of(chunk.key))

    def touch(self, key: ChunkKey) -> None:
        """Mark as used now. Raises OSError."""
        _stamp(self._of(key))

    def delete(self, key: ChunkKey) -> None:
        """Raises OSError, also where there is no such file."""
        os.unlink(self._of(key))

    def set_aside(self, key: ChunkKey) -> int:
        """Rename to ``.bad``. Returns its size; raises OSError."""
        path, size = self._of(key), self.size(key)
        os.replace(path, f"{self._prefix}{key.hex()}.bad")
        return size

    def sweep(self) -> None:
        """Delete what dead writers left, and all but the last few bad files."""
        now = time.time()
        bad: list[tuple[float, str]] = []
        with contextlib.suppress(OSError), os.scandir(self.path) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    age = entry.stat(follow_symlinks=False).st_mtime
                    if entry.name.endswith(".tmp") and now - age > _STALE_SECONDS:
                        os.unlink(entry.path)
                    elif entry.name.endswith(".bad"):
                        bad.append((age, entry.path))
        for _, path in sorted(bad)[:-_KEPT_BAD]:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def delete_bad(self) -> None:
        """Delete all bad files. Raises OSError."""
        for path in list(self.path.glob("*.bad")):
            path.unlink(missing_ok=True)

    def delete_traces(self, keys: Collection[ChunkKey]) -> None:
        """Delete bad files of these chunks or after them, and everything half-written: a writer that lives loses one
        chunk. Raises OSError."""
        hexes = {key.hex() for key in keys}
        for path in list(self.path.iterdir()):
            bad = path.suffix == ".bad" and (path.stem in hexes or _is_of(path, keys))
            if bad or path.suffix == ".tmp":
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()

    def sync(self) -> None:
        """Bring to disk what was deleted. Raises OSError."""
        sync_folder(self.path)

    def _of(self, key: ChunkKey) -> str:
        return f"{self._prefix}{key.hex()}.kv"


def _is_of(path: Path, keys: Collection[ChunkKey]) -> bool:
    """Whether a damaged file says it is one of these, or after one. A state that can't say is taken for one."""
    with contextlib.suppress(OSError):
        data = path.read_bytes()
        if any(name in keys for name in names(data)):
            return True
        with contextlib.suppress(BadChunk):
            return any(key in keys for key in decode_header(data, len(data)).made_from)
        return is_state(data)
    return False


def _stamp(file: str | int) -> None:
    """Used now. The kernel's own stamps are too coarse to tell which of two came first."""
    now = time.time_ns()
    os.utime(file, ns=(now, now))
