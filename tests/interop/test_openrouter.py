"""The format ``openrouter`` keeps the contract of formats; its requests are chat completions with whole details."""

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

_NEEDED = {"reasoning.summary": "summary", "reasoning.encrypted": "data"}


def problems(request: Any) -> list[str]:
    """Why OpenRouter would refuse it."""
    found = chat_request.problems(request)
    for i, message in enumerate(request.get("messages", [])):
        details = message.get("reasoning_details", [])
        whole = isinstance(details, list) and all(
            isinstance(one, dict)
            and isinstance(one.get("type"), str)
            and isinstance(one.get(_NEEDED.get(one["type"], "type")), str)
            for one in details
        )
        if not whole:
            found.append(f"messages[{i}]: Invalid input: reasoning_details")
    return found


class TestOpenRouter(FormatSuite):
    @property
    def format(self) -> Format:
        return format_of("openrouter")

    @property
    def vectors(self) -> Path:
        return Path(__file__).parents[1] / "vectors" / "interop"

    def problems(self, body: Any) -> list[str]:
        return problems(body)

    @property
    def broken(self) -> Mapping[str, Any]:
        details = [{"type": "reasoning.encrypted"}]
        answer = {"role": "assistant", "content": "x", "reasoning_details": details}
        return {**BROKEN, "details are whole": {"messages": [answer]}}
