"""One turn, end to end, with a real model of random weights, and with an engine that only hashes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import llmcrdt
from llmcrdt.exceptions import (
    ContextOverflow,
    EngineClosed,
    InvalidContent,
    LLMCRDTError,
    NotSealed,
    RepoClosed,
    StoreError,
)
from llmcrdt.kvcache import DiskCache, NullCache
from llmcrdt.kvcache.chunk_hash import pack_ids
from llmcrdt.prompt.answer import Answer
from llmcrdt.prompt.generation_log import TOKENS, TokenLog, logged_generations
from llmcrdt.prompt.token_log import prompt_ids
from llmcrdt.store.store import Store
from llmcrdt.testing.engine import MemoryEngine
from llmcrdt.testing.models import CHAT_TEMPLATE, write_model
from llmcrdt.testing.tokenizer import ByteTokenizer

OpenRepo = Callable[..., llmcrdt.Repo]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_model(path)
    return path


@pytest.fixture(params=["llama", "memory"])
def engine(request: pytest.FixtureRequest, model: Path, tmp_path: Path) -> Iterator[llmcrdt.Engine]:
    """A turn is the same whatever computes: llama.cpp, or a hash."""
    if request.param == "llama":
        with llmcrdt.LlamaEngine(model, cache=tmp_path / "kv") as engine:
            yield engine
    else:
        cache = DiskCache(tmp_path / "kv" / "chunks")
        with closing(MemoryEngine(ByteTokenizer(CHAT_TEMPLATE), cache)) as small:
            yield small


only_llama = pytest.mark.parametrize("engine", ["llama"], indirect=True)


@pytest.fixture
def conversation(open_repo: OpenRepo) -> llmcrdt.Conversation:
    conversation = open_repo("laptop").create()
    conversation.append(
        "system", "You are a guide. " * 20, tools=[{"type": "function", "function": {"name": "trains"}}]
    )
    conversation.append("user", "Where shall we go?")
    return conversation


def answer(conversation: llmcrdt.Conversation, engine: llmcrdt.Engine, **more: object) -> llmcrdt.Entry:
    entry = llmcrdt.generate(conversation, engine, **{"max_tokens": 12, "seed": 1, **more}).result(60)  # type: ignore[arg-type]
    engine.settled(60)
    return entry


@only_llama
def test_the_answer_carries_its_frame_its_model_and_its_tokens(
    conversation: llmcrdt.Conversation, engine: llmcrdt.Engine
) -> None:
    before = conversation.transcript()
    entry = answer(conversation, engine)
    assert entry.frame is not None
    assert (entry.frame.hash, entry.frame.renderer, len(entry.frame.sent or "")) == (before.hash, "llmcrdt.chat/1", 32)
    assert entry.model["name"] == engine.name
    assert entry.model["sampling"]["seed"] == 1
    log = TokenLog.unpack(entry.hidden[TOKENS].data)
    assert log.base is None
    assert entry.usage == {"prompt_tokens": len(log.prompt), "sampled_tokens": len(log.sampled), "finish": "length"}
    assert engine.tokenizer.decode(log.sampled).decode("utf-8", "replace") == entry.text
    assert conversation.verify() == []


def test_every_prompt_extends_the_one_before_it_and_its_answer(
    conversation: llmcrdt.Conversation, engine: llmcrdt.Engine
) -> None:
    seen: tuple[int, ...] = ()
    for n in range(4):
        prompt = prompt_ids(list(conversation.transcript()), engine.tokenizer, created_at=conversation.created_at)
        assert prompt.ids[: len(seen)] == seen
        plan = llmcrdt.plan(conversation, engine)
        generation = llmcrdt.generate(conversation, engine, max_tokens=12, seed=n)
        entry = generation.result(60)
        engine.settled(60)
        assert (plan.total, plan.reused, plan.evaluate) == tuple(
            generation.stats[k] for k in ("total", "reused", "evaluated")
        )
        assert plan.why.cause == ("extends" if n else "first")
        if n:
            assert plan.reused == engine.chunk * (min(len(seen), plan.total - 2) // engine.chunk)
        log = TokenLog.unpack(entry.hidden[TOKENS].data)
        seen = (*prompt.ids, *log.sampled)
        assert len(log.prompt) == len(prompt.appended)
        conversation.append("user", f"And then? {n}")


@only_llama
def test_only_what_an_edit_changed_is_evaluated_and_going_back_costs_next_to_nothing(
    conversation: llmcrdt.Conversation, engine: llmcrdt.Engine
) -> None:
    for n in range(3):
        answer(conversation, engine)
        conversation.append("user", f"And then, what else would you say to that? {n}")
    answer(conversation, engine)
    tip = conversation.transcript()[-1]
    early = conversation.transcript()[3]
    edited = conversation.edit(early, "Something else altogether.")
    plan = llmcrdt.plan(conversation, engine)
    assert plan.why.cause == "edited"
    assert plan.why.entry == edited.id
    assert plan.why.position is not None
    assert plan.reused == engine.chunk * (min(plan.why.position, plan.total - 2) // engine.chunk)
    answer(conversation, engine)
    conversation.select(tip)
    back = llmcrdt.plan(conversation, engine)
    assert back.why.cause == "other branch"
    assert back.evaluate <= engine.chunk + 1


def test_a_merge_costs_only_what_came(
    conversation: llmcrdt.Conversation, engine: llmcrdt.Engine, open_repo: OpenRepo
) -> None:
    phone = open_repo("phone").join(conversation.id)
    phone.apply(conversation.diff())
    first = answer(conversation, engine)
    before = llmcrdt.plan(conversation, engine).total
    phone.append("user", "from the phone")
    conversation.apply(phone.diff())
    plan = llmcrdt.plan(conversation, engine)
    assert plan.why.cause == "extends"
    assert plan.evaluate <= plan.total - before + engine.chunk + 1
    assert conversation.transcript()[2].id == first.id


@only_llama
def test_cached_and_uncached_generation_say_the_same(
    conversation: llmcrdt.Conversation, engine: llmcrdt.Engine, model: Path, open_repo: OpenRepo
) -> None:
    copy = open_repo("copy").join(conversation.id)
    copy.apply(conversation.diff())
    with llmcrdt.LlamaEngine(model, cache=NullCache()) as cold:
        for n in range(3):
            one, two = answer(conversation, engine, seed=n), answer(copy, cold, seed=n)
            assert one.text == two.text
            for c in (conversation, copy):
                c.append("user", "more")


@only_llama
def test_what_was_generated_on_one_device_is_not_tokenized_again_on_another(
    conversation: llmcrdt.Conversation, engine: llmcrdt.Engine, model: Path, open_repo: OpenRepo, tmp_path: Path
) -> None:
    entry = answer(conversation, engine, temperature=1.5)
    phone = open_repo("phone").join(conversation.id)
    phone.apply(conversation.diff())
    with llmcrdt.LlamaEngine(model, cache=tmp_path / "other") as other:
        (logged,) = logged_generations(list(phone.transcript()), other.tokenizer)
        assert logged.entry.id == entry.id
        prompt = prompt_ids(list(phone.transcript()), other.tokenizer, created_at=phone.created_at)
        assert prompt.base == entry.id


def test_pieces_make_the_text_in_a_loop_and_in_asyncio(
    conversation: llmcrdt.Conversation, engine: llmcrdt.Engine
) -> None:
    generation = llmcrdt.generate(conversation, engine, max_tokens=12, seed=1)
    assert "".join(generation) == generation.result(60).text
    assert "".join(generation) == generation.result().text, "a second reader gets it from the beginning"

    async def read() -> tuple[str, llmcrdt.Entry, int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.001)

        ticking = asyncio.create_task(tick())
        generation = llmcrdt.generate(conversation, engine, max_tokens=64, seed=2)
        text = "".join([piece async for piece in generation])
        entry = await generation
        ticking.cancel()
        return text, entry, ticks

    text, entry, ticks = asyncio.run(read())
    assert text == entry.text
    assert ticks > 1, "the loop is not starved"


def test_cancel_keeps_what_was_said_as_stopped_and_the_next_prompt_holds_it(
    conversation: llmcrdt.Conversation, engine: llmcrdt.Engine
) -> None:
    generation = llmcrdt.generate(conversation, engine, max_tokens=1000, seed=1, temperature=0)
    pieces = []
    for piece in generation:
        pieces.append(piece)
        if len(pieces) == 5:
            generation.cancel()
    entry = generation.result(60)
    assert entry.status in ("stopped", "complete")  # a model of noise may have ended its turn first
    assert entry.text == "".join(pieces)
    engine.settled(60)
    conversation.append("user", "go on")
    assert llmcrdt.plan(conversation, engine).why.cause == "extends"
    generation.cancel()


@only_llama
def test_a_stop_text_ends_the_answer_and_is_left_out(
    conversation: llmcrdt.Conversation, engine: llmcrdt.Engine
) -> None:
    whole = answer(conversation, engine, max_tokens=40)
    stop = whole.text[20:23]
    cut = answer(conversation, engine, max_tokens=40, stop=[stop], instead_of=whole)
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.usage["finish"] == "stop"


def test_regenerating_stands_for_the_same_turn(conversation: llmcrdt.Conversation, engine: llmcrdt.Engine) -> None:
    first = answer(conversation, engine, seed=1)
    second = answer(conversation, engine, seed=2, instead_of=first)
    assert second.frame is not None
    assert first.frame is not None
    assert second.frame.hash == first.frame.hash
    assert {e.id for e in conversation.alternatives(first)} == {first.id, second.id}
    assert conversation.transcript()[-1].id == second.id
    with pytest.raises(LLMCRDTError, match="was not generated"):
        answer(conversation, engine, instead_of=conversation.transcript()[1])


def test_generations_of_one_conversation_take_turns(conversation: llmcrdt.Conversation, engine: llmcrdt.Engine) -> None:
    first = llmcrdt.generate(conversation, engine, max_tokens=30, seed=1)
    second = llmcrdt.generate(conversation, engine, max_tokens=5, seed=2)
    one, two = first.result(60), second.result(60)
    assert two.frame is not None
    assert two.frame.base == (one.id, one.hash)


def test_input_during_a_generation_can_stop_it_and_start_anew(
    conversation: llmcrdt.Conversation, engine: llmcrdt.Engine
) -> None:
    first = llmcrdt.generate(conversation, engine, max_tokens=600, seed=1, temperature=5.0)
    next(iter(first))
    conversation.append("user", "Wait, something else.")
    second = llmcrdt.generate(conversation, engine, max_tokens=5, seed=2, busy="restart")
    one, two = first.result(60), second.result(60)
    assert one.status in ("stopped", "complete")  # noise may have ended by itself within that moment
    assert [e.id for e in conversation.transcript()][-3:] == [one.id, conversation.transcript()[-2].id, two.id]


def test_input_during_a_generation_can_be_answered_beside_it(
    conversation: llmcrdt.Conversation, engine: llmcrdt.Engine
) -> None:
    slow = conversation.stream("assistant", frame=conversation.transcript())
    asked = conversation.append("user", "And this?")
    with pytest.raises(NotSealed):
        llmcrdt.generate(conversation, engine, max_tokens=5, seed=1).result(60)
    beside = llmcrdt.generate(conversation, engine, max_tokens=5, seed=1, busy="branch").result(60)
    slow.write("done at last")
    done = slow.seal()
    assert [e.id for e in conversation.frame_entries(beside)][-1] == asked.id
    assert {done.id, beside.id} <= set(conversation.transcript().ids)
    assert conversation.verify() == []
    assert not conversation.transcript().malformed


def test_a_stop_from_another_device_ends_a_generation(
    conversation: llmcrdt.Conversation, engine: llmcrdt.Engine, open_repo: OpenRepo
) -> None:
    phone = open_repo("phone").join(conversation.id)
    generation = llmcrdt.generate(conversation, engine, max_tokens=1500, seed=1, temperature=5.0, interval=0)
    next(iter(generation))
    phone.apply(conversation.diff())
    for entry in phone.unsealed():
        phone.stop(entry)
    conversation.apply(phone.diff())
    assert generation.result(60).status in ("stopped", "complete")
    assert conversation.stop_asked(conversation.transcript()[-1])


def test_many_threads_share_one_engine(engine: llmcrdt.Engine, open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    conversations = [repo.create(str(n)) for n in range(4)]
    for n, conversation in enumerate(conversations):
        conversation.append("user", f"question {n} " * 30)
    done: list[str] = []
    threads = [threading.Thread(target=lambda c=c: done.append(answer(c, engine).text)) for c in conversations]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 4
    alone = open_repo("alone").join(conversations[0].id)
    alone.apply(conversations[0].diff())
    generated = conversations[0].transcript()[-1]
    assert answer(alone, engine, instead_of=generated.id).text == generated.text


def test_a_prompt_longer_than_the_context_says_both_counts_and_writes_nothing(
    conversation: llmcrdt.Conversation, model: Path
) -> None:
    with llmcrdt.LlamaEngine(model, cache=NullCache(), n_ctx=256) as small:
        conversation.append("user", "much " * 300)
        before = conversation.version()
        with pytest.raises(ContextOverflow, match="summarize") as caught:
            llmcrdt.generate(conversation, small).result(60)
        assert caught.value.needed > caught.value.available
        assert conversation.version() == before


@pytest.mark.parametrize("when", ["before the engine begins", "while it runs"])
def test_state_computed_from_what_is_erased_meanwhile_does_not_stay(
    conversation: llmcrdt.Conversation,
    engine: llmcrdt.Engine,
    tmp_path: Path,
    when: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secret = conversation.append("user", "the number is 8472 and nobody may know it, " * 10)
    engine.tokenizer.is_end = lambda token: False  # type: ignore[method-assign]
    start = engine.start

    def erase_and_start(*args: Any, **options: Any) -> Any:
        conversation.erase(secret)
        return start(*args, **options)

    if when != "while it runs":
        monkeypatch.setattr(engine, "start", erase_and_start)
    generation = llmcrdt.generate(conversation, engine, max_tokens=200, seed=1)
    next(iter(generation))
    ids = engine.tokenizer.encode(secret.text, special=False)
    if when == "while it runs":
        conversation.erase(secret)
    generation.result(60)
    assert engine.settled(60)
    runs = {pack_ids(ids[i : i + 6]) for i in range(len(ids) - 6)}
    assert not [f for f in (tmp_path / "kv").rglob("*") if f.is_file() and any(run in f.read_bytes() for run in runs)]


def test_a_closed_engine_and_a_closed_repo_end_a_generation_with_their_own_errors(
    conversation: llmcrdt.Conversation, model: Path, tmp_path: Path
) -> None:
    engine = llmcrdt.LlamaEngine(model, cache=NullCache())
    sampled: list[int] = []
    closed = threading.Event()

    def is_end(token: int) -> bool:
        sampled.append(token)
        return len(sampled) > 20 and not closed.wait(60)  # it goes on when the conversation is closed

    engine.tokenizer.is_end = is_end  # type: ignore[method-assign]
    generation = llmcrdt.generate(conversation, engine, max_tokens=100_000, seed=1)
    next(iter(generation))
    conversation.close()
    closed.set()
    with pytest.raises(RepoClosed):
        generation.result(60)
    engine.close()
    with pytest.raises(EngineClosed):
        engine.plan([1, 2, 3])


def test_a_generation_that_can_t_write_leaves_an_entry_that_can_be_sealed(
    conversation: llmcrdt.Conversation, engine: llmcrdt.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0
    append = Store.append

    def failing(self: Store, *rest: object, **more: object) -> None:
        nonlocal written
        written += 1
        if written > 3:
            raise StoreError("disk full")
        append(self, *rest, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(StoreError):
        patch.setattr(Store, "append", failing)
        llmcrdt.generate(conversation, engine, max_tokens=60, seed=1, interval=0).result(60)
    (left,) = conversation.unsealed()
    conversation.seal(left)
    conversation.append("user", "again")
    assert answer(conversation, engine).status == "complete"


def test_planning_a_long_import_does_not_read_every_frame(
    open_repo: OpenRepo, engine: llmcrdt.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = open_repo("laptop").create()
    with conversation.batch():
        for n in range(20):
            conversation.append("user", str(n))
            conversation.append("assistant", str(n), frame=conversation.transcript(), assumed=True)
    monkeypatch.setattr(conversation, "frame_entries", lambda entry: pytest.fail("read for nothing"))
    assert llmcrdt.plan(conversation, engine).why.cause == "first"


def test_an_engine_closed_amid_an_answer_leaves_what_could_be_read(
    conversation: llmcrdt.Conversation, engine: llmcrdt.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last tokens may come when the tokenizer is closed already."""
    taken: list[int] = []
    take = Answer.take

    def taking(self: Answer, token: int) -> Any:
        if len(taken) == 4:
            raise EngineClosed("The engine of this tokenizer is closed.")
        taken.append(token)
        return take(self, token)

    monkeypatch.setattr(Answer, "take", taking)
    entry = llmcrdt.generate(conversation, engine, max_tokens=20, temperature=2.0, seed=1).result(60)
    assert entry.status == "stopped" and entry.text
    assert list(TokenLog.unpack(entry.hidden[TOKENS].data).sampled) == taken


@pytest.mark.parametrize("tools", ["foo", "", None, [{"type": "function", "function": {"name": "f"}}]])
def test_tools_that_are_no_format_are_refused_at_once(
    conversation: llmcrdt.Conversation, engine: llmcrdt.Engine, tools: object
) -> None:
    before = conversation.version()
    with pytest.raises(InvalidContent, match=r"tools=\[\.\.\.\]"):
        llmcrdt.generate(conversation, engine, tools=tools)  # type: ignore[arg-type]
    assert conversation.version() == before
