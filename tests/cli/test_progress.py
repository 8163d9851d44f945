"""Progress of long commands: on a terminal, and nowhere else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import llmcrdt
from sync_server.thread import RelayThread

Run = Callable[..., tuple[int, str, str]]
pty = pytest.importorskip("pty")


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with one conversation that is written in several pieces."""
    file = tmp_path_factory.mktemp("long") / "a.db"
    with llmcrdt.open(file) as repo:
        repo.create("Trip", fill=lambda made: [made.append("user", "x" * 200_000) for _ in range(8)])  # type: ignore[arg-type, return-value, func-returns-value]
    return file


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayThread]:
    with RelayThread(tmp_path_factory.mktemp("relay")) as relay:
        yield relay


def on_a_terminal(db: Path, *words: str) -> str:
    """All that a command writes to stderr where that is a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "llmcrdt", "--db", str(db), *words], stdout=subprocess.DEVNULL, stderr=theirs
    ) as process:
        os.close(theirs)
        said = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # Linux's way to say that nobody writes any more
                break
            if not piece:
                break
            said += piece
        os.close(ours)
        assert process.wait(60) == 0, said
    return said.decode()


def test_a_terminal_sees_how_far_it_is_unless_told_otherwise(long: Path, relay: RelayThread, tmp_path: Path) -> None:
    with llmcrdt.open(long) as repo:
        id_ = repo.list()[0].id
    file = tmp_path / "talk.json"
    file.write_text(json.dumps({"messages": [{"role": "user", "content": "Hello"}]}))
    commands = {
        "forking: 100 %": ["fork", id_],
        "importing: ": ["import", str(file)],
        "documents": ["sync", relay.url],
    }
    for seen, words in commands.items():
        assert seen in on_a_terminal(long, *words), words
        assert on_a_terminal(long, *words, "--quiet") == "", words
    assert on_a_terminal(long, "fork", id_, "--json") == ""


def test_a_pipe_sees_none(run: Run, tmp_path: Path) -> None:
    id_ = run("new", "Trip")[1].strip()
    run("append", id_, "Hello")
    code, out, err = run("fork", id_)
    assert (code, err) == (0, "") and len(out.split()) == 1


def test_progress_is_told_in_order_and_what_it_raises_leaves_nothing(long: Path) -> None:
    with llmcrdt.open(long) as repo:
        conversation = repo.get(repo.list(limit=1_000)[-1].id)
        before = len(repo.list(limit=1_000))
        last = conversation.transcript()[-1]
        for act in (
            lambda progress: repo.fork(conversation, at=last, progress=progress),
            lambda progress: repo.convert(conversation, "yjs", progress=progress),
        ):
            told: list[tuple[int, int]] = []
            made = act(lambda done, of, told=told: told.append((done, of)))  # type: ignore[misc]
            assert len(told) > 1 and told == sorted(told) and told[-1] == (8, 8)
            assert made.transcript().ids == conversation.transcript().ids
            repo.delete(made.id)
            with pytest.raises(ZeroDivisionError):
                act(lambda done, of: 1 / 0)
            assert len(repo.list(limit=1_000)) == before
