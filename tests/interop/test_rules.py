"""Rules of formats at places where histories seldom go."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import llmcrdt
from llmcrdt.document.binding import Target
from llmcrdt.document.canonical import exact_json
from llmcrdt.document.entry import Entry
from llmcrdt.document.frame import EMPTY_FRAME, Frame
from llmcrdt.ids import EntryId
from llmcrdt.interop.export import Export, export
from llmcrdt.interop.registry import format_of
from llmcrdt.interop.turns import CONTINUE
from llmcrdt.testing.format_suite import NOW, stored

sys.path.insert(0, str(Path(__file__).parent))
import anthropic_request
import responses_request
import test_ollama
import test_reasoning_content
from providers import VALIDATORS

USER = {"role": "user", "content": "go"}


def read(name: str, *messages: Any, **more: Any) -> list[Entry]:
    form = format_of(name)
    return stored(form.read({form.member: list(messages), **more}))


def put(name: str, entries: Sequence[Entry], target: Target | None = None) -> Export:
    return export(format_of(name), entries, target or format_of(name).target(), now=NOW)


def generated(entries: Sequence[Entry]) -> list[Entry]:
    """The entries, as if a request had been sent from here for each answer."""
    return [replace(e, frame=Frame(None, (), EMPTY_FRAME)) if e.role == "assistant" else e for e in entries]


def again(entries: Sequence[Entry]) -> list[Entry]:
    """The same entries once more, under ids of their own."""
    return [replace(entry, id=EntryId(entry.id[::-1])) for entry in entries]


def test_a_signature_holds_on_its_list_only() -> None:
    thinking = {"type": "thinking", "thinking": "x", "signature": "OPAQUE"}
    found = {"type": "web_search_result", "url": "u", "encrypted_content": "FOUND"}
    search = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    result = {"type": "web_search_tool_result", "tool_use_id": "s", "content": [found]}
    answer = {"role": "assistant", "content": [thinking, search, result, {"type": "text", "text": "y"}]}
    entries = read("anthropic", USER, answer)
    assert "OPAQUE" in exact_json(put("anthropic", entries).body)
    (other,) = read("anthropic", {"role": "user", "content": "before"})
    made = put("anthropic", [other, *entries])
    assert [line.reason for line in made.left_out] == ["frame"]
    assert made.left_out[0].by == other.id
    assert "OPAQUE" not in exact_json(made.body) and "FOUND" in exact_json(made.body)


def test_the_last_four_cache_points_stay() -> None:
    point = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}
    messages = [{"role": "user", "content": [point, point]}, {"role": "assistant", "content": [point]}] * 2
    entries = read("anthropic", *messages, system=[point])
    body = put("anthropic", entries).body
    assert anthropic_request.problems(body) == []
    points = [["cache_control" in block for block in message["content"]] for message in body["messages"][:4]]
    assert points == [[False, False], [False], [True, True], [True]]
    assert "cache_control" in body["system"][0]


def test_a_tool_of_the_servers_that_nobody_ran_gets_an_error() -> None:
    search = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    call = {"type": "tool_use", "id": "t", "name": "look", "input": {}}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "x"}]}
    both = read("anthropic", USER, {"role": "assistant", "content": [search, call]}, result)
    text = {"type": "text", "text": "and"}
    open_ended = read("anthropic", USER, {"role": "assistant", "content": [search, text]})
    followed = [*open_ended, *again(read("anthropic", USER, {"role": "assistant", "content": "y"})[1:])]
    for entries in (both, open_ended, followed, generated(followed)):
        made = put("anthropic", entries)
        assert anthropic_request.problems(made.body) == []
        assert "web_search_tool_result_error" in exact_json(made.messages)
    sent = put("anthropic", generated(open_ended)).body["messages"]
    whole = put("anthropic", generated(followed)).messages
    assert whole[: len(sent)] == sent and sent[-1]["content"] == CONTINUE


def test_a_compaction_in_the_middle_is_told_as_text() -> None:
    block = {"type": "compaction", "content": "They met.", "signature": "OPAQUE"}
    entries = read("anthropic", {"role": "assistant", "content": [block]}, USER)
    assert put("anthropic", entries).messages[0]["content"] == [block]
    (summed,) = [entry for entry in entries if entry.hidden]
    unbound = {name: replace(field, binding={"provider": "anthropic"}) for name, field in summed.hidden.items()}
    (other,) = read("anthropic", {"role": "user", "content": "before"})
    made = put("anthropic", [other, replace(summed, hidden=unbound), *entries[1:]])
    assert anthropic_request.problems(made.body) == []
    assert made.messages[1]["content"] == "They met."
    for name in ("openai-chat", "gemini", "openai-responses", "ollama"):
        assert "They met." in exact_json(put(name, entries).body)


def test_reasoning_that_nothing_follows_is_left_out() -> None:
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "OPAQUE"}
    entries = read("openai-responses", USER, reasoning)
    assert put("openai-responses", entries).messages == [USER]
    two = read("openai-responses", USER, reasoning, {"role": "assistant", "content": "x"}, {**reasoning, "id": "rs_2"})
    assert [item.get("id") for item in put("openai-responses", two).messages] == [None, "rs_1", None]


def test_items_that_came_apart_from_reasoning_that_is_left_out_have_no_ids() -> None:
    """The calls of one response, each with its output right after it."""
    said: list[Any] = [USER, {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "OPAQUE"}]
    for n in (1, 2):
        call = {"type": "function_call", "call_id": f"c{n}", "name": "look", "arguments": "{}"}
        output = {"type": "function_call_output", "call_id": f"c{n}", "output": "x"}
        said += [{**call, "id": f"fc_{n}_of_rs_1"}, output]
    entries = read("openai-responses", *said)
    assert put("openai-responses", entries).messages == said
    elsewhere = put("openai-responses", entries, Target("azure", api="openai-responses"))
    assert responses_request.problems(elsewhere.body) == []
    erased = [replace(e, status="erased", parts=(), hidden={}) if e.hidden else e for e in entries]
    made = put("openai-responses", erased)
    assert responses_request.problems(made.body) == []
    assert [item["call_id"] for item in made.messages if item.get("type") == "function_call"] == ["c2"]


def test_an_item_that_comes_twice_has_its_id_once() -> None:
    answer = {"type": "message", "id": "msg_1", "role": "assistant", "content": "x"}
    kept = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "OPAQUE"}
    by_id = {"type": "reasoning", "id": "rs_2", "summary": []}
    for reasoning in (kept, by_id):
        entries = read("openai-responses", USER, reasoning, answer)
        made = put("openai-responses", [*entries, *again(entries)])
        assert responses_request.problems(made.body) == []
        assert [item.get("id") for item in made.messages].count("msg_1") == 1


def test_items_after_reasoning_without_an_id_have_none() -> None:
    """The server looks for the reasoning of an item by its id, and would not find it."""
    nameless = {"type": "reasoning", "summary": [], "encrypted_content": "OPAQUE"}
    call = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "look", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c1", "output": "x"}
    more = {"type": "function_call", "id": "fc_2", "call_id": "c2", "name": "look", "arguments": "{}"}
    named = {**nameless, "id": "rs_1"}
    answer = {"type": "message", "id": "msg_1", "role": "assistant", "content": "x"}
    made = put("openai-responses", read("openai-responses", USER, nameless, call, output, more, USER, named, answer))
    assert responses_request.problems(made.body) == []
    assert [item["id"] for item in made.messages if "id" in item] == ["rs_1", "msg_1"]
    assert exact_json(made.body).count("OPAQUE") == 2


def test_of_reasoning_with_one_id_the_second_goes_without_and_so_do_its_items() -> None:
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "OPAQUE"}
    for second in (reasoning, {"type": "reasoning", "id": "rs_1", "summary": []}):
        said = [USER, reasoning, {"type": "message", "id": "msg_1", "role": "assistant", "content": "x"}]
        said += [USER, second, {"type": "message", "id": "msg_2", "role": "assistant", "content": "y"}]
        made = put("openai-responses", read("openai-responses", *said))
        assert responses_request.problems(made.body) == []
        assert [item.get("id") for item in made.messages if item.get("role") != "user"][:2] == ["rs_1", "msg_1"]
        assert [item["id"] for item in made.messages if "id" in item] == ["rs_1", "msg_1"]


def test_outputs_have_the_form_of_their_call() -> None:
    calls: list[Any] = [
        {"type": kind, "call_id": kind, "id": f"{kind}_1", "action": {}}
        for kind in ("computer_call", "local_shell_call", "shell_call", "apply_patch_call")
    ]
    made = put("openai-responses", read("openai-responses", USER, *calls))
    assert responses_request.problems(made.body) == []
    assert [item["type"] for item in made.messages[5:]] == [f"{call['type']}_output" for call in calls]


def test_a_result_names_the_call_that_it_answers() -> None:
    calls = [{"id": id_, "function": {"name": "f", "arguments": {}}} for id_ in ("a", "b")]
    results = [{"role": "tool", "tool_call_id": id_, "tool_name": "f", "content": id_} for id_ in ("b", "a")]
    entries = read("ollama", USER, {"role": "assistant", "content": "", "tool_calls": calls}, *results)
    named = llmcrdt.Unknown({"type": "ollama/message", "named": ["tool_name"]})
    vague = [replace(e, parts=(e.parts[0], named)) if e.role == "tool" else e for e in entries]
    made = put("ollama", vague)
    assert test_ollama.problems(made.body) == []
    assert made.messages[2]["tool_call_id"] == "b" and "tool_call_id" not in made.messages[3]


def test_a_signature_stays_with_its_call_or_goes() -> None:
    signed = {"extra_content": {"google": {"thought_signature": "OPAQUE"}}}
    calls = [{"id": c, "type": "function", "function": {"name": c, "arguments": "{}"}} for c in ("a", "b")]
    answer = {"role": "assistant", "content": None, "tool_calls": [{**calls[0], **signed}, calls[1]]}
    entries = read("openai-chat", USER, answer)
    assert put("openai-chat", entries).messages[1]["tool_calls"][0]["extra_content"]
    first, second = entries[1].tool_calls
    broken = (replace(first, name=""), second)
    made = put("openai-chat", [entries[0], replace(entries[1], parts=broken)])
    assert [call["id"] for call in made.messages[1]["tool_calls"]] == ["b"]
    assert "OPAQUE" not in exact_json(made.body)


def test_a_custom_tool_becomes_a_function_where_there_are_no_others() -> None:
    custom = {"id": "c", "type": "custom", "custom": {"name": "shell", "input": "ls"}}
    entries = read("openai-chat", USER, {"role": "assistant", "content": None, "tool_calls": [custom]})
    made = put("reasoning-content", entries)
    assert test_reasoning_content.problems(made.body) == []
    assert made.messages[1]["tool_calls"][0]["function"] == {"name": "shell", "arguments": '{"input":"ls"}'}


def test_tools_of_one_api_are_those_of_another() -> None:
    schema = {"type": "object", "properties": {"at": {"type": "string"}}}
    entries = read("anthropic", USER, tools=[{"name": "look", "description": "Look.", "input_schema": schema}])
    function = {"name": "look", "description": "Look.", "parameters": schema}
    assert put("openai-chat", entries).body["tools"] == [{"type": "function", "function": function}]
    assert put("ollama", entries).body["tools"] == [{"type": "function", "function": function}]
    assert put("openai-responses", entries).body["tools"] == [{"type": "function", **function, "strict": False}]
    (declared,) = put("gemini", entries).body["tools"][0]["functionDeclarations"]
    assert declared == {"name": "look", "description": "Look.", "parametersJsonSchema": schema}
    (chat,) = put("anthropic", read("openai-chat", USER, tools=[{"type": "function", "function": function}])).body[
        "tools"
    ]
    assert chat == {"name": "look", "description": "Look.", "input_schema": schema}


def test_a_picture_of_one_api_is_one_of_another() -> None:
    data = "iVBORw0KGgo="
    source = {"type": "base64", "media_type": "image/png", "data": data}
    entries = read("anthropic", {"role": "user", "content": [{"type": "image", "source": source}]}, system="s")
    uri = f"data:image/png;base64,{data}"
    shown: dict[str, Any] = {
        "openai-chat": [{"type": "image_url", "image_url": {"url": uri}}],
        "openai-responses": [{"type": "input_image", "image_url": uri, "detail": "auto"}],
        "gemini": [{"inlineData": {"mimeType": "image/png", "data": data}}],
        "ollama": [data],
    }
    for name, wanted in shown.items():
        message = put(name, entries).messages[-1]
        assert message.get("images" if name == "ollama" else "parts" if name == "gemini" else "content") == wanted
        back = put("anthropic", read(name, message))
        assert back.messages[0]["content"] == [{"type": "image", "source": source}], name


def test_a_summary_stands_for_what_it_covers(tmp_path: Path) -> None:
    with llmcrdt.open(tmp_path / "a.db") as repo:
        conv = repo.create()
        conv.append("user", "COVERED")
        answer = conv.append("assistant", "COVERED too", frame=conv.transcript())
        conv.summarize(until=answer, text="They met.")
        conv.append("user", "more")
        entries = list(conv.transcript())
        for name in ("openai-chat", "anthropic", "openai-responses", "gemini", "ollama"):
            text = exact_json(put(name, entries).body)
            assert "They met." in text and "COVERED" not in text and "more" in text, name


PICTURE = llmcrdt.Blob(b"cat", "image/png", "cat.png")
CAT = "Y2F0"


def looked(*results: Sequence[Any]) -> list[Entry]:
    """A transcript with an answer of two calls, and results of them, each with parts of its own."""
    calls = [{"id": f"c{n}", "type": "function", "function": {"name": "look", "arguments": "{}"}} for n in (1, 2)]
    said = [{"role": "tool", "tool_call_id": f"c{n + 1}", "content": "seen"} for n in range(len(results))]
    entries = generated(read("openai-chat", USER, {"role": "assistant", "content": None, "tool_calls": calls}, *said))
    shown = [replace(e, parts=(*e.parts, *more)) for e, more in zip(entries[2:], results, strict=True)]
    return [*entries[:2], *shown]


def put_with_pictures(name: str, entries: Sequence[Entry], model: str | None = None) -> Export:
    form = format_of(name)
    return export(form, entries, form.target(model=model), now=NOW, read_blob=lambda blob: b"cat")


def test_pictures_of_results_stand_behind_the_results_where_only_users_show_them() -> None:
    entries = looked([PICTURE], [PICTURE])
    after = [*entries, *again(read("openai-chat", USER, {"role": "assistant", "content": "two cats"})[1:])]
    for name in ("openai-chat", "openrouter", "reasoning-content"):
        sent = put_with_pictures(name, entries).body["messages"]
        shown = sent.pop()
        assert [m["role"] for m in sent] == ["user", "assistant", "tool", "tool"] and CAT not in exact_json(sent)
        kinds = [item["type"] for item in shown["content"]]
        assert shown["role"] == "user" and kinds == ["text", "image_url", "text", "image_url"]
        assert put_with_pictures(name, after).messages[:5] == [*sent, shown]
    messages = put_with_pictures("ai-sdk", entries).messages
    assert [part["state"] for part in messages[1]["parts"]] == ["output-available", "output-available"]
    assert messages[2]["role"] == "user" and exact_json(messages[2]).count(CAT) == 2
    assert put_with_pictures("ai-sdk", after).messages[:3] == messages
    waiting = put_with_pictures("ai-sdk", looked([PICTURE])).messages
    assert [part["state"] for part in waiting[-1]["parts"]] == ["output-available", "input-available"]


def test_pictures_of_results_stand_in_googles_responses_where_the_model_takes_them_there() -> None:
    picture = {"inlineData": {"mimeType": "image/png", "data": CAT}}
    (*_, turn) = put_with_pictures("gemini", looked([PICTURE], []), "gemini-3-pro").body["contents"]
    assert [part["functionResponse"].get("parts") for part in turn["parts"]] == [[picture], None]
    (*_, turn) = put_with_pictures("gemini", looked([PICTURE], []), "gemini-2.5-flash").body["contents"]
    assert [list(part) for part in turn["parts"]] == [["functionResponse"]] * 2 + [["text"], ["inlineData"]]
    assert exact_json(turn).count(CAT) == 1


def test_pictures_in_googles_responses_are_pictures_to_others() -> None:
    picture = {"inlineData": {"mimeType": "image/png", "data": CAT, "displayName": "cat.png"}, "odd": 1}
    response = {"id": "f1", "name": "look", "response": {"output": "seen"}, "parts": [picture]}
    call = {
        "role": "model",
        "parts": [{"functionCall": {"id": "f1", "name": "look", "args": {}}, "thoughtSignature": "S"}],
    }
    contents = [
        {"role": "user", "parts": [{"text": "go"}]},
        call,
        {"role": "user", "parts": [{"functionResponse": response}]},
    ]
    entries = read("gemini", *contents)
    for model in ("gemini-3-pro", "gemini-2.5-flash", None):
        assert put_with_pictures("gemini", entries, model).messages == contents
    for name in ("anthropic", "openai-chat", "openai-responses", "gemini-interactions", "ollama", "ai-sdk"):
        assert CAT in exact_json(put_with_pictures(name, entries).body), name
    strange = {"functionResponse": {**response, "parts": [picture, {"later": True}]}}
    contents[2] = {"role": "user", "parts": [strange]}
    assert put_with_pictures("gemini", read("gemini", *contents)).messages == contents


def test_what_an_answer_shows_is_told_to_those_who_cant_be_shown_it() -> None:
    shown = {
        "role": "model",
        "parts": [{"inlineData": {"mimeType": "image/png", "data": CAT}, "thoughtSignature": "S"}],
    }
    said = [{"role": "user", "parts": [{"text": "go"}]}, shown, {"role": "user", "parts": [{"text": "more"}]}]
    entries = read("gemini", *said)
    assert put("gemini", entries).messages == said
    with_blob = [replace(e, parts=(*e.parts, PICTURE)) if e.role == "assistant" else e for e in entries]
    for name, problems in VALIDATORS.items():
        made = put(name, entries)
        assert problems(made.body) == [] and (
            name == "gemini" or "[attachment: of another kind]" in exact_json(made.body)
        )
        told = put(name, with_blob).body
        assert problems(told) == [] and "[attachment: cat.png, image/png, " in exact_json(told)
        assert (CAT in exact_json(told)) == (name == "gemini")
