"""Requests to providers and their responses: ``conv.messages`` and ``conv.append_response``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from providers import RESPONSES

import llmcrdt
from llmcrdt.document.canonical import exact_json
from llmcrdt.document.frame import sent_hash
from llmcrdt.exceptions import FormatError, InvalidContent, NotSealed
from llmcrdt.interop.export import export
from llmcrdt.interop.registry import format_of, names
from llmcrdt.testing.format_suite import NOW, stored

TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]


@pytest.fixture
def conv(tmp_path: Path) -> Iterator[llmcrdt.Conversation]:
    with llmcrdt.open(tmp_path / "a.db") as repo:
        made = repo.create()
        made.append("system", "Be brief.", tools=TOOLS)
        made.append("user", "What is there?")
        yield made


def test_every_api_has_a_response_here() -> None:
    assert set(RESPONSES) == set(names())


@pytest.mark.parametrize("api", names())
def test_an_answer_goes_back_as_it_came_with_its_hidden_fields(conv: llmcrdt.Conversation, api: str) -> None:
    request = conv.messages(api, model="m-1")
    assert request.body["model"] == "m-1" and "What is there?" in exact_json(request.messages)
    assert ("tools" in request.body) == (api != "ai-sdk") and not request.left_out and request.report == ()
    entry = conv.append_response(request, json.dumps(RESPONSES[api]).encode())
    name = "m-1" if api == "ai-sdk" else "m-1-2026"  # its messages don't name their model
    assert (entry.text, entry.role, entry.author, entry.status) == ("Let me see.", "assistant", name, "complete")
    assert entry.model == {"api": api, "name": name}
    assert entry.usage == {} if api == "ai-sdk" else entry.usage["finish"] and len(entry.usage) > 1
    assert entry.frame is not None and entry.frame.hash == request.frame_hash
    assert entry.frame.sent == sent_hash(request.body) and entry.frame.renderer == f"llmcrdt.interop.{api}/3"
    assert not entry.frame.assumed and conv.verify() == []
    assert all("OPAQUE" not in str(part) for part in entry.parts)
    (call,) = entry.tool_calls
    conv.append("tool", "a cat", call=call)
    then = conv.messages(api, model="m-1")
    member = next(key for key in ("messages", "input", "contents") if key in request.body)
    sent, now = request.body[member], then.body[member]
    assert now[: len(sent)] == sent  # what the answer was computed on stays the beginning
    text = exact_json(now[len(sent) :])
    assert "a cat" in text and "null" not in text.replace('"at":null', "")
    assert ("OPAQUE" in text) == (api != "ollama") and not then.left_out
    assert ('{"at":null}' in text) == (api == "anthropic")


@pytest.mark.parametrize("api", [name for name in names() if name != "ollama"])
def test_hidden_fields_go_back_to_where_they_came_from_alone(conv: llmcrdt.Conversation, api: str) -> None:
    request = conv.messages(api, model="m-1", account="acct-1")
    entry = conv.append_response(request, RESPONSES[api])
    conv.append("tool", "a cat", call=entry.tool_calls[0])

    def reasons(**target: Any) -> set[str]:
        made = conv.messages(**{"for_": api, "model": "m-1", "account": "acct-1", **target})
        assert ("OPAQUE" in exact_json(made.body)) == (not made.left_out)
        return {line.reason for line in made.left_out}

    assert reasons() == set()
    if api != "ai-sdk":
        assert reasons(model="m-1-2026") == set()  # the name under which it answered
    assert reasons(model="m-2") == {"model"}
    assert reasons(account=None) == reasons(account="acct-2") == {"account"}
    assert reasons(provider="another") == {"provider"}
    for other in names():
        assert other == api or reasons(for_=other) != set(), other


def test_a_signature_of_the_whole_list_is_bound_to_the_frame(conv: llmcrdt.Conversation) -> None:
    request = conv.messages("anthropic", model="m-1")
    conv.append("user", "And there?")  # while the provider computes
    entry = conv.append_response(request, RESPONSES["anthropic"])
    assert request.frame is not None
    assert entry.hidden["anthropic/thinking"].binding["frame"] == request.frame_hash == request.frame.hash
    assert [e.text for e in conv.transcript()][-2:] == ["Let me see.", "And there?"]
    assert not conv.messages("anthropic", model="m-1").left_out
    conv.edit(request.frame[1], "What was there?")
    conv.select(entry)
    assert not conv.messages("anthropic", model="m-1").left_out
    conv.erase(request.frame[1])
    assert [line.reason for line in conv.messages("anthropic", model="m-1").left_out] == ["erased"]


def test_a_signature_of_the_whole_list_holds_on_its_tools_alone(conv: llmcrdt.Conversation) -> None:
    conv.append_response(conv.messages("anthropic", model="m-1"), RESPONSES["anthropic"])
    conv.append("system", tools=[{"type": "function", "function": {"name": "listen"}}])
    request = conv.messages("anthropic", model="m-1")
    assert [(line.name, line.reason) for line in request.left_out] == [("anthropic/thinking", "tools")]
    assert "OPAQUE" not in exact_json(request.body)
    conv.append("system", tools=TOOLS)
    assert not conv.messages("anthropic", model="m-1").left_out
    assert [line.sent for line in conv.hidden_report(conv.messages("anthropic", model="m-1").target)] == [True]
    by_hand = llmcrdt.Target("anthropic", api="anthropic", model="m-1")
    assert [line.sent for line in conv.hidden_report(by_hand)] == [True], "whoever asks need not know of tools"


def test_two_responses_to_one_request_are_alternatives(conv: llmcrdt.Conversation) -> None:
    request = conv.messages("openai-chat")
    one = conv.append_response(request, RESPONSES["openai-chat"])
    other = conv.append_response(request, RESPONSES["openai-chat"])
    assert {e.id for e in conv.alternatives(one)} == {one.id, other.id}


def test_an_answer_is_asked_for_again_on_the_list_it_was_computed_on(conv: llmcrdt.Conversation) -> None:
    request = conv.messages("anthropic", model="m-1")
    one = conv.append_response(request, RESPONSES["anthropic"])
    conv.append("tool", "a cat", call=one.tool_calls[0])
    again = conv.messages("anthropic", model="m-1", instead_of=one)
    assert (again.body, again.frame, again.instead_of) == (request.body, None, one.id)
    other = conv.append_response(again, RESPONSES["anthropic"])
    assert {e.id for e in conv.alternatives(one)} == {one.id, other.id} and conv.verify() == []
    assert [e.id for e in conv.transcript()][-1] == other.id
    assert not conv.messages("anthropic", model="m-1").left_out
    with pytest.raises(InvalidContent):
        conv.messages("anthropic", instead_of=conv.transcript()[1])


def test_the_record_says_what_was_really_sent(conv: llmcrdt.Conversation) -> None:
    request = conv.messages("openai-chat", model="m-1")
    body = {**request.body, "temperature": 0.5}
    entry = conv.append_response(request, RESPONSES["openai-chat"], sent=body, author="Ann's agent")
    assert entry.frame is not None and entry.frame.sent == sent_hash(body) and entry.author == "Ann's agent"


def test_hidden_fields_are_encrypted_where_that_is_asked(conv: llmcrdt.Conversation) -> None:
    pytest.importorskip("nacl", reason='sealing needs PyNaCl: pip install "llmcrdt[seal]"')
    request = conv.messages("anthropic", model="m-1", account="acct-1")
    entry = conv.append_response(request, RESPONSES["anthropic"], sealed=True)
    assert entry.hidden["anthropic/thinking"].sealed
    assert b"acct-1" not in conv.diff() and b"OPAQUE" not in conv.diff()
    assert not conv.messages("anthropic", model="m-1", account="acct-1").left_out


def test_a_request_says_what_it_leaves_out_and_writes_nothing(conv: llmcrdt.Conversation) -> None:
    conv.append_response(conv.messages("gemini", model="m-1"), RESPONSES["gemini"])
    before = conv.version()
    request = conv.messages("openai-chat", model="m-2")
    (line,) = request.left_out
    assert str(line).endswith("is not sent: it is for another provider")
    assert conv.version() == before
    conv.summarize(until=conv.transcript()[-1], text="They looked.")
    request = conv.messages("openai-chat", model="m-2")
    assert "They looked." in exact_json(request.body) and "What is there?" not in exact_json(request.body)
    assert [line.reason for line in request.left_out] == ["covered"]


def test_pictures_go_along(tmp_path: Path, conv: llmcrdt.Conversation) -> None:
    (tmp_path / "cat.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    conv.append("user", [llmcrdt.Text("See"), llmcrdt.Blob(str(tmp_path / "cat.png"))])
    assert "iVBORw0KGgo=" in exact_json(conv.messages("anthropic").body)


@pytest.mark.parametrize(
    ("api", "bad"),
    [
        ("openai-chat", {"choices": []}),
        ("openai-chat", {"choices": [{"message": {"role": "user", "content": "x"}}]}),
        ("openai-chat", {"choices": RESPONSES["openai-chat"]["choices"] * 2}),
        ("openai-chat", {"error": {"message": "Rate limit reached"}}),
        ("openai-chat", [1]),
        ("openai-chat", b"\xff"),
        ("openai-chat", "{"),
        ("openai-chat", {"choices": [{"message": object()}]}),
        ("anthropic", {"type": "error", "error": {"type": "overloaded_error"}}),
        ("anthropic", {"role": "assistant"}),
        ("openai-responses", {"output": []}),
        ("openai-responses", {"output": [{"type": "message", "role": "user", "content": "x"}]}),
        ("openai-responses", {"output": [5]}),
        ("gemini", {"promptFeedback": {"blockReason": "SAFETY"}}),
        ("gemini", {"candidates": [{"finishReason": "SAFETY"}]}),
        ("ollama", {"done": True}),
        ("gemini-interactions", {"status": "failed", "steps": []}),
    ],
)
def test_what_is_no_answer_is_told_and_appends_nothing(conv: llmcrdt.Conversation, api: str, bad: Any) -> None:
    request, before = conv.messages(api), conv.version()
    with pytest.raises(FormatError) as told:
        conv.append_response(request, bad)
    assert told.value.message and told.value.hint and conv.version() == before


def test_requests_of_others_are_told_and_append_nothing(tmp_path: Path, conv: llmcrdt.Conversation) -> None:
    with llmcrdt.open(tmp_path / "b.db") as repo:
        other = repo.create()
        other.append("user", "Hello")
        foreign: Any
        for foreign in (other.messages("openai-chat"), conv.messages("openai-chat").body, None):
            before = conv.version()
            with pytest.raises(InvalidContent) as told:
                conv.append_response(foreign, RESPONSES["openai-chat"])
            assert told.value.hint and conv.version() == before
        with pytest.raises(InvalidContent):
            conv.append("assistant", "Hi", frame=other.transcript())
        with pytest.raises(InvalidContent):
            conv.stream(frame=other.transcript())


def test_an_unknown_api_and_an_unfinished_entry_are_told_before_anything_is_sent(conv: llmcrdt.Conversation) -> None:
    unknown: Any
    for unknown in ("openai", ["openai-chat"], None):
        with pytest.raises(FormatError) as told:
            conv.messages(unknown)
        assert "openai-chat" in told.value.hint
    stream = conv.stream()
    stream.write("Hal")
    stream.abandon()
    conv.append("user", "Go on")
    with pytest.raises(NotSealed):
        conv.messages("openai-chat")


@pytest.mark.parametrize("api", names())
def test_a_conversation_that_says_nothing_is_no_request(tmp_path: Path, api: str) -> None:
    with llmcrdt.open(tmp_path / "a.db") as repo:
        empty = repo.create()
        for words in (None, "gone"):
            if words is not None:
                empty.erase(empty.append("user", words))
            with pytest.raises(FormatError) as told:
                empty.messages(api)
            assert "append" in told.value.hint
        empty.append("system", "Begin.", tools=TOOLS)
        assert "Begin." in exact_json(empty.messages(api).body)


@pytest.mark.parametrize(
    "instructions", [["Be brief."], [{"role": "developer", "content": [{"type": "input_text"}]}], {"a": 1}, 5]
)
def test_instructions_that_are_no_text_are_refused(instructions: Any) -> None:
    with pytest.raises(FormatError) as told:
        format_of("openai-responses").read({"instructions": instructions, "input": "go"})
    assert "instructions" in told.value.message and told.value.hint


def test_instructions_of_a_response_are_a_text_in_a_request(tmp_path: Path) -> None:
    pieces = [{"type": "input_text", "text": "Be brief."}, {"type": "input_text", "text": "Be kind."}]
    listed = [{"type": "message", "role": "developer", "content": pieces}, {"role": "system", "content": "Go."}]
    form = format_of("openai-responses")
    entries = stored(form.read({"instructions": listed, "input": "go"}))
    body = export(form, entries, form.target(), now=NOW).body
    assert body["instructions"] == "Be brief.\n\nBe kind.\n\nGo." and body["input"] == "go"
    with llmcrdt.open(tmp_path / "a.db") as repo:
        conv = repo.create()
        conv.append("system", "Mine.", **{"openai-responses": {"instructions": [1], "temperature": 1}})  # type: ignore[arg-type]
        conv.append("user", "go")
        body = conv.messages("openai-responses").body
        assert "instructions" not in body and body["temperature"] == 1
        assert body["input"][0] == {"role": "system", "content": "Mine."}


def test_a_field_that_the_rules_of_the_api_leave_out_is_told(conv: llmcrdt.Conversation) -> None:
    """Reasoning that nothing follows is refused, so it does not go out, though its binding holds."""
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "OPAQUE"}
    cut = {"id": "resp_1", "status": "incomplete", "model": "m-1", "output": [reasoning],
           "incomplete_details": {"reason": "max_output_tokens"}}  # fmt: skip
    entry = conv.append_response(conv.messages("openai-responses", model="m-1"), cut)
    conv.append("user", "Go on.")
    request = conv.messages("openai-responses", model="m-1")
    assert "OPAQUE" not in exact_json(request.body)
    (line,) = request.left_out
    assert (line.entry, line.reason) == (entry.id, "unused") and "the rules of the API leave out" in str(line)
