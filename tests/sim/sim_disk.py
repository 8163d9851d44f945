"""Disks that lose power. A shim in SQLite itself sees every write and every fsync, so that a crash can come between any
two of them, and what was not fsynced can be lost.

It stands as SQLite's default VFS while a ``Disks`` is entered, in front of the system's own. A folder is one machine's
disk. A name for who is running (``running``) says which process opened a file. Only what goes through SQLite is
watched; the creation and the removal of a file are taken to be durable at once.

Layout of the two structs: https://www.sqlite.org/c3ref/vfs.html and https://www.sqlite.org/c3ref/io_methods.html.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ctypes import CFUNCTYPE, c_char_p, c_int, c_int64, c_void_p
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

OK, FULL, IO_ERROR = 0, 13, 10
_SECTOR = 512
# Words (8 bytes) of the structs: where a function's pointer stands.
_OPEN, _DELETE, _VFS_WORDS = 5, 6, 21
_CLOSE, _WRITE, _TRUNCATE, _SYNC, _METHODS_WORDS = 1, 3, 4, 5, 19

_Open = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
_Delete = CFUNCTYPE(c_int, c_void_p, c_char_p, c_int)
_Close = CFUNCTYPE(c_int, c_void_p)
_Write = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_Truncate = CFUNCTYPE(c_int, c_void_p, c_int64)
_Sync = CFUNCTYPE(c_int, c_void_p, c_int)


def library() -> ctypes.CDLL | None:
    """The SQLite that Python's sqlite3 uses; None where it has one built in, which can't be reached."""
    with suppress(OSError, AttributeError):
        found = ctypes.CDLL(_linked())
        found.sqlite3_vfs_find.restype = c_void_p
        found.sqlite3_vfs_find.argtypes = [c_char_p]
        found.sqlite3_vfs_register.argtypes = [c_void_p, c_int]
        return found
    return None


def _linked() -> str:
    maps = Path("/proc/self/maps")
    if not getattr(_sqlite3, "__file__", None) or not maps.exists():
        raise OSError
    paths = {line.split()[-1] for line in maps.read_text().splitlines() if "libsqlite3" in line}
    if len(paths) != 1:
        raise OSError
    return paths.pop()


class _File:
    """All that the disk has for sure, and what the system still holds: (offset, bytes), or (size, None) for a cut."""

    def __init__(self, durable: bytes) -> None:
        self.durable = bytearray(durable)
        self.pending: list[tuple[int, bytes | None]] = []

    def settle(self, image: bytearray, write: tuple[int, bytes | None]) -> None:
        at, data = write
        if data is None:
            del image[at:]
            return
        image.extend(bytes(max(0, at - len(image))))
        image[at : at + len(data)] = data

    def sync(self) -> None:
        for write in self.pending:
            self.settle(self.durable, write)
        self.pending.clear()

    def after_power_loss(self, rng: random.Random) -> bytes:
        """Some of what was not fsynced may have reached the disk: all up to a moment, or sectors here and there."""
        image, how = bytearray(self.durable), rng.randrange(3)
        writes = [w for at, data in self.pending for w in _sectors(at, data)]
        if how == 1:
            writes = writes[: rng.randint(0, len(writes))]
        elif how == 2:
            writes = [w for w in writes if rng.random() < 0.5]
        for write in writes if how else ():
            self.settle(image, write)
        return bytes(image)


class _Methods(NamedTuple):
    """A table of a file's functions with ours in it, and the ones that stood there."""

    ours: ctypes.Array[c_void_p]
    close: Callable[[int], int]
    write: Callable[[int, int, int, int], int]
    truncate: Callable[[int, int], int]


class _Handle(NamedTuple):
    path: str
    process: str
    real: _Methods


def _sectors(at: int, data: bytes | None) -> Iterator[tuple[int, bytes | None]]:
    if data is None:
        yield at, None
        return
    for start in range(0, len(data), _SECTOR):
        yield at + start, data[start : start + _SECTOR]


class Disks:
    """All disks of a simulation. ``with`` it, everything that this thread does with SQLite goes through it."""

    def __init__(self, folder: Path) -> None:
        found = library()
        if found is None:
            raise OSError("Python's sqlite3 can't be watched here")
        self._library, self._folder = found, str(folder)
        self._files: dict[str, _File] = {}
        # By the address of SQLite's file object.
        self._handles: dict[int, _Handle] = {}
        self._real: dict[int, _Methods] = {}
        self._running = ""
        self._dead: set[str] = set()
        self._full: set[str] = set()
        # Writes and syncs that a machine still does before its power goes.
        self._left: dict[str, int] = {}
        self._system = found.sqlite3_vfs_find(None)
        words = (c_void_p * _VFS_WORDS).from_address(self._system)
        self._real_open, self._real_delete = _Open(words[_OPEN]), _Delete(words[_DELETE])
        self._vfs = (c_void_p * _VFS_WORDS)(*words)
        self._callbacks = [_Open(self._on_open), _Delete(self._on_delete)]
        self._file_callbacks = [
            _Close(self._on_close), _Write(self._on_write), _Truncate(self._on_truncate), _Sync(self._on_sync)
        ]  # fmt: skip
        for place, callback in zip((_OPEN, _DELETE), self._callbacks, strict=True):
            self._vfs[place] = ctypes.cast(callback, c_void_p).value

    def __enter__(self) -> Disks:
        self._library.sqlite3_vfs_register(ctypes.addressof(self._vfs), 1)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._library.sqlite3_vfs_register(self._system, 1)
        self._library.sqlite3_vfs_unregister(c_void_p(ctypes.addressof(self._vfs)))

    # ---------------------------------------------------------------- what happens to machines

    @contextmanager
    def running(self, process: str) -> Iterator[None]:
        """Files opened inside are opened by this process."""
        before, self._running = self._running, process
        try:
            yield
        finally:
            self._running = before

    def kill(self, process: str) -> None:
        """From now on nothing that this process does reaches a file."""
        self._dead.add(process)

    def is_dead(self, process: str) -> bool:
        return process in self._dead

    def lose_power_after(self, machine: Path, writes: int) -> None:
        """The machine's power goes when it has done so many writes and fsyncs more."""
        self._left[str(machine)] = writes

    def power_is_gone(self, machine: Path) -> bool:
        return self._left.get(str(machine)) == 0

    def fill(self, machine: Path, full: bool) -> None:
        (self._full.add if full else self._full.discard)(str(machine))

    def restore_power(self, machine: Path, rng: random.Random) -> None:
        """The machine starts again: its files are what their disk kept. Close all that had them open before."""
        self._left.pop(str(machine), None)
        for path, file in sorted(self._files.items()):
            if str(Path(path).parent) == str(machine):
                image = file.after_power_loss(rng)
                Path(path).write_bytes(image)
                self._files[path] = _File(image)
        for shared_memory in machine.glob("*-shm"):
            shared_memory.unlink()

    def forget(self, machine: Path) -> None:
        """Its files were replaced by others, which are on disk."""
        for path in [p for p in self._files if str(Path(p).parent) == str(machine)]:
            del self._files[path]

    # ---------------------------------------------------------------- what SQLite does

    def _on_open(self, vfs: int, name: int | None, file: int, flags: int, out: int | None) -> int:
        code = self._real_open(vfs, name, file, flags, out)
        if code != OK or not name:
            return code
        path = ctypes.string_at(name).decode()
        if not path.startswith(self._folder):
            return code
        if path not in self._files:
            self._files[path] = _File(Path(path).read_bytes())
        pointer = c_void_p.from_address(file)
        assert pointer.value is not None
        real = pointer.value
        if real not in self._real:
            words = (c_void_p * _METHODS_WORDS).from_address(real)
            ours = (c_void_p * _METHODS_WORDS)(*words)
            for place, callback in zip((_CLOSE, _WRITE, _TRUNCATE, _SYNC), self._file_callbacks, strict=True):
                ours[place] = ctypes.cast(callback, c_void_p).value
            self._real[real] = _Methods(ours, _Close(words[_CLOSE]), _Write(words[_WRITE]), _Truncate(words[_TRUNCATE]))
        methods = self._real[real]
        pointer.value = ctypes.addressof(methods.ours)
        self._handles[file] = _Handle(path, self._running, methods)
        return code

    def _on_close(self, file: int) -> int:
        return int(self._handles.pop(file).real.close(file))

    def _on_delete(self, vfs: int, name: bytes, sync: int) -> int:
        path = name.decode()
        if path.startswith(self._folder):
            if self._running in self._dead or (
                self._machine(path) in self._left and not self._left[self._machine(path)]
            ):
                return IO_ERROR
            self._files.pop(path, None)
        return self._real_delete(vfs, name, sync)

    def _on_write(self, file: int, data: int, size: int, offset: int) -> int:
        handle, written = self._handles[file], ctypes.string_at(data, size)
        code = self._allowed(file, (offset, written))
        if code == OK:
            code = handle.real.write(file, data, size, offset)
            self._files[handle.path].pending.append((offset, written))
        return code

    def _on_truncate(self, file: int, size: int) -> int:
        code = self._allowed(file, (size, None))
        if code == OK:
            code = self._handles[file].real.truncate(file, size)
            self._files[self._handles[file].path].pending.append((size, None))
        return code

    def _on_sync(self, file: int, flags: int) -> int:
        code = self._allowed(file, None)
        if code == OK:
            self._files[self._handles[file].path].sync()
        return code

    def _allowed(self, file: int, write: tuple[int, bytes | None] | None) -> int:
        """Whether a write (None: an fsync) takes place. The one that the power fails at may be done in part."""
        path, process, _ = self._handles[file]
        if process in self._dead:
            return IO_ERROR
        machine = self._machine(path)
        left = self._left.get(machine)
        if left is not None:
            self._left[machine] = max(0, left - 1)
            if left <= 1:
                if left == 1 and write is not None:
                    self._files[path].pending.append(write)
                return IO_ERROR
        if machine in self._full and write is not None and write[1] is not None:
            return FULL
        return OK

    def _machine(self, path: str) -> str:
        return path.rpartition("/")[0]


_PAGE, _BTREE_PAGES = 4096, {2: 12, 5: 12, 10: 8, 13: 8}


def kept(path: Path) -> bytes:
    """A database on disk, or its write-ahead log, but for the free space in the middle of a page: SQLite lets
    what was moved to another page stand there until it needs the space, ``secure_delete`` or not.

    Source: https://www.sqlite.org/fileformat2.html, sections 1.6 and 4.
    """
    data = bytearray(path.read_bytes())
    start, frame = (32, 24) if path.name.endswith("-wal") else (0, 0)
    for page in range(start + frame, len(data), frame + _PAGE):
        head = page + (100 if data[page : page + 6] == b"SQLite" else 0)
        if size := _BTREE_PAGES.get(data[head]):
            cells, content = (int.from_bytes(data[head + at : head + at + 2], "big") for at in (3, 5))
            free = range(head + size + 2 * cells, page + (content or 1 << 16))
            if free.stop <= page + _PAGE:
                data[free.start : free.stop] = bytes(len(free))
    return bytes(data)
