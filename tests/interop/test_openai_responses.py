"""The format ``openai-responses`` keeps the contract of formats, and the rules of its API."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmcrdt.interop.format import Format
from llmcrdt.interop.registry import format_of
from llmcrdt.testing.format_suite import FormatSuite

sys.path.insert(0, str(Path(__file__).parent))
import responses_request

USER = {"role": "user", "content": "go"}
CALL = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "x"}
REASONING = {"type": "reasoning", "id": "rs_1", "summary": []}


def request(*items: Any) -> dict[str, Any]:
    return {"model": "m", "input": list(items)}


class TestOpenAIResponses(FormatSuite):
    @property
    def format(self) -> Format:
        return format_of("openai-responses")

    @property
    def vectors(self) -> Path:
        return Path(__file__).parents[1] / "vectors" / "interop"

    def problems(self, body: Any) -> list[str]:
        return responses_request.problems(body)

    def log_problems(self, messages: list[Any]) -> list[str]:
        return responses_request.log_problems(messages)

    def comparable(self, messages: Any) -> Any:
        """A trigger is no content: it asks for what comes next. A text is one message of the user's."""
        if isinstance(messages, str):
            return [{"role": "user", "content": messages}]
        return [item for item in messages if item.get("type") != "compaction_trigger"]

    @property
    def broken(self) -> Mapping[str, Any]:
        answer = {"type": "message", "id": "msg_1_of_rs_1", "role": "assistant", "content": "x"}
        return {
            "every call gets one output": request(USER, CALL),
            "an output follows its call": request(USER, OUTPUT),
            "ids of calls differ": request(USER, CALL, OUTPUT, CALL, OUTPUT),
            "ids of calls are short": request({**CALL, "call_id": "c" * 65}, {**OUTPUT, "call_id": "c" * 65}),
            "names of functions have a form": request({**CALL, "name": "a b"}, OUTPUT),
            "reasoning stands before an item": request(USER, REASONING, USER),
            "items go with their reasoning": request(USER, answer),
            "reasoning is whole": request({"type": "reasoning", "summary": []}, answer),
            "ids of items differ": request({**USER, "id": "m"}, {**USER, "id": "m"}),
            "compaction is whole": request({"type": "compaction"}),
            "a compaction trigger is last": request({"type": "compaction_trigger"}, USER),
            "references name an item": request({"type": "item_reference"}),
            "programs are whole": request({"type": "program", "call_id": "p", "code": ""}),
            "instructions are a text": {"instructions": [USER], "input": [USER]},
            "names of functions differ": {"input": [USER], "tools": [{"type": "function", "name": "look"}] * 2},
            "there is an input": request(),
            "pieces stand on their side": request({"role": "user", "content": [{"type": "output_text", "text": ""}]}),
        }
