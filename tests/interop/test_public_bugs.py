"""Requests that providers refused in other projects, as cases for this one. Each docstring says what happened there."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llmcrdt
from llmcrdt.document.canonical import exact_json
from llmcrdt.interop.failures import Failure, next_step

sys.path.insert(0, str(Path(__file__).parent))
from providers import RESPONSES, VALIDATORS
from test_rules import USER, generated, put, read

OpenRepo = Callable[..., llmcrdt.Repo]
REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "OPAQUE"}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "look", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "x"}
THOUGHT = {"type": "thinking", "thinking": "", "signature": "OPAQUE"}


@pytest.fixture
def conv(open_repo: OpenRepo) -> llmcrdt.Conversation:
    made = open_repo("laptop").create()
    made.append("system", "Be brief.")
    made.append("user", "What is there?")
    return made


def ask(conv: llmcrdt.Conversation, api: str, model: str = "m-1", **more: Any) -> llmcrdt.Entry:
    return conv.append_response(conv.messages(api, model=model, **more), RESPONSES[api])


def sent(conv: llmcrdt.Conversation, api: str, model: str = "m-1", **more: Any) -> str:
    """The next request, which the API takes."""
    request = conv.messages(api, model=model, **more)
    assert VALIDATORS[api](request.body) == []
    return json.dumps(request.body)


def test_reasoning_and_what_follows_it_go_together_or_not_at_all() -> None:
    """vercel/ai #7099, openai-node #1567: reasoning "was provided without its required following item". cline #12242,
    rig #751, mastra #8738: a call "was provided without its required 'reasoning' item"."""
    assert put("openai-responses", read("openai-responses", USER, REASONING)).messages == [USER]
    entries = read("openai-responses", USER, REASONING, CALL, OUTPUT)
    whole = put("openai-responses", entries).messages
    assert whole == [USER, REASONING, CALL, OUTPUT]
    other = put("openai-responses", entries, llmcrdt.Target("azure", api="openai-responses"))
    assert VALIDATORS["openai-responses"](other.body) == []
    assert [item.get("id") for item in other.messages] == [None, None, None]


def test_another_key_deployment_or_model_gets_no_encrypted_reasoning(conv: llmcrdt.Conversation) -> None:
    """codex #8119 to #8159: sessions were dead for good once the provider could not verify their encrypted content;
    #17541 after a change of the model, #15219 after one of the provider; copilot-sdk #2405 after a cold resume, where
    nothing that the client knew had changed."""
    answer = ask(conv, "openai-responses", account="work")
    conv.append("tool", "x", call=answer.tool_calls[0])
    assert "OPAQUE" in sent(conv, "openai-responses", account="work")
    for place in ({"account": "home"}, {"model": "m-2", "account": "work"}, {"provider": "azure", "account": "work"}):
        assert "OPAQUE" not in sent(conv, "openai-responses", **place)  # type: ignore[arg-type]
    body = {"error": {"code": "invalid_encrypted_content", "message": "The encrypted content could not be verified."}}
    step = next_step(Failure(400, body), conv.messages("openai-responses", model="m-1", account="work"))
    assert step.action == "send" and "OPAQUE" not in sent(
        conv, "openai-responses", account="work", without=step.without
    )


def test_every_call_has_exactly_one_result_right_behind_it(conv: llmcrdt.Conversation) -> None:
    """livekit #5092, frontman #1592, ellmer #459: "No tool output found for function call"; livekit #1977: messages
    stood between a call and its output; #6785: a call was made again, with all its effects."""
    answer = ask(conv, "openai-responses")
    conv.append("user", "And now?")
    for api in VALIDATORS:
        assert "No result was recorded." in sent(conv, api)
    conv.append("tool", "late", call=answer.tool_calls[0])
    conv.append("tool", "twice", call=answer.tool_calls[0])
    for api in VALIDATORS:
        said = sent(conv, api)
        assert "late" in said and "twice" in said


def test_thinking_without_words_is_echoed_as_it_came(conv: llmcrdt.Conversation) -> None:
    """claude-code #63203 and a dozen like it: blocks of the latest message "cannot be modified"; those with empty words
    were dropped, and every later request failed."""
    answer = conv.append_response(
        conv.messages("anthropic", model="m-1"),
        {**RESPONSES["anthropic"], "content": [THOUGHT, {"type": "text", "text": "y"}]},
    )
    conv.append("user", "And now?")
    assert conv.messages("anthropic", model="m-1").body["messages"][1]["content"][0] == THOUGHT
    conv.edit(answer, "z")
    assert "OPAQUE" not in sent(conv, "anthropic")


def test_a_signature_of_another_model_is_not_sent(conv: llmcrdt.Conversation) -> None:
    """llmtrim #177, openclaw #85717: `Invalid signature in thinking block` where another model had signed it."""
    answer = ask(conv, "anthropic")
    conv.append("tool", "x", call=answer.tool_calls[0])
    assert "OPAQUE" in sent(conv, "anthropic")
    assert "OPAQUE" not in sent(conv, "anthropic", "m-2")


def test_a_summary_parts_no_call_from_its_result_and_takes_signatures_with_it(conv: llmcrdt.Conversation) -> None:
    """claude-code #8484: a compaction ended between a call and its result. pi #9391, openclaw #90108: signed blocks
    stayed behind a compaction that had taken what they were bound to."""
    answer = ask(conv, "anthropic")
    conv.append("user", "meanwhile")
    conv.summarize(until=answer, text="They looked.")
    conv.append("tool", "seen", call=answer.tool_calls[0])
    later = conv.messages("anthropic", model="m-1")
    conv.append_response(later, {**RESPONSES["anthropic"], "content": [THOUGHT, {"type": "text", "text": "y"}]})
    conv.append("user", "And now?")
    assert "OPAQUE" in sent(conv, "anthropic")
    conv.summarize(until=conv.transcript()[-2], text="They looked twice.")
    for api in VALIDATORS:
        assert "OPAQUE" not in sent(conv, api)


def test_googles_turns_begin_and_end_with_the_users() -> None:
    """gemini-cli #11814, #26486, dograh #506: a compaction ate the user's turn before a call. crewAI #6973: the history
    ended with the model's."""
    call = {"functionCall": {"name": "look", "args": {}}}
    response = {"functionResponse": {"name": "look", "response": {"output": "x"}}}
    said = [
        {"role": "model", "parts": [call]},
        {"role": "user", "parts": [response]},
        {"role": "model", "parts": [{"text": "y"}]},
    ]
    entries = read("gemini", {"role": "user", "parts": [{"text": "go"}]}, *said)
    for part in (entries, entries[1:], generated(entries[1:])):
        made = put("gemini", part, llmcrdt.Target("google", api="gemini", model="gemini-3-pro"))
        assert VALIDATORS["gemini"](made.body) == [], "with a `thought_signature` on its first call"


def test_an_empty_reasoning_content_goes_back(conv: llmcrdt.Conversation) -> None:
    """vercel/ai #13203, opencode #24122, AionUi #2746: messages with calls came back without their `reasoning_content`,
    or without one that was empty."""
    response = json.loads(json.dumps(RESPONSES["reasoning-content"]))
    response["choices"][0]["message"]["reasoning_content"] = ""
    answer = conv.append_response(conv.messages("reasoning-content", model="m-1"), response)
    conv.append("tool", "x", call=answer.tool_calls[0])
    assert '"reasoning_content": ""' in sent(conv, "reasoning-content")
    other = conv.append_response(conv.messages("openai-responses", model="m-1"), RESPONSES["openai-responses"])
    conv.append("tool", "y", call=other.tool_calls[0])
    assert sent(conv, "reasoning-content").count('"reasoning_content": ""') == 2


def test_base64_keeps_its_alphabet_and_arguments_their_text() -> None:
    """google-genai reads a `thoughtSignature` as bytes and writes it in the other alphabet; clients that parse
    arguments write 1.0 as 1."""
    signed = {"functionCall": {"name": "look", "args": {"x": 1}}, "thoughtSignature": "+/8AYWJj"}
    contents = [{"role": "user", "parts": [{"text": "go"}]}, {"role": "model", "parts": [signed]}]
    assert "+/8AYWJj" in exact_json(put("gemini", read("gemini", *contents)).messages)
    item = {**CALL, "arguments": '{"x": 1.0,  "y":9007199254740993}'}
    assert item["arguments"] in [
        m.get("arguments") for m in put("openai-responses", read("openai-responses", USER, item)).messages
    ]


def test_ids_of_calls_take_the_form_of_the_next_api() -> None:
    """pi: ids of one API's calls, 450 characters with a "|", were refused by the next one."""
    long = "call_" + "a" * 400 + "|fc_" + "b" * 40
    entries = read("openai-responses", USER, {**CALL, "call_id": long}, {**OUTPUT, "call_id": long})
    for api in VALIDATORS:
        assert VALIDATORS[api](put(api, entries).body) == []


def test_a_compaction_of_another_key_is_not_dropped_without_a_word(conv: llmcrdt.Conversation) -> None:
    """codex #35334: a foreign compaction "could not be verified", and all that it stood for was gone."""
    response = json.loads(json.dumps(RESPONSES["openai-responses"]))
    response["output"].insert(0, {"type": "compaction", "id": "cmp_1", "encrypted_content": "OPAQUE of before"})
    answer = conv.append_response(conv.messages("openai-responses", model="m-1"), response)
    conv.append("tool", "x", call=answer.tool_calls[0])
    other = conv.messages("openai-responses", model="m-2")
    assert "OPAQUE" not in json.dumps(other.body)
    assert {line.name for line in other.left_out} == {"openai-responses/compaction", "openai-responses/reasoning"}
    assert "What is there?" in json.dumps(other.body), "the words themselves are still sent"
