"""The format ``anthropic`` keeps the contract of formats, and the rules of its API."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmcrdt.interop.format import Format
from llmcrdt.interop.registry import format_of
from llmcrdt.testing.format_suite import FormatSuite

sys.path.insert(0, str(Path(__file__).parent))
import anthropic_request

USER = {"role": "user", "content": "go"}


def answer(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def results(*ids: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": id_, "content": "x"} for id_ in ids]}


def request(*messages: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 10, "messages": list(messages), **more}


def use(id_: str = "t1", **more: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": id_, "name": "look", "input": {}, **more}


TOOL = {"name": "look", "input_schema": {"type": "object"}}
POINT = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}
SEARCH = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [{"type": "web_search_result", "url": "x"}]}
CITED = {"type": "text", "text": "x", "citations": [{"type": "web_search_result_location", "url": "x"}]}


class TestAnthropic(FormatSuite):
    @property
    def format(self) -> Format:
        return format_of("anthropic")

    @property
    def vectors(self) -> Path:
        return Path(__file__).parents[1] / "vectors" / "interop"

    def problems(self, body: Any) -> list[str]:
        return anthropic_request.problems(body)

    def log_problems(self, messages: list[Any]) -> list[str]:
        return anthropic_request.problems({"messages": messages}, log=True)

    def comparable(self, messages: Any) -> Any:
        """Cache points stand beside the content: the last ones move."""
        if isinstance(messages, dict):
            return {key: self.comparable(value) for key, value in messages.items() if key != "cache_control"}
        return [self.comparable(one) for one in messages] if isinstance(messages, list) else messages

    @property
    def broken(self) -> Mapping[str, Any]:
        return {
            "every call gets one result, in the next message": request(USER, answer(use()), USER),
            "a result follows its call": request(USER, results("t1")),
            "ids of calls differ": request(USER, answer(use()), results("t1"), answer(use()), results("t1")),
            "ids of calls have a form": request(USER, answer(use("a|b")), results("a|b")),
            "names of tools have a form": request(USER, answer(use(name="a b")), results("t1")),
            "names of tools differ": request(USER, tools=[TOOL, TOOL]),
            "arguments are an object": request(USER, answer(use(input="{}")), results("t1")),
            "the first turn is the user's": request(answer(POINT), USER),
            "a request ends with a turn of the user's": request(USER, answer(POINT)),
            "texts say something": request({"role": "user", "content": [{"type": "text", "text": " "}]}),
            "messages say something": request(USER, answer(), USER),
            "thinking is signed": request(USER, answer({"type": "thinking", "thinking": "x"}), USER),
            "redacted thinking has its data": request(USER, answer({"type": "redacted_thinking"}), USER),
            "a tool loop that thinks begins with its thinking": request(
                USER, answer(use()), results("t1"), thinking={"type": "enabled", "budget_tokens": 1024}
            ),
            "a tool of the server's has its result": request(USER, answer(SEARCH), USER),
            "encrypted results are whole": request(USER, answer(SEARCH, FOUND), USER),
            "citations are whole": request(USER, answer(CITED), USER),
            "a compaction comes first, alone": request(USER, answer({"type": "compaction", "content": "x"}), USER),
            "at most four cache points": request({"role": "user", "content": [POINT] * 5}),
            "blocks stand on their side": request({"role": "user", "content": [use()]}),
            "max_tokens is there": {"messages": [USER]},
        }
