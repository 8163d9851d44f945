"""Asks: acts by which somebody wants an answer of a model, and how far each has come, on every replica alike."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

import llmcrdt
from llmcrdt.document import schema
from llmcrdt.document.act_writer import ActWriter
from llmcrdt.document.acts import Question, Reply, read_act, write_act
from llmcrdt.document.asks import HANDED_OVER
from llmcrdt.document.conversation import core_of
from llmcrdt.exceptions import AskFailed, InvalidContent, NotSealed
from llmcrdt.ids import EntryId, SessionId, new_entry_id, new_session_id

from ..replicas import exchange, version_of

OpenRepo = Callable[..., llmcrdt.Repo]


def two(open_repo: OpenRepo) -> tuple[llmcrdt.Conversation, llmcrdt.Conversation]:
    phone = open_repo("phone")
    here = phone.create()
    there = open_repo("server", phone.library).join(here.id)
    exchange(here, there)
    return here, there


def acts(conversation: llmcrdt.Conversation) -> ActWriter:
    return ActWriter(core_of(conversation))


def known(conversation: llmcrdt.Conversation, ask: EntryId) -> Any:
    return next(each for each in conversation.asks() if each.id == ask)


def test_an_ask_and_its_question_are_one_update_and_come_together(open_repo: OpenRepo) -> None:
    here, there = two(open_repo)
    before = there.version()
    ask = here.ask("Where to?", model="smol*", settings={"max_tokens": 20})
    there.apply(here.diff(since=before))
    (found,) = there.asks()
    assert (found.id, found.model, found.settings, found.author) == (ask.id, "smol*", {"max_tokens": 20}, "phone")
    assert there.transcript()[-1].text == "Where to?" and found.after == there.transcript().tips
    assert ask.state == found.state == "waiting" and ask.answer is None


def test_an_ask_is_taken_streamed_and_answered_and_everybody_sees_it(open_repo: OpenRepo) -> None:
    here, there = two(open_repo)
    ask = here.ask("Where to?")
    exchange(here, there)
    acts(there).claim_ask(ask.id, lambda claim: False)
    exchange(here, there)
    assert ask.state == "taken" and len(ask.workers) == 1
    stream = there.stream("assistant", frame=there.transcript(), interval=0, ask=known(there, ask.id))
    stream.write("To the ")
    exchange(here, there)
    assert ask.state == "streaming" and ask.answer is not None and ask.answer.text == "To the "
    stream.write("sea.")
    stream.seal()
    exchange(here, there)
    assert ask.state == "answered" and ask.result(0).text == "To the sea." and ask.workers == ()


def test_a_worker_that_can_not_answer_says_why(open_repo: OpenRepo) -> None:
    here, there = two(open_repo)
    ask = here.ask("Where to?")
    exchange(here, there)
    acts(there).reply(ask.id, None, code="context_overflow", text="It is longer than the context.")
    exchange(here, there)
    assert ask.state == "failed" and ask.failure == ("context_overflow", "It is longer than the context.")
    with pytest.raises(AskFailed, match="longer than the context") as raised:
        ask.result(0)
    assert raised.value.code == "context_overflow"


def test_an_ask_that_is_handed_over_waits_again_for_another_worker(open_repo: OpenRepo) -> None:
    here, there = two(open_repo)
    ask = here.ask("Where to?")
    exchange(here, there)
    acts(there).claim_ask(ask.id, lambda claim: False)
    acts(there).reply(ask.id, None, code=HANDED_OVER)
    exchange(here, there)
    assert ask.state == "waiting"
    acts(there).claim_ask(ask.id, lambda claim: False)
    assert known(there, ask.id).state == "taken", "a session that gave it back may take it again"


def test_an_ask_is_taken_back_and_its_answer_stopped(open_repo: OpenRepo) -> None:
    here, there = two(open_repo)
    first, second = here.ask("Where to?"), None
    first.cancel()
    assert first.state == "stopped"
    with pytest.raises(AskFailed) as raised:
        first.result(0)
    assert raised.value.code == "stopped"
    second = here.ask()
    exchange(here, there)
    stream = there.stream("assistant", frame=there.transcript(), interval=0, ask=known(there, second.id))
    stream.write("On and on")
    exchange(here, there)
    second.cancel()
    exchange(here, there)
    assert stream.stop_asked
    stream.seal("stopped")
    exchange(here, there)
    assert second.state == "stopped" and second.answer is not None and second.answer.text == "On and on"


def test_an_ask_counts_while_its_frame_stands_unless_it_says_always(open_repo: OpenRepo) -> None:
    here, _ = two(open_repo)
    said = here.append("user", "Where to?")
    while_it_stands, always = here.ask(), here.ask(valid_while="always")
    here.append("user", "By train.")
    assert while_it_stands.state == "waiting", "what comes after the frame changes nothing of it"
    here.edit(said, "Where from?")
    assert while_it_stands.state == "outdated" and always.state == "waiting"
    with pytest.raises(AskFailed) as raised:
        while_it_stands.result(0)
    assert raised.value.code == "outdated"
    here.select(said)
    assert while_it_stands.state == "waiting", "the frame came back"


def test_an_ask_counts_no_more_when_something_before_its_tips_changes(open_repo: OpenRepo) -> None:
    here, _ = two(open_repo)
    system = here.append("system", "Be brief.")
    ask = here.ask("Where to?")
    here.edit(system, "Be long.")
    assert here.transcript()[-1].text == "Where to?" and ask.state == "outdated"


def test_an_erase_in_its_frame_leaves_the_place_and_so_the_ask(open_repo: OpenRepo) -> None:
    here, there = two(open_repo)
    here.append("user", "My name is Ann.")
    ask = here.ask("Who am I?")
    here.erase(here.transcript()[0])
    exchange(here, there)
    assert ask.state == known(there, ask.id).state == "waiting"


def test_an_answer_is_asked_for_again(open_repo: OpenRepo) -> None:
    here, there = two(open_repo)
    here.append("user", "Where to?")
    answer = here.append("assistant", "The sea", frame=here.transcript())
    ask = here.ask(instead_of=answer)
    exchange(here, there)
    assert known(there, ask.id).instead_of == answer.id
    with pytest.raises(InvalidContent, match="no generation"):
        here.ask(instead_of=here.transcript()[0])


@pytest.mark.parametrize("wrong", [{"model": 5}, {"valid_while": "now"}, {"settings": {"a": object()}}])
def test_an_ask_that_is_none_is_refused_and_nothing_is_written(open_repo: OpenRepo, wrong: dict[str, Any]) -> None:
    here, _ = two(open_repo)
    before = version_of(here)
    with pytest.raises(InvalidContent):
        here.ask("Where to?", **wrong)
    assert version_of(here) == before and len(here.transcript()) == 0


def test_while_an_answer_is_written_only_always_can_be_asked(open_repo: OpenRepo) -> None:
    here, _ = two(open_repo)
    here.append("user", "Where to?")
    stream = here.stream("assistant", frame=here.transcript(), interval=0)
    stream.write("To")
    with pytest.raises(NotSealed, match="always"):
        here.ask()
    assert here.ask(valid_while="always").state == "waiting"
    stream.seal()


def test_whoever_waits_is_told(open_repo: OpenRepo) -> None:
    here, there = two(open_repo)
    ask = here.ask("Where to?")
    exchange(here, there)
    seen: list[str] = []
    stop = ask.observe(lambda status: seen.append(status.state))
    grown: list[str] = []
    follower = threading.Thread(target=lambda: grown.extend(answer.text for answer in ask.follow(20)))
    follower.start()
    stream = there.stream("assistant", frame=there.transcript(), interval=0, ask=known(there, ask.id))
    for word in ("To ", "the ", "sea."):
        stream.write(word)
        exchange(here, there)
    stream.seal()
    exchange(here, there)
    follower.join(20)
    assert ask.result(20).text == "To the sea."
    assert grown and grown[-1] == "To the sea." and all("To the sea.".startswith(text) for text in grown)
    stop()
    assert asyncio.run(_awaited(ask)) == "To the sea."
    with pytest.raises(TimeoutError, match="goes on waiting"):
        here.ask().result(0)


async def _awaited(ask: Any) -> str:
    return str((await ask).text)


def test_what_was_written_is_read_again() -> None:
    rng = random.Random(7)

    def drawn() -> EntryId:
        return new_entry_id(rng.randbytes)

    for _ in range(200):
        session, lamport = new_session_id(rng.randbytes), rng.randrange(1, 1 << 50)
        act = rng.choice(
            [
                Question(
                    drawn(), session, lamport, (drawn(),), "hash", "smol*", "always", {"seed": 1}, drawn(), "Ann", 5
                ),
                Question(drawn(), session, lamport, (), "", asked_at=-1),
                Reply(drawn(), session, lamport, drawn()),
                Reply(drawn(), session, lamport, None, "no_model", "None here."),
                Reply(drawn(), session, lamport, drawn(), HANDED_OVER),
            ]
        )
        assert read_act(act.key, write_act(act)) == act


ASK, SESSION = EntryId("a" * 16), SessionId("s" * 22)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "{}",
        '{"lamport": 1}',
        '{"lamport": 1, "after": "x"}',
        '{"lamport": 1, "after": ["x"]}',
        '{"lamport": 1, "after": [], "model": 5}',
        '{"lamport": 1, "after": [], "settings": []}',
        '{"lamport": 1, "after": [], "valid_while": "later"}',
        '{"lamport": 1, "after": [], "instead_of": 7}',
    ],
)
def test_an_ask_with_a_value_of_another_type_is_none(text: str) -> None:
    assert read_act(f"ask:{ASK}:{SESSION}", text) is None
    assert read_act(f"reply:{ASK}:{SESSION}", text) is None


def test_a_stranger_under_the_same_id_changes_nothing_for_the_older_ask(open_repo: OpenRepo) -> None:
    here, _ = two(open_repo)
    ask = here.ask("Where to?", model="smol")
    core = core_of(here)
    forged = Question(ask.id, SESSION, 1 << 40, (), "", "evil")
    with core.editing() as edit:
        edit.put(schema.ACTS, forged.key, write_act(forged))
    (found,) = here.asks()
    assert found.model == "smol"


def test_after_two_have_died_a_third_one_takes_the_ask_over(open_repo: OpenRepo) -> None:
    """The second had taken over from the first, so the first is nobody's to name any more."""
    here, there = two(open_repo)
    third = open_repo("third").join(here.id)
    ask = here.ask("Where to?")
    exchange(here, there)
    acts(here).claim_ask(ask.id, lambda claim: False)
    exchange(here, there)
    acts(there).claim_ask(ask.id, lambda claim: True)
    exchange(there, third)
    (holder,) = known(third, ask.id).workers
    claim = acts(third).claim_ask(ask.id, lambda claim: claim.session == holder)
    assert claim.others == () and claim.granted(0, offline=True)
    assert known(third, ask.id).workers == (core_of(third).document.session,)


def answered(conversation: llmcrdt.Conversation, ask: EntryId, text: str) -> EntryId:
    with conversation.stream("assistant", frame=conversation.transcript(), ask=known(conversation, ask)) as stream:
        stream.write(text)
    return stream.id


@pytest.mark.parametrize("valid_while", ["frame", "always"])
def test_two_answers_on_two_lists_are_alternatives(open_repo: OpenRepo, valid_while: Any) -> None:
    here, there = two(open_repo)
    ask = here.ask("Where to?", valid_while=valid_while)
    exchange(here, there)
    there.append("user", "And by which train?")
    a, b = answered(here, ask.id, "To the sea."), answered(there, ask.id, "To the hills, by the early one.")
    exchange(here, there)
    for replica in (here, there):
        assert {e.id for e in replica.alternatives(a)} == {a, b} == {e.id for e in replica.alternatives(b)}
        assert len({a, b} & {e.id for e in replica.transcript()}) == 1, "one is shown, nothing is said twice"
        assert known(replica, ask.id).state == "answered"
        assert replica.verify() == []
    assert here.transcript().hash == there.transcript().hash
    hidden = a if b in {e.id for e in here.transcript()} else b
    here.select(hidden)
    assert hidden in {e.id for e in here.transcript()}, "the other one is kept, and can be chosen"
    regenerated = here.append("assistant", "To the lake.", instead_of=hidden)
    assert {e.id for e in here.alternatives(regenerated)} == {a, b, regenerated.id}
    exchange(here, there)
    assert version_of(here) == version_of(there)


def test_two_answers_to_a_second_ask_on_one_list_are_alternatives(open_repo: OpenRepo) -> None:
    """Both come after the first ask's answer, and one of them after more."""
    here, there = two(open_repo)
    first = here.ask("Where to?")
    second = here.ask(model="other", valid_while="always")
    said = answered(here, first.id, "To the sea.")
    exchange(here, there)
    there.append("user", "And by which train?")
    a, b = (
        answered(here, second.id, "Or to the hills."),
        answered(there, second.id, "To the hills by the late one."),
    )
    exchange(here, there)
    for replica in (here, there):
        assert {e.id for e in replica.alternatives(a)} == {a, b} == {e.id for e in replica.alternatives(b)}
        assert len({a, b} & {e.id for e in replica.transcript()}) == 1
        assert said in {e.id for e in replica.transcript()}
        assert replica.verify() == []
    assert version_of(here) == version_of(there)


def test_an_answer_that_had_another_one_of_its_turn_comes_after_it(open_repo: OpenRepo) -> None:
    """Two asks on one list: the second answer is computed on the first, and doesn't take its place."""
    here, there = two(open_repo)
    first = here.ask("Where to?")
    second = here.ask(model="other")
    a = answered(here, first.id, "To the sea.")
    b = answered(here, second.id, "Or to the hills.")
    exchange(here, there)
    for replica in (here, there):
        assert [e.id for e in replica.transcript()][-2:] == [a, b]
        assert [e.id for e in replica.alternatives(b)] == [b]


def test_a_repo_that_is_opened_again_knows_which_turn_an_answer_stands_for(open_repo: OpenRepo) -> None:
    here, there = two(open_repo)
    ask = here.ask("Where to?")
    exchange(here, there)
    there.append("user", "And by which train?")
    a, b = answered(here, ask.id, "To the sea."), answered(there, ask.id, "To the hills.")
    exchange(here, there)
    shown = here.transcript().hash
    id_ = here.id
    here.close()
    again = open_repo("phone").get(id_)
    assert again.transcript().hash == shown and {e.id for e in again.alternatives(a)} == {a, b}


@pytest.mark.parametrize("seed", range(8))
def test_every_replica_says_the_same_of_every_ask(open_repo: OpenRepo, seed: int) -> None:
    rng = random.Random(seed)
    phone = open_repo("phone")
    devices = [phone.create()]
    devices += [open_repo(f"d{n}", phone.library).join(devices[0].id) for n in range(2)]
    devices[0].append("user", "Begin.")
    exchange(*devices)
    for _ in range(30):
        device = rng.choice(devices)
        asks = device.asks()
        some = rng.choice(asks) if asks else None
        sealed = all(entry.sealed for entry in device.transcript())
        match rng.randrange(9):
            case 0 | 1 if sealed:
                device.ask(rng.choice([None, "More."]), valid_while=rng.choice(["frame", "always"]))
            case 2 if some:
                acts(device).claim_ask(some.id, lambda claim: rng.random() < 0.5)
            case 3 if some and sealed:
                stream = device.stream("assistant", frame=device.transcript(), interval=0, ask=some)
                stream.write("words")
                if rng.random() < 0.7:
                    stream.seal(rng.choice(["complete", "stopped", "failed"]))
            case 4 if some:
                acts(device).reply(some.id, None, code=rng.choice([HANDED_OVER, "no_model"]), text="No.")
            case 5 if some:
                some.cancel()
            case 6:
                device.edit(rng.choice(device.transcript()), "Otherwise.")
            case 7:
                for entry in device.unsealed():
                    device.seal(entry)
            case _:
                exchange(*rng.sample(devices, 2))
    exchange(*devices)
    exchange(*devices)
    fresh = open_repo("fresh", phone.library).join(devices[0].id)
    fresh.apply(devices[0].diff())
    said = [
        [(a.id, a.state, a.answer and (a.answer.id, a.answer.hash), a.workers, a.failure) for a in d.asks()]
        for d in (*devices, fresh)
    ]
    assert all(each == said[0] for each in said), f"seed {seed}"


def test_whoever_watches_a_conversation_that_is_closed_hears_nothing_more(open_repo: OpenRepo) -> None:
    here, _ = two(open_repo)
    ask = here.ask("Where to?")
    heard: list[str] = []
    ask.observe(lambda status: heard.append(status.state))
    look = core_of(here).observers._watchers[-1]
    here.close()
    look()
    assert heard == []
