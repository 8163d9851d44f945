"""A fork is merged into the conversation that it was made from, on every device in the same way."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

import llmcrdt
from llmcrdt.document.conversation import core_of
from llmcrdt.exceptions import EntryNotFound, InvalidContent

from ..replicas import exchange, stands
from .test_fork import grown

OpenRepo = Callable[..., llmcrdt.Repo]
SECRET = "Rumpelstilzchen"


def everything(conversation: llmcrdt.Conversation) -> list[str]:
    """The texts of all entries, shown or not."""
    t = conversation.transcript()
    return sorted(e.text for e in [*t, *(found.entry for found in t.elsewhere)])


def go_on(rng: random.Random, writer: llmcrdt.Conversation, name: str, steps: int) -> list[str]:
    """Say this and that; the words that are new."""
    said = []
    for n in range(steps):
        shown = [e for e in writer.transcript() if e.status != "erased"]
        words = f"{name}{n}"
        match rng.randrange(6):
            case 0:
                token = llmcrdt.HiddenField(b"for us", sealed=True)
                writer.append("assistant", words, frame=writer.transcript(), hidden={"x/y": b"clear", "x/z": token})
            case 1 if shown:
                writer.edit(rng.choice(shown), words)
            case 2:
                answer = writer.append("assistant", [llmcrdt.Text(words), llmcrdt.ToolCall("c", "f", "{}")])
                said.append(words)
                words += "r"
                writer.append("tool", words, call=answer.tool_calls[0])
            case 3 if shown:
                writer.summarize(until=rng.choice(shown), text=words)
            case 4 if any(e.role == "assistant" for e in shown):
                writer.append("assistant", words, instead_of=[e for e in shown if e.role == "assistant"][-1])
            case _:
                writer.append("user", words)
        said.append(words)
    return said


def replica(
    open_repo: OpenRepo, name: str, repo: llmcrdt.Repo, *known: llmcrdt.Conversation
) -> list[llmcrdt.Conversation]:
    """The same conversations on another device, with their keys."""
    other = open_repo(name, repo.library)
    made = []
    for conversation in known:
        joined = other.join(conversation.id)
        joined.apply(conversation.diff())
        repo.keyring.newest(conversation.id)
        other.keyring.add_all(repo.keyring.everything())
        made.append(joined)
    return made


@pytest.mark.parametrize("seed", range(30))
def test_two_devices_adopt_a_fork_in_whatever_order(open_repo: OpenRepo, seed: int) -> None:
    rng = random.Random(seed)
    repo, here = grown(open_repo, seed)
    fork = repo.fork(here, at=rng.choice([e for e in here.transcript() if e.sealed]))
    there, fork_there = replica(open_repo, "tablet", repo, here, fork)
    kept = everything(here)
    said = go_on(rng, here, "here", 3) + go_on(rng, there, "there", 3)
    in_fork = go_on(rng, fork, "fork", 4) + go_on(rng, fork_there, "fork there", 4)
    for step in rng.sample(range(8), 8):
        match step:
            case 0 | 1:
                here.adopt(fork)
            case 2 | 3:
                there.adopt(fork_there)
            case 4:
                exchange(fork, fork_there)
            case 5:
                exchange(here, there)
            case 6:
                in_fork += go_on(rng, fork, "later", 2)
            case _:
                said += go_on(rng, here, "on", 2)
    exchange(here, there)
    exchange(fork, fork_there)
    there.adopt(fork_there)
    assert here.adopt(fork).locked == ()
    exchange(here, there)
    assert stands(here) == stands(there)
    assert here.adopt(fork).entries == there.adopt(fork_there).entries == ()
    assert everything(here) == sorted([*kept, *said, *in_fork]), "each thing that was said is there once"
    assert not here.transcript().malformed
    assert here.verify() == there.verify() == []
    found = {e.text: e for e in [*here.transcript(), *(e.entry for e in here.transcript().elsewhere)]}
    for entry in [*fork.transcript(), *(e.entry for e in fork.transcript().elsewhere)]:
        taken = found[entry.text]
        assert (taken.role, taken.parts[0], taken.author, taken.lamport) == (
            entry.role,
            entry.parts[0],
            entry.author,
            entry.lamport,
        )
        assert {name: f.data for name, f in taken.hidden.items()} == {name: f.data for name, f in entry.hidden.items()}
        assert (taken.frame is None) == (entry.frame is None)


@pytest.mark.parametrize("seed", range(30))
def test_what_was_erased_does_not_come_back_by_adopting(open_repo: OpenRepo, seed: int) -> None:
    """It doesn't matter who erases, or where, before and after."""
    rng = random.Random(seed)
    repo = open_repo("laptop")
    here = repo.create()
    here.append("system", "Be brief.")
    old = here.append("user", f"{SECRET} old")
    here.append("assistant", "yes", frame=here.transcript())
    fork = repo.fork(here, at=here.transcript()[-1])
    there, fork_there = replica(open_repo, "tablet", repo, here, fork)
    tokens = llmcrdt.HiddenField(f"{SECRET} tokens".encode())
    edit = fork.edit(old, f"{SECRET} edit")
    fork.append("assistant", "I see", frame=fork.transcript())
    fork.select(old)
    new = fork.append("user", f"{SECRET} new")
    fork.append("assistant", "well", frame=fork.transcript(), hidden={"llmcrdt/tokens": tokens})
    exchange(fork, fork_there)

    def words(conversation: llmcrdt.Conversation, name: str) -> list[llmcrdt.Entry]:
        t = conversation.transcript()
        entries = [*t, *(found.entry for found in t.elsewhere)]
        return [e for e in entries if e.text == f"{SECRET} {name}"]

    seen: list[llmcrdt.Entry] = []
    gone = False

    def erase_old() -> None:
        seen.extend(words(here, "edit"))
        here.erase(old)

    def erase_new() -> None:
        nonlocal gone
        for found in words(there, "new"):
            there.erase(found)
            gone = True

    steps: list[Callable[[], object]] = [
        lambda: here.adopt(fork),
        lambda: there.adopt(fork_there),
        erase_old,
        lambda: exchange(here, there),
        lambda: exchange(fork, fork_there),
    ]
    if seed % 3 == 0:
        steps.append(lambda: fork.erase(new))
        gone = True
    elif seed % 3 == 1:
        steps.append(erase_new)
    for step in rng.sample(steps, len(steps)):
        step()
    for _ in range(2):
        exchange(here, there)
        exchange(fork, fork_there)
        here.adopt(fork)
        there.adopt(fork_there)
    exchange(here, there)
    assert stands(here) == stands(there)
    for conversation in (here, there):
        t = conversation.transcript()
        texts = [e.text for e in t]
        assert f"{SECRET} old" not in texts
        withheld = [e.entry.text for e in t.elsewhere if e.way == "withheld"]
        assert withheld == ([] if seen else [f"{SECRET} edit", "I see"]), "what the eraser had not seen"
        assert seen or f"{SECRET} edit" not in texts
        assert bool(words(conversation, "new")) != gone
        assert "well" in texts
        data = conversation.diff()
        assert f"{SECRET} old".encode() not in data
        assert f"{SECRET} tokens".encode() not in data, "token ids spell the words"
        if gone:
            assert f"{SECRET} new".encode() not in data
        assert conversation.verify() == []
        assert not t.malformed
    assert edit.text == f"{SECRET} edit"


def test_only_a_fork_of_it_is_adopted(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    here, other = repo.create(), repo.create()
    entry = here.append("user", "Hello")
    fork = repo.fork(here, at=entry)
    further = repo.fork(fork, at=entry)
    further.append("user", "further")
    before = here.diff()
    for wrong in (other, further, here):
        with pytest.raises(InvalidContent, match="no fork"):
            here.adopt(wrong)
    with pytest.raises(InvalidContent, match="no fork"):
        fork.adopt(here)
    assert here.diff() == before
    fork.adopt(further)
    here.adopt(fork)
    assert [e.text for e in here.transcript()] == ["Hello", "further"]


def test_a_fork_is_adopted_where_all_that_it_began_with_is(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    here = repo.create()
    here.append("user", "Hello")
    early = here.diff()
    fork = repo.fork(here, at=here.append("user", "more"))
    mine = fork.append("user", "in the fork")
    phone = open_repo("phone", repo.library)
    there, fork_there = phone.join(here.id), phone.join(fork.id)
    fork_there.apply(fork.diff())
    there.apply(early)
    with pytest.raises(EntryNotFound, match="not here yet"):
        there.adopt(fork_there)
    there.apply(here.diff())
    there.adopt(fork_there)
    here.adopt(fork)
    exchange(here, there)
    assert stands(here) == stands(there)
    assert mine.id not in there.transcript().ids


def answer_on_two_lists(open_repo: OpenRepo, here: llmcrdt.Conversation) -> list[str]:
    """Two devices answer one ask, and one of them saw more."""
    ask = here.ask("Where to?")
    there = open_repo("other").join(here.id)
    exchange(here, there)
    there.append("user", "And by which train?")
    for replica, words in ((here, "To the sea."), (there, "To the hills.")):
        asked = next(each for each in replica.asks() if each.id == ask.id)
        with replica.stream("assistant", frame=replica.transcript(), ask=asked) as stream:
            stream.write(words)
    exchange(here, there)
    return [e.text for e in here.alternatives(stream.id)]


def test_answers_to_a_fork_s_ask_stand_for_one_turn_where_it_is_adopted(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    origin = repo.create()
    fork = repo.fork(origin, at=origin.append("user", "Hello"))
    words = answer_on_two_lists(open_repo, fork)
    adopted = [origin.entry(i) for i in origin.adopt(fork).entries]
    (sea,) = (e for e in adopted if e.text == "To the sea.")
    assert sorted(e.text for e in origin.alternatives(sea)) == sorted(words) == ["To the hills.", "To the sea."]
    assert origin.verify() == []


def test_an_answer_said_anew_in_a_fork_stands_for_its_turn_where_it_is_adopted(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    origin = repo.create()
    answer_on_two_lists(open_repo, origin)
    shown = next(e for e in origin.transcript() if e.frame is not None)
    origin.select(next(e for e in origin.alternatives(shown) if e.text == "To the hills."))
    (hills,) = (e for e in origin.transcript() if e.frame is not None)
    fork = repo.fork(origin, at=hills)
    fork.append("assistant", "To the lake.", instead_of=hills.id)
    (lake,) = origin.adopt(fork).entries
    assert {e.text for e in origin.alternatives(lake)} == {"To the sea.", "To the hills.", "To the lake."}


def test_what_is_still_written_waits(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    here = repo.create()
    fork = repo.fork(here, at=here.append("user", "Hello"))
    with fork.stream("assistant", frame=fork.transcript()) as stream:
        stream.write("I say")
        stream.flush()
        left_out = here.adopt(fork)
        assert left_out.entries == ()
        assert left_out.unfinished == (fork.transcript()[-1].id,)
    assert len(here.adopt(fork).entries) == 1
    assert [e.text for e in here.transcript()] == ["Hello", "I say"]


def test_an_encrypted_field_comes_with_its_key(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    here = repo.create()
    fork = repo.fork(here, at=here.append("user", "Hello"))
    fork.append("user", "b", hidden={"x/y": llmcrdt.HiddenField(b"for us", {"provider": "x"}, sealed=True)})
    phone = open_repo("phone", repo.library)
    there, fork_there = phone.join(here.id), phone.join(fork.id)
    there.apply(here.diff())
    fork_there.apply(fork.diff())
    (entry,) = there.adopt(fork_there).entries
    assert there.adopt(fork_there).locked == ((entry, "x/y"),)
    here.adopt(fork)
    exchange(here, there)
    assert stands(here) == stands(there)
    assert here.entry(entry).hidden["x/y"].data == b"for us"
    assert there.entry(entry).hidden["x/y"].locked
    phone.keyring.add_all(repo.keyring.everything())
    assert there.entry(entry).hidden["x/y"].data == b"for us"
    version = here.version()
    assert there.adopt(fork_there).locked == ()
    assert here.diff(version) == there.diff(version)


def test_a_version_that_a_writer_sealed_late_comes_too(open_repo: OpenRepo) -> None:
    """One device adopts the stopped version, the other both: nothing of either is lost."""
    repo = open_repo("laptop")
    here = repo.create()
    fork = repo.fork(here, at=here.append("user", "Hello"))
    there, fork_there = replica(open_repo, "tablet", repo, here, fork)
    with fork.stream("assistant", frame=fork.transcript()) as stream:
        stream.write("I say")
        stream.flush()
        fork_there.apply(fork.diff())
        fork_there.seal(fork_there.transcript()[-1])
        there.adopt(fork_there)
        stream.write(" more")
    exchange(fork, fork_there)
    (entry,) = here.adopt(fork).entries
    exchange(here, there)
    assert stands(here) == stands(there)
    for conversation in (here, there):
        assert conversation.entry(entry).text == "I say more"
        assert len(core_of(conversation).view.states[entry].versions) == 2
