"""A worker follows a repo, and answers what is asked there: alone, beside others, and after others died."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import llmcrdt
from llmcrdt.document.act_writer import ActWriter
from llmcrdt.document.acts import ToolClaim
from llmcrdt.document.conversation import core_of
from llmcrdt.exceptions import AskFailed, InvalidContent
from llmcrdt.kvcache import NullCache
from llmcrdt.serve import Worker
from llmcrdt.serve.job import Job
from llmcrdt.serve.settings import options_of
from llmcrdt.testing.engine import MemoryEngine
from llmcrdt.testing.tokenizer import ByteTokenizer

OpenRepo = Callable[..., llmcrdt.Repo]
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "


@pytest.fixture
def engine() -> Iterator[MemoryEngine]:
    made = MemoryEngine(ByteTokenizer(TEMPLATE), NullCache())
    yield made
    made.close()


def until(true: Callable[[], Any], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def test_an_ask_is_answered_in_the_document_with_its_frame_and_settings(
    open_repo: OpenRepo, engine: MemoryEngine
) -> None:
    repo = open_repo("laptop")
    conversation = repo.create()
    asked_before = conversation.ask("Where to?", settings={"max_tokens": 7, "seed": 3})
    with Worker(repo, {"small": engine}):
        answer = asked_before.result(30)
        assert answer.model["max_tokens"] == 7 and answer.usage["sampled_tokens"] <= 7
        assert conversation.frame_entries(answer)[-1].text == "Where to?"
        again = conversation.ask("And then?", model="sm*", settings={"max_tokens": 5})
        assert again.result(30).frame is not None
        assert again.answer is not None and conversation.transcript()[-1].id == again.answer.id
        other = repo.create().ask("Somewhere else", settings={"max_tokens": 3})
        other.result(30)
    assert conversation.verify() == []


def test_an_ask_for_a_model_that_is_not_here_waits(open_repo: OpenRepo, engine: MemoryEngine) -> None:
    conversation = open_repo("laptop").create()
    large = conversation.ask("Where to?", model="large", valid_while="always")
    with Worker(open_repo("laptop"), {"small": engine}):
        conversation.ask(model="small", settings={"max_tokens": 3}, valid_while="always").result(30)
        assert large.state == "waiting"


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"max_tokens": "many"}, "invalid_settings"),
        ({"max_tokens": 0}, "invalid_settings"),
        ({"colour": 1}, "invalid_settings"),
        ({"grammar": "root ::= 'x'"}, "engine"),
    ],
)
def test_an_ask_that_can_not_be_followed_fails_with_a_code_and_the_next_one_is_answered(
    open_repo: OpenRepo, engine: MemoryEngine, settings: dict[str, Any], code: str
) -> None:
    conversation = open_repo("laptop").create()
    with Worker(open_repo("laptop"), {"small": engine}):
        ask = conversation.ask("Where to?", settings=settings)
        with pytest.raises(AskFailed) as raised:
            ask.result(30)
        assert raised.value.code == code
        assert conversation.ask(settings={"max_tokens": 3}).result(30).sealed


def test_a_prompt_that_is_too_long_is_told(open_repo: OpenRepo) -> None:
    small = MemoryEngine(ByteTokenizer(TEMPLATE), NullCache(), n_ctx=64)
    conversation = open_repo("laptop").create()
    with Worker(open_repo("laptop"), {"small": small}):
        ask = conversation.ask("word " * 100)
        with pytest.raises(AskFailed) as raised:
            ask.result(30)
        assert raised.value.code == "context_overflow"
    small.close()


def test_a_strangers_settings_are_options_of_their_types_or_refused() -> None:
    assert options_of({"max_tokens": 9.0, "stop": "x", "top_p": 1}, most_tokens=5) == {
        "max_tokens": 5,
        "stop": ("x",),
        "top_p": 1.0,
    }
    for wrong in ({"stop": [1]}, {"tools": "foo"}, {"temperature": True}, {"seed": 1.5}, {"json_schema": 3}):
        with pytest.raises(InvalidContent):
            options_of(wrong, most_tokens=5)  # type: ignore[arg-type]


def test_a_worker_has_a_model(open_repo: OpenRepo) -> None:
    with pytest.raises(InvalidContent, match="a model"):
        Worker(open_repo("laptop"), {})


def test_an_ask_is_stopped_in_the_middle_of_its_answer(open_repo: OpenRepo) -> None:
    slow = SlowEngine()
    conversation = open_repo("laptop").create()
    with Worker(open_repo("laptop"), {"small": slow.engine}):
        ask = conversation.ask("Where to?", settings={"max_tokens": 2000})
        until(lambda: ask.state == "streaming")
        ask.cancel()
        until(lambda: ask.state == "stopped")
        assert ask.answer is not None and ask.answer.status == "stopped"
    slow.engine.close()


class SlowEngine:
    """A MemoryEngine that takes a moment for each letter."""

    def __init__(self) -> None:
        self.engine = MemoryEngine(ByteTokenizer(TEMPLATE), NullCache())
        append = self.engine._state.append

        def slowly(token: int) -> None:
            time.sleep(0.2)
            append(token)

        self.engine._state.append = slowly  # type: ignore[method-assign]


def test_a_worker_that_ends_hands_over_and_another_one_answers(open_repo: OpenRepo, engine: MemoryEngine) -> None:
    slow = SlowEngine()
    repo = open_repo("laptop")
    conversation = repo.create()
    first = Worker(repo, {"small": slow.engine}).start()
    ask = conversation.ask("Where to?", settings={"max_tokens": 2000})
    until(lambda: ask.state == "streaming")
    first.stop()
    assert ask.state == "waiting" and ask.answer is not None and ask.answer.status == "stopped"
    half = ask.answer
    with Worker(repo, {"small": engine}):
        answer = ask.result(30)
    assert answer.id != half.id and answer.alternative_of == half.id and answer.frame is not None
    assert {entry.id for entry in conversation.alternatives(answer)} == {half.id, answer.id}, "nothing said is lost"
    slow.engine.close()


WORKER = """
import sys, time
import llmcrdt
from llmcrdt.kvcache import NullCache
from llmcrdt.serve import Worker
from llmcrdt.serve.job import Job
from llmcrdt.testing.engine import MemoryEngine
from llmcrdt.testing.tokenizer import ByteTokenizer

path, library, relay, delay = sys.argv[1:]
engine = MemoryEngine(ByteTokenizer({template!r}), NullCache())
append = engine._state.append
engine._state.append = lambda token: (time.sleep(float(delay)), append(token))[1]
repo = llmcrdt.open(path, library, author="worker")
with repo.connect(relay), Worker(repo, {{"small": engine}}, patience=1.0):
    print("ready", flush=True)
    sys.stdin.read()
"""


class WorkerProcess:
    def __init__(self, path: Path, library: str, relay: str, delay: float = 0.0) -> None:
        code = WORKER.format(template=TEMPLATE)
        command = [sys.executable, "-c", code, str(path), library, relay, str(delay)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def test_a_phone_without_a_model_is_answered_and_a_killed_worker_is_replaced(
    open_repo: OpenRepo, relay_url: str, tmp_path: Path
) -> None:
    phone = open_repo("phone")
    conversation = phone.create()
    with phone.connect(relay_url) as link:
        link.wait_synced(20)
        first = WorkerProcess(tmp_path / "first.db", phone.library, relay_url, delay=0.3)
        second = None
        try:
            ask = conversation.ask("Where to?", settings={"max_tokens": 3000})
            until(lambda: ask.state == "streaming", 60)
            first.kill()
            half = ask.answer
            assert half is not None and ask.state == "streaming", "nobody says that it died"
            second = WorkerProcess(tmp_path / "second.db", phone.library, relay_url)
            answer = ask.result(90)
            assert answer.id != half.id and answer.sealed
            assert conversation.entry(half.id).status == "stopped", "what was said stays"
        finally:
            first.kill()
            if second is not None:
                second.kill()
    assert conversation.verify() == []


def test_of_two_workers_one_answers(open_repo: OpenRepo, relay_url: str, tmp_path: Path) -> None:
    phone = open_repo("phone")
    with phone.connect(relay_url) as link:
        conversations = [phone.create() for _ in range(6)]
        link.wait_synced(20)
        workers = [WorkerProcess(tmp_path / f"w{n}.db", phone.library, relay_url) for n in range(2)]
        try:
            asks = [each.ask("Where to?", settings={"max_tokens": 4}) for each in conversations]
            for ask in asks:
                ask.result(60)
            link.wait_synced(20)
            for conversation in conversations:
                assert len(list(conversation.generations())) == 1, "the order of the relay's log decides"
        finally:
            for worker in workers:
                worker.kill()


def test_an_ask_is_not_taken_over_while_its_holder_may_live(open_repo: OpenRepo, engine: MemoryEngine) -> None:
    """Two answers are the worst that a wrong guess brings, and patience keeps it from being made."""
    laptop = open_repo("laptop")
    conversation = laptop.create()
    phone = open_repo("phone", laptop.library).join(conversation.id)
    ask = conversation.ask("Where to?")
    phone.apply(conversation.diff())
    ActWriter(core_of(phone)).claim_ask(ask.id, lambda claim: False)
    conversation.apply(phone.diff())
    now = [0.0]
    with Worker(laptop, {"small": engine}, patience=30, clock=lambda: now[0]):
        time.sleep(0.5)
        assert ask.state == "taken"
        now[0] = 31.0
        assert ask.result(30).sealed


def test_a_claim_that_is_not_granted_answers_nothing(
    open_repo: OpenRepo, engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody was faster in the relay's order. The claim is given back, so that it doesn't look like work."""
    repo = open_repo("laptop")
    conversation = repo.create()
    ask = conversation.ask("Where to?")
    monkeypatch.setattr(ToolClaim, "granted", lambda self, timeout=5.0, *, offline=False: False)
    ended = threading.Event()
    Job(conversation, ask, engine, frozenset(), most_tokens=9, ended=lambda job: ended.set()).start()
    assert ended.wait(30)
    assert list(conversation.generations()) == [] and conversation.unsealed() == ()
    assert ask.state == "waiting" and ask.workers == ()


def test_a_worker_that_finds_another_one_s_answer_gives_its_claim_back(
    open_repo: OpenRepo, engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the ask would be its own for as long as it lives, once that answer is given up."""
    repo = open_repo("laptop")
    conversation = repo.create()
    ask = conversation.ask("Where to?")
    phone = open_repo("phone", repo.library).join(conversation.id)
    streams: list[llmcrdt.Stream] = []

    def granted(self: ToolClaim, timeout: float = 5.0, *, offline: bool = False) -> bool:
        phone.apply(conversation.diff())
        streams.append(phone.stream("assistant", frame=phone.transcript(), ask=phone.asks()[0], interval=0))
        streams[0].write("To the ")
        conversation.apply(phone.diff())
        return True

    monkeypatch.setattr(ToolClaim, "granted", granted)
    ended = threading.Event()
    Job(conversation, ask, engine, frozenset(), most_tokens=9, ended=lambda job: ended.set()).start()
    assert ended.wait(30)
    assert ask.state == "streaming"
    streams[0].seal("stopped")
    conversation.apply(phone.diff())
    assert ask.state == "waiting" and ask.workers == ()
