"""Apps hear of the list of conversations, of their deletion, and of the relay, from callbacks and in loops."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

import llmcrdt
from llmcrdt.exceptions import ConversationDeleted, ConversationNotFound, RelayRefused, RelayUnreachable, RepoClosed
from llmcrdt.sync.messages import ErrorCode
from sync_server.auth.tokens import Tokens
from sync_server.thread import RelayThread

from ..waiting import PATIENCE, eventually

OpenRepo = Callable[..., llmcrdt.Repo]


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayThread]:
    with RelayThread(tmp_path_factory.mktemp("relay")) as relay:
        yield relay


def exchange(one: llmcrdt.Repo, other: llmcrdt.Repo) -> None:
    """The library as ``one`` has it comes to ``other``."""
    other._core.library.document.apply(one._core.library.document.diff())


def listed(repo: llmcrdt.Repo) -> dict[str, llmcrdt.Listing]:
    return {line.id: line for line in repo.list(limit=1000)}


def test_whoever_follows_the_changes_has_the_list(open_repo: OpenRepo) -> None:
    """For random changes on two devices: what was listed at the beginning, and each change, come to what is listed."""
    for seed in range(12):
        choose = random.Random(seed)
        laptop = open_repo(f"laptop{seed}")
        phone = open_repo(f"phone{seed}", laptop.library)
        for n in range(3):
            laptop.create(f"first {n}").close()
        known = listed(laptop)
        changes = laptop.observe()
        for n in range(25):
            repo = choose.choice([laptop, phone])
            ids = sorted(listed(repo))
            if not ids or choose.random() < 0.3:
                repo.create(f"title {n}").close()
            else:
                id_ = choose.choice(ids)
                choose.choice([repo.delete, repo.archive, partial(repo.rename, title=f"now {n}")])(id_)
            if choose.random() < 0.3:
                exchange(phone, laptop)
            if choose.random() < 0.3:
                exchange(laptop, phone)
        now = listed(laptop)
        laptop.close()
        for change in changes:
            assert any(change)
            for line in change.added:
                assert line.id not in known
                known[line.id] = line
            for line in (*change.renamed, *change.archived):
                assert known[line.id] != line or line in change.renamed
            known.update((line.id, line) for line in (*change.renamed, *change.archived))
            for line in change.deleted:
                del known[line.id]
        assert known == now, seed


def test_each_change_has_its_name(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    changes = repo.observe()
    trip = repo.create("Trip")
    assert [line.title for line in next(changes).added] == ["Trip"]
    repo.rename(trip.id, "Lisbon")
    assert [line.title for line in next(changes).renamed] == ["Lisbon"]
    repo.archive(trip.id)
    assert [line.archived for line in next(changes).archived] == [True]
    repo.archive(trip.id, False)
    assert [line.archived for line in next(changes).archived] == [False]
    repo.delete(trip.id)
    assert [(line.id, line.title) for line in next(changes).deleted] == [(trip.id, "Lisbon")]
    with pytest.raises(ZeroDivisionError), repo._core.store.transaction():
        repo.create("never")
        1 / 0  # noqa: B018
    changes()
    repo.create("unheard")
    assert list(changes) == [], "what is not kept is not told, nor what comes after the end"


def test_changes_by_another_process_are_heard(open_repo: OpenRepo, tmp_path: Path) -> None:
    first = open_repo("laptop")
    gone_id = first.create("Gone").id
    first.close()
    repo = open_repo("laptop")  # its library is not loaded
    gone = repo.get(gone_id)
    heard: list[llmcrdt.LibraryChange] = []
    with repo.observe(heard.append), gone.observe() as said:
        code = f"""
import llmcrdt
with llmcrdt.open({str(tmp_path / "laptop.db")!r}) as repo:
    repo.create("Theirs")
    repo.delete({gone.id!r})
"""
        subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)
        eventually(lambda: any(change.deleted for change in heard))
        assert [line.title for change in heard for line in change.added] == ["Theirs"]
        assert [change.deleted for change in said] == [True]
    with pytest.raises(ConversationDeleted):
        gone.append("user", "too late")


def test_a_coroutine_hears_of_a_deletion_on_another_device(open_repo: OpenRepo, relay: RelayThread) -> None:
    """``async for`` ends with the deletion; a stream and an ask of just then say what happened."""
    laptop = open_repo("laptop")
    conversation = laptop.create("Trip")
    phone = open_repo("phone", laptop.library)

    async def follow() -> list[llmcrdt.Change]:
        return [change async for change in conversation.observe()]

    async def main() -> None:
        ask = conversation.ask("Where to?", valid_while="always")
        following = asyncio.create_task(follow())
        answer = asyncio.ensure_future(asyncio.wait_for(ask, PATIENCE))
        async with laptop.connect(relay.url) as one, phone.connect(relay.url) as two:
            await one.synced()
            await two.synced()
            phone.delete(conversation.id)
            changes = await asyncio.wait_for(following, PATIENCE)
            assert [change.deleted for change in changes[-1:]] == [True] and not any(c.deleted for c in changes[:-1])
            with pytest.raises(ConversationDeleted):
                await answer

    asyncio.run(main())
    with pytest.raises(ConversationDeleted, match="was deleted from the library") as error:
        conversation.transcript()
    assert error.value.id == conversation.id and isinstance(error.value, ConversationNotFound)
    assert not isinstance(error.value, RepoClosed)
    with pytest.raises(ConversationDeleted):
        laptop.get(conversation.id)
    with pytest.raises(ConversationDeleted):
        laptop.join(conversation.id)


def test_a_loop_ends_when_the_conversation_or_the_repo_is_closed(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    closed, left = repo.create(), repo.create()
    one, two, three = closed.observe(), left.observe(), repo.observe()
    closed.append("user", "Hello")
    closed.close()
    assert [len(change.added) for change in one] == [1]
    repo.close()
    assert [*two, *three] == []
    with pytest.raises(RepoClosed):
        left.observe()
    with pytest.raises(RepoClosed):
        repo.observe()


def test_a_link_says_how_it_stands(open_repo: OpenRepo, tmp_path: Path) -> None:
    repo = open_repo("laptop")
    repo.create().append("user", "Hello")
    seen: list[str] = []
    with RelayThread(tmp_path / "relay") as relay:
        link = repo.connect(relay.url)
        statuses = link.observe()
        stop = link.observe(lambda status: seen.append(status.state))
        link.wait_synced(PATIENCE)
        assert next(status for status in statuses if status.state == "in step").error is None
        assert eventually(lambda: link.status.state, lambda state: state == "in step")
    offline = next(status for status in statuses if status.state == "offline")
    assert isinstance(offline.error, llmcrdt.LLMCRDTError) and offline.code == ErrorCode.SHUTTING_DOWN
    eventually(lambda: link.status, lambda status: isinstance(status.error, RelayUnreachable))
    stop()
    link.close()
    assert [status.state for status in statuses][-1] == link.status.state == "closed"
    assert seen[-1] != "closed" and "in step" in seen, "a callback that was stopped hears no more"
    assert [status.state for status in link.observe()] == ["closed"]


def test_a_link_that_is_refused_says_the_code(open_repo: OpenRepo, tmp_path: Path) -> None:
    repo = open_repo("laptop")
    Tokens(tmp_path / "relay").make("ann", "append", ["*"])
    with RelayThread(tmp_path / "relay") as relay:

        async def follow() -> list[llmcrdt.LinkStatus]:
            async with repo.connect(relay.url, "no token") as link:
                return [status async for status in link.observe()]

        last = asyncio.run(follow())[-1]
        assert (last.state, last.code) == ("refused", ErrorCode.TOKEN_REFUSED)
        assert isinstance(last.error, RelayRefused) and last.error.hint
