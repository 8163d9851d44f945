"""The SDKs of OpenAI and Anthropic, unmodified: what they send is understood, what they get they read."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import Served, user

openai = pytest.importorskip("openai")
anthropic = pytest.importorskip("anthropic")

CLOCK = {"name": "clock", "description": "The time", "parameters": {"type": "object", "properties": {}}}
SCHEMA = {
    "type": "object",
    "properties": {"warm": {"type": "boolean"}},
    "required": ["warm"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def gpt(served: Served) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def claude(served: Served) -> Iterator[Any]:
    with anthropic.Anthropic(base_url=served.url, api_key="none", max_retries=0) as client:
        yield client


def test_models(gpt: Any, claude: Any) -> None:
    assert [model.id for model in gpt.models.list()] == ["tiny", "endless/tiny"]
    assert gpt.models.retrieve("endless/tiny").object == "model"
    assert [model.id for model in claude.models.list()] == ["tiny", "endless/tiny"]
    assert claude.models.retrieve("tiny").type == "model"


# chat completions


def test_a_streamed_completion_is_the_whole_one(gpt: Any) -> None:
    asked = {"model": "endless/tiny", "messages": [user("Stream it")], "max_tokens": 12, "seed": 7, "logprobs": True}
    whole = gpt.chat.completions.create(**asked, top_logprobs=2)
    chunks = list(
        gpt.chat.completions.create(**asked, top_logprobs=2, stream=True, stream_options={"include_usage": True})
    )
    choices = [choice for chunk in chunks for choice in chunk.choices]
    text = "".join(choice.delta.content or "" for choice in choices)
    assert text == whole.choices[0].message.content
    assert choices[0].delta.role == "assistant" and choices[-1].finish_reason == "length"
    assert whole.choices[0].finish_reason == "length"
    usage = chunks[-1].usage
    assert (usage.completion_tokens, usage.prompt_tokens) == (12, whole.usage.prompt_tokens)
    streamed = [each for choice in choices if choice.logprobs for each in choice.logprobs.content]
    told = whole.choices[0].logprobs.content
    assert [each.token for each in streamed] == [each.token for each in told] and len(told) == 12
    assert b"".join(bytes(each.bytes) for each in told).decode() == text
    assert all(len(each.top_logprobs) == 2 and each.logprob <= 0 for each in told)
    assert max(sum(bool(c.logprobs) for c in chunk.choices) for chunk in chunks) == 1
    assert sum(bool(choice.logprobs) for choice in choices) > 3, "they come with their text"


def test_a_completion_follows_a_schema(gpt: Any) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
    answer = gpt.chat.completions.create(
        model="tiny", messages=[user("Is it warm?")], max_tokens=60, response_format=form
    )
    assert set(json.loads(answer.choices[0].message.content)) == {"warm"}


def test_a_completion_calls_a_tool_and_takes_its_result(gpt: Any, served: Served) -> None:
    tools = [{"type": "function", "function": CLOCK}]
    messages: list[Any] = [user("How late is it?")]
    asked = {"model": "tiny", "tools": tools, "max_tokens": 60}
    first = gpt.chat.completions.create(**asked, messages=messages, tool_choice="required")
    (call,) = first.choices[0].message.tool_calls
    assert (call.function.name, call.function.arguments) == ("clock", "{}")
    assert first.choices[0].finish_reason == "tool_calls" and first.choices[0].message.content is None
    messages += [first.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "Noon"}]
    raw = gpt.chat.completions.with_raw_response.create(**asked, messages=messages, tool_choice="none")
    conversation = served.repo.get(raw.headers["llmcrdt-conversation"])
    assert [entry.role for entry in conversation.transcript()] == ["user", "system", "assistant", "tool", "assistant"]
    streamed = {"type": "function", "function": {"name": "clock"}}
    with gpt.chat.completions.stream(**asked, messages=[user("Once more")], tool_choice=streamed) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.tool_calls[0].function.name == "clock"


# responses


def test_responses_go_on_from_each_other_for_ever(gpt: Any, served: Served) -> None:
    first = gpt.responses.create(
        model="endless/tiny", input="Remember 7", instructions="Be brief.", max_output_tokens=5
    )
    assert first.status == "incomplete" and first.incomplete_details.reason == "max_output_tokens"
    second = gpt.responses.create(
        model="endless/tiny",
        input="Go on",
        instructions="Be brief.",
        previous_response_id=first.id,
        max_output_tokens=5,
    )
    conversation, entry = second.id.split("_", 2)[1:]
    held = served.repo.get(conversation)
    texts = [each.text for each in held.frame_entries(entry)]
    assert texts == ["Be brief.", "Remember 7", first.output_text, "Go on"], "instructions stand there once"
    served.server._turns._known.clear()  # as after a restart: the document alone knows
    found = gpt.responses.retrieve(second.id)
    assert found.output_text == second.output_text and found.previous_response_id == first.id
    assert (found.usage.input_tokens, found.status) == (second.usage.input_tokens, "incomplete")
    items = gpt.responses.input_items.list(second.id, order="asc").data
    assert [item.role for item in items] == ["system", "user", "assistant", "user"]
    branch = gpt.responses.create(model="tiny", input="Else", previous_response_id=first.id, max_output_tokens=5)
    assert branch.id.split("_", 2)[1] == conversation, "a response is gone on from as often as one likes"
    assert held.verify() == []


def test_a_response_that_resends_everything_finds_its_conversation(gpt: Any, served: Served) -> None:
    items: list[Any] = [user("All of it again")]
    first = gpt.responses.create(model="tiny", input=items, max_output_tokens=5)
    items += [item.model_dump(exclude_none=True) for item in first.output] + [user("And on")]
    second = gpt.responses.create(model="tiny", input=items, max_output_tokens=5)
    assert first.id.split("_", 2)[1] == second.id.split("_", 2)[1]
    assert len(served.texts(second.id.split("_", 2)[1])) == 4


def test_a_response_refers_to_items_by_their_ids(gpt: Any, served: Served) -> None:
    first = gpt.responses.create(model="tiny", input="Refer to it", max_output_tokens=5)
    references = [{"type": "item_reference", "id": item.id} for item in first.output]
    second = gpt.responses.create(
        model="tiny", input=[user("Refer to it"), *references, user("And on")], max_output_tokens=5
    )
    conversation, entry = second.id.split("_", 2)[1:]
    assert first.id.split("_", 2)[1] == conversation
    texts = [each.text for each in served.repo.get(conversation).frame_entries(entry)]
    assert texts == ["Refer to it", first.output_text, "And on"]


def test_a_response_streams_in_order_and_calls_tools(gpt: Any) -> None:
    tools = [{"type": "function", **CLOCK, "strict": False}]
    events = list(
        gpt.responses.create(
            model="tiny", input="How late?", tools=tools, tool_choice="required", max_output_tokens=60, stream=True
        )
    )
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:3] == ["response.created", "response.in_progress", "response.output_item.added"]
    assert "response.function_call_arguments.done" in kinds and kinds[-1] == "response.completed"
    call = events[-1].response.output[-1]
    assert (call.type, call.name, call.arguments) == ("function_call", "clock", "{}")
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "Noon"}
    after = gpt.responses.create(
        model="tiny", input=[output], previous_response_id=events[-1].response.id, tools=tools, max_output_tokens=5
    )
    assert gpt.responses.input_items.list(after.id).data[0].type == "function_call_output"


def test_a_response_in_the_background_is_followed_and_taken_up_again(gpt: Any) -> None:
    begun = gpt.responses.create(model="endless/tiny", input="Take your time", background=True, max_output_tokens=40)
    assert begun.status == "in_progress"
    events = list(gpt.responses.retrieve(begun.id, stream=True))
    assert events[-1].type == "response.incomplete" and len(events) > 10
    rest = list(gpt.responses.retrieve(begun.id, stream=True, starting_after=8))
    assert [event.to_dict() for event in rest] == [event.to_dict() for event in events[9:]]
    assert gpt.responses.retrieve(begun.id).output_text == events[-1].response.output_text
    assert gpt.responses.delete(begun.id) is None
    with pytest.raises(openai.NotFoundError):
        gpt.responses.retrieve(begun.id)


def test_a_response_in_the_background_goes_on_when_its_reader_has_gone_and_is_cancelled(
    gpt: Any, served: Served
) -> None:
    stream = gpt.responses.create(
        model="endless/tiny", input="A long one", background=True, stream=True, max_output_tokens=1500
    )
    begun = next(iter(stream)).response
    stream.close()
    turn = served.server._turns.find(*begun.id.split("_", 2)[1:])
    deadline = time.monotonic() + 20
    while turn._readers:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not turn.cancelled
    assert gpt.responses.retrieve(begun.id).status == "in_progress"
    cancelled = gpt.responses.cancel(begun.id)
    assert cancelled.status == "cancelled"
    assert gpt.responses.retrieve(begun.id).status == "cancelled"


def test_a_response_in_a_conversation_goes_on_from_all_that_it_shows(gpt: Any, served: Served) -> None:
    made = gpt.conversations.create(items=[{"type": "message", "role": "user", "content": "First of all"}])
    conversation = served.repo.get(made.id.removeprefix("conv_"))
    conversation.append("user", "From a phone", author="phone")
    answer = gpt.responses.create(model="tiny", input="By HTTP", conversation=made.id, max_output_tokens=5)
    texts = [entry.text for entry in conversation.frame_entries(answer.id.split("_", 2)[2])]
    assert texts == ["First of all", "From a phone", "By HTTP"]
    assert len(gpt.conversations.items.list(made.id).data) == 4
    gpt.conversations.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        gpt.conversations.retrieve(made.id)


def test_a_response_follows_a_schema_and_keeps_nothing_where_asked(gpt: Any, served: Served) -> None:
    before = len(served.repo.list(1000))
    form = {"format": {"type": "json_schema", "name": "answer", "schema": SCHEMA}}
    answer = gpt.responses.create(model="tiny", input="Warm?", text=form, store=False, max_output_tokens=60)
    assert set(json.loads(answer.output_text)) == {"warm"} and answer.status in ("completed", "incomplete")
    assert len(served.repo.list(1000)) == before
    with pytest.raises(openai.NotFoundError):
        gpt.responses.retrieve(answer.id)


# messages


def test_a_streamed_message_is_the_whole_one(claude: Any) -> None:
    asked = {
        "model": "endless/tiny",
        "max_tokens": 9,
        "messages": [user("Word by word")],
        "extra_body": {"temperature": 0},
    }
    whole = claude.messages.create(**asked, system="Be brief.")
    with claude.messages.stream(**asked, system="Be brief.") as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text == final.content[0].text
    assert whole.stop_reason == final.stop_reason == "max_tokens"
    counted = claude.messages.count_tokens(model="tiny", messages=asked["messages"], system="Be brief.")
    for message in (whole, final):
        assert message.usage.input_tokens + message.usage.cache_read_input_tokens == counted.input_tokens
        assert message.usage.output_tokens == 9


def test_a_message_uses_a_tool_and_takes_its_result(claude: Any, served: Served) -> None:
    tools = [{"name": "clock", "description": "The time", "input_schema": CLOCK["parameters"]}]
    messages: list[Any] = [user("How late is it, Claude?")]
    asked = {"model": "tiny", "tools": tools, "max_tokens": 60}
    with claude.messages.stream(**asked, messages=messages, tool_choice={"type": "any"}) as stream:
        first = stream.get_final_message()
    (block,) = first.content
    assert (block.type, block.name, block.input, first.stop_reason) == ("tool_use", "clock", {}, "tool_use")
    result = {"type": "tool_result", "tool_use_id": block.id, "content": "Noon"}
    messages += [
        {"role": "assistant", "content": [block.model_dump(exclude_none=True)]},
        {
            "role": "user",
            "content": [result, {"type": "text", "text": "Thanks", "cache_control": {"type": "ephemeral"}}],
        },
    ]
    raw = claude.messages.with_raw_response.create(**asked, messages=messages, tool_choice={"type": "none"})
    conversation = served.repo.get(raw.headers["llmcrdt-conversation"])
    roles = [entry.role for entry in conversation.transcript()]
    assert roles == ["user", "system", "assistant", "tool", "user", "assistant"]
    assert raw.parse().usage.cache_read_input_tokens > 0
    longer = [*messages, {"role": "assistant", "content": raw.parse().content}, user("More")]
    again = claude.messages.with_raw_response.create(**asked, messages=longer, tool_choice={"type": "none"})
    assert again.headers["llmcrdt-conversation"] == conversation.id and conversation.verify() == []


def test_a_message_ends_at_a_stop_sequence(claude: Any) -> None:
    asked = {"model": "endless/tiny", "max_tokens": 40, "messages": [user("Until then")]}
    asked["extra_body"] = {"temperature": 0}
    text = claude.messages.create(**asked).content[0].text
    stop = text[4:7]
    stopped = claude.messages.create(**asked, stop_sequences=[stop])
    assert stopped.stop_reason == "stop_sequence" and stopped.stop_sequence == stop
    assert stopped.content[0].text == text[: text.index(stop)]


@pytest.mark.parametrize("api", ["openai", "anthropic"])
def test_errors_are_those_that_the_sdks_know(api: str, gpt: Any, claude: Any) -> None:
    if api == "openai":
        with pytest.raises(openai.NotFoundError) as raised:
            gpt.chat.completions.create(model="gpt-9", messages=[user("x")])
        assert raised.value.code == "model_not_found" and raised.value.param == "model"
        with pytest.raises(openai.BadRequestError, match="n: one answer"):
            gpt.chat.completions.create(model="tiny", messages=[user("x")], n=2)
        with pytest.raises(openai.BadRequestError) as long:
            gpt.responses.create(model="tiny", input="word " * 4000)
        assert long.value.code == "context_length_exceeded"
    else:
        with pytest.raises(anthropic.NotFoundError) as missing:
            claude.messages.create(model="claude-9", max_tokens=1, messages=[user("x")])
        assert missing.value.body["error"]["type"] == "not_found_error"
        with pytest.raises(anthropic.BadRequestError, match="at least one message"):
            claude.messages.create(model="tiny", max_tokens=1, messages=[])
