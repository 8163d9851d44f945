"""Attachments on disk: one file per content, named by its SHA-256, in a folder beside the database.

A file appears under its hash whole or not at all: it is written aside, brought to disk, and renamed. A content that is
asked for is checked; a file that is not what its name says is set aside and counts as missing. A missing one is a
state: the document names it, and ``put`` takes it in whenever it comes.

    chats.db.blobs/ab/cd/abcd...   a content
    chats.db.blobs/new/...         being written; left by whoever died meanwhile
    chats.db.blobs/coming/...      what came of one from a relay so far: its hash, then the form in which it comes
    chats.db.blobs/damaged/...     set aside
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..exceptions import BlobMissing, InvalidContent
from ..files import NewFile, make_folder

PIECE = 1 << 18  # bytes read at a time: memory stays flat whatever the size
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Collected(NamedTuple):
    """The result of ``collect``: contents removed, and bytes in all."""

    blobs: int
    bytes: int


class BlobStore:
    """Any method from any thread and any process. ``named``: the hashes that documents name; asked only by ``missing``,
    ``collect`` and ``release``. The folder is made, with mode 0700, when the first content comes."""

    def __init__(self, folder: str | os.PathLike[str], named: Callable[[], set[str]] = set) -> None:
        self.folder = Path(folder)
        self._named = named
        self._lock = threading.Lock()
        self._checked: dict[str, tuple[int, int, int]] = {}
        self._made: set[Path] = set()
        """Folders whose names are on disk: at most 65,795 of them."""

    def put(self, source: BinaryIO | bytes) -> tuple[str, int]:
        """Keep a content; its hash and size. A file is read to its end, a piece at a time. It is on disk when this
        returns. Raises InvalidContent for a text file, OSError where it can't be read or written."""
        with NewFile(self._aside("new")) as new:
            hash_, size = _copy(source, new.file)
            path = self._path(hash_)
            self._make(path.parent)
            new.commit(path)  # one that is there already is the same, or damaged
        return hash_, size

    def coming(self, hash: str, form: str) -> Path:
        """The file for what comes of a content from a relay, in this form; whoever gets it appends to it."""
        self._make(self.folder / "coming")
        return self.folder / "coming" / f"{self._path(hash).name}.{form}"

    def take(self, hash: str, pieces: Iterable[bytes]) -> bool:
        """Keep a content that came, a piece at a time, if it is what its hash says; else nothing is kept. On disk when
        this returns. Raises OSError, and what ``pieces`` raises."""
        digest, path = hashlib.sha256(), self._path(hash)
        with NewFile(self._aside("new")) as new:
            for piece in pieces:
                digest.update(piece)
                new.file.write(piece)
            if digest.hexdigest() != hash:
                return False
            self._make(path.parent)
            new.commit(path)
        return True

    def named(self, hashes: set[str]) -> None:
        """Nothing is to be done here: a content is kept until no document names it."""

    def has(self, hash: str) -> bool:
        """Whether a content is here; not checked."""
        return self._path(hash).is_file()

    def get(self, hash: str) -> Path | None:
        """The file of a content, checked; None where it is missing. Read it, never write it."""
        file = self._open(hash)
        if file is None:
            return None
        file.close()
        return self._path(hash)

    def open(self, hash: str) -> BinaryIO:
        """A content, checked. Raises BlobMissing."""
        file = self._open(hash)
        if file is None:
            raise BlobMissing(
                f"The content {hash} is not on this device.",
                hint="Get it from a device that has it (blob.open there), and give it to repo.blobs.put here.",
            )
        return file

    def missing(self) -> set[str]:
        """The hashes that documents name and whose content is not here."""
        return {hash_ for hash_ in self._named() if not self.has(hash_)}

    def collect(self, keep: float = 3600.0) -> Collected:
        """Remove contents that no document names, and what writers who died left. Those younger than ``keep`` seconds
        stays: its entry may be about to be written. Raises NewerDocument where a document can't be read."""
        oldest = time.time() - keep
        old = [path for path in self._files() if _age(path, oldest)]
        named = self._named() if old else set()
        done = [self._remove(path, oldest) for path in old if path.name not in named]
        for path in (*self._in("new"), *self._in("coming"), *self._in("damaged")):
            if _age(path, oldest):
                path.unlink(missing_ok=True)
        sizes = [size for size in done if size is not None]
        return Collected(len(sizes), sum(sizes))

    def release(self, hashes: set[str]) -> None:
        """Entries that named these were erased: remove those that no document names any more."""
        beside = (*self._in("coming"), *self._in("damaged"))
        damaged = [path for path in beside if path.name.partition(".")[0] in hashes]
        if damaged or any(self.has(hash_) for hash_ in hashes):
            doomed = hashes - self._named()
            for path in (*map(self._path, doomed), *damaged):
                path.unlink(missing_ok=True)
            for hash_ in doomed:
                self._forget(hash_)

    # inside

    def _open(self, hash: str) -> BinaryIO | None:
        path = self._path(hash)
        try:
            file = open(path, "rb")  # noqa: SIM115 (handed to the caller)
        except (FileNotFoundError, IsADirectoryError):
            return None
        try:
            if self._is_sound(hash, file):
                return file
        except BaseException:
            file.close()
            raise
        file.close()
        with contextlib.suppress(OSError):  # another process may be setting it aside as well
            os.replace(path, self._aside("damaged", hash))
        return None

    def _is_sound(self, hash: str, file: BinaryIO) -> bool:
        """Whether the file holds what its name says. One that was checked, and not touched since, is not read again."""
        info = os.fstat(file.fileno())
        state = (info.st_ino, info.st_size, info.st_mtime_ns)
        with self._lock:
            if self._checked.get(hash) == state:
                return True
        sound = hashlib.file_digest(file, "sha256").hexdigest() == hash  # type: ignore[arg-type]
        file.seek(0)
        with self._lock:
            if sound:
                self._checked[hash] = state
            else:
                self._checked.pop(hash, None)
        return sound

    def _remove(self, path: Path, oldest: float) -> int | None:
        """Remove a content unless somebody put it again meanwhile; its size."""
        aside = self._aside("new")
        try:
            os.replace(path, aside)
            if not _age(aside, oldest):
                os.replace(aside, path)
                return None
            size = aside.stat().st_size
            aside.unlink()
        except FileNotFoundError:  # another process was faster
            return None
        self._forget(path.name)
        return size

    def _forget(self, hash: str) -> None:
        with self._lock:
            self._checked.pop(hash, None)

    def _path(self, hash: str) -> Path:
        """The only place where a hash becomes a path."""
        if not isinstance(hash, str) or not _HASH.fullmatch(hash):
            raise InvalidContent("A blob's hash is 64 lower-case hex digits.", hint="Take it from a blob part.")
        return self.folder / hash[:2] / hash[2:4] / hash

    def _aside(self, where: str, name: str = "content") -> Path:
        self._make(self.folder / where)
        return self.folder / where / f"{name}.{secrets.token_hex(12)}"

    def _make(self, folder: Path) -> None:
        """Make a folder, with those above it up to ours, and bring their names to disk: also that of one which another
        process made just now, or was killed at."""
        if folder in self._made and folder.is_dir():
            return
        above = [each for each in folder.parents if each.is_relative_to(self.folder)]
        for each in (*reversed(above), folder):
            make_folder(each, 0o700)
        self._made.add(folder)

    def _files(self) -> Iterator[Path]:
        for path in self.folder.glob("??/??/*"):
            if _HASH.fullmatch(path.name) and path == self._path(path.name):
                yield path

    def _in(self, where: str) -> Iterator[Path]:
        yield from (self.folder / where).glob("*")


def _copy(source: BinaryIO | bytes, out: BinaryIO) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    pieces = (source,) if isinstance(source, bytes) else iter(lambda: source.read(PIECE), b"")
    for piece in pieces:
        if not isinstance(piece, (bytes, bytearray, memoryview)):
            raise InvalidContent("An attachment is bytes; this is text.", hint='Open the file with mode "rb".')
        digest.update(piece)
        out.write(piece)
        size += len(piece)
    return digest.hexdigest(), size


def _age(path: Path, oldest: float) -> bool:
    """Whether a file was last written before ``oldest``, seconds since 1970."""
    try:
        return path.stat().st_mtime <= oldest
    except FileNotFoundError:
        return False
