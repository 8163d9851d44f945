"""A record that ends the process which applies it is set aside by the next one, and everything else works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import pycrdt
import pytest

import llmcrdt
from llmcrdt.crdt.yjs.trial import SNAPSHOT, deadly
from llmcrdt.store.applying import Applying

from ..crdt.yjs.hostile_nesting import deep, delete_all

ROOT = Path(__file__).parents[2]
DEADLY = """
import os, signal
from llmcrdt.crdt.yjs.replica import YjsReplica
put = YjsReplica._put
def deadly(self, update, span):
    if b"deadly" in update:
        os.kill(os.getpid(), signal.SIGKILL)
    put(self, update, span)
YjsReplica._put = deadly
"""
USE = """
import sys, llmcrdt
with llmcrdt.open(sys.argv[1]) as repo:
    if sys.argv[2] == "watch":
        conversation = repo.get(sys.argv[3])
        conversation.append("user", "loaded")
        repo.store.received("ws://r", conversation.id, [("R" * 22, 1, bytes.fromhex(sys.argv[4]))], [], None)
        repo.touch(conversation.id, refresh=True)
    else:
        print(len(repo.list()), len(repo.search("good")), len(repo.search("deadly")))
"""
MARKS = """
import os, pathlib, sys
from llmcrdt.store.applying import Applying
one = Applying(pathlib.Path(sys.argv[1]))
one.begin("E")
one.begin(sys.argv[2])
if sys.argv[3:]:
    one.end()
os._exit(1)
"""
pytestmark = pytest.mark.skipif(os.name != "posix", reason="a process is killed by a signal")


def record(word: str) -> bytes:
    """A root that no conversation reads, by another writer for each word."""
    doc = pycrdt.Doc(client_id=zlib.crc32(word.encode()))
    doc.get("other", type=pycrdt.Map)["key"] = word
    return bytes(doc.get_update())


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, str]:
    """A file with two conversations, and the id of one."""
    with llmcrdt.open(tmp_path / "chats.db") as repo:
        ids = []
        for title in ("one", "two"):
            conversation = repo.create(title)
            conversation.append("user", "good")
            ids.append(conversation.id)
    return tmp_path / "chats.db", ids[0]


def use(tmp_path: Path, db: Path, *arguments: str, dies: bool) -> subprocess.CompletedProcess[str]:
    """Another process that uses the file. ``dies``: what is deadly kills it, and all that it starts."""
    folder = tmp_path / "deadly"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(DEADLY)
    path = os.pathsep.join([*([str(folder)] if dies else []), str(ROOT)])
    command = [sys.executable, "-c", USE, str(db), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, check=False)


def stored(db: Path, id_: str, *records: bytes) -> None:
    """As a relay sent them to an older version, which died of one."""
    with llmcrdt.open(db) as repo:
        named = [("R" * 22, n + 1, data) for n, data in enumerate(records)]
        repo.store.received("ws://r", id_, named, [], None)


@pytest.mark.parametrize("begins", ["search", "watch"])
def test_a_record_that_a_process_died_of_is_set_aside_at_the_next_start(
    tmp_path: Path, two: tuple[Path, str], begins: str
) -> None:
    """It comes while the conversation is in use, or is found in the file."""
    db, id_ = two
    if begins == "search":
        stored(db, id_, record("before"), record("deadly"), record("behind"))
    first = use(tmp_path, db, begins, id_, record("deadly").hex(), dies=True)
    assert first.returncode == -signal.SIGKILL
    assert list(tmp_path.glob("chats.db.applying-*"))
    again = use(tmp_path, db, "search", dies=True)
    assert (again.returncode, again.stdout) == (0, "2 2 0\n"), again.stderr[-2_000:]
    assert not list(tmp_path.glob("chats.db.applying-*"))
    with llmcrdt.open(db) as repo:
        conversation = repo.get(id_)
        assert conversation.transcript()[0].text == "good"
        assert repo.store.set_aside_count(id_) == 1
        if begins == "search":
            assert {record("before"), record("behind")} <= set(repo.store.since(id_, 0).updates)
        conversation.append("user", "and on")


def test_a_process_that_was_killed_meanwhile_costs_no_record(tmp_path: Path, two: tuple[Path, str]) -> None:
    """Nothing dies of the record but that one process."""
    db, id_ = two
    stored(db, id_, record("deadly"))
    assert use(tmp_path, db, "search", dies=True).returncode == -signal.SIGKILL
    again = use(tmp_path, db, "search", dies=False)
    assert (again.returncode, again.stdout) == (0, "2 2 0\n"), again.stderr[-2_000:]
    with llmcrdt.open(db) as repo:
        assert repo.store.set_aside_count(id_) == 0


def test_an_old_file_with_a_hundred_thousand_nested_maps_is_read(two: tuple[Path, str]) -> None:
    db, id_ = two
    stored(db, id_, deep(100_000), delete_all())
    with llmcrdt.open(db) as repo:
        assert len(repo.search("good")) == 2
        assert repo.get(id_).transcript()[0].text == "good"
        assert repo.store.set_aside_count(id_) == 1


def test_what_ends_a_process_is_found_in_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(DEADLY)
    monkeypatch.syspath_prepend(tmp_path)
    some, bad = record("some"), record("deadly")
    assert deadly(None, [some, bad, some], ["entries"]) == 1
    assert deadly(some, [bad], ["entries"]) == 0
    assert deadly(some, [some, b"no update"], ["entries"]) is None
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    assert deadly(None, [bad], ["entries"]) is None
    assert SNAPSHOT == -1


def test_a_mark_is_told_once_and_only_of_processes_that_are_gone(tmp_path: Path) -> None:
    db = tmp_path / "chats.db"
    mine, other = Applying(db), Applying(db)
    mine.begin("D")
    assert other.left() == set()
    for arguments in (("G",), ("H", "ends"), ("I" * 22,)):
        subprocess.run([sys.executable, "-c", MARKS, str(db), *arguments], check=False, cwd=ROOT)
    assert other.left() == {"G", "I" * 22}
    assert other.left() == set()
    mine.end()
    mine.close()
    mine.begin("D")
    assert other.left() == set() and not list(tmp_path.iterdir())


def test_without_a_file_there_are_no_marks(tmp_path: Path) -> None:
    nowhere = Applying(tmp_path / "none" / "chats.db")
    nowhere.begin("D")
    nowhere.end()
    assert nowhere.left() == set()
    nowhere.close()
