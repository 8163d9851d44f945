"""Malformed and excessive asks of strangers: each is refused or told, and nobody else has to wait for it."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pycrdt
import pytest

import llmcrdt
from llmcrdt.document.acts import ask_hash
from llmcrdt.document.asks import fits
from llmcrdt.ids import new_entry_id, new_session_id
from llmcrdt.kvcache import NullCache
from llmcrdt.serve import Worker
from llmcrdt.serve.ask_order import AskOrder
from llmcrdt.testing.engine import MemoryEngine
from llmcrdt.testing.tokenizer import ByteTokenizer

OpenRepo = Callable[..., llmcrdt.Repo]
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
SHORT = {"max_tokens": 3}


@pytest.fixture(scope="module")
def engine() -> Iterator[MemoryEngine]:
    made = MemoryEngine(ByteTokenizer(TEMPLATE), NullCache())
    yield made
    made.close()


def until(true: Callable[[], Any], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


class Stranger:
    """Writes acts with nothing but Yjs, of whatever session it likes."""

    def __init__(self, conversation: llmcrdt.Conversation, seed: int = 0) -> None:
        self._conversation, self._rng = conversation, random.Random(seed)

    def id(self) -> str:
        return new_entry_id(self._rng.randbytes)

    def session(self) -> str:
        return new_session_id(self._rng.randbytes)

    def write(self, acts: dict[str, object]) -> None:
        doc: pycrdt.Doc[Any] = pycrdt.Doc()
        doc.apply_update(self._conversation.diff())
        before, there = doc.get_state(), doc.get("acts", type=pycrdt.Map)
        with doc.transaction():
            for key, value in acts.items():
                there[key] = value if isinstance(value, str) else json.dumps(value)
        self._conversation.apply(doc.get_update(before))

    def ask(self, **more: object) -> str:
        """A well-formed ask that counts always, but for ``more``."""
        made = self.id()
        self.write({f"ask:{made}:{self.session()}": _ask(**more)})
        return made


def _ask(**more: object) -> dict[str, object]:
    return {"lamport": 7, "after": [], "frame": "", "model": "", "valid_while": "always", "settings": SHORT, **more}


def state_of(conversation: llmcrdt.Conversation, ask: str) -> str:
    return next((each.state for each in conversation.asks() if each.id == ask), "none")


def test_malformed_asks_are_none_and_harm_nobody(open_repo: OpenRepo, engine: MemoryEngine) -> None:
    conversation = open_repo("laptop").create()
    conversation.append("user", "Where to?")
    stranger = Stranger(conversation)
    wrong: list[object] = ["", "no JSON", "[]", "1e999", '{"lamport": -1}', "x" * 5000]
    wrong += [_ask(**{name: value}) for name, value in [("after", 5), ("after", ["x"]), ("model", []), ("frame", 3)]]
    wrong += [_ask(settings=[]), _ask(valid_while="tomorrow"), _ask(instead_of="me"), _ask(lamport=1 << 60)]
    ids = [stranger.id() for _ in wrong]
    stranger.write({f"ask:{ask}:{stranger.session()}": text for ask, text in zip(ids, wrong, strict=True)})
    with Worker(open_repo("laptop"), {"small": engine}):
        assert conversation.ask(settings=SHORT).result(60).sealed
        assert {state_of(conversation, ask) for ask in ids} <= {"none"}


def test_an_ask_that_asks_itself_is_told_or_answered_once(open_repo: OpenRepo, engine: MemoryEngine) -> None:
    conversation = open_repo("laptop").create()
    said = conversation.append("user", "Where to?")
    stranger = Stranger(conversation)
    loops = []
    for fields in ({"after": 1}, {"instead_of": 1}, {"after": 1, "valid_while": "frame"}, {"reply": 1}):
        made, session = stranger.id(), stranger.session()
        ask = _ask(**{n: [made] if n == "after" else made for n in fields if n in ("after", "instead_of")})
        acts: dict[str, object] = {f"ask:{made}:{session}": ask | {n: v for n, v in fields.items() if v != 1}}
        if "reply" in fields:  # answered by itself, and by the question that it is about
            acts |= {f"reply:{made}:{session}": {"lamport": 8, "entry": made}}
            acts |= {f"reply:{made}:{stranger.session()}": {"lamport": 9, "entry": said.id}}
        stranger.write(acts)
        loops.append(made)
    with Worker(open_repo("laptop"), {"small": engine}):
        assert conversation.ask("And then?", settings=SHORT, valid_while="always").result(60).sealed
        over = {"answered", "failed", "outdated", "stopped"}
        until(lambda: all(state_of(conversation, ask) in over for ask in loops))
        assert state_of(conversation, loops[1]) == "outdated", "there is no such answer"
    assert conversation.verify() == []


def test_an_ask_on_words_that_are_not_here_yet_waits_for_them_or_is_outdated(
    open_repo: OpenRepo, engine: MemoryEngine
) -> None:
    conversation = open_repo("laptop").create()
    stranger = Stranger(conversation)
    nowhere = stranger.ask(after=[stranger.id()], frame="x" * 40, valid_while="frame")
    with Worker(open_repo("laptop"), {"small": engine}):
        assert conversation.ask("Where to?", settings=SHORT).result(60).sealed
        assert state_of(conversation, nowhere) == "outdated"
        assert len(list(conversation.generations())) == 1


def test_a_forged_lease_holds_nobody_up_for_ever(open_repo: OpenRepo, engine: MemoryEngine) -> None:
    """A claim of a session that says in its presence that it is there, and does nothing."""
    conversation = open_repo("laptop").create()
    ask = conversation.ask("Where to?", settings=SHORT)
    stranger = Stranger(conversation)
    claims = {f"claim:{ask_hash(ask.id)}:{stranger.session()}": {"lamport": 9 + n} for n in range(5)}
    stranger.write(claims)
    assert ask.state == "taken"
    now = [0.0]
    worker = Worker(open_repo("laptop"), {"small": engine}, patience=30, clock=lambda: now[0])
    worker._any_alive = lambda tracked, holders: True  # type: ignore[method-assign]  # it says so, always
    with worker:
        time.sleep(0.5)
        now[0] = 500.0
        time.sleep(0.5)
        assert ask.state == "taken", "it may be at work"
        now[0] = 700.0
        until(lambda: ask.state == "answered" or now.__setitem__(0, now[0] + 40) is not None)
    assert ask.answer is not None and ask.answer.frame is not None


@pytest.mark.parametrize("flood", ["absent", "unfollowed"])
def test_thousands_at_once_keep_nobody_else_waiting(open_repo: OpenRepo, engine: MemoryEngine, flood: str) -> None:
    repo = open_repo("laptop")
    flooded, other = repo.create(), repo.create()
    flooded.append("user", "Where to?")
    stranger = Stranger(flooded)
    more = {"model": "large"} if flood == "absent" else {"settings": {"max_tokens": 0}}
    stranger.write({f"ask:{stranger.id()}:{stranger.session()}": _ask(**more) for _ in range(1000)})
    with Worker(repo, {"small": engine}) as worker:
        until(lambda: flood == "absent" or worker.waiting > 0)
        assert worker.waiting <= 80, "no more are looked after at once"
        assert other.ask("Where to?", settings=SHORT).result(60).sealed
        if flood == "absent":
            asked = flooded.ask(settings=SHORT, valid_while="always")
            assert asked.result(60).sealed
        else:
            until(lambda: sum(each.state == "failed" for each in flooded.asks()) > 100)
            failed = next(each for each in flooded.asks() if each.state == "failed")
            assert failed.failure is not None and failed.failure[0] == "invalid_settings"


def test_an_asker_who_asks_a_thousand_times_keeps_no_other_asker_of_that_conversation_waiting(
    open_repo: OpenRepo, engine: MemoryEngine
) -> None:
    conversation = open_repo("laptop").create()
    conversation.append("user", "Where to?")
    stranger = Stranger(conversation)
    flood = {f"ask:{stranger.id()}:{stranger.session()}": _ask(author="flood") for _ in range(900)}
    for name in ("a", "b", "c", "d", "e"):
        flood |= {f"ask:{stranger.id()}:{stranger.session()}": _ask(author=name, lamport=8) for _ in range(20)}
    stranger.write(flood)
    with Worker(open_repo("laptop"), {"small": engine}) as worker:
        until(lambda: worker.waiting >= 30)
        assert worker.waiting <= 128, "no more are looked after at once"
        mine = conversation.ask(settings=SHORT, valid_while="always")
        assert mine.result(30).sealed
        answered = sum(each.state == "answered" for each in conversation.asks())
    assert answered < 100, "an asker takes turns with the others"


def test_a_pattern_is_a_name_with_stars_and_not_a_way_to_keep_a_worker_busy() -> None:
    assert fits("smollm2", "smol*") and fits("a", "") and not fits("a", "b") and fits("[a]", "[[]a]")
    began = time.process_time()
    assert not fits("a" * 60, "*a" * 90 + "b") and not fits("a" * 60, "*" * 1_000_000)
    assert time.process_time() - began < 2


def test_conversations_and_askers_take_turns(open_repo: OpenRepo, engine: MemoryEngine) -> None:
    """One that asks a hundred times is served as often as the others that wait, not before them."""
    repo = open_repo("laptop")
    greedy, modest = repo.create(), repo.create()
    many = [greedy.ask(f"Question {n}?" if not n else None, settings=SHORT, valid_while="always") for n in range(30)]
    few = [modest.ask(f"Question {n}?" if not n else None, settings=SHORT, valid_while="always") for n in range(3)]
    with Worker(repo, {"small": engine}):
        for ask in few:
            ask.result(60)
        assert sum(ask.state == "answered" for ask in many) <= 10


def test_a_newcomer_begins_with_the_count_of_the_least_served() -> None:
    turns = AskOrder()
    for n in range(40):
        turns.served("old" if n % 4 else "older", "me")
    waiting = [("old", "me"), ("older", "me")]
    turns.came("new", "me", waiting)
    assert turns.of("new", "me")[0] == turns.of("older", "me")[0] == 10 < turns.of("old", "me")[0]
    turns.came("old", "you", waiting)
    assert turns.of("old", "you") == turns.of("old", "me"), "nobody is paid for another name"
    turns.served("old", "me")
    assert turns.of("old", "you") < turns.of("old", "me")


def test_an_entry_that_nobody_ends_keeps_no_other_ask_waiting(open_repo: OpenRepo, engine: MemoryEngine) -> None:
    """A device began to answer, and died. Later askers would wait for it."""
    laptop = open_repo("laptop")
    conversation = laptop.create()
    conversation.append("user", "Where to?")
    phone = open_repo("phone", laptop.library).join(conversation.id)
    phone.apply(conversation.diff())
    left = phone.stream("assistant", frame=phone.transcript())
    left.write("I would g")
    conversation.apply(phone.diff())
    assert len(conversation.unsealed()) == 1
    conversation.append("user", "Are you still there?")
    stranger = Stranger(conversation)
    other = stranger.ask()
    now = [0.0]
    with Worker(laptop, {"small": engine}, patience=30, clock=lambda: now[0]):
        time.sleep(1.5)
        assert state_of(conversation, other) == "waiting", "it may be alive"
        now[0] = 31.0
        until(lambda: state_of(conversation, other) == "answered" or now.__setitem__(0, now[0] + 2) is not None)
    assert conversation.entry(left.id).status == "stopped" and conversation.entry(left.id).text == "I would g"
    left.abandon()
