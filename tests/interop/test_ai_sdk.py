"""The format ``ai-sdk`` keeps the contract of formats."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmcrdt.document.canonical import exact_json
from llmcrdt.exceptions import FormatError
from llmcrdt.interop.export import export
from llmcrdt.interop.format import Format
from llmcrdt.interop.registry import format_of
from llmcrdt.testing.format_suite import NOW, FormatSuite, _history, stored

sys.path.insert(0, str(Path(__file__).parent))
import ui_messages

UI = format_of("ai-sdk")
PEERS = Path(__file__).parents[1] / "peers"
NODE = shutil.which("node")
needs_the_sdk = pytest.mark.skipif(
    NODE is None or not (PEERS / "node_modules" / "ai").is_dir(),
    reason="Node or the AI SDK is missing: run make peers",
)
USER = {"id": "u", "role": "user", "parts": [{"type": "text", "text": "go"}]}


def said(*parts: Any, id: str = "a") -> dict[str, Any]:
    return {"id": id, "role": "assistant", "parts": list(parts)}


def call(state: str, id: str = "c", **more: Any) -> dict[str, Any]:
    return {"type": "tool-look", "toolCallId": id, "state": state, "input": {}, **more}


class TestAISDK(FormatSuite):
    @property
    def format(self) -> Format:
        return UI

    @property
    def vectors(self) -> Path:
        return Path(__file__).parents[1] / "vectors" / "interop"

    def problems(self, body: Any) -> list[str]:
        return ui_messages.problems(body)

    def log_problems(self, messages: list[Any]) -> list[str]:
        return ui_messages.problems({"messages": messages}, log=True)

    @property
    def broken(self) -> Mapping[str, Any]:
        done = call("output-available", output=1)
        system = {"id": "s", "role": "system", "parts": [{"type": "text", "text": "x"}]}
        return {
            "every call has its result": {"messages": [USER, said(call("input-available"))]},
            "there are messages": {"messages": []},
            "messages have parts": {"messages": [{**USER, "parts": []}]},
            "parts have what their type wants": {"messages": [USER, said(call("output-error"))]},
            "instructions come first": {"messages": [USER, system]},
            "ids of messages differ": {"messages": [USER, USER]},
            "ids of calls differ": {"messages": [USER, said(done, done)]},
        }


@pytest.mark.parametrize(
    "part",
    [
        call("input-streaming"),
        call("input-available"),
        call("approval-requested", approval={"id": "ap"}),
        call("approval-responded", approval={"id": "ap", "approved": True, "reason": "fine"}),
    ],
)
def test_a_call_that_waits_goes_on_waiting_in_a_list_and_has_failed_in_a_request(part: dict[str, Any]) -> None:
    messages = [USER, said(part)]
    entries = stored(UI.read(messages))
    made = export(UI, entries, UI.target(), now=NOW)
    assert made.messages == messages
    (sent,) = made.body["messages"][-1]["parts"]
    assert sent["state"] == "output-error"
    assert ui_messages.problems(made.body) == []


def test_a_refusal_is_a_result_that_failed() -> None:
    refused = call("output-denied", approval={"id": "ap", "approved": False, "reason": "Not now."})
    entries = stored(UI.read([USER, said(refused)]))
    assert (entries[-1].role, entries[-1].text) == ("tool", "Not now.")
    chat = format_of("openai-chat")
    assert export(chat, entries, chat.target(), now=NOW).messages[-1]["content"] == "Not now."


def test_each_step_is_an_answer_of_its_own_with_its_results() -> None:
    mark = {"type": "step-start"}
    text = {"type": "text", "text": "There is a cat."}
    entries = stored(UI.read([USER, said(mark, call("output-available", output={"n": 1}), mark, text)]))
    assert [entry.role for entry in entries] == ["user", "assistant", "tool", "assistant"]
    chat = format_of("openai-chat")
    roles = [m["role"] for m in export(chat, entries, chat.target(), now=NOW).messages]
    assert roles == ["user", "assistant", "tool", "assistant"]


def test_a_signature_of_claudes_holds_on_its_list_alone() -> None:
    thought = {"type": "reasoning", "text": "Hm", "providerMetadata": {"anthropic": {"signature": "OPAQUE"}}}
    entries = stored(UI.read([USER, said(thought, {"type": "text", "text": "x"})]))
    assert "OPAQUE" in exact_json(export(UI, entries, UI.target(), now=NOW).body)
    (other,) = stored(UI.read([{**USER, "id": "before"}]))
    made = export(UI, [other, *entries], UI.target(), now=NOW)
    assert [line.reason for line in made.left_out] == ["frame"] and "OPAQUE" not in exact_json(made.body)


def test_metadata_of_one_message_goes_out_whole_or_not_at_all() -> None:
    parts = [
        {"type": "reasoning", "text": "", "providerMetadata": {"openai": {"itemId": "rs_OPAQUE"}}},
        {"type": "text", "text": "x", "providerMetadata": {"openai": {"itemId": "msg_OPAQUE"}}},
    ]
    entries = stored(UI.read({"messages": [USER, said(*parts)], "model": "m-1"}))
    made = export(UI, entries, UI.target(model="m-2"), now=NOW)
    assert "OPAQUE" not in exact_json(made.body) and [line.reason for line in made.left_out] == ["model"]


@pytest.mark.parametrize(
    ("part", "path"),
    [
        ({"type": "text"}, r"\[1\]\.parts\[0\]\.text is missing"),
        ({"text": "x"}, r"\[1\]\.parts\[0\]\.type is missing"),
        (call("running"), r"\[1\]\.parts\[0\]\.state is 'running'"),
        (call("output-error"), r"\[1\]\.parts\[0\]\.errorText is missing"),
        ({"type": "dynamic-tool", "toolCallId": "c", "state": "input-available"}, r"\.toolName is missing"),
    ],
)
def test_bad_parts_are_named(part: Any, path: str) -> None:
    with pytest.raises(FormatError, match=path):
        UI.read([USER, said(part)])


def refusals(lists: Sequence[Any]) -> list[str | None]:
    """Why the AI SDK itself refuses each list."""
    assert NODE
    given = exact_json(list(lists)).replace("1e400", "1e40")  # JavaScript has no such number
    command = [NODE, "ui_messages.mjs"]
    done = subprocess.run(command, input=given, cwd=PEERS, capture_output=True, text=True, check=True, timeout=120)
    made: list[str | None] = json.loads(done.stdout)
    return made


def of_known_types(messages: Any) -> Any:
    """The messages without parts whose types this version of the AI SDK doesn't know: they stay for one that does."""
    known = ("text", "reasoning", "source-url", "source-document", "file", "step-start", "dynamic-tool")
    left = [
        {**m, "parts": [p for p in m["parts"] if p["type"] in known or p["type"].startswith(("data-", "tool-"))]}
        for m in messages
    ]
    return [message for message in left if message["parts"]]


@needs_the_sdk
def test_the_ai_sdk_itself_takes_whatever_is_written() -> None:
    suite = TestAISDK()
    pool = suite._pool()
    histories = [_history(random.Random(seed), pool) for seed in range(300)]
    histories += [stored(UI.read(value)) for _, value in suite.values()]
    lists = [of_known_types(export(UI, entries, UI.target(), now=NOW).body["messages"]) for entries in histories]
    assert [why for why in refusals([messages for messages in lists if messages]) if why] == []


@needs_the_sdk
def test_the_ai_sdk_itself_refuses_what_breaks_its_rules() -> None:
    broken = TestAISDK().broken
    shown = [
        "every call has its result",
        "there are messages",
        "messages have parts",
        "parts have what their type wants",
    ]
    found = refusals([broken[name]["messages"] for name in shown])
    prevents = {rule.name: rule.prevents for rule in UI.rules}
    assert all(prevents[name] in str(why) for name, why in zip(shown, found, strict=True)), found
