"""Streamed answers in a conversation: ``conv.stream_response`` makes the entry that ``conv.append_response`` makes."""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import llmcrdt
from llmcrdt.document.deltas import ReasoningDelta, TextDelta
from llmcrdt.exceptions import FormatError, InvalidContent, ResponseFailed
from llmcrdt.testing.stream_suite import pieces_of

sys.path.insert(0, str(Path(__file__).parent))
import test_stream_ai_sdk
import test_stream_anthropic
import test_stream_chat
import test_stream_gemini
import test_stream_interactions
import test_stream_ollama
import test_stream_responses
from providers import VALIDATORS
from test_requests import RESPONSES, TOOLS

_SUITES: tuple[Any, ...] = (
    test_stream_anthropic.TestAnthropicStream,
    test_stream_chat.TestOpenAIChatStream,
    test_stream_chat.TestOpenRouterStream,
    test_stream_chat.TestReasoningContentStream,
    test_stream_responses.TestResponsesStream,
    test_stream_gemini.TestGeminiStream,
    test_stream_interactions.TestInteractionsStream,
    test_stream_ollama.TestOllamaStream,
    test_stream_ai_sdk.TestUIMessageStream,
)
WRITERS: dict[str, Any] = {suite().format.name: suite() for suite in _SUITES}
STREAMS = Path(__file__).parents[1] / "vectors" / "interop"
OpenRepo = Callable[..., llmcrdt.Repo]


@pytest.fixture
def conv(open_repo: OpenRepo) -> llmcrdt.Conversation:
    made = open_repo("laptop", clock=lambda: 1.8e9).create()  # a handle says until when it holds
    made.append("system", "Be brief.", tools=TOOLS)
    made.append("user", "What is there?")
    return made


def body(api: str, response: Any, seed: int = 0) -> bytes:
    """The bytes in which the API streams a response."""
    rng, writer = random.Random(seed), WRITERS[api]
    made: bytes = writer.encoded(writer.events(response, rng), rng)
    return made


def recorded(name: str) -> bytes:
    return (STREAMS / name).read_bytes()


def told(entry: llmcrdt.Entry) -> Any:
    """All that an entry says but for its id, and when it was sealed and by whom."""
    hidden = {name: (field.data, dict(field.binding), field.sealed) for name, field in entry.hidden.items()}
    return (
        entry.role,
        entry.parts,
        hidden,
        entry.status,
        entry.usage,
        entry.model,
        entry.author,
        entry.frame,
        entry.parents,
    )


def test_every_api_is_tested_here() -> None:
    assert set(WRITERS) == set(RESPONSES)


@pytest.mark.parametrize("api", sorted(WRITERS))
def test_a_streamed_answer_is_the_entry_that_the_whole_answer_makes(conv: llmcrdt.Conversation, api: str) -> None:
    plain = json.loads(json.dumps(RESPONSES[api]))
    for seed, response in enumerate([plain, *WRITERS[api].answers]):
        request = conv.messages(api, model="m-1", account="acct-1")
        whole = conv.append_response(request, response)
        data = body(api, response, seed)
        streamed = conv.stream_response(request, pieces_of(data, random.Random(seed))).result()
        assert told(streamed) == told(whole), (api, seed)
        assert {e.id for e in conv.alternatives(whole)} == {whole.id, streamed.id}
        assert conv.unsealed() == ()
    assert conv.verify() == []


def test_others_see_text_and_reasoning_grow_and_then_the_sealed_entry(open_repo: OpenRepo) -> None:
    laptop = open_repo("laptop")
    here = laptop.create()
    here.append("user", "Weather?")
    there = open_repo("phone", laptop.library).join(here.id)
    there.apply(here.diff())
    seen: list[tuple[str, str, str]] = []
    answer = here.stream_response(
        here.messages("anthropic", model="m-1"), [recorded("anthropic/streams/thinking-and-calls.sse")]
    )
    assert answer.entry is None and answer.stream is None
    for delta in answer:
        if isinstance(delta, (TextDelta, ReasoningDelta)):
            assert answer.stream is not None
            answer.stream.flush()
            there.apply(here.diff(there.version()))
            entry = there.entry(answer.stream.id)
            seen.append((entry.status, entry.reasoning, entry.text))
    assert seen == [
        ("streaming", "Two cities, ", ""),
        ("streaming", "Two cities, so two calls.", ""),
        ("streaming", "Two cities, so two calls.", "I look "),
        ("streaming", "Two cities, so two calls.", "I look them up — "),
        ("streaming", "Two cities, so two calls.", "I look them up — 😀"),
    ]
    there.apply(here.diff(there.version()))
    assert answer.entry is not None and told(there.entry(answer.entry)) == told(answer.entry)
    assert answer.entry.status == "complete" and answer.entry.usage["finish"] == "tool_use"
    assert [call.id for call in answer.entry.tool_calls] == ["toolu_01", "toolu_02", "toolu_03"]
    assert here.messages("anthropic", model="m-1").left_out == () and there.verify() == []


class Broken(Exception):
    """The connection is gone."""


def half(name: str, error: BaseException | None = None) -> Iterator[bytes]:
    """A recorded stream up to the middle of its first call's arguments, and then an error."""
    data = recorded(name)
    yield data[: data.index(b"days") if b"days" in data else len(data) // 2]
    if error is not None:
        raise error


def is_what_was_complete(entry: llmcrdt.Entry | None) -> None:
    assert entry is not None and entry.status == "stopped" and "finish" not in entry.usage
    assert (entry.reasoning, entry.text) == ("Two cities, so two calls.", "I look them up — 😀")
    assert [call.arguments for call in entry.tool_calls] == ['{"city":"Rome"}']
    assert b"OPAQUE-EqQB" in entry.hidden["anthropic/thinking"].data


RECORDED = "anthropic/streams/thinking-and-calls.sse"


def test_a_stream_that_ends_early_is_kept_as_stopped_with_what_was_complete(conv: llmcrdt.Conversation) -> None:
    data = recorded(RECORDED)
    cut = data[: data.index(b"event: content_block_stop", data.index(b"Rome")) + 80]
    is_what_was_complete(conv.stream_response(conv.messages("anthropic", model="m-1"), [cut]).result())
    assert conv.unsealed() == () and conv.verify() == [] and conv.messages("anthropic", model="m-1").left_out == ()


@pytest.mark.parametrize("error", [Broken("reset"), KeyboardInterrupt(), asyncio.CancelledError()])
def test_what_the_source_raises_is_raised_and_what_came_is_kept(
    conv: llmcrdt.Conversation, error: BaseException
) -> None:
    answer = conv.stream_response(conv.messages("anthropic"), half(RECORDED, error))
    with pytest.raises(type(error)):
        answer.result()
    assert answer.entry is not None and answer.entry.status == "stopped" and answer.entry.tool_calls == ()
    assert answer.entry.text == "I look them up — 😀" and conv.unsealed() == ()
    assert conv.transcript()[-1].id == answer.entry.id


def test_an_error_after_a_whole_answer_leaves_it_complete(conv: llmcrdt.Conversation) -> None:
    def pieces() -> Iterator[bytes]:
        yield recorded(RECORDED)
        raise Broken("reset")

    answer = conv.stream_response(conv.messages("anthropic"), pieces())
    with pytest.raises(Broken):
        answer.result()
    assert answer.entry is not None and answer.entry.status == "complete" and len(answer.entry.tool_calls) == 3


def test_a_reader_that_goes_away_leaves_a_stopped_entry(conv: llmcrdt.Conversation) -> None:
    for way in ("break", "close", "with"):
        answer = conv.stream_response(conv.messages("anthropic"), [recorded(RECORDED)])
        if way == "break":
            for delta in answer:
                if isinstance(delta, TextDelta):
                    break
        else:
            with answer:
                deltas = iter(answer)
                while not isinstance(next(deltas), TextDelta):
                    pass
                if way == "close":
                    answer.close()
        assert answer.entry is not None and answer.entry.status in ("stopped", "complete")
        assert conv.unsealed() == () and answer.result() == answer.entry
        with pytest.raises(InvalidContent) as once:
            list(answer)
        assert once.value.hint


def test_a_reader_that_goes_away_between_pieces_leaves_what_was_complete(conv: llmcrdt.Conversation) -> None:
    pieces = pieces_of(recorded(RECORDED), random.Random(3))
    answer = conv.stream_response(conv.messages("anthropic"), pieces)
    for delta in answer:
        if isinstance(delta, TextDelta):
            break
    assert answer.entry is not None and answer.entry.status == "stopped" and answer.entry.tool_calls == ()
    assert answer.entry.text == "I look " and b"OPAQUE-EqQB" in answer.entry.hidden["anthropic/thinking"].data


@pytest.mark.parametrize(
    ("name", "text", "calls"),
    [
        ("anthropic/streams/error.sse", "", 1),
        ("openai-chat/streams/error.sse", "Let me see.", 1),
        ("openai-responses/streams/failed.sse", "I lo", 0),
        ("openai-responses/streams/error.sse", "", 1),
        ("openrouter/streams/error.sse", "", 0),
        ("gemini/streams/error.sse", "", 1),
        ("gemini-interactions/streams/error.sse", "", 1),
        ("gemini-interactions/streams/failed.sse", "One, t", 0),
        ("ollama/streams/error.ndjson", "One, ", 1),
        ("ai-sdk/streams/error.sse", "One, t", 0),
    ],
)
def test_an_error_of_the_provider_is_told_and_what_came_before_it_is_kept(
    conv: llmcrdt.Conversation, name: str, text: str, calls: int
) -> None:
    api = name.split("/")[0]
    answer = conv.stream_response(conv.messages(api), pieces_of(recorded(name), random.Random(1)))
    with pytest.raises(ResponseFailed) as told_:
        answer.result()
    error = told_.value.error
    said = error["message"] if isinstance(error, dict) else error
    assert told_.value.hint and said in str(told_.value)
    assert answer.entry is not None and (answer.entry.status, answer.entry.text) == ("stopped", text)
    assert len(answer.entry.tool_calls) == calls and conv.unsealed() == ()
    conv.append("user", "Go on")
    assert WRITERS[api].problems(conv.messages(api).body) == []


def test_somebody_who_asks_for_it_to_stop_is_heard(conv: llmcrdt.Conversation) -> None:
    rest = iter([b"never read"])

    def pieces() -> Iterator[bytes]:
        data = recorded(RECORDED)
        yield data[: data.index(b"them up")]
        assert answer.stream is not None
        conv.stop(answer.stream.id)
        yield b" "
        yield from rest

    answer = conv.stream_response(conv.messages("anthropic"), pieces())
    entry = answer.result()
    assert (entry.status, entry.text) == ("stopped", "I look ") and next(rest) == b"never read"


def test_async_sources_are_read_by_async_readers(conv: llmcrdt.Conversation) -> None:
    async def pieces(error: BaseException | None = None) -> AsyncIterator[bytes]:
        for piece in half(RECORDED, error) if error else pieces_of(recorded(RECORDED), random.Random(1)):
            await asyncio.sleep(0)
            yield piece

    async def run() -> None:
        whole = await conv.stream_response(conv.messages("anthropic"), pieces())
        assert whole.status == "complete" and len(whole.tool_calls) == 3
        said = [
            d.text async for d in conv.stream_response(conv.messages("anthropic"), pieces()) if isinstance(d, TextDelta)
        ]
        assert said == ["I look ", "them up — ", "😀"]
        broken = conv.stream_response(conv.messages("anthropic"), pieces(Broken("reset")))
        with pytest.raises(Broken):
            await broken
        assert broken.entry is not None and broken.entry.status == "stopped"
        async with conv.stream_response(conv.messages("anthropic"), pieces()) as left:
            async for delta in left:
                if isinstance(delta, TextDelta):
                    break
        assert left.entry is not None and (left.entry.status, left.entry.text) == ("stopped", "I look ")
        left = conv.stream_response(conv.messages("anthropic"), pieces())
        async for delta in left:  # without a with block: it ends when the event loop gets to it
            if isinstance(delta, TextDelta):
                break
        for _ in range(9):
            await asyncio.sleep(0)
        assert left.entry is not None and (left.entry.status, left.entry.text) == ("stopped", "I look ")
        waiting = conv.stream_response(conv.messages("anthropic"), never())
        task = asyncio.ensure_future(read(waiting))
        while waiting.stream is None:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert waiting.entry is not None and waiting.entry.status == "stopped" and waiting.entry.text == "I look "

    async def never() -> AsyncIterator[bytes]:
        data = recorded(RECORDED)
        yield data[: data.index(b"them up")]
        await asyncio.Event().wait()

    async def read(answer: Any) -> None:
        await answer

    asyncio.run(run())
    assert conv.unsealed() == () and conv.verify() == []


def test_where_nothing_came_nothing_is_appended_and_that_is_told(conv: llmcrdt.Conversation) -> None:
    nothing: list[tuple[str, list[Any], type[Exception]]] = [
        ("anthropic", [], FormatError),
        ("anthropic", [b"<html>"], FormatError),
        ("anthropic", [b"data: <html>\n\n"], FormatError),
        ("anthropic", [5], FormatError),
        ("anthropic", ["data: {}\n\n"], FormatError),
        (
            "anthropic",
            [b'data: {"type":"error","error":{"type":"overloaded_error","message":"Busy"}}\n\n'],
            ResponseFailed,
        ),
        ("anthropic", [{"type": "content_block_stop", "index": 0}], FormatError),
        ("openai-chat", [{"choices": [{"delta": {"role": "assistant"}}]}], FormatError),
        ("openai-chat", [{"choices": [{"delta": {"tool_calls": [{"index": 0, "id": "c"}]}}]}], FormatError),
        ("openai-chat", [{"error": {"message": "Rate limit reached"}}], ResponseFailed),
        ("openai-responses", [{"type": "response.created", "response": {"model": "m"}}], FormatError),
        ("gemini", [recorded("gemini/streams/blocked.sse")], FormatError),
        ("ollama", [b'{"error":"model not found"}'], ResponseFailed),
        ("ai-sdk", [b'data: {"type":"start"}\n\ndata: {"type":"abort"}\n\n'], FormatError),
    ]
    before = conv.version()
    for api, pieces, error in nothing:
        with pytest.raises(error) as told_:
            conv.stream_response(conv.messages(api), pieces).result()
        assert isinstance(told_.value, FormatError) and told_.value.message and told_.value.hint, pieces
    assert conv.version() == before


def test_what_is_no_request_and_what_is_no_source_is_told(conv: llmcrdt.Conversation, open_repo: OpenRepo) -> None:
    request, bad = conv.messages("anthropic"), conv.messages("anthropic").body
    before, anything = conv.version(), (lambda value: value)
    with pytest.raises(InvalidContent):
        conv.stream_response(anything(bad), [])
    with pytest.raises(InvalidContent):
        conv.stream_response(request, anything(5)).result()
    other = open_repo("other").create()
    other.append("user", "Hello")
    with pytest.raises(InvalidContent):
        conv.stream_response(other.messages("anthropic"), [recorded(RECORDED)]).result()

    async def nothing() -> AsyncIterator[bytes]:
        yield b""

    with pytest.raises(InvalidContent) as told_:
        conv.stream_response(request, nothing()).result()
    assert "async for" in str(told_.value.hint) or "for" in told_.value.message
    assert conv.version() == before


def test_a_damaged_event_is_told_and_what_came_before_it_is_kept(conv: llmcrdt.Conversation) -> None:
    data = recorded(RECORDED).replace(b"them up", b"them \x22 up")
    answer = conv.stream_response(conv.messages("anthropic"), [data])
    with pytest.raises(FormatError):
        answer.result()
    assert answer.entry is not None and (answer.entry.status, answer.entry.text) == ("stopped", "I look ")


def test_an_answer_is_streamed_again_in_place_of_another(conv: llmcrdt.Conversation) -> None:
    one = conv.stream_response(conv.messages("anthropic"), [recorded(RECORDED)]).result()
    again = conv.messages("anthropic", instead_of=one)
    other = conv.stream_response(
        again, [recorded("anthropic/streams/refusal.sse")], author="Ann", sent={"a": 1}
    ).result()
    assert {e.id for e in conv.alternatives(one)} == {one.id, other.id} and other.author == "Ann"
    assert other.frame is not None and one.frame is not None and other.frame.hash == one.frame.hash
    assert other.frame.sent != one.frame.sent and conv.verify() == []


def test_hidden_fields_of_a_stream_are_encrypted_where_that_is_asked(conv: llmcrdt.Conversation) -> None:
    pytest.importorskip("nacl", reason='sealing needs PyNaCl: pip install "llmcrdt[seal]"')
    entry = conv.stream_response(conv.messages("anthropic"), [recorded(RECORDED)], sealed=True).result()
    assert entry.hidden["anthropic/thinking"].sealed and b"OPAQUE" not in conv.diff()


@pytest.mark.parametrize("api", sorted(WRITERS))
def test_a_stream_cut_anywhere_leaves_a_conversation_that_goes_on(conv: llmcrdt.Conversation, api: str) -> None:
    responses = [RESPONSES[api], *WRITERS[api].answers]
    for seed in range(25):
        rng = random.Random(seed)
        data = body(api, rng.choice(responses), seed)
        answer = conv.stream_response(conv.messages(api, model="m-1"), [data[: rng.randrange(len(data))]])
        try:
            entry = answer.result()
        except FormatError:
            assert answer.entry is None
        else:
            assert entry.status in ("stopped", "complete") and entry == answer.entry
        assert conv.unsealed() == ()
        conv.append("user", "Go on")
        request = conv.messages(api, model="m-1")
        assert WRITERS[api].problems(request.body) == []
    assert conv.verify() == []


@pytest.mark.parametrize("api", ["openai-responses", "gemini-interactions"])
def test_an_answer_that_broke_off_leaves_no_handle(conv: llmcrdt.Conversation, api: str) -> None:
    """The provider may hold more than came here: a call, say, that nobody would answer."""
    data = body(api, RESPONSES[api])
    lines = data.splitlines(keepends=True)
    request = conv.messages(api, model="m-1")
    seen = 0
    for at in range(1, len(lines) + 1):
        try:
            entry = conv.stream_response(request, [b"".join(lines[:at])]).result()
        except FormatError:  # before there was an answer
            continue
        assert (f"{api}/handle" in entry.hidden) == (entry.status == "complete"), at
        seen += entry.status == "stopped"
    assert seen > 3 and entry.status == "complete"


def cut_short(api: str, alone: bool) -> dict[str, Any]:
    """A response that ran out of tokens in its second call, or in its only one."""
    first, half = ("c1", "{}"), ("c2", '{"at": "Ro')
    calls = [half] if alone else [first, half]
    if api == "anthropic":
        text = [] if alone else [{"type": "text", "text": "Let me see."}]
        given = {"c1": {}, "c2": {"at": "Ro"}}
        content = [*text, *({"type": "tool_use", "id": id_, "name": "look", "input": given[id_]} for id_, _ in calls)]
        return {
            "id": "msg_1", "type": "message", "role": "assistant", "model": "m-1", "content": content,
            "stop_reason": "max_tokens", "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 9},
        }  # fmt: skip
    if api == "openai-chat":
        functions = [{"id": i, "type": "function", "function": {"name": "look", "arguments": a}} for i, a in calls]
        message = {"role": "assistant", "content": None if alone else "Let me see.", "tool_calls": functions}
        choice = {"index": 0, "finish_reason": "length", "message": message}
        return {
            "id": "x",
            "object": "chat.completion",
            "model": "m-1",
            "choices": [choice],
            "usage": {"total_tokens": 9},
        }
    text = [{"type": "output_text", "text": "Let me see.", "annotations": []}]
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": text}
    items = [
        {"type": "function_call", "id": f"fc_{i}", "call_id": i, "name": "look", "arguments": a, "status": "incomplete"}
        for i, a in calls
    ]
    return {
        "id": "resp_1", "object": "response", "model": "m-1", "status": "incomplete", "error": None,
        "incomplete_details": {"reason": "max_output_tokens"}, "usage": {"output_tokens": 9},
        "output": items if alone else [message, *items],
    }  # fmt: skip


@pytest.mark.parametrize("api", ["anthropic", "openai-chat", "openai-responses"])
@pytest.mark.parametrize("alone", [False, True], ids=["second", "only"])
def test_half_of_a_call_is_none_where_the_tokens_ran_out(conv: llmcrdt.Conversation, api: str, alone: bool) -> None:
    response = cut_short(api, alone)
    request = conv.messages(api, model="m-1")
    sent = {**request.body, "thread": {"type": "create"}} if api == "anthropic" else request.body
    whole = conv.append_response(request, response, sent=sent)
    streamed = conv.stream_response(request, [body(api, response)], sent=sent).result()
    for entry in (whole, streamed):
        assert [call.id for call in entry.tool_calls] == ([] if alone else ["c1"])
        assert entry.status == "complete" and entry.usage["finish"] in ("length", "max_output_tokens", "max_tokens")
        assert f"{api}/handle" not in entry.hidden, "the provider may hold the half that is not here"
        assert entry.text == ("" if alone else "Let me see.")
    conv.append("user", "Go on.")
    for other in sorted(VALIDATORS):
        made = conv.messages(other, model="m-1").body
        assert VALIDATORS[other](made) == [] and not re.search(r'"at\\*"', json.dumps(made))
    assert conv.verify() == []
