"""A file that is said to be on disk is there after a power failure: its content was brought to disk, then its name."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from llmcrdt.files import NewFile, append_file, replace_file, sync_folder
from llmcrdt.kvcache.disk import DiskCache
from llmcrdt.kvcache.owners import FileOwners
from llmcrdt.kvcache.pins import FilePins
from llmcrdt.store.blobs import BlobStore
from llmcrdt.store.relay_file import KnownRelay, RelayFile
from llmcrdt.testing.chunk_cache_suite import chain
from sync_server.auth.tokens import Tokens

pytestmark = pytest.mark.skipif(os.name != "posix", reason="elsewhere a folder can't be opened")


class Disk:
    """All that fsync has brought to disk: sizes of files by inode, and names in folders."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._sizes: dict[int, int] = {}
        self._names: dict[int, dict[str, int]] = {}
        real = os.fsync

        def fsync(handle: int) -> None:
            info = os.fstat(handle)
            if stat.S_ISDIR(info.st_mode):
                self._names[info.st_ino] = {entry.name: entry.inode() for entry in os.scandir(handle)}
            else:
                self._sizes[info.st_ino] = info.st_size
            real(handle)

        monkeypatch.setattr(os, "fsync", fsync)

    def holds(self, path: Path) -> bool:
        """Whether ``path`` is there, with all it holds, if the power fails now."""
        inode = self._names.get(path.parent.stat().st_ino, {}).get(path.name)
        return inode == path.stat().st_ino and self._sizes.get(inode) == path.stat().st_size


def _pin(folder: Path) -> None:
    assert FilePins(folder).set("me", [chunk.key for chunk in chain(3)])


def _claim(folder: Path) -> None:
    assert FileOwners(folder).claim("me", [chunk.key for chunk in chain(3)])


def _put(folder: Path) -> None:
    assert DiskCache(folder).put(chain(1)[0])


def _attach(folder: Path) -> None:
    BlobStore(folder).put(b"content")


def _remember(folder: Path) -> None:
    RelayFile(str(folder / "relay")).write(KnownRelay("ws://127.0.0.1:1"))


def _let_in(folder: Path) -> None:
    Tokens(folder).make("ann", "read", ["*"])


WRITERS = [_pin, _claim, _put, _attach, _remember, _let_in]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_what_is_written_down_is_on_disk_and_its_owners_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None]
) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    disk = Disk(monkeypatch)
    write(folder)
    written = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert written
    for path in written:
        assert disk.holds(path), path.name
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for path in written:
        path.with_suffix(".other").write_bytes(b"")
        assert not disk.holds(path.with_suffix(".other")), "the disk would be found to hold anything"


@pytest.mark.parametrize("write", [_pin, _put, _attach, _remember], ids=lambda write: write.__name__)
def test_a_disk_that_fails_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None]
) -> None:
    def fail(handle: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises((OSError, AssertionError)):  # asserted of a cache, which says False
        write(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    replace_file(path, b"old")
    with pytest.raises(RuntimeError), NewFile(tmp_path / "aside") as new:
        new.file.write(b"half of the n")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["file"] and path.read_bytes() == b"old"
    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        replace_file(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"] and path.read_bytes() == b"old"
    replace_file(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"] and path.read_bytes() == b"new"


def test_a_temporary_name_that_is_taken_is_an_error_and_stays(tmp_path: Path) -> None:
    (tmp_path / "aside").write_bytes(b"another one's")
    with pytest.raises(FileExistsError):
        replace_file(tmp_path / "file", b"new", tmp_path / "aside")
    assert (tmp_path / "aside").read_bytes() == b"another one's"


def test_appending_keeps_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append_file(path, b"one\n", must_be_new=True)
    append_file(path, b"two\n")
    assert path.read_bytes() == b"one\ntwo\n"
    with pytest.raises(FileExistsError):
        append_file(path, b"three\n", must_be_new=True)
    assert path.read_bytes() == b"one\ntwo\n"


def test_a_file_system_that_syncs_no_folders_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for code, raises in ((errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)):

        def fsync(handle: int, code: int = code) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "fsync", fsync)
        if raises:
            with pytest.raises(OSError):
                sync_folder(tmp_path)
        else:
            sync_folder(tmp_path)
