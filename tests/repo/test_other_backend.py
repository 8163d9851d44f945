"""A repo stands on any backend: here on the one in memory, through files, merges and a relay that can't read it."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import llmcrdt
from llmcrdt.exceptions import CRDTMismatch
from llmcrdt.ids import document_bytes, new_document_id
from llmcrdt.repo.core import RepoCore
from llmcrdt.repo.repo import Repo
from llmcrdt.testing.memory_backend import MemoryBackend
from sync_server.log import operator
from sync_server.log.file import DATABASE
from sync_server.thread import RelayThread

Open = Callable[..., Repo]


@pytest.fixture
def open_memory(tmp_path: Path) -> Iterator[Open]:
    opened: list[Repo] = []
    rng = random.Random(1)

    def open_(name: str, library: str | None = None) -> Repo:
        path, crdt = tmp_path / f"{name}.db", MemoryBackend(rng.randbytes)
        made = Repo(RepoCore(path, library, author=name, clock=time.time, random=rng.randbytes, crdt=crdt))
        opened.append(made)
        return made

    yield open_
    for repo in opened:
        repo.close()


def texts(repo: Repo, id_: str) -> list[str]:
    return [entry.text for entry in repo.get(id_).transcript()]


def test_a_file_is_not_opened_with_a_backend_of_another_kind(open_memory: Open, tmp_path: Path) -> None:
    conversation = open_memory("a").create("Trip")
    conversation.append("user", "Hello")
    with llmcrdt.open(tmp_path / "b.db"):
        pass
    old = tmp_path / "c.db"
    with llmcrdt.open(old):
        pass
    with closing(sqlite3.connect(old, isolation_level=None)) as file:  # as it was before it told its kind
        assert file.execute("DELETE FROM settings WHERE name = 'crdt'").rowcount == 1

    def contents(name: str) -> list[str]:
        with closing(sqlite3.connect(tmp_path / f"{name}.db")) as file:
            for name in ("words_of", "fields_of"):  # the views name them
                file.create_function(name, 2, lambda one, other: "")
            return list(file.iterdump())

    before = {name: contents(name) for name in "abc"}
    with pytest.raises(CRDTMismatch, match=r"'memory', not 'yjs'.*backend of one's own"):
        llmcrdt.open(tmp_path / "a.db", new_document_id())
    for name in "bc":
        with pytest.raises(CRDTMismatch, match="'yjs', not 'memory'"):
            open_memory(name)
    assert {name: contents(name) for name in "abc"} == before
    llmcrdt.open(old).close()
    assert texts(open_memory("a"), conversation.id) == ["Hello"]


def test_a_conversation_is_written_read_and_found_again(open_memory: Open) -> None:
    repo = open_memory("a")
    conversation = repo.create("Trip")
    hello = conversation.append("user", "Hello")
    answer = conversation.append("assistant", "Hi", frame=conversation.transcript(), hidden={"x/y": b"\0"})
    with conversation.stream("assistant", frame=conversation.transcript()) as stream:
        stream.write("some ")
        stream.write("words")
    edited = conversation.edit(hello, "Good morning")
    conversation.select(hello)
    assert {e.text for e in conversation.alternatives(edited)} == {"Hello", "Good morning"}
    fork = repo.fork(conversation, at=answer)
    conversation.erase(answer)
    repo.archive(fork.id)
    repo.close()
    again = open_memory("a")
    assert texts(again, conversation.id) == ["Hello", "", "some words"]
    assert [(item.title, item.archived) for item in again.list()] == [("Trip", True), ("Trip", False)]
    assert {hit.entry for hit in again.search("words")} == {again.get(conversation.id).transcript()[-1].id}
    assert b"Hi" not in again.get(conversation.id).diff()
    assert not again.get(conversation.id).verify()


def test_two_devices_merge(open_memory: Open) -> None:
    one = open_memory("a")
    other = open_memory("b", one.library)
    first = one.create("Trip")
    first.append("user", "Hello")
    second = other.join(first.id)
    second.apply(first.diff())
    first.append("user", "here")
    second.append("user", "there")
    first.apply(second.diff(since=first.version()))
    second.apply(first.diff(since=second.version()))
    assert first.transcript().hash == second.transcript().hash
    assert {entry.text for entry in first.transcript()} == {"Hello", "here", "there"}


def test_a_relay_carries_what_it_can_not_read(open_memory: Open, tmp_path: Path) -> None:
    with RelayThread(tmp_path / "relay") as relay:
        one = open_memory("a")
        conversation = one.create("Trip")
        hello = conversation.append("user", "Hello")
        with one.connect(relay.url) as link:
            link.wait_synced(30)
        other = open_memory("b", one.library)
        with other.connect(relay.url) as there, one.connect(relay.url) as here:
            there.wait_synced(30)
            assert texts(other, conversation.id) == ["Hello"]
            other.get(conversation.id).append("user", "there")
            conversation.erase(hello)
            for link in (here, there, here, there):
                link.wait_synced(30)
            assert texts(other, conversation.id) == texts(one, conversation.id) == ["", "there"]
    with closing(operator.open_storage(tmp_path / "relay" / DATABASE)) as storage:
        head = storage.records.head(document_bytes(conversation.id))
    assert head is not None
    assert head.kind == "memory"
