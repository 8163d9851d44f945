"""Compactions go on in the background: nobody waits for them, and a crash at any moment loses nothing."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

import llmcrdt
from llmcrdt.repo.repo import repo_core
from llmcrdt.store import snapshots as snapshots_in_file
from tests.waiting import eventually

SMALL = 20_000
WRITER = f"""
import sys
import llmcrdt
import llmcrdt.repo.journal, llmcrdt.store.base
llmcrdt.repo.journal.SMALL = llmcrdt.store.base.SMALL = {SMALL}
with llmcrdt.open(sys.argv[1]) as repo:
    conversation = repo.get(sys.argv[2])
    n = len(conversation.transcript())
    while True:
        conversation.append("user", f"entry {{n}} " + "x" * 1_000)
        n += 1
        print(n, flush=True)
"""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("llmcrdt.repo.journal", "llmcrdt.store.base"):
        monkeypatch.setattr(f"{module}.SMALL", SMALL)


def snapshots(path: Path) -> list[tuple[int, int]]:
    """Of each snapshot its place, and how many updates stand beside it."""
    with llmcrdt.open(path) as repo:
        db = repo_core(repo).store._connection.db
        query = "SELECT place, (SELECT count(*) FROM updates WHERE document = snapshots.document) FROM snapshots"
        return list(db.execute(query).fetchall())


def test_nobody_waits_until_a_snapshot_is_deflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deflate, begun, go_on = snapshots_in_file.deflate, threading.Event(), threading.Event()

    def slowly(piece: bytes, begins: Iterable[int]) -> bytes:
        begun.set()
        assert go_on.wait(60)
        return deflate(piece, begins)

    monkeypatch.setattr(snapshots_in_file, "deflate", slowly)
    path = tmp_path / "a.db"
    with llmcrdt.open(path) as repo:
        conversation = repo.create("one")
        for n in range(100):
            conversation.append("user", f"{n} " + "x" * 1_000)
        assert begun.wait(60)
        assert len(conversation.transcript()) == 100
        go_on.set()
        assert len(repo.get(conversation.id).transcript()) == 100
    assert snapshots(path)
    with llmcrdt.open(path) as repo:
        assert [entry.text.split()[0] for entry in repo.get(conversation.id).transcript()] == [
            str(n) for n in range(100)
        ]


def test_what_was_compacted_is_trimmed_while_the_repo_is_open(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with llmcrdt.open(path) as repo:
        conversation = repo.create("one")
        for n in range(60):
            conversation.append("user", f"{n} " + "x" * 1_000)
        db = repo_core(repo).store._connection
        query = "SELECT count(*) FROM updates JOIN snapshots USING (document) WHERE updates.place <= snapshots.place"
        eventually(lambda: db.one("SELECT count(*) FROM snapshots") == 1 and db.one(query) == 0)
        assert len(conversation.entries(last=100)) == 60


@pytest.mark.parametrize("seed", range(4))
def test_a_crash_at_any_moment_loses_nothing(tmp_path: Path, seed: int) -> None:
    rng, path, said = random.Random(seed), tmp_path / "a.db", 0
    with llmcrdt.open(path) as repo:
        id_ = repo.create("one").id
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, path, id_], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        for _ in range(rng.randint(20, 120)):
            said = int(writer.stdout.readline())
        writer.kill()
        writer.communicate()
        with llmcrdt.open(path) as repo:
            transcript = repo.get(id_).transcript()
            assert len(transcript) >= said
            assert [entry.text.split()[1] for entry in transcript] == [str(n) for n in range(len(transcript))]
            assert len(repo.get(id_).entries(last=10_000)) == len(transcript)
    assert snapshots(path)


def test_room_that_is_free_goes_back_to_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with llmcrdt.open(path) as repo:
        conversation = repo.create("one")
        for n in range(150):
            conversation.append("user", f"{n} " + "x" * 1_000)
    with llmcrdt.open(path) as repo:
        assert repo_core(repo).store._connection.one("PRAGMA freelist_count") == 0


def test_words_stand_in_the_file_once_beside_their_document(tmp_path: Path) -> None:
    """And are found, shown and forgotten all the same."""
    with llmcrdt.open(tmp_path / "a.db") as repo:
        conversation = repo.create("one")
        for n in range(5):
            conversation.append("user", f"linden {n} oak")
        edited = conversation.edit(conversation.transcript()[2], "an elm")
        db = repo_core(repo).store._connection
        assert db.one("SELECT count(*) FROM entries WHERE words != ''") == 0
        assert db.one("SELECT count(*) FROM entries WHERE words = ''") == 6
        assert {hit.snippet for hit in repo.search("linden")} == {"[linden] 0 oak", "[linden] 1 oak"}
        assert [hit.entry for hit in repo.search("elm")] == [edited.id]
        conversation.erase(edited)
        assert not repo.search("elm")
        db.db.execute("INSERT INTO entry_words (entry_words, rank) VALUES ('integrity-check', 1)")
