"""Faults that a reader who tried to break it found: each once, so that it stays mended."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pycrdt
import pytest

import llmcrdt
from llmcrdt.exceptions import ConversationDeleted, InvalidContent, KeyMissing, RepoClosed, StoreError
from llmcrdt.ids import new_document_id
from llmcrdt.store.updates import SqliteUpdates

OpenRepo = Callable[..., llmcrdt.Repo]


def test_kill_9_while_conversations_are_made_leaves_none_that_is_listed_and_not_synced(tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import llmcrdt
        repo = llmcrdt.open({str(tmp_path / "a.db")!r})
        print("ready", flush=True)
        while True:
            repo.create("t", fill=lambda c: c.append("user", "x"))
            print("made", flush=True)
    """)
    for round_ in range(6):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        if round_ == 5:
            process.stdout.readline()  # a busy machine may make none in time: this one has
        threading.Event().wait(0.03 + 0.017 * round_)
        process.kill()
        process.wait()
        process.stdout.close()
    with llmcrdt.open(tmp_path / "a.db") as repo:
        listed = {row.id for row in repo.list(limit=100_000)}
        assert listed
        assert listed == set(repo._core.following()) - {repo.library}
        assert all(len(repo.get(id_).transcript()) == 1 for id_ in sorted(listed)[:20])


def test_an_erase_in_a_batch_that_fails_is_undone_with_it(open_repo: OpenRepo) -> None:
    conversation = open_repo("laptop").create()
    entry = conversation.append("user", "secret")
    with pytest.raises(RuntimeError), conversation.batch():
        conversation.append("user", "other")
        conversation.erase(entry)
        raise RuntimeError
    assert [e.text for e in conversation.transcript()] == ["secret"]
    conversation.append("user", "after")
    copy = open_repo("copy").join(conversation.id)
    copy.apply(conversation.diff())
    assert copy.transcript().hash == conversation.transcript().hash
    with conversation.batch():
        conversation.erase(entry)
        conversation.append("user", "in the same batch")
    assert [e.text for e in conversation.transcript()] == ["", "after", "in the same batch"]


def test_the_greatest_lamport_in_a_library_stops_nobody(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    stranger = pycrdt.Doc()
    shelf = stranger.get("shelf", type=pycrdt.Map)
    shelf[f"{new_document_id()}:title:{'A' * 22}"] = f'{{"lamport":{2**53 - 1},"value":"far"}}'
    repo._core.library.document.apply(stranger.get_update())
    conversation = repo.create("mine")
    assert [row.title for row in repo.list()] == ["mine"]
    repo.delete(conversation.id)
    assert list(repo.list()) == []


@pytest.mark.parametrize("lost", ["closed", "dropped"])
def test_a_stream_that_nobody_writes_any_more_can_be_sealed(
    open_repo: OpenRepo, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    conversation = open_repo("laptop").create()
    stream = conversation.stream("assistant", interval=0)
    stream.write("half")
    assert conversation.unsealed() == ()
    if lost == "closed":
        stream.abandon()
    else:
        del stream
    (left,) = conversation.unsealed()
    assert conversation.seal(left).text == "half"


@pytest.mark.parametrize("error", [ValueError("mine"), KeyError("mine"), asyncio.CancelledError()])
def test_what_a_caller_raises_in_a_batch_comes_out_as_it_is(open_repo: OpenRepo, error: BaseException) -> None:
    repo = open_repo("laptop")
    conversation = repo.create()
    with pytest.raises(type(error)) as caught, conversation.batch():
        conversation.append("user", "x")
        raise error
    assert caught.value is error
    assert len(conversation.transcript()) == 0

    def fill(_: llmcrdt.Conversation) -> None:
        raise error

    with pytest.raises(type(error)):
        repo.create("never", fill=fill)
    assert [row.id for row in repo.list()] == [conversation.id]


def test_a_delete_that_fails_keeps_the_keys(open_repo: OpenRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nacl")
    repo = open_repo("laptop")
    conversation = repo.create()
    field = llmcrdt.HiddenField(b"deep", {}, sealed=True)
    entry = conversation.append("assistant", "x", hidden={"p/q": field})

    def full(*_: object, **__: object) -> None:
        raise StoreError("disk full")

    with monkeypatch.context() as patch, pytest.raises(StoreError):
        patch.setattr(SqliteUpdates, "append", full)
        repo.delete(conversation.id)
    assert [row.id for row in repo.list()] == [conversation.id]
    try:
        assert conversation.entry(entry).hidden["p/q"].data == b"deep"
    except KeyMissing:
        pytest.fail("the key is gone")


def test_an_erase_with_another_reader_on_the_file_is_finished_later(open_repo: OpenRepo, tmp_path: Path) -> None:
    repo = open_repo("laptop")
    conversation = repo.create()
    secret = conversation.append("user", "words that must go")
    reader = sqlite3.connect(tmp_path / "laptop.db")
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM updates").fetchone()
    conversation.erase(secret)
    reader.close()
    repo.close()
    open_repo("laptop").get(conversation.id).transcript()
    for path in tmp_path.glob("laptop.db*"):
        assert not path.is_file() or b"words that must go" not in path.read_bytes()


def test_a_conversation_deleted_elsewhere_takes_no_more_words(open_repo: OpenRepo) -> None:
    laptop = open_repo("laptop")
    conversation = laptop.create()
    phone = open_repo("phone", laptop.library)
    phone._core.library.document.apply(laptop._core.library.document.diff())
    phone._core.library.put(conversation.id, deleted=True)
    laptop._core.library.document.apply(phone._core.library.document.diff())
    with pytest.raises(ConversationDeleted, match="was deleted"):
        conversation.append("user", "lost?")


def test_a_library_is_not_joined_as_a_conversation(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    with pytest.raises(InvalidContent, match="library"):
        repo.join(repo.library)


def test_the_first_words_of_a_stream_are_shown_at_once(open_repo: OpenRepo) -> None:
    conversation = open_repo("laptop").create()
    stream = conversation.stream("assistant", interval=3600)
    stream.write("abc")
    assert conversation.transcript()[-1].text == "abc"


def test_a_repo_closed_soon_after_observe_is_quiet(open_repo: OpenRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[object] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    for n in range(10):
        repo = open_repo(f"r{n}")
        repo.create().observe(lambda change: None)
        repo.close()
    assert raised == []
    with pytest.raises(RepoClosed):
        repo.connect("ws://127.0.0.1:9")


def test_an_observer_that_raises_anything_silences_nobody(open_repo: OpenRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    conversation = open_repo("laptop").create()
    heard = threading.Event()

    def bad(_: llmcrdt.Change) -> None:
        raise SystemExit

    conversation.observe(bad)
    conversation.observe(lambda change: heard.set() if change.added[0].text == "second" else None)
    conversation.append("user", "first")
    conversation.append("user", "second")
    assert heard.wait(10)


def test_an_interrupted_reading_does_not_stop_later_writes(
    open_repo: OpenRepo, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = open_repo("laptop")
    conversation = repo.create()
    with pytest.raises(KeyboardInterrupt), repo._core.store._connection.one_view():
        raise KeyboardInterrupt
    conversation.append("user", "still fine")


def test_the_user_s_own_error_is_not_hidden_by_a_stream_that_can_t_be_sealed(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    conversation = repo.create()
    with pytest.raises(ZeroDivisionError) as caught, conversation.stream("assistant") as stream:
        stream.write("x")
        repo.close()
        raise ZeroDivisionError
    assert any("could not be sealed" in note for note in caught.value.__notes__)
