"""A backup is one moment of a repo that is in use; it is whole, or not there."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import llmcrdt
from llmcrdt.exceptions import NotADatabase, StoreError
from llmcrdt.store.backup import copy_repo
from llmcrdt.store.relay_file import KnownRelay, RelayFile


def test_a_copy_holds_entries_attachments_keys_and_the_relay(tmp_path: Path) -> None:
    with llmcrdt.open(tmp_path / "a.db") as repo:
        conv = repo.create("Trip")
        conv.append("user", [llmcrdt.Text("See this."), llmcrdt.Blob(b"a picture")])
        repo.keyring.rotate(conv.id)
        RelayFile(f"{tmp_path}/a.db.relay").write(KnownRelay("ws://127.0.0.1:1", "secret"))
        repo.backup(tmp_path / "copy.db")
        conv.append("user", "Later.")
        keys = repo.keyring.everything()
    for name in ("copy.db", "copy.db.keys", "copy.db.relay"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    with llmcrdt.open(tmp_path / "copy.db") as copy:
        (entry,) = copy.get(conv.id).transcript()
        (blob,) = (part for part in entry.parts if isinstance(part, llmcrdt.Blob))
        with copy.blobs.open(blob.hash) as content:
            assert content.read() == b"a picture"
        assert copy.keyring.everything() == keys
        assert copy.relay == KnownRelay("ws://127.0.0.1:1", "secret")
        assert copy.library == repo.library


def test_secrets_can_be_left_out(tmp_path: Path) -> None:
    with llmcrdt.open(tmp_path / "a.db") as repo:
        repo.keyring.rotate(repo.create("Trip").id)
        repo.backup(tmp_path / "copy.db", secrets=False)
    assert not (tmp_path / "copy.db.keys").exists()


def test_a_copy_made_while_others_write_is_one_moment(tmp_path: Path) -> None:
    stop = threading.Event()
    with llmcrdt.open(tmp_path / "a.db") as repo:
        conv = repo.create("Trip")

        def write() -> None:
            n = 0
            while not stop.is_set():
                conv.append("user", str(n))
                n += 1

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for n in range(5):
                repo.backup(tmp_path / f"copy{n}.db")
        finally:
            stop.set()
            writer.join()
    before = 0
    for n in range(5):
        with llmcrdt.open(tmp_path / f"copy{n}.db") as copy:
            words = [entry.text for entry in copy.get(conv.id).transcript()]
            assert words == [str(i) for i in range(len(words))] and len(words) >= before
            assert not copy.get(conv.id).verify()
            before = len(words)


def test_a_file_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "copy.db").write_bytes(b"mine")
    with llmcrdt.open(tmp_path / "a.db") as repo, pytest.raises(StoreError, match="already"):
        repo.backup(tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_bytes() == b"mine"


@pytest.mark.parametrize("fail_at", [1, 2, 3])
def test_a_backup_that_is_ended_leaves_no_database(tmp_path: Path, fail_at: int) -> None:
    calls = 0

    def on_bytes(done: int, of: int) -> None:
        nonlocal calls
        calls += 1
        assert 0 < done <= of
        if calls == fail_at:
            raise KeyboardInterrupt

    with llmcrdt.open(tmp_path / "a.db") as repo:
        repo.create("Trip").append("user", [llmcrdt.Blob(b"one"), llmcrdt.Blob(b"two")])
        with pytest.raises(KeyboardInterrupt):
            repo.backup(tmp_path / "copy.db", on_bytes=on_bytes)
        assert [path.name for path in tmp_path.glob("*copy.db")] == [] and not list(tmp_path.glob("*.tmp"))
        repo.backup(tmp_path / "copy.db")
    with llmcrdt.open(tmp_path / "copy.db") as copy:
        assert not copy.blobs.missing()


def _empty(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + bytes(84))


def _text(path: Path) -> None:
    path.write_text("no database")


def _damaged(path: Path) -> None:
    with llmcrdt.open(path) as repo:
        conv = repo.create("Trip")
        for n in range(200):
            conv.append("user", f"words {n} " * 20)
    data = bytearray(path.read_bytes())
    data[8192 : len(data) // 2] = bytes(len(data) // 2 - 8192)
    path.write_bytes(data)


@pytest.mark.parametrize("make", [_empty, _text, _damaged])
def test_what_is_no_database_or_is_damaged_is_not_copied(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "a.db")
    with pytest.raises(NotADatabase):
        copy_repo(tmp_path / "a.db", tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


def test_a_folder_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with llmcrdt.open(tmp_path / "a.db") as repo, pytest.raises(StoreError, match="can't be written"):
        repo.backup(tmp_path / "nowhere" / "copy.db")


def test_a_backup_with_a_bit_that_flipped_in_a_row_or_an_index_is_not_restored(tmp_path: Path) -> None:
    with llmcrdt.open(tmp_path / "a.db") as repo:
        conv = repo.create("Trip")
        for n in range(40):
            conv.append("user", f"words {n} " * 20)
        repo.backup(tmp_path / "copy.db")
    whole = (tmp_path / "copy.db").read_bytes()
    rows = _rows(tmp_path / "copy.db")
    rng, refused, changed = random.Random(7), 0, 0
    for n in range(120):
        at = rng.randrange(100, len(whole))
        (tmp_path / "bent.db").write_bytes(whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :])
        with contextlib.suppress(NotADatabase, StoreError):
            copy_repo(tmp_path / "bent.db", tmp_path / f"restored{n}.db")
        if (tmp_path / f"restored{n}.db").exists():
            changed += _rows(tmp_path / f"restored{n}.db") != rows
        else:
            refused += 1
    assert refused > 20, "the others are where nothing stands"
    assert changed == 0


def test_a_backup_that_somebody_wrote_in_is_restored_as_it_is(tmp_path: Path) -> None:
    with llmcrdt.open(tmp_path / "a.db") as repo:
        conv = repo.create("Trip")
        conv.append("user", "Hello")
        repo.backup(tmp_path / "copy.db")
    copy_repo(tmp_path / "copy.db", tmp_path / "again.db")
    with llmcrdt.open(tmp_path / "copy.db") as copy:
        copy.get(conv.id).append("user", "And now?")
    copy_repo(tmp_path / "copy.db", tmp_path / "restored.db")
    for name, texts in (("again", ["Hello"]), ("restored", ["Hello", "And now?"])):
        with llmcrdt.open(tmp_path / f"{name}.db") as restored:
            assert [entry.text for entry in restored.get(conv.id).transcript()] == texts


def _rows(path: Path) -> list[tuple[object, ...]]:
    """All that the tables of a file hold."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.text_factory = bytes
        tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name"
        names = [name.decode() for (name,) in db.execute(tables)]
        return [row for name in names for row in db.execute(f'SELECT * FROM "{name}"')]
