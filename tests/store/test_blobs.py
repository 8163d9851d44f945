"""The folder of attachments: whole files or none, checked when read, collected when nobody names them."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcrdt.exceptions import BlobMissing, InvalidContent
from llmcrdt.store.blobs import PIECE, BlobStore, Collected

OLD = 1_000_000_000  # seconds since 1970: long ago


def contents(folder: Path) -> list[str]:
    """The names of the files that stand under a hash."""
    return sorted(path.name for path in folder.glob("??/??/*"))


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.parent.name in ("new", "damaged")]


def path_of(folder: Path, hash_: str) -> Path:
    return folder / hash_[:2] / hash_[2:4] / hash_


class Pieces(io.RawIOBase):
    """A file that gives what it likes at a time, as pipes do."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._data, self._sizes = data, sizes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = self._sizes.pop() if self._sizes else len(buffer)
        piece, self._data = self._data[: min(size, len(buffer))], self._data[min(size, len(buffer)) :]
        buffer[: len(piece)] = piece
        return len(piece)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.binary(max_size=64)
        | st.tuples(st.binary(min_size=1, max_size=3), st.sampled_from([PIECE - 1, PIECE, PIECE + 1])).map(
            lambda pair: (pair[0] * pair[1])[: pair[1]]
        ),
        min_size=1,
        max_size=4,
    ),
    st.lists(st.integers(1, 100), max_size=5),
)
def test_what_is_put_is_named_by_its_hash_kept_once_and_read_back(
    tmp_path_factory: pytest.TempPathFactory, all_data: list[bytes], sizes: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("blobs") / "b"
    blobs = BlobStore(folder)
    for data in all_data:
        name = hashlib.sha256(data).hexdigest()
        assert blobs.put(data) == (name, len(data))
        assert blobs.put(Pieces(data, list(sizes))) == (name, len(data))  # type: ignore[arg-type]
        with blobs.open(name) as file:
            assert file.read() == data
        found = BlobStore(folder).get(name)
        assert found is not None and found.read_bytes() == data
    assert contents(folder) == sorted({hashlib.sha256(data).hexdigest() for data in all_data})
    assert leftovers(folder) == []


def test_memory_stays_flat_whatever_the_size(tmp_path: Path) -> None:
    class Zeros(io.RawIOBase):
        left = 200 * PIECE

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            size = min(size, self.left)
            self.left -= size
            return bytes(size)

    blobs = BlobStore(tmp_path)
    tracemalloc.start()
    try:
        name, size = blobs.put(Zeros())  # type: ignore[arg-type]
        blobs.open(name).close()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == 200 * PIECE
    assert peak < 8 * PIECE


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_the_folder_and_its_files_are_their_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        BlobStore(tmp_path / "b").put(b"x")
    finally:
        os.umask(before)
    for path in [tmp_path / "b", *(tmp_path / "b").rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)


def test_a_stream_that_fails_and_a_text_file_leave_nothing(tmp_path: Path) -> None:
    class Breaks(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise OSError("the cable was pulled")
            return super().read(4)

    blobs = BlobStore(tmp_path)
    with pytest.raises(OSError, match="cable"):
        blobs.put(Breaks(b"x" * 100))
    with pytest.raises(InvalidContent, match='mode "rb"'):
        blobs.put(io.StringIO("text"))  # type: ignore[arg-type]
    assert contents(tmp_path) == [] and leftovers(tmp_path) == []


def test_what_is_missing_is_a_state(tmp_path: Path) -> None:
    name = hashlib.sha256(b"x").hexdigest()
    blobs = BlobStore(tmp_path / "b", lambda: {name})
    assert not blobs.has(name) and blobs.get(name) is None and blobs.missing() == {name}
    with pytest.raises(BlobMissing, match=r"repo\.blobs\.put"):
        blobs.open(name)
    assert not (tmp_path / "b").exists(), "asking makes nothing"
    blobs.put(b"x")
    assert blobs.has(name) and blobs.missing() == set()


@settings(deadline=None)
@given(at=st.integers(0, 99), how=st.sampled_from(["flip", "cut", "longer"]), seen=st.booleans())
def test_a_damaged_content_is_set_aside_and_missing_until_it_is_put_again(
    tmp_path_factory: pytest.TempPathFactory, at: int, how: str, seen: bool
) -> None:
    folder = tmp_path_factory.mktemp("blobs")
    data = bytes(range(100))
    name, _ = BlobStore(folder).put(data)
    blobs = BlobStore(folder, lambda: {name})
    if seen:
        blobs.open(name).close()
    broken = {"flip": data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], "cut": data[:at], "longer": data + b"x"}[how]
    path_of(folder, name).write_bytes(broken)
    os.utime(path_of(folder, name), (OLD + at, OLD + at))
    with pytest.raises(BlobMissing):
        blobs.open(name)
    assert blobs.get(name) is None and blobs.missing() == {name}
    assert [path.read_bytes() for path in leftovers(folder)] == [broken]
    blobs.put(data)
    with blobs.open(name) as file:
        assert file.read() == data


@settings(deadline=None)
@given(
    st.text(max_size=70) | st.sampled_from(["../" * 22 + "etc/passwd", "a" * 63 + "/", "A" * 64, "٣" * 64, "a" * 65])
)
def test_no_text_but_a_hash_becomes_a_path(text: str) -> None:
    blobs = BlobStore("nowhere")
    for use in (blobs.has, blobs.get, blobs.open):
        with pytest.raises(InvalidContent, match="64 lower-case hex"):
            use(text)


def test_collect_removes_what_nobody_names_and_what_is_old_only(tmp_path: Path) -> None:
    named, _ = BlobStore(tmp_path).put(b"named")
    unnamed, _ = BlobStore(tmp_path).put(b"unnamed")
    young, _ = BlobStore(tmp_path).put(b"young")
    blobs = BlobStore(tmp_path, lambda: {named})
    for name in (named, unnamed):
        os.utime(path_of(tmp_path, name), (OLD, OLD))
    (tmp_path / "new" / "left.by.a.dead.writer").write_bytes(b"half")
    os.utime(tmp_path / "new" / "left.by.a.dead.writer", (OLD, OLD))
    (tmp_path / "new" / "being.written").write_bytes(b"half")
    assert blobs.collect() == Collected(1, len(b"unnamed"))
    assert contents(tmp_path) == sorted([named, young])
    assert [path.name for path in leftovers(tmp_path)] == ["being.written"]
    assert blobs.collect(keep=0) == Collected(1, len(b"young"))
    assert contents(tmp_path) == [named] and leftovers(tmp_path) == []


def test_what_is_put_again_while_collect_looks_stays(tmp_path: Path) -> None:
    def named() -> set[str]:  # another process appends the same attachment at this moment
        BlobStore(tmp_path).put(b"x")
        return set()

    name, _ = BlobStore(tmp_path).put(b"x")
    os.utime(path_of(tmp_path, name), (OLD, OLD))
    assert BlobStore(tmp_path, named).collect(keep=600) == Collected(0, 0)
    assert contents(tmp_path) == [name] and leftovers(tmp_path) == []


def test_many_threads_put_the_same_and_others(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for n in range(20):
                data = bytes([n % 5]) * (PIECE + seed % 2)
                name, _ = blobs.put(data)
                with blobs.open(name) as file:
                    assert file.read() == data
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(contents(tmp_path)) == 10 and leftovers(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX")
def test_a_process_killed_while_it_stores_leaves_no_half_content(tmp_path: Path) -> None:
    script = f"""
        import itertools, os
        from llmcrdt.store.blobs import PIECE, BlobStore
        blobs = BlobStore({str(tmp_path)!r})
        class Endless:
            left = 100
            def read(self, size):
                self.left -= 1
                if self.left % 10 == 0:
                    print(self.left, flush=True)
                return os.urandom(size) if self.left else b""
        while True:
            source = Endless()
            name, size = blobs.put(source)
            print("done", name, flush=True)
    """
    for lines in (1, 5, 9, 11):
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True, encoding="ascii"
        )
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(lines)]
        child.send_signal(signal.SIGKILL)
        said += list(child.stdout)
        child.wait(30)
        child.stdout.close()
        blobs = BlobStore(tmp_path)
        done = {line.split()[1] for line in said if line.startswith("done") and line.endswith("\n")}
        assert done <= set(contents(tmp_path))
        for name in contents(tmp_path):
            assert blobs.get(name) is not None, "a content under a hash is whole"
    assert leftovers(tmp_path), "the test did kill a writer in the middle"
    blobs.collect(keep=0)
    assert contents(tmp_path) == [] and leftovers(tmp_path) == []


def test_what_comes_in_pieces_is_kept_if_it_is_what_its_hash_says(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    content = os.urandom(3 * PIECE + 1)
    hash_ = hashlib.sha256(content).hexdigest()
    pieces = [content[at : at + PIECE] for at in range(0, len(content), PIECE)]
    for wrong in (pieces[:-1], [*pieces, b"!"], [], [*reversed(pieces)]):
        assert not store.take(hash_, wrong) and not store.has(hash_)
    assert store.take(hash_, pieces) and store.take(hash_, iter(pieces))
    path = store.get(hash_)
    assert path is not None and path.read_bytes() == content and leftovers(store.folder) == []
    with pytest.raises(InvalidContent):
        store.take("../" * 20, pieces)
    with pytest.raises(InvalidContent):
        store.coming("../" * 20, "0")


def test_what_came_of_one_goes_with_it(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    coming = [store.coming(hash_ * 64, "0") for hash_ in "ab"]
    for path in coming:
        path.write_bytes(b"the beginning")
    store.release({"a" * 64})
    assert [path.exists() for path in coming] == [False, True]
    os.utime(coming[1], (OLD, OLD))
    store.collect()
    assert not coming[1].exists()
