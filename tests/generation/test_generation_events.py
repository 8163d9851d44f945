"""Typed events, options as one value, and generations whose readers go away."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import pytest

import llmcrdt
from llmcrdt import CallArguments, CallBegun, CallEnded, Ended, GenerationOptions, ReasoningDelta, TextDelta, Usage
from llmcrdt.exceptions import EngineClosed, InvalidContent
from llmcrdt.kvcache import NullCache
from llmcrdt.testing.engine import MemoryEngine
from llmcrdt.testing.models import CHAT_TEMPLATE, write_model
from llmcrdt.testing.tokenizer import ByteTokenizer

from ..waiting import eventually

OpenRepo = Callable[..., llmcrdt.Repo]
CALL = r'root ::= "Let me look.<tool_call>{\"name\": \"trains\", \"arguments\": {\"to\": \"Rome\"}}</tool_call>"'
ENDLESS: dict[str, Any] = {"max_tokens": 100_000, "seed": 1, "temperature": 0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "tiny.gguf", context=32768)


@pytest.fixture
def engine(model: Path) -> Iterator[llmcrdt.LlamaEngine]:
    with llmcrdt.LlamaEngine(model, cache=NullCache()) as engine:
        yield engine


@pytest.fixture
def endless(engine: llmcrdt.LlamaEngine) -> llmcrdt.LlamaEngine:
    """It never ends its turn by itself."""
    engine.tokenizer.is_end = lambda token: False  # type: ignore[method-assign]
    return engine


@pytest.fixture
def conversation(open_repo: OpenRepo) -> llmcrdt.Conversation:
    conversation = open_repo("laptop").create()
    conversation.append("system", "You are a guide.", tools=[{"type": "function", "function": {"name": "trains"}}])
    conversation.append("user", "Where shall we go?")
    return conversation


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name == "llmcrdt-generation"}


def is_stopped_and_released(conversation: llmcrdt.Conversation, engine: llmcrdt.Engine) -> None:
    """The words so far are sealed as stopped, nothing runs any more, and the engine takes the next one at once."""
    eventually(lambda: not threads())
    (said,) = [entry for entry in conversation.transcript() if entry.role == "assistant"]
    assert said.status == "stopped" and said.text and conversation.unsealed() == ()
    assert engine.settled(60)
    assert llmcrdt.generate(conversation, engine, max_tokens=2).result(60).sealed


@pytest.mark.parametrize("form", ["for", "async for"])
def test_events_say_all_that_the_entry_says(
    conversation: llmcrdt.Conversation, engine: llmcrdt.LlamaEngine, form: str
) -> None:
    generation = llmcrdt.generate(conversation, engine, max_tokens=200, seed=1, temperature=0, grammar=CALL)

    async def read() -> list[llmcrdt.GenerationEvent]:
        return [event async for event in generation.events()]

    events = list(generation.events()) if form == "for" else asyncio.run(read())
    entry = generation.result(60)
    *deltas, usage, ended = events
    assert ended == Ended(entry, "end") and isinstance(usage, Usage) and usage.raw == entry.usage
    assert (usage.prompt_tokens, usage.cached_tokens) == (generation.stats["total"], generation.stats["reused"])
    assert usage.output_tokens == generation.stats["sampled"] == entry.usage["sampled_tokens"]
    assert "".join(event.text for event in deltas if isinstance(event, TextDelta)) == entry.text == "Let me look."
    calls = [event for event in deltas if isinstance(event, (CallBegun, CallArguments, CallEnded))]
    (call,) = entry.tool_calls
    assert calls == [CallBegun(0, call.id, "trains"), CallArguments(0, '{"to": "Rome"}'), CallEnded(0)]
    assert list(generation.events()) == events, "a second reader gets them from the beginning"


def test_reasoning_is_an_event_of_its_own(conversation: llmcrdt.Conversation, engine: llmcrdt.LlamaEngine) -> None:
    grammar = r'root ::= "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes."'
    generation = llmcrdt.generate(conversation, engine, max_tokens=300, seed=1, grammar=grammar, tools="harmony")
    events = list(generation.events())
    entry = generation.result()
    assert "".join(event.text for event in events if isinstance(event, ReasoningDelta)) == entry.reasoning == "Hm."
    assert "".join(generation) == entry.text == "Yes."


def test_an_error_ends_the_events(conversation: llmcrdt.Conversation, engine: llmcrdt.LlamaEngine) -> None:
    engine.close()
    generation = llmcrdt.generate(conversation, engine)
    with pytest.raises(EngineClosed):
        list(generation.events())

    async def read() -> None:
        async for _ in generation.events():
            pass

    with pytest.raises(EngineClosed):
        asyncio.run(read())


async def _break(generation: llmcrdt.Generation) -> None:
    async for _ in generation:
        break


async def _break_events(generation: llmcrdt.Generation) -> None:
    async for _ in generation.events():
        break


async def _close(generation: llmcrdt.Generation) -> None:
    async with aclosing(aiter(generation)) as pieces:
        await anext(pieces)


async def _fail(generation: llmcrdt.Generation) -> None:
    with pytest.raises(ZeroDivisionError):
        async for _ in generation:
            raise ZeroDivisionError


async def _cancel_reader(generation: llmcrdt.Generation) -> None:
    began = asyncio.Event()

    async def read() -> None:
        async for _ in generation:
            began.set()

    task = asyncio.create_task(read())
    await began.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _cancel_wait(generation: llmcrdt.Generation) -> None:
    async def wait() -> llmcrdt.Entry:
        return await generation

    task = asyncio.create_task(wait())
    while "time_to_first_token" not in generation.stats:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _loop_ends(generation: llmcrdt.Generation) -> None:
    """A task that nobody waits for: asyncio.run cancels it."""

    async def read() -> None:
        async for _ in generation:
            pass

    task = asyncio.create_task(read())
    while "time_to_first_token" not in generation.stats:
        await asyncio.sleep(0.01)
    assert not task.done()


@pytest.mark.parametrize("leave", [_break, _break_events, _close, _fail, _cancel_reader, _cancel_wait, _loop_ends])
def test_a_generation_stops_when_its_reader_goes_away(
    conversation: llmcrdt.Conversation, endless: llmcrdt.LlamaEngine, leave: Callable[[llmcrdt.Generation], Any]
) -> None:
    async def run() -> None:
        generation = llmcrdt.generate(conversation, endless, **ENDLESS)
        await leave(generation)
        if leave is not _loop_ends:
            assert (await generation).status == "stopped"

    asyncio.run(run())
    is_stopped_and_released(conversation, endless)


@pytest.mark.parametrize("how", ["break", "close", "dropped"])
def test_a_closed_iterator_of_events_stops_it_too(
    conversation: llmcrdt.Conversation, endless: llmcrdt.LlamaEngine, how: str
) -> None:
    generation = llmcrdt.generate(conversation, endless, **ENDLESS)
    if how == "break":
        for _ in generation.events():
            break
    else:
        events = iter(generation.events())
        next(events)
        if how == "close":
            events.close()
        del events
        gc.collect()
    assert generation.result(60).status == "stopped"
    is_stopped_and_released(conversation, endless)


def test_nobody_is_stopped_while_another_one_reads_or_waits(
    conversation: llmcrdt.Conversation, endless: llmcrdt.LlamaEngine
) -> None:
    async def run() -> tuple[llmcrdt.Generation, str]:
        generation = llmcrdt.generate(conversation, endless, max_tokens=300, seed=1, temperature=0)

        async def read() -> str:
            return "".join([piece async for piece in generation])

        other = asyncio.create_task(read())
        await asyncio.sleep(0)  # it begins
        await _break(generation)
        return generation, await other

    generation, text = asyncio.run(run())
    entry = generation.result()
    assert (entry.status, entry.text, generation.stats["finish"]) == ("complete", text, "length")


def test_to_leave_a_plain_loop_or_a_wait_stops_nothing(
    conversation: llmcrdt.Conversation, endless: llmcrdt.LlamaEngine
) -> None:
    generation = llmcrdt.generate(conversation, endless, max_tokens=300, seed=1)
    for _ in generation:
        break
    with pytest.raises(TimeoutError):
        generation.result(0)
    assert generation.result(60).status == "complete"


def test_options_are_one_value_and_keywords_win_over_it(
    conversation: llmcrdt.Conversation, engine: llmcrdt.LlamaEngine
) -> None:
    options = GenerationOptions(max_tokens=7, seed=3, temperature=1.5, stop=["@"], author="ann", warm=False)
    one = llmcrdt.generate(conversation, engine, options=options).result(60)
    assert (one.author, one.model["max_tokens"]) == ("ann", 7)
    words = {"max_tokens": 7, "seed": 3, "temperature": 1.5, "stop": ["@"], "author": "ann", "instead_of": one}
    two = llmcrdt.generate(conversation, engine, **words).result(60)  # type: ignore[arg-type]
    assert two.model == one.model and two.text == one.text
    three = llmcrdt.generate(conversation, engine, options=options, max_tokens=2, seed=None, instead_of=one).result(60)
    assert three.model["max_tokens"] == 2 and three.model["sampling"]["temperature"] == 1.5
    assert three.model["sampling"]["seed"] is not None


ODD: list[dict[str, Any]] = [
    {"max_tokens": 0}, {"max_tokens": True}, {"max_tokens": None, "top_logprobs": None}, {"max_tokens": "8"},
    {"temperature": -1}, {"temperature": float("nan")}, {"temperature": "hot"}, {"top_k": 1.5}, {"top_p": 2},
    {"min_p": -0.1}, {"repeat_penalty": -1}, {"repeat_last_n": 1.0}, {"presence_penalty": "x"},
    {"frequency_penalty": float("inf")}, {"logit_bias": [1]}, {"logit_bias": {"a": 1.0}}, {"logit_bias": {1: "x"}},
    {"logit_bias": {-1: 1.0}}, {"grammar": None}, {"json_schema": ["x"]}, {"top_logprobs": -1}, {"tools": "foo"},
    {"seed": "x"}, {"seed": 1.5}, {"stop": "abc"}, {"stop": [1]}, {"stop": 5}, {"instead_of": 7}, {"author": 7},
    {"interval": -1}, {"busy": "wait"}, {"warm": 1}, {"token_log": "no"}, {"options": {"max_tokens": 8}},
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: ", ".join(f"{k}={v!r}" for k, v in odd.items()))
def test_an_argument_that_means_nothing_is_refused_at_once_and_by_name(
    conversation: llmcrdt.Conversation, odd: dict[str, Any]
) -> None:
    before = conversation.version()
    with closing(MemoryEngine(ByteTokenizer(CHAT_TEMPLATE), NullCache())) as engine:
        with pytest.raises(InvalidContent) as caught:
            llmcrdt.generate(conversation, engine, **odd)
        assert (list(odd)[-1] if "tools" not in odd else "tool calls") in str(caught.value) and caught.value.hint
    assert conversation.version() == before


def test_what_is_no_conversation_or_no_engine_is_refused(conversation: llmcrdt.Conversation) -> None:
    for first, second in (("x", None), (conversation, None), (conversation, "model.gguf")):
        with pytest.raises(InvalidContent, match="generate needs"):
            llmcrdt.generate(first, second)  # type: ignore[arg-type]
