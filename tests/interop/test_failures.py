"""After a request that failed nothing is left out without a word, and nothing is sent twice."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from providers import RESPONSES, VALIDATORS
from test_deltas import FORGOT, ask, clock, conv

import llmcrdt
from llmcrdt.document.request import Request
from llmcrdt.interop.failures import Failure, NextStep, next_step

__all__ = ["clock", "conv"]


def signed(conv: llmcrdt.Conversation, api: str, since: bool) -> tuple[Request, Any]:
    _, answer = ask(conv, api)
    conv.append("user", "And now?")
    return conv.messages(api, model="m-1", since=answer if since else None), answer


def openai(code: str | None, message: str = "") -> Any:
    return {"error": {"type": "invalid_request_error", "code": code, "message": message, "param": "input"}}


def claude(message: str = "", code: str | None = None) -> Any:
    details = {"details": {"error_code": code}} if code else {}
    return {"type": "error", "error": {"type": "invalid_request_error", "message": message, **details}}


def google(message: str, status: str = "INVALID_ARGUMENT", code: int = 400) -> Any:
    return {"error": {"code": code, "message": message, "status": status}}


REPLAYED: list[tuple[str, Failure]] = [
    ("openai-responses", Failure(400, openai("previous_response_not_found", "Previous response not found."))),
    ("openai-responses", Failure(404, openai(None, "Not found"))),
    ("gemini-interactions", Failure(*FORGOT["gemini-interactions"])),
    *(("anthropic", Failure(400, claude(code=code))) for code in ("thread_not_found", "thread_already_continued")),
    ("anthropic", Failure(400, claude("system: differs", "thread_fingerprint_mismatch"))),
    ("anthropic", Failure(400, claude("cache_control", "thread_unsupported_request"))),
]


@pytest.mark.parametrize(("api", "failure"), REPLAYED)
def test_where_the_state_is_gone_or_another_one_everything_is_said_again(
    conv: llmcrdt.Conversation, api: str, failure: Failure
) -> None:
    request, _ = signed(conv, api, since=True)
    assert request.since is not None
    step = next_step(failure, request)
    assert (step.action, step.since, step.without, step.loses) == ("send", None, (), "")
    again = conv.messages(api, model="m-1", since=step.since, without=step.without)
    assert "What is there?" in json.dumps(again.body) and not again.left_out


_BOUND = "messages.1.content.0: Invalid `signature` in `thinking` block. The block is bound to a different conversation"
_LATEST = "thinking or redacted_thinking blocks in the latest assistant message cannot be modified."
REFUSED: list[tuple[str, str, Failure]] = [
    ("openai-responses", "openai-responses/reasoning", Failure(400, openai("invalid_encrypted_content", "gAAA"))),
    ("openai-responses", "openai-responses/reasoning", Failure(404, openai(None, "Item with id 'rs_1' not found."))),
    ("anthropic", "anthropic/thinking", Failure(400, claude(_BOUND))),
    ("anthropic", "anthropic/thinking", Failure(400, claude(_LATEST))),
    ("gemini-interactions", "gemini-interactions/signatures", Failure(400, google("Corrupted thought signature."))),
    ("gemini", "gemini/thoughts", Failure(400, google("Invalid thought signature"))),
]


@pytest.mark.parametrize(("api", "name", "failure"), REFUSED)
def test_a_field_that_was_refused_is_left_out_and_told(
    conv: llmcrdt.Conversation, api: str, name: str, failure: Failure
) -> None:
    request, answer = signed(conv, api, since=False)
    step = next_step(failure, request)
    assert (step.action, step.without) == ("send", ((answer.id, name),)) and name in step.why
    again = conv.messages(api, model="m-1", without=step.without)
    assert [(line.name, line.reason) for line in again.left_out] == [(name, "refused")]
    assert str(again.left_out[0]).endswith("is not sent: its provider refused it")
    assert "OPAQUE" not in json.dumps(again.body) and VALIDATORS[api](again.body) == []
    assert next_step(failure, again).action == "tell", "it does not go round in a circle"
    assert next_step(Failure(429), again).without == step.without, "what was refused stays out"


def test_what_a_compaction_stands_for_is_not_dropped_without_a_word(conv: llmcrdt.Conversation) -> None:
    binding = {"provider": "openai", "api": "openai-responses"}
    block = llmcrdt.Unknown({"type": "openai-responses/block", "block": {"type": "compaction"}})
    field = llmcrdt.HiddenField(b'[[[0,"encrypted_content"],"OPAQUE"]]', binding)
    conv.append(
        "assistant", [block, llmcrdt.Text("x")], frame=conv.transcript(), hidden={"openai-responses/compaction": field}
    )
    request = conv.messages("openai-responses", model="m-1")
    assert "OPAQUE" in json.dumps(request.body)
    step = next_step(Failure(400, openai("invalid_encrypted_content", "The encrypted content of 'cmp_1' ...")), request)
    assert step.action == "tell" and step.loses and len(step.without) == 1


def test_the_files_of_a_container_that_is_gone_are_told(conv: llmcrdt.Conversation) -> None:
    request = conv.messages("anthropic", model="m-1")
    response = {**RESPONSES["anthropic"], "container": {"id": "container_1", "expires_at": "2099-01-01T00:00:00Z"}}
    conv.append_response(request, response)
    request = conv.messages("anthropic", model="m-1")
    assert request.body["container"] == "container_1"
    step = next_step(Failure(400, claude("container: container_1 has expired")), request)
    assert step.action == "send" and "files" in step.loses
    again = conv.messages("anthropic", model="m-1", without=step.without)
    assert "container" not in again.body and "OPAQUE" in json.dumps(again.body)


def test_nothing_is_sent_twice_that_may_have_gone_through(conv: llmcrdt.Conversation) -> None:
    request, answer = signed(conv, "openai-responses", since=True)

    def step(*failure: Any) -> NextStep:
        return next_step(Failure(*failure), request)

    for unknown in (
        (None,),
        (500, google("Internal", "INTERNAL", 500)),
        (502,),
        (503, openai("server_error")),
        (504,),
        (408,),
    ):
        assert step(*unknown).action == "ask", unknown
    for busy in (
        (429, openai("rate_limit_exceeded")),
        (529, claude("Overloaded")),
        (400, claude(code="thread_continue_in_flight")),
        (400, openai("conversation_locked")),
    ):
        assert (step(*busy).action, step(*busy).since) == ("wait", answer.id), busy
    assert step(429, None, 17.0).seconds == 17.0 and step(429).seconds > 0
    for refused in (
        (401, openai("invalid_api_key")),
        (400, openai("context_length_exceeded", "too long")),
        (403,),
        (400, 5),
    ):
        assert step(*refused).action == "tell" and step(*refused).why, refused


def test_state_that_nobody_named_is_told(conv: llmcrdt.Conversation) -> None:
    request = conv.messages("openai-responses", model="m-1")
    assert next_step(Failure(*FORGOT["openai-responses"]), request).action == "tell"
    step = next_step(Failure(400, claude(code="thread_unsupported_request")), request)
    assert (step.action, step.since) == ("send", None)


@pytest.mark.parametrize("seed", range(5))
def test_whatever_an_error_says_there_is_a_next_step(conv: llmcrdt.Conversation, seed: int) -> None:
    rng = random.Random(seed)
    request, _ = signed(conv, "openai-responses", since=rng.random() < 0.5)
    pool: list[Any] = [
        None,
        5,
        "",
        "x",
        [],
        {},
        "container",
        "thread_not_found",
        {"code": 5},
        {"error": {"message": None}},
    ]
    for _ in range(300):
        body = (
            {"error": {rng.choice(("code", "message", "details")): rng.choice(pool)}}
            if rng.random() < 0.7
            else rng.choice(pool)
        )
        step = next_step(Failure(rng.choice((None, 200, 400, 404, 409, 418, 500, 529)), body), request)
        assert step.action in ("send", "wait", "ask", "tell") and step.why
