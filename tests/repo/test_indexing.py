"""Many conversations come at once: a search answers soon, says what it has not read, and that is read meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import llmcrdt
from llmcrdt.document.projection import RULES
from llmcrdt.exceptions import StoreError
from llmcrdt.ids import SessionId
from llmcrdt.repo.indexing import AT_LEAST
from llmcrdt.repo.journal import MANY as ROWS_WAIT
from llmcrdt.repo.repo import repo_core
from llmcrdt.repo.sync_source import SyncSource
from llmcrdt.sync.local import Record
from tests.waiting import eventually

MANY = AT_LEAST + 20
SESSION = SessionId("R" * 22)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[llmcrdt.Repo]:
    with llmcrdt.open(tmp_path / "elsewhere.db") as repo:
        for n in range(MANY):
            repo.create(f"conversation {n}").append("user", f"linden {n}")
        yield repo


@pytest.fixture
def device(tmp_path: Path, elsewhere: llmcrdt.Repo) -> Iterator[llmcrdt.Repo]:
    with llmcrdt.open(tmp_path / "device.db", elsewhere.library) as repo:
        yield repo


def come(device: llmcrdt.Repo, elsewhere: llmcrdt.Repo, *, together: bool = True) -> SyncSource:
    """All of it comes, as from a relay."""
    source = SyncSource(repo_core(device), "ws://relay", None)
    library = repo_core(elsewhere).library.document
    every = [(library.id, library.diff())]
    every += [(listed.id, elsewhere.get(listed.id).diff()) for listed in elsewhere.list(MANY)]
    with source.transaction():
        for id_, update in every:
            source.received(id_, [Record(SESSION, 1, update)], None)
    return source


def test_a_search_does_not_wait_for_all(device: llmcrdt.Repo, elsewhere: llmcrdt.Repo) -> None:
    come(device, elsewhere)
    hits = device.search("linden", MANY, wait=0)
    assert hits.unread == MANY - AT_LEAST
    assert len(hits) == AT_LEAST
    eventually(lambda: device.search("linden", MANY, wait=0).unread == 0)  # read in the background
    assert len(device.search("linden", MANY, wait=0)) == MANY


def test_a_search_may_wait_for_all(device: llmcrdt.Repo, elsewhere: llmcrdt.Repo) -> None:
    come(device, elsewhere)
    hits = device.search("linden", MANY, wait=None)
    assert (len(hits), hits.unread) == (MANY, 0)


def test_few_are_read_however_long_they_take(device: llmcrdt.Repo, elsewhere: llmcrdt.Repo) -> None:
    come(device, elsewhere)
    device.search("linden", wait=None)
    for listed in elsewhere.list(AT_LEAST):
        said = elsewhere.get(listed.id)
        before = said.version()
        said.append("user", "oak")
        source = SyncSource(repo_core(device), "ws://relay", None)
        source.received(listed.id, [Record(SESSION, 2, said.diff(since=before))], None)
    hits = device.search("oak", MANY, wait=0)
    assert (len(hits), hits.unread) == (AT_LEAST, 0)


def test_what_is_not_read_is_not_found_by_what_it_said_before(device: llmcrdt.Repo, elsewhere: llmcrdt.Repo) -> None:
    """It may have been hidden since."""
    come(device, elsewhere)
    device.search("linden", wait=None)
    edited = elsewhere.list(MANY)
    for listed in edited:
        said = elsewhere.get(listed.id)
        before = said.version()
        said.edit(said.transcript()[-1], "oak")
        source = SyncSource(repo_core(device), "ws://relay", None)
        source.received(listed.id, [Record(SESSION, 2, said.diff(since=before))], None)
    # Nobody looks in the background: that would read what is left before it is looked at here.
    repo_core(device).watcher.stop()
    hits = device.search("linden", MANY, wait=0)
    assert (len(hits), hits.unread) == (0, MANY - AT_LEAST)
    while repo_core(device).documents.indexing.turn() is not None:
        pass
    hits = device.search("oak", MANY, wait=0)
    assert (len(hits), hits.unread) == (MANY, 0), "nobody read what was left"


def test_what_comes_to_a_new_device_is_read_before_anybody_asks(device: llmcrdt.Repo, elsewhere: llmcrdt.Repo) -> None:
    come(device, elsewhere)
    core = repo_core(device)
    while core.documents.indexing.turn() is not None:
        pass
    assert not core.store.entries.stale("4")
    assert device.search("linden", MANY, wait=0).unread == 0
    # One more word of many: reading it may mean to load 10,000 entries, and nobody asked.
    said = elsewhere.get(elsewhere.list()[0].id)
    before = said.version()
    said.append("user", "oak")
    source = SyncSource(core, "ws://relay", None)
    source.received(said.id, [Record(SESSION, 2, said.diff(since=before))], None)
    assert core.documents.indexing.turn() is None and core.store.entries.stale("4") == [said.id]


def test_open_conversations_hear_of_what_came_when_it_is_kept(device: llmcrdt.Repo, elsewhere: llmcrdt.Repo) -> None:
    conversation = elsewhere.get(elsewhere.list()[0].id)
    copy = device.join(conversation.id)
    assert not copy.transcript()
    source = SyncSource(repo_core(device), "ws://relay", None)
    with source.transaction():
        source.received(conversation.id, [Record(SESSION, 1, conversation.diff())], None)
        assert not copy.transcript(), "told of what may not be kept"
    assert [entry.text for entry in copy.transcript()] == [entry.text for entry in conversation.transcript()]


def test_what_is_not_kept_is_told_to_nobody(device: llmcrdt.Repo, elsewhere: llmcrdt.Repo) -> None:
    first, second = (elsewhere.get(listed.id) for listed in elsewhere.list(2))
    copy = device.join(first.id)
    assert not copy.transcript()
    core = repo_core(device)
    source = SyncSource(core, "ws://relay", None)
    with pytest.raises(StoreError), source.transaction():
        source.received(first.id, [Record(SESSION, 1, first.diff())], None)
        source.received(second.id, [Record(SESSION, 1, second.diff())], None)
        raise StoreError("the disk is full")
    assert not copy.transcript()
    assert not core.store.updates.last_seq(first.id) and not core.store.updates.last_seq(second.id)
    source.received(first.id, [Record(SESSION, 1, first.diff())], None)
    assert copy.transcript()
    with closing(device):
        copy.append("user", "and on")


def is_indexed(repo: llmcrdt.Repo, conversation: llmcrdt.Conversation) -> bool:
    return repo_core(repo).store.entries.stale(RULES, conversation.id) == []


@pytest.mark.parametrize("how", ["soon", "search", "close"])
def test_the_rows_of_many_entries_that_come_at_once_wait(open_repo: Callable[..., llmcrdt.Repo], how: str) -> None:
    """The last page is shown without them, also after more was said. A search, the end, or some time writes them."""
    here = open_repo("here")
    said = here.create()
    with said.batch():
        for n in range(ROWS_WAIT + 20):
            said.append("user", f"linden {n}")
    there = open_repo("there", here.library)
    conversation = there.join(said.id)
    with repo_core(there).lock:  # so that nothing is written in the background meanwhile
        conversation.apply(said.diff())
        assert [entry.text for entry in conversation.entries(last=2)][-1] == f"linden {ROWS_WAIT + 19}"
        conversation.append("user", "and an oak")
        assert not is_indexed(there, conversation)
        if how == "search":
            assert len(there.search("linden", 999, wait=None)) == ROWS_WAIT + 20
            assert is_indexed(there, conversation)
            conversation.append("user", "and a beech")
            assert is_indexed(there, conversation), "one entry is written at once again"
    if how == "soon":
        eventually(lambda: is_indexed(there, conversation))
    if how == "close":
        there.close()
    again = llmcrdt.open(repo_core(there).store.path) if how == "close" else there
    with closing(again):
        assert is_indexed(again, conversation)
        page = again.get(said.id).entries(last=3)
        assert page[-1].text == ("and a beech" if how == "search" else "and an oak")
        assert len(again.search("oak")) == 1
        assert again.get(said.id).verify() == []
