"""The format ``gemini-interactions`` keeps the contract of formats."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llmcrdt.document.binding import Target
from llmcrdt.document.canonical import exact_json
from llmcrdt.exceptions import FormatError
from llmcrdt.interop.export import export
from llmcrdt.interop.format import Format, survey
from llmcrdt.interop.json_input import members_of
from llmcrdt.interop.registry import STREAMED, detect, format_of
from llmcrdt.testing.format_suite import NOW, FormatSuite, stored

sys.path.insert(0, str(Path(__file__).parent))
import interactions_request

STEPS = format_of("gemini-interactions")
USER = {"type": "user_input", "content": [{"type": "text", "text": "go"}]}
CALL = {"type": "function_call", "id": "c", "name": "look", "arguments": {}}
RESULT = {"type": "function_result", "call_id": "c", "result": "x"}
ANSWER = {"type": "model_output", "content": [{"type": "text", "text": "x"}]}
SEARCH = {"type": "google_search_call", "id": "s", "arguments": {"queries": ["x"]}, "signature": "OPAQUE-call"}
FOUND = {"type": "google_search_result", "call_id": "s", "result": [], "signature": "OPAQUE-result"}


class TestGeminiInteractions(FormatSuite):
    @property
    def format(self) -> Format:
        return STEPS

    @property
    def vectors(self) -> Path:
        return Path(__file__).parents[1] / "vectors" / "interop"

    def problems(self, body: Any) -> list[str]:
        return interactions_request.problems(body)

    def log_problems(self, messages: list[Any]) -> list[str]:
        return interactions_request.problems({"input": messages}, log=True)

    @property
    def broken(self) -> Mapping[str, Any]:
        def request(*steps: Any) -> Any:
            return {"input": list(steps)}

        return {
            "every call gets one result": request(USER, CALL, USER),
            "a result follows its call": request(USER, RESULT),
            "ids of calls differ": request(USER, CALL, RESULT, CALL, RESULT),
            "names of functions have a form": request(USER, {**CALL, "name": "a b"}, RESULT),
            "names of functions differ": {"input": [USER], "tools": [{"type": "function", "name": "look"}] * 2},
            "arguments are an object": request(USER, {**CALL, "arguments": "{}"}, RESULT),
            "thoughts are signed": request(USER, {"type": "thought", "summary": []}, USER),
            "a step of the server's has its other half": request(USER, FOUND, USER),
            "contents have what their type wants": request({"type": "user_input", "content": [{"type": "image"}]}),
            "a request ends with an input": request(USER, ANSWER),
            "the first step is an input": request(ANSWER, USER),
            "there is an input": request(),
        }


def test_a_search_goes_out_signed_or_not_at_all() -> None:
    entries = stored(STEPS.read({"input": [USER, SEARCH, FOUND, ANSWER, USER], "model": "m-1"}))
    assert export(STEPS, entries, STEPS.target(model="m-1"), now=NOW).messages == [USER, SEARCH, FOUND, ANSWER, USER]
    made = export(STEPS, entries, Target("other"), now=NOW)
    assert made.messages == [USER, ANSWER, USER] and "OPAQUE" not in exact_json(made.body)


def test_a_list_of_contents_is_one_input() -> None:
    picture = {"type": "image", "data": "iVBORw0KGgo=", "mime_type": "image/png"}
    contents = [{"type": "text", "text": "see"}, picture]
    entries = stored(STEPS.read({"input": contents, "system_instruction": "Be brief."}))
    assert [entry.role for entry in entries] == ["system", "user"]
    assert export(STEPS, entries, STEPS.target(), now=NOW).messages == [{"type": "user_input", "content": contents}]
    chat = format_of("openai-chat")
    assert "data:image/png;base64,iVBORw0KGgo=" in exact_json(export(chat, entries, chat.target(), now=NOW).body)


def test_a_text_is_one_input() -> None:
    value = {"model": "m-1", "input": "go", "generation_config": {}}
    assert detect(survey(members_of(value, STREAMED))).name == "gemini-interactions"
    body = export(STEPS, stored(STEPS.read(value)), STEPS.target(model="m-1"), now=NOW).body
    assert body == {**value, "input": [USER]}


def test_a_response_may_say_again_what_it_was_asked() -> None:
    said = STEPS.answer({"steps": [USER, CALL, RESULT, ANSWER], "status": "completed", "model": "m-1"})
    assert [item for _, item in said.items] == [ANSWER]


@pytest.mark.parametrize(
    ("steps", "path"),
    [
        ([{**CALL, "arguments": "{}"}], r"input\[0\]\.arguments is text"),
        ([USER, RESULT], r"input\[1\]\.call_id is 'c', which no step before made"),
        ([{"type": "user_input"}], r"input\[0\]\.content is missing"),
        ([USER, {"content": []}], r"input\[1\]\.type is missing"),
    ],
)
def test_bad_steps_are_named(steps: list[Any], path: str) -> None:
    with pytest.raises(FormatError, match=path):
        STEPS.read({"input": steps})
