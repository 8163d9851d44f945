"""Random clients over one library: each request's list is what its answer stands on, nothing is said twice, and an
index that is made anew from the documents finds the same."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("starlette")

import llmcrdt
from llmcrdt.document.conversation import core_of
from llmcrdt.document.entry import Text
from llmcrdt.interop.format import Draft
from llmcrdt.repo.repo import repo_core
from llmcrdt.serve.http.keys import Caller
from llmcrdt.serve.http.placing import Placed, Placer
from llmcrdt.serve.http.prefix_index import PrefixIndex
from llmcrdt.serve.http.said import said, said_by

OpenRepo = Callable[..., llmcrdt.Repo]
List = tuple[tuple[str, str], ...]
"""Roles and words."""


def drafts(messages: List) -> list[Draft]:
    return [Draft(role, (Text(text),)) for role, text in messages]  # type: ignore[arg-type]


def answer(placed: Placed, text: str) -> None:
    placed.conversation.append("assistant", text, frame=placed.branch)


def listed(entries: Sequence[llmcrdt.Entry]) -> List:
    return tuple((entry.role, entry.text) for entry in entries)


class Client:
    """Sends lists; keeps those that were answered."""

    def __init__(self, seed: int, repo: llmcrdt.Repo, placer: Placer, caller: Caller) -> None:
        self.random, self.repo, self.placer, self.caller = random.Random(seed), repo, placer, caller
        self.known: list[List] = []
        self.homes: dict[List, str] = {}

    def ask(self) -> Placed:
        before = self.random.choice([(), *self.known]) if self.random.random() < 0.8 else ()
        if before and self.random.random() < 0.3:  # an edit somewhere before
            before = before[: 2 * self.random.randrange(1 + len(before) // 2)]
        asked: List = (*before, ("user", f"{self.caller.author} {self.random.randrange(6)}"))
        if not before and self.random.random() < 0.3:
            asked = (("system", "Be brief."), *asked)
        placed = self.placer.place(self.caller, drafts(asked), ())
        assert listed(placed.branch) == asked, "a request is a frame"
        whole: List = (*asked, ("assistant", f"said {self.random.randrange(3)}"))
        if self.random.random() < 0.9:
            answer(placed, whole[-1][1])
            self.known.append(whole)
        if before in self.homes and before:
            assert placed.conversation.id in {row.id for row in self.repo.list(500)}
        self.homes[whole] = placed.conversation.id
        return placed


@pytest.mark.parametrize("seed", range(3))
def test_random_clients(seed: int, open_repo: OpenRepo) -> None:
    repo = open_repo("server")
    placer = Placer(repo)
    clients = [Client(seed * 10 + n, repo, placer, Caller(f"c{n}", only_own=True)) for n in range(2)]
    chance = random.Random(seed)
    for _ in range(40):
        client = chance.choice(clients)
        placed = client.ask()
        if chance.random() < 0.2:
            placed.conversation.append("user", f"phone {chance.randrange(100)}", author="phone")
    again = PrefixIndex(repo_core(repo))
    for row in repo.list(500):
        conversation = repo.get(row.id)
        assert conversation.verify() == []
        authors = {entry.author for entry in conversation.transcript() if entry.role == "user"} - {"phone"}
        assert len(authors) <= 1, "nobody writes into another's conversation"
        places: dict[object, set[str]] = {}
        for entry in core_of(conversation).view.order.sound().values():
            one = conversation.entry(entry.id)
            if one.role == "user" and one.author != "phone":
                places.setdefault((entry.parents, one.text), set()).add(entry.id)
        assert all(len(ids) == 1 for ids in places.values()), "nothing is said twice"
        for generation in conversation.generations():
            frame = [*conversation.frame_entries(generation), generation]
            says = [words for entry in frame if (words := said_by(entry)) is not None]
            for index in (placer._index, again):
                (count, place), *_ = index.find(says, conversation.id)
                assert count == len(says), "an answer is found by all that it stands on"
                with core_of(conversation).reading():
                    found = core_of(conversation).view.transcript(place.ends)
                    assert listed(found)[: len(says)] == listed(frame)


def test_equal_lists_at_once_are_said_once(open_repo: OpenRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = open_repo("server")
    placer = Placer(repo)
    find = placer._find

    def find_slowly(*arguments: Any) -> Any:
        found = find(*arguments)
        time.sleep(0.002)  # the others have a turn between looking and writing
        return found

    monkeypatch.setattr(placer, "_find", find_slowly)
    with ThreadPoolExecutor(8) as pool:
        for number in range(6):
            messages = drafts((("system", "Be brief."), ("user", f"Hello {number}")))
            places = list(pool.map(lambda _, m=messages: placer.place(Caller(), m, ()), range(8)))
            assert len({placed.conversation.id for placed in places}) == 1
            assert len(places[0].conversation.transcript()) == 2
            assert sum(placed.added for placed in places) == 2


def test_what_was_erased_is_not_gone_on_from(open_repo: OpenRepo) -> None:
    repo = open_repo("server")
    placer, caller = Placer(repo), Caller()
    first = placer.place(caller, drafts((("user", "A secret"),)), ())
    answer(first, "Sure")
    first.conversation.erase(first.branch[0])
    again = placer.place(caller, drafts((("user", "A secret"), ("assistant", "Sure"), ("user", "Go on"))), ())
    assert again.conversation.id != first.conversation.id
    assert placer.place(caller, drafts((("user", "Go on"),)), ()).conversation.id != first.conversation.id


def test_another_process_of_the_library_finds_what_one_began(open_repo: OpenRepo) -> None:
    laptop = open_repo("laptop")
    server = open_repo("server", laptop.library)
    caller = Caller()
    begun = Placer(laptop).place(caller, drafts((("user", "Hello"),)), ())
    answer(begun, "Hi")
    there = server.join(begun.conversation.id)
    there.apply(begun.conversation.diff())
    placed = Placer(server).place(caller, drafts((("user", "Hello"), ("assistant", "Hi"), ("user", "On"))), ())
    assert placed.conversation.id == begun.conversation.id and (placed.found, placed.added) == (2, 1)


def test_a_conversation_of_devices_is_gone_on_from(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    placer = Placer(repo)
    conversation = repo.create()
    conversation.append("user", "From the phone")
    conversation.append("assistant", "Hi", frame=conversation.transcript())
    messages = (("user", "From the phone"), ("assistant", "Hi"), ("user", "By HTTP"))
    placed = placer.place(Caller(), drafts(messages), ())
    assert placed.conversation.id == conversation.id
    other = placer.place(Caller("alice", only_own=True), drafts(messages), ())
    assert other.conversation.id != conversation.id, "a key with a name sees its own alone"


def test_a_deleted_conversation_is_begun_anew(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    placer = Placer(repo)
    first = placer.place(Caller(), drafts((("user", "Hello"),)), ())
    answer(first, "Hi")
    repo.delete(first.conversation.id)
    again = placer.place(Caller(), drafts((("user", "Hello"), ("assistant", "Hi"), ("user", "On"))), ())
    assert again.conversation.id != first.conversation.id


def test_words_count_and_their_form_does_not() -> None:
    def chat(**more: object) -> str | None:
        (draft,) = drafts((("user", "a"),))
        return said(draft.role, draft.parts, None)

    assert chat() == said("user", (Text("a"),), None) != said("assistant", (Text("a"),), None)
    assert said("user", (Text("a"), Text("b")), None) == said("user", (Text("ab"),), None)
    call = llmcrdt.ToolCall("1", "f", '{"a": 1}')
    assert said("assistant", (call,), None) == said("assistant", (llmcrdt.ToolCall("1", "f", '{"a":1}'),), None)
    assert said("assistant", (call,), None) != said("assistant", (llmcrdt.ToolCall("1", "f", '{"a": 2}'),), None)
    assert said("tool", (llmcrdt.ToolResult("x"),), "1") != said("tool", (llmcrdt.ToolResult("x"),), "2")
    assert said("system", (llmcrdt.Config({"tools": []}),), None) is None
    assert said("assistant", (llmcrdt.Reasoning("hm"), Text("a")), None) == said("assistant", (Text("a"),), None)
