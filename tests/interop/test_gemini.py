"""The format ``gemini`` keeps the contract of formats, and the rules of its API."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmcrdt.interop.format import Format
from llmcrdt.interop.registry import format_of
from llmcrdt.testing.format_suite import FormatSuite

sys.path.insert(0, str(Path(__file__).parent))
import gemini_request


def said(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "parts": list(parts)}


def answer(*parts: Any) -> dict[str, Any]:
    return {"role": "model", "parts": list(parts)}


def request(*contents: Any, **more: Any) -> dict[str, Any]:
    return {"contents": list(contents), **more}


TEXT = {"text": "go"}
CALL = {"functionCall": {"name": "look", "args": {}}}
RESPONSE = {"functionResponse": {"name": "look", "response": {"output": "x"}}}


class TestGemini(FormatSuite):
    @property
    def format(self) -> Format:
        return format_of("gemini")

    @property
    def vectors(self) -> Path:
        return Path(__file__).parents[1] / "vectors" / "interop"

    def problems(self, body: Any) -> list[str]:
        return gemini_request.problems(body)

    def log_problems(self, messages: list[Any]) -> list[str]:
        return gemini_request.problems({"contents": messages}, log=True)

    def comparable(self, messages: Any) -> Any:
        """A call of before is marked as unsigned once the conversation goes on with a model that asks for it."""
        if isinstance(messages, dict):
            mark = "skip_thought_signature_validator"
            return {key: self.comparable(value) for key, value in messages.items() if value != mark}
        return [self.comparable(one) for one in messages] if isinstance(messages, list) else messages

    @property
    def broken(self) -> Mapping[str, Any]:
        bad_call = {"functionCall": {"name": "look", "args": "{}"}}
        named = {"functionCall": {"name": "1 look", "args": {}}}
        return {
            "a call comes after a turn of the user's": request(said(TEXT), answer(TEXT), answer(CALL), said(RESPONSE)),
            "as many responses as calls, right after them": request(said(TEXT), answer(CALL, CALL), said(RESPONSE)),
            "a response follows its call": request(said(TEXT), said(RESPONSE)),
            "a request ends with a turn of the user's": request(said(TEXT), answer(TEXT)),
            "the first turn is the user's": request(answer(TEXT), said(TEXT)),
            "the first call of a step is signed": request(
                said(TEXT), answer(CALL), said(RESPONSE), model="models/gemini-3-pro"
            ),
            "parts hold something": request(said({"text": ""})),
            "contents hold parts": request(said()),
            "names of functions have a form": request(said(TEXT), answer(named), said(RESPONSE)),
            "names of functions differ": request(
                said(TEXT),
                tools=[{"functionDeclarations": [{"name": "look"}]}, {"functionDeclarations": [{"name": "look"}]}],
            ),
            "arguments are an object": request(said(TEXT), answer(bad_call), said(RESPONSE)),
            "parts stand on their side": request(said(CALL)),
        }
