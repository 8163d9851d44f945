"""Chunks on disk: one file each, named by its key, shared by any number of processes without a lock.

A file appears under its name whole or not at all (written aside, fsync, rename), and whoever reads it checks it first.
So a crash, a full disk or a second process can cost a chunk, never falsify one. There is no index to fall out of step:
the files are the index. Last use is the file's modification time.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..files import NewFile, aside_name, sync_folder
from .chunk_cache import Tier
from .chunk_file import HEADER_BYTES, BadChunk, Chunk, Header, decode_header, encode, is_state, names, read, token_count
from .chunk_hash import ChunkKey
from .eviction import EvictionOrder, ages
from .owners import Owners, with_descendants
from .pins import Pins

_NAME = re.compile(r"[0-9a-f]{64}\.kv")
_STALE_SECONDS = 3600.0  # a temporary file this old belongs to a process that died
_KEPT_BAD = 8  # bad files kept for a look; more are deleted
_GUESS_IDS = 256  # token ids read along with the fixed header: one read for usual chunks


class DiskCache:
    """At most ``budget`` bytes of chunk files in ``directory``, which is made with mode 0700.

    Several processes may share the directory. Each counts what the others wrote whenever it lists the files, at least
    once per twentieth of the budget that it writes itself; so n processes may pass it by n twentieths for a while.
    """

    def __init__(self, directory: str | os.PathLike[str], budget: int = 8 << 30) -> None:
        """Opens, and clears away what dead writers left. Raises OSError if the directory can't be made."""
        self._folder = Path(directory)
        self._budget = budget
        self._lock = threading.Lock()
        self._facts: dict[ChunkKey, _Facts] = {}
        self._count = dict.fromkeys(
            ("hits", "misses", "puts", "evictions", "bad", "discarded", "forgotten", "write_errors"), 0
        )
        self._owners = Owners(self._folder)
        self._pins = Pins(self._folder)
        self._closed = False
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder.chmod(0o700)
        self._unlisted = 0
        self._bytes = sum(size for _, size, _ in self._list())
        self._sweep()

    def resize(self, budget: int) -> None:
        """Another budget, in bytes; what is too much goes when something is put."""
        self._budget = budget

    @property
    def directory(self) -> Path:
        return self._folder

    @property
    def capacity(self) -> int:
        return self._budget

    def match(self, keys: Sequence[ChunkKey]) -> list[Tier]:
        run: list[Tier] = []
        for key in keys:
            if self._closed or self._header(key) is None:
                break
            run.append("disk")
        return run

    def header(self, key: ChunkKey) -> Header | Chunk | None:
        return None if self._closed else self._header(key)

    def get(self, key: ChunkKey) -> Chunk | None:
        chunk = None if self._closed else self._load(key)
        with self._lock:
            self._count["misses" if chunk is None else "hits"] += 1
        return chunk

    def put(self, chunk: Chunk) -> bool:
        """As the contract says. An error of the file system (no space, say) is counted and means False."""
        if self._closed or chunk.size > self._budget:
            return False
        path = self._path(chunk.key)
        with self._lock:
            try:
                if path.exists():
                    _touch(path)
                    return True
                if not self._make_room(chunk):
                    return False
                self._write(path, encode(chunk))
            except OSError:
                self._count["write_errors"] += 1
                return False
            self._facts[chunk.key] = _Facts(chunk.needs, chunk.work, bool(chunk.link))
            self._bytes += chunk.size
            self._unlisted += chunk.size
            self._count["puts"] += 1
        return True

    def discard(self, key: ChunkKey) -> None:
        with self._lock:
            self._set_aside(key, "discarded")

    def drop(self, keys: Collection[ChunkKey]) -> int:
        """As the contract says. A file that can't be deleted stays."""
        with self._lock:
            keys = [key for key in keys if self._path(key).exists()]
            if not keys:
                return 0
            files = [(key, size, used) for key, size, used in self._list() if key in keys or self._needed(key) in keys]
            order, sizes, gone = self._order(files), {key: size for key, size, _ in files}, 0
            for key in keys:
                with contextlib.suppress(OSError):
                    if order.may_go(key):
                        self._unlink(key, sizes[key])
                        gone += 1
            return gone

    def pin(self, owner: str, keys: Collection[ChunkKey]) -> bool:
        try:
            self._pins.set(owner, keys)
        except OSError:
            with self._lock:
                self._count["write_errors"] += 1
            return False
        return True

    def unpin(self, owner: str) -> None:
        """As the contract says. Raises OSError where the note of it can't be deleted."""
        self._pins.drop(owner)

    def pins(self) -> dict[str, frozenset[ChunkKey]]:
        return self._pins.read()

    def claim(self, owner: str, keys: Sequence[ChunkKey]) -> bool:
        if self._closed:
            return False
        try:
            self._owners.claim(owner, keys)
        except OSError:
            with self._lock:
                self._count["write_errors"] += 1
            return False
        return True

    def owned(self, owner: str) -> set[ChunkKey]:
        return self._owners.owned(owner)

    def forget(self, owner: str, also: Collection[ChunkKey] = ()) -> set[ChunkKey]:
        """As the contract says; also after ``close``. Raises OSError where a file can't be deleted: then ask again."""
        with self._lock:
            if not self._folder.is_dir():
                return set()
            keys = self._owners.owned(owner) | set(also)
            found = with_descendants(keys, {key: self._made_from(key) for key, _, _ in self._list()})
            self._delete_aside(found)
            for key in found:
                with contextlib.suppress(FileNotFoundError):
                    self._unlink(key, self._path(key).stat().st_size)
                    self._count["forgotten"] += 1
                self._facts.pop(key, None)
            self._pins.drop(owner)
            sync_folder(self._folder)
            self._owners.drop(owner)  # last: a crash before this leaves enough to begin again
            sync_folder(self._folder)
            return found

    def verify(self) -> dict[str, int]:
        """Read every chunk whole; bad ones are set aside. Returns counts: ``chunks``, ``held_bytes``, ``bad``."""
        before, chunks, held = self._count["bad"], 0, 0
        for key, size, used in list(self._list()):
            path = self._path(key)
            if self._load(key) is not None:
                chunks, held = chunks + 1, held + size
                with contextlib.suppress(OSError):
                    os.utime(path, ns=(used, used))  # looking is not using
        return {"chunks": chunks, "held_bytes": held, "bad": self._count["bad"] - before}

    def prune(self, budget: int) -> dict[str, int]:
        """Delete bad files, and chunks until at most ``budget`` bytes are left, or only what is pinned: what would be
        evicted first. How many chunks and bytes went, and are left."""
        with self._lock:
            for path in list(self._folder.glob("*.bad")):
                path.unlink(missing_ok=True)
            files = list(self._list())
            order, sizes = self._order(files), {key: size for key, size, _ in files}
            total = left = sum(sizes.values())
            gone = 0
            while left > budget and (victim := order.next()) is not None:
                order.remove(victim)
                with contextlib.suppress(FileNotFoundError):
                    self._unlink(victim, sizes[victim])
                left -= sizes[victim]
                gone += 1
            self._bytes = left
            self._owners.prune([key for key, _, _ in self._list()])
            return {
                "chunks": len(files) - gone, "held_bytes": left, "deleted": gone, "deleted_bytes": total - left,
            }  # fmt: skip

    def _delete_aside(self, keys: Collection[ChunkKey]) -> None:
        """Delete bad files of these keys, and everything half-written: a writer that lives loses one chunk."""
        hexes = {key.hex() for key in keys}
        for path in list(self._folder.iterdir()):
            bad = path.suffix == ".bad" and (path.stem in hexes or self._is_of(path, keys))
            if bad or path.suffix == ".tmp":
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()

    @staticmethod
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

    def flush(self, timeout: float | None = None) -> bool:
        return True

    def stats(self) -> dict[str, int]:
        files, pinned = list(self._list()), frozenset().union(*self.pins().values())
        with self._lock:
            states = [size for key, size, _ in files if self._read_facts(key).state]
            return {
                **self._count,
                "chunks": len(files) - len(states),
                "states": len(states),
                "state_bytes": sum(states),
                "pinned": sum(key in pinned for key, _, _ in files),
                "held_bytes": sum(size for _, size, _ in files),
                "budget_bytes": self._budget,
            }

    def close(self) -> None:
        self._closed = True

    def _path(self, key: ChunkKey) -> Path:
        return self._folder / f"{key.hex()}.kv"

    def _list(self) -> Iterator[tuple[ChunkKey, int, int]]:
        """Key, size and time of last use of every chunk file."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            for entry in entries:
                if _NAME.fullmatch(entry.name):
                    with contextlib.suppress(OSError):  # another process may delete it at this moment
                        info = entry.stat(follow_symlinks=False)
                        yield ChunkKey(bytes.fromhex(entry.name[:-3])), info.st_size, info.st_mtime_ns

    def _header(self, key: ChunkKey) -> Header | None:
        """The header of a present chunk; a file whose header is wrong is set aside."""
        try:
            header = _read_header(self._path(key))
            if header.key != key:
                raise BadChunk("another chunk's name")
            return header
        except BadChunk:
            with self._lock:
                self._set_aside(key, "bad")
        except OSError:
            pass
        return None

    def _load(self, key: ChunkKey) -> Chunk | None:
        path = self._path(key)
        try:
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size > self._budget:
                    raise BadChunk("larger than the whole budget")
                chunk = read(file, size)
            if chunk.key != key:
                raise BadChunk("another chunk's name")
        except BadChunk:
            with self._lock:
                self._set_aside(key, "bad")
            return None
        except (OSError, MemoryError):
            return None
        with contextlib.suppress(OSError):
            _touch(path)
        return chunk

    def _write(self, path: Path, data: bytes) -> None:
        with NewFile(aside_name(self._folder)) as new:
            new.file.write(data)
            new.file.flush()  # else it would be written, and stamped, once more after this stamp
            _touch(new.file.fileno())
            new.commit(path)

    def _make_room(self, chunk: Chunk) -> bool:
        """Evict until ``chunk`` fits; a twentieth more than needed, so that listing is rare. False if it can't fit."""
        slack, size = self._budget // 20, chunk.size
        if self._bytes + size <= self._budget and self._unlisted <= slack:
            return True
        files = list(self._list())
        self._bytes, self._unlisted = sum(length for _, length, _ in files), 0
        if self._bytes + size <= self._budget:
            return True
        if chunk.needs is not None and not self._path(ChunkKey(chunk.needs)).exists():
            return False
        self._sweep()
        order, sizes = self._order(files), {key: length for key, length, _ in files}
        order.add(chunk.key, chunk.needs, size, chunk.work, age=0)  # so that what it needs stays
        while self._bytes + size > self._budget - slack and (victim := order.next(chunk.key)) is not None:
            order.remove(victim)
            with contextlib.suppress(FileNotFoundError):
                self._unlink(victim, sizes[victim])
            self._count["evictions"] += 1
        return self._bytes + size <= self._budget

    def _order(self, files: Iterable[tuple[ChunkKey, int, int]]) -> EvictionOrder:
        """The order of eviction among these. A file that can't say what it is goes when its turn comes."""
        order = EvictionOrder(self._budget)
        order.pin(frozenset().union(*self.pins().values()))
        by_use = sorted(files, key=lambda file: file[2])
        for (key, size, _), age in zip(by_use, ages([(used, size) for _, size, used in by_use]), strict=True):
            facts = self._read_facts(key)
            order.add(key, facts.needs, size, facts.work, age)
        return order

    def _unlink(self, key: ChunkKey, size: int) -> None:
        self._path(key).unlink()
        self._facts.pop(key, None)
        self._bytes = max(0, self._bytes - size)

    def _needed(self, key: ChunkKey) -> bytes | None:
        return self._read_facts(key).needs

    def _made_from(self, key: ChunkKey) -> tuple[bytes, ...]:
        try:
            return _read_header(self._path(key)).made_from
        except (BadChunk, OSError):
            return ()

    def _read_facts(self, key: ChunkKey) -> _Facts:
        """What eviction asks of a file; remembered."""
        if key not in self._facts:
            try:
                header = _read_header(self._path(key))
                self._facts[key] = _Facts(header.needs, header.work, bool(header.link))
            except (BadChunk, OSError):
                return _Facts(None, 0, False)
        return self._facts[key]

    def _set_aside(self, key: ChunkKey, counter: str) -> None:
        """Rename a chunk file to ``.bad``: never read again, but there to be looked at."""
        path = self._path(key)
        with contextlib.suppress(OSError):
            size = path.stat().st_size
            os.replace(path, path.with_suffix(".bad"))
            self._bytes = max(0, self._bytes - size)
            self._count[counter] += 1
            self._sweep()

    def _sweep(self) -> None:
        """Delete what dead writers left, and all but the last few bad files."""
        now = time.time()
        bad: list[tuple[float, str]] = []
        with contextlib.suppress(OSError), os.scandir(self._folder) as entries:
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


@dataclass(frozen=True)
class _Facts:
    """What eviction asks of a file."""

    needs: bytes | None
    work: int
    state: bool


def _read_header(path: Path) -> Header:
    """Raises BadChunk or OSError."""
    with open(path, "rb", buffering=0) as file:
        data = file.read(HEADER_BYTES + 4 * _GUESS_IDS)
        ids_end = HEADER_BYTES + 4 * token_count(data)
        if len(data) < ids_end:
            data += file.read(ids_end - len(data))
        return decode_header(data, os.fstat(file.fileno()).st_size)


def _touch(file: Path | int) -> None:
    """Mark as used now. The kernel's own stamps are too coarse to tell which of two came first."""
    now = time.time_ns()
    os.utime(file, ns=(now, now))
