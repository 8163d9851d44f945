"""The format ``reasoning-content`` keeps the contract of formats, and the rules of a thinking mode."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmcrdt.interop.format import Format
from llmcrdt.interop.registry import format_of
from llmcrdt.testing.format_suite import FormatSuite

sys.path.insert(0, str(Path(__file__).parent))
import chat_request
from chat_request import BROKEN


def problems(request: Any) -> list[str]:
    """Why DeepSeek's API, or one like it, would refuse it in its thinking mode."""
    found = chat_request.problems(request)
    for i, message in enumerate(request.get("messages", [])):
        if message.get("role") == "developer":
            found.append(f"messages[{i}]: unknown variant `developer`, expected one of `system`, `user`, ...")
        calls = message.get("tool_calls") or []
        if calls and not isinstance(message.get("reasoning_content"), str):
            found.append("The `reasoning_content` in the thinking mode must be passed back to the API.")
        found += [
            f"messages[{i}]: unknown variant `{call['type']}`, expected `function`"
            for call in calls
            if isinstance(call, dict) and call.get("type", "function") != "function"
        ]
    return found


class TestReasoningContent(FormatSuite):
    @property
    def format(self) -> Format:
        return format_of("reasoning-content")

    @property
    def vectors(self) -> Path:
        return Path(__file__).parents[1] / "vectors" / "interop"

    def problems(self, body: Any) -> list[str]:
        return problems(body)

    @property
    def broken(self) -> Mapping[str, Any]:
        custom = {"id": "c1", "type": "custom", "custom": {"name": "f", "input": ""}}
        result = {"role": "tool", "tool_call_id": "c1", "content": "x"}
        asked = {"role": "assistant", "content": None, "reasoning_content": "", "tool_calls": [custom]}
        function = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}
        return {
            **BROKEN,
            "messages with calls bring their reasoning back": {
                "messages": [{"role": "assistant", "content": None, "tool_calls": [function]}, result]
            },
            "roles are those of old": {"messages": [{"role": "developer", "content": "x"}]},
            "calls are functions": {"messages": [asked, result]},
        }
