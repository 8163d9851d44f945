"""The export of a conversation is a request that is valid, whatever was merged."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import llmcrdt
from llmcrdt.document.entry import Reasoning, Text, ToolCall, Unknown
from llmcrdt.document.repairs import NO_RESULT
from llmcrdt.exceptions import InvalidContent
from llmcrdt.interop import openai_chat

sys.path.insert(0, str(Path(__file__).parent))
from chat_request import problems

LOOK = ToolCall("c1", "look", '{"at": 1.0}')


@pytest.fixture
def conv(tmp_path: Path) -> Any:
    with llmcrdt.open(tmp_path / "a.db") as repo:
        yield repo.create()


def exported(conv: llmcrdt.Conversation) -> list[dict[str, Any]]:
    """The messages of the export, which is valid."""
    request: Any = openai_chat.export(conv.transcript())
    assert problems(request) == []
    return list(request["messages"])


def test_a_call_without_a_result_gets_one(conv: llmcrdt.Conversation) -> None:
    conv.append("user", "go")
    conv.append("assistant", [LOOK], frame=conv.transcript())
    assert exported(conv)[2:] == [{"role": "tool", "content": NO_RESULT, "tool_call_id": "c1"}]
    conv.append("user", "well?")
    assert [message["role"] for message in exported(conv)] == ["user", "assistant", "tool", "user"]


def test_a_second_result_and_one_without_its_call_are_told_as_the_user(conv: llmcrdt.Conversation) -> None:
    asked = conv.append("assistant", [LOOK], frame=conv.transcript())
    conv.append("tool", "first", call=asked.tool_calls[0])
    second = conv.append("tool", "second", call=asked.tool_calls[0])
    assert [(m["role"], m["content"]) for m in exported(conv)[1:]] == [
        ("tool", "first"),
        ("user", "Late result of look: second"),
    ]
    alone = openai_chat.export([second], bare=True)
    assert alone == [{"role": "user", "content": "Result of a tool: second"}]


def test_two_devices_that_run_one_call_export_one_result(tmp_path: Path) -> None:
    with llmcrdt.open(tmp_path / "a.db") as here, llmcrdt.open(tmp_path / "b.db") as there:
        conv = here.create()
        other = there.join(conv.id)
        call = conv.append("assistant", [LOOK], frame=conv.transcript()).tool_calls[0]
        other.apply(conv.diff())
        for device in (conv, other):
            device.append("tool", "found", call=call)
        conv.apply(other.diff())
        assert [message["role"] for message in exported(conv)] == ["assistant", "tool", "user"]


def test_half_a_call_of_a_stream_that_crashed_is_left_out(conv: llmcrdt.Conversation) -> None:
    stream = conv.stream(frame=conv.transcript(), interval=0)
    stream.write("I look. ")
    stream.call("c1", "look")
    stream.write('{"at"', part="tool_call")
    stream.abandon()
    (left,) = conv.unsealed()
    assert conv.seal(left).tool_calls[0].id == ""
    assert exported(conv) == [{"role": "assistant", "content": "I look. "}]
    only = conv.stream(frame=conv.transcript(), interval=0)
    only.write('{"at"', part="tool_call")
    only.abandon()
    conv.seal(only.id)
    assert len(exported(conv)) == 1, "half a call alone is no message"


def test_calls_of_one_message_have_ids_of_their_own(conv: llmcrdt.Conversation) -> None:
    calls = [LOOK, ToolCall("c1", "listen", "{}"), ToolCall("", "smell", "{}")]
    asked = conv.append("assistant", calls, frame=conv.transcript())
    for n, call in enumerate(asked.tool_calls):
        conv.append("tool", f"result {n}", call=call)
    first, *results = exported(conv)
    ids = [call["id"] for call in first["tool_calls"]]
    assert ids[0] == "c1" and len(set(ids)) == 3
    assert [(m["tool_call_id"], m["content"]) for m in results] == [(ids[n], f"result {n}") for n in range(3)]


@pytest.mark.parametrize(
    ("role", "part"),
    [
        ("assistant", Reasoning("hm")),
        ("assistant", Unknown({"type": "text", "text": 5})),
        ("assistant", Unknown({"type": "openai_chat/message", "content": "absent"})),
        ("assistant", Unknown({"type": "openai_chat/message", "content": "list", "fields": {"tool_calls": []}})),
        ("assistant", Unknown({"type": "openai_chat/tool_call", "call": {"id": "c", "type": "function"}})),
        ("assistant", Unknown({"type": "image_url", "image_url": {"url": "x"}})),
        ("user", LOOK),
        ("user", Unknown({"type": "openai_chat/message", "fields": {"tool_call_id": "c", "tool_calls": [3]}})),
        ("user", Unknown({"type": "openai_chat/content", "item": {"no type": 1}})),
        ("system", Unknown({"type": "openai_chat/message", "content": "list"})),
    ],
)
def test_what_anybody_puts_into_an_entry_leaves_the_export_valid(
    conv: llmcrdt.Conversation, role: Any, part: Any
) -> None:
    conv.append(role, [part])
    conv.append("user", "next")
    assert exported(conv)[-1] == {"role": "user", "content": "next"}


def test_tools_that_are_none_are_left_out(conv: llmcrdt.Conversation) -> None:
    tool = {"type": "function", "function": {"name": "look"}}
    conv.append("system", tools=[5, tool, {"type": "function", "function": {}}])
    request: Any = openai_chat.export(conv.transcript())
    assert request["tools"] == [tool]
    conv.append("system", tools=[])
    request = openai_chat.export(conv.transcript())
    assert "tools" not in request


def test_the_youngest_tools_count_wherever_a_merge_has_put_them(conv: llmcrdt.Conversation) -> None:
    tools = [[{"type": "function", "function": {"name": name}}] for name in ("old", "new")]
    old, new = [conv.append("system", tools=each) for each in tools]
    request: Any = openai_chat.export([new, old])
    assert request["tools"] == tools[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("tool", "x"), "answers a call"),
        (("user", 5), "int can't be the content"),
        (("user", [5]), "int is not a part"),
        (("user", b"x"), "bytes can't be the content"),
        (("user", {"text": "x"}), "dict can't be the content"),
        (("robot", "x"), "'robot' is not a role"),
        ((["user"], "x"), "is not a role"),
    ],
)
def test_an_entry_that_can_be_no_message_is_refused(
    conv: llmcrdt.Conversation, arguments: tuple[Any, Any], says: str
) -> None:
    with pytest.raises(InvalidContent, match=says) as raised:
        conv.append(*arguments)
    assert raised.value.hint
    assert len(conv.transcript()) == 0


def test_only_results_answer_calls_and_they_answer_calls_that_are_there(conv: llmcrdt.Conversation) -> None:
    said = conv.append("user", "go")
    asked = conv.append("assistant", [Text("so"), LOOK], frame=conv.transcript())
    (call,) = asked.tool_calls
    for wrong in (
        lambda: conv.append("tool", "x", instead_of=said),
        lambda: conv.append("user", "x", call=call),
        lambda: conv.append("tool", "x", call="c1"),  # type: ignore[arg-type]
        lambda: conv.append("tool", "x", call=LOOK),
        lambda: conv.stream("tool"),
        lambda: conv.claim("c1"),  # type: ignore[arg-type]
        lambda: conv.results(LOOK),
    ):
        with pytest.raises(InvalidContent) as raised:
            wrong()
        assert raised.value.hint
    result = conv.append("tool", "x", call=call)
    assert conv.append("user", "y", instead_of=result).answers is None
    assert conv.append("tool", "y", instead_of=result).answers == (asked.id, "c1")
    with conv.stream("tool", instead_of=result) as stream:
        stream.write("z")
    assert len(conv.alternatives(result)) == 4
