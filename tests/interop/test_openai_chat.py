"""OpenAI's JSON goes in and comes out unchanged, through the stored form; bad input is told by its path."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcrdt.document.canonical import canonical_json, parse_json
from llmcrdt.document.entry import Config, Reasoning, Text, ToolCall, ToolResult, Unknown, part_from_json, part_to_json
from llmcrdt.exceptions import FormatError
from llmcrdt.interop.openai_chat import Draft, parse, read, read_text, title_of, write

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
JSONS: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
NAMES = TEXT | st.sampled_from(
    ("type", "text", "id", "name", "arguments", "error", "refusal", "audio", "index", "json")
)
TYPES = TEXT | st.sampled_from(("image_url", "refusal", "reasoning", "tool_call", "tool_result", "config", "blob"))


@cache
def extras(*taken: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(NAMES.filter(lambda name: name not in taken), JSONS, max_size=2)


ITEMS = st.one_of(
    st.builds(lambda text, more: {"type": "text", "text": text, **more}, TEXT, extras("type", "text")),
    st.builds(lambda kind, more: {"type": kind, **more}, TYPES.filter(lambda kind: kind != "text"), extras("type")),
)
CONTENT = TEXT | st.lists(ITEMS, max_size=3)


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    name = draw(st.sampled_from(("a", "b", "c"))) + draw(TEXT)
    kind, words = draw(st.sampled_from((("function", "arguments"), ("custom", "input"), ("other", ""))))
    if kind == "other":
        return {"type": kind, "id": name, **draw(extras("type", "id"))}
    inner = {"name": draw(TEXT), words: draw(TEXT | JSONS.map(json.dumps)), **draw(extras("name", words))}
    return {"id": name, "type": kind, kind: inner, **draw(extras("id", "type", kind))}


@st.composite
def messages(draw: st.DrawFn) -> list[Any]:
    out: list[Any] = []
    made: list[str] = []
    for _ in range(draw(st.integers(0, 6))):
        role = draw(st.sampled_from(("system", "developer", "user", "assistant", "tool")))
        taken = ("role", "content", "tool_calls", "reasoning_content", "reasoning", "tool_call_id")
        message: dict[str, Any] = {"role": role, **draw(extras(*taken))}
        if role == "tool":
            if not made:
                continue
            message["tool_call_id"] = draw(st.sampled_from(made))
        if role != "assistant" or draw(st.booleans()):
            message["content"] = draw(CONTENT if role != "assistant" else CONTENT | st.none())
        if role == "assistant":
            if draw(st.booleans()):
                message[draw(st.sampled_from(("reasoning_content", "reasoning")))] = draw(TEXT | st.none() | JSONS)
            if draw(st.booleans()):
                message["tool_calls"] = draw(st.none() | st.lists(calls(), max_size=3))
                made += [call["id"] for call in message["tool_calls"] or []]
        out.append(message)
    return out


TOOLS = st.lists(
    st.builds(lambda name, more: {"type": "function", "function": {"name": name, **more}}, TEXT, extras("name"))
    | extras("type"),
    max_size=2,
)


@st.composite
def conversations(draw: st.DrawFn) -> Any:
    said = draw(messages())
    if draw(st.booleans()):
        return said
    whole = {"messages": said, **draw(extras("messages", "tools", "title"))}
    if draw(st.booleans()):
        whole["tools"] = draw(TOOLS)
    if draw(st.booleans()):
        whole["title"] = draw(TEXT)
    return whole


def stored(draft: Draft) -> Draft:
    """The draft as a document gives it back: its parts through canonical JSON."""
    parts = tuple(part_from_json(parse_json(canonical_json(part_to_json(part)))) for part in draft.parts)
    return Draft(draft.role, parts, draft.answers, draft.hidden, draft.author)


def same(one: Any, other: Any) -> bool:
    """Equal, and equal in kind: 1, 1.0 and true are three things."""
    return canonical_json(one) == canonical_json(other)


@settings(deadline=None, max_examples=400)
@given(conversations())
def test_what_goes_in_comes_out(value: Any) -> None:
    drafts = [stored(draft) for draft in read(value)]
    out = write(drafts, title=title_of(value), bare=isinstance(value, list))
    assert same(out, value)
    assert all(draft.answers is None or draft.answers[0] < i for i, draft in enumerate(drafts))


@settings(deadline=None, max_examples=300)
@given(JSONS | st.builds(lambda said, junk: [*said, junk], messages(), JSONS))
def test_anything_else_is_a_format_error(value: Any) -> None:
    try:
        drafts = read(value)
    except FormatError:
        return
    assert same(write(drafts, title=title_of(value), bare=isinstance(value, list)), value)


def test_parts_are_what_people_expect() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1.0}'}}
    value = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "x"}}],
        },
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
    ]
    user, assistant, tool = read(value)
    assert user.parts[0] == Text("see")
    assert assistant.parts == (ToolCall("c1", "f", '{"a": 1.0}'),)
    assert (tool.parts, tool.answers, tool.answers_call) == ((ToolResult("done"),), (1, "c1"), "c1")


def test_tools_stand_on_the_first_system_entry_or_on_one_of_their_own() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    with_system = read({"messages": [{"role": "system", "content": "s"}], "tools": tools})
    assert [draft.parts for draft in with_system] == [(Text("s"), Config({"tools": tools}))]
    alone = read({"messages": [{"role": "user", "content": "u"}], "tools": tools})
    assert [draft.role for draft in alone] == ["system", "user"]
    assert alone[0].parts == (Config({"tools": tools}),)


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (7, "a number"),
        ({}, "messages is missing"),
        ({"messages": {}}, "messages is an object"),
        ({"messages": [3]}, "messages[0] is a number"),
        ([{"content": "x"}], "[0].role"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role is 'robot'"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "tool", "tool_call_id": "c", "content": "x"}]}, "messages[0].tool_call_id is 'c'"),
        ({"messages": [{"role": "assistant", "tool_calls": {}}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "assistant", "tool_calls": [{**CALL, "id": 1}]}]}, "messages[0].tool_calls[0].id"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{**CALL, "function": {"arguments": ""}}]}]},
            "messages[0].tool_calls[0].function.name",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": {}}}]}]},
            "messages[0].tool_calls[0].function.arguments",
        ),
        ({"messages": [], "tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"messages": [], "title": None}, "title"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content holds half"),
        ({"messages": [{"role": "user", "content": "x", "n": float("nan")}]}, "messages[0].n is nan"),
        ({"messages": [{"role": "user", "content": "x", "n": b""}]}, "messages[0].n is a Python bytes"),
    ],
)
def test_bad_input_is_told_by_its_path(value: Any, path: str) -> None:
    with pytest.raises(FormatError) as raised:
        read(value)
    assert path in raised.value.message
    assert raised.value.hint


def test_deep_nesting_is_refused_however_deep() -> None:
    for depth in (200, 100_000):
        with pytest.raises(FormatError, match="deep"):
            read_text("[" * depth + "]" * depth)


@pytest.mark.parametrize(("text", "where"), [('[\n  {"a": }]', "line 2, column 9"), ("[NaN]", "NaN"), ("", "line 1")])
def test_text_that_is_not_json(text: str, where: str) -> None:
    with pytest.raises(FormatError, match=where):
        read_text(text)


def test_the_demo_conversation_is_one() -> None:
    value = parse(files("llmcrdt").joinpath("demo_conversation.json").read_text("utf-8"))
    drafts = read(value)
    assert title_of(value)
    assert {draft.role for draft in drafts} == {"system", "user", "assistant", "tool"}
    assert same(write(drafts, title=title_of(value)), value)


@pytest.mark.parametrize(
    "part",
    [
        Unknown({"type": "text", "text": 5}),
        Unknown({"type": "openai_chat/message", "role": [1], "reasoning": [1], "content": {}, "fields": {"role": 3}}),
        Unknown({"type": "openai_chat/message", "role": "user", "reasoning": "content", "fields": [1]}),
        Unknown({"type": "openai_chat/content", "item": 3}),
        Unknown({"type": "openai_chat/tool_call", "call": [1]}),
        ToolCall("c", "f", "{}", {"openai_chat": {"kind": ["x"], "inner": 3, "call": [1]}}),
        ToolCall("c", "f", "{}", {"openai_chat": {"kind": "id", "inner": {"name": 3}, "call": {"id": 3, "type": 3}}}),
        Config({"tools": 7, "openai_chat": 7}),
    ],
)
def test_what_strangers_keep_beside_parts_is_written_or_left_out(part: Any) -> None:
    parts = (Reasoning("thinks"), Text("says"), part)
    whole: Any = write([Draft("assistant", parts)])
    (message,) = whole["messages"]
    json.dumps(whole, allow_nan=False)
    assert (message["role"], message["reasoning_content"]) == ("assistant", "thinks")
    said = message["content"]
    assert said == "says" or said[0] == {"type": "text", "text": "says"}
    assert all(
        call["id"] == "c" and call["function"] == {"name": "f", "arguments": "{}"}
        for call in message.get("tool_calls", ())
    )
    assert "tools" not in whole
