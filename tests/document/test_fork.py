"""A fork begins as the other conversation stood at an entry, and goes its own way."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

import llmcrdt
from llmcrdt.exceptions import ConversationNotFound, EntryNotFound, NotSealed

OpenRepo = Callable[..., llmcrdt.Repo]


def grown(open_repo: OpenRepo, seed: int) -> tuple[llmcrdt.Repo, llmcrdt.Conversation]:
    rng = random.Random(seed)
    repo = open_repo("laptop")
    conversation = repo.create("Trip")
    other = open_repo("phone", repo.library).join(conversation.id)
    for n in range(rng.randrange(3, 16)):
        writer = rng.choice([conversation, other])
        shown = list(writer.transcript())
        match rng.randrange(5):
            case 0:
                writer.append("assistant", f"a{n}", frame=writer.transcript(), hidden={"x/y": b"kept"})
            case 1 if shown:
                writer.edit(rng.choice(shown), f"e{n}")
            case 2 if shown:
                writer.select(rng.choice([*shown, *(e.entry for e in writer.transcript().elsewhere)]))
            case 3:
                conversation.apply(other.diff())
                other.apply(conversation.diff())
            case _:
                writer.append("user", f"u{n}")
    conversation.apply(other.diff())
    if not len(conversation.transcript()):
        conversation.append("user", "something")
    return repo, conversation


@pytest.mark.parametrize("seed", range(25))
def test_a_fork_at_the_end_shows_the_same(open_repo: OpenRepo, seed: int) -> None:
    repo, conversation = grown(open_repo, seed)
    fork = repo.fork(conversation, at=conversation.transcript()[-1])
    assert [(e.id, e.hash) for e in fork.transcript()] == [(e.id, e.hash) for e in conversation.transcript()]
    assert fork.verify() == []
    assert not fork.transcript().malformed
    before = conversation.diff()
    fork.append("user", "only here")
    assert conversation.diff() == before


def test_a_fork_in_the_middle_is_what_stood_there(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    conversation = repo.create("Trip")
    conversation.append("user", "u0")
    middle = conversation.append("assistant", "a0", frame=conversation.transcript(), hidden={"llmcrdt/tokens": b"t"})
    conversation.append("user", "u1")
    fork = repo.fork(conversation, at=middle, title="Another way")
    assert [e.text for e in fork.transcript()] == ["u0", "a0"]
    assert fork.transcript()[-1].frame == middle.frame
    assert fork.transcript()[-1].hidden["llmcrdt/tokens"].data == b"t"
    assert fork.title == "Another way"
    came = fork.forked_from
    assert came is not None
    assert (came["conversation"], came["entry"]) == (conversation.id, middle.id)
    assert conversation.forked_from is None


def test_what_can_t_be_forked_makes_no_conversation(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    conversation = repo.create()
    stream = conversation.stream("assistant", interval=0)
    stream.write("growing")
    with pytest.raises(NotSealed):
        repo.fork(conversation, at=conversation.transcript()[-1])
    with pytest.raises(EntryNotFound):
        repo.fork(conversation, at="AAAAAAAAAAAAAAAA")  # type: ignore[arg-type]
    assert [row.id for row in repo.list()] == [conversation.id]
    with pytest.raises(ConversationNotFound):
        repo.get("nowhere")


def test_the_entry_that_was_forked_at_is_shown_also_beside_a_rival(open_repo: OpenRepo) -> None:
    """Rivals stay side by side once both are written on (O6); what was written on them later is not in the fork."""
    repo = open_repo("laptop")
    conversation = repo.create()
    conversation.append("user", "u")
    other = open_repo("phone").join(conversation.id)
    other.apply(conversation.diff())
    answers = []
    for writer in (conversation, other):
        answers.append(writer.append("assistant", "a", frame=writer.transcript()))
        writer.append("user", "go on")
    conversation.apply(other.diff())
    assert {answer.id for answer in answers} <= set(conversation.transcript().ids)
    for answer in answers:
        fork = repo.fork(conversation, at=answer)
        assert answer.id in fork.transcript().ids
        assert len(fork.transcript()) + len(fork.transcript().elsewhere) <= 3
