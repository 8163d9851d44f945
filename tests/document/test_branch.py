"""The list that ends with an entry is all that its author had before it."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

import llmcrdt
from llmcrdt.document.conversation import core_of
from llmcrdt.document.transcript import Transcript
from llmcrdt.document.writer import EntryWriter

OpenRepo = Callable[..., llmcrdt.Repo]


def branch(conversation: llmcrdt.Conversation, *ends: str) -> Transcript:
    with core_of(conversation).reading():
        return core_of(conversation).view.transcript(ends)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(6))
def test_of_merged_histories(seed: int, open_repo: OpenRepo) -> None:
    chance = random.Random(seed)
    devices = [open_repo("one")]
    devices.append(open_repo("two", devices[0].library))
    conversations = [devices[0].create()]
    conversations.append(devices[1].join(conversations[0].id))
    conversations[1].apply(conversations[0].diff())
    seen: dict[str, tuple[str, ...]] = {}
    for step in range(40):
        here, other = chance.sample(conversations, 2)
        before = here.transcript()
        match chance.randrange(6):
            case 0:
                other.apply(here.diff())
            case 1 if len(before):
                here.edit(chance.choice(before), f"edit {step}")
            case 2 | 3:
                made = here.append("assistant", f"answer {step}", frame=before)
                seen[made.id] = (*(entry.id for entry in before), made.id)
            case _:
                here.append("user", f"words {step}")
    for conversation in conversations:
        for generation in conversation.generations():
            found = branch(conversation, generation.id)
            assert found.ids == (*(e.id for e in conversation.frame_entries(generation)), generation.id)
            assert found.ids == seen.get(generation.id, found.ids)
        for entry in conversation.transcript():
            found = branch(conversation, entry.id)
            assert found.ids[-1] == entry.id and len(set(found.ids)) == len(found.ids)
            there = {each.id for each in found}
            for each in found:
                assert there.issuperset(each.parents), "whatever it stands on stands there"


def test_a_history_without_branches_is_its_own_branch_and_nothing_is_an_empty_one(open_repo: OpenRepo) -> None:
    conversation = open_repo("one").create()
    conversation.append("user", "a")
    conversation.append("assistant", "b", frame=conversation.transcript())
    last = conversation.append("user", "c")
    found, shown = branch(conversation, last.id), conversation.transcript()
    assert (found.ids, found.hash, found.tips, found.frame()) == (shown.ids, shown.hash, shown.tips, shown.frame())
    assert branch(conversation).ids == () and branch(conversation).tips == ()


def test_an_answer_on_a_branch_leaves_out_what_stands_beside_it(open_repo: OpenRepo) -> None:
    conversation = open_repo("one").create()
    question = conversation.append("user", "a")
    writer, core = EntryWriter(core_of(conversation)), core_of(conversation)
    here = branch(conversation, question.id)
    conversation.append("user", "beside")
    with core.editing():
        more = writer.append_after(here, "user", (llmcrdt.Text("b"),), author="me")
    answer = conversation.append("assistant", "c", frame=branch(conversation, more.id))
    assert [entry.text for entry in conversation.frame_entries(answer)] == ["a", "b"]
    assert [entry.text for entry in conversation.transcript()] == ["a", "b", "c", "beside"]
    assert conversation.verify() == []
