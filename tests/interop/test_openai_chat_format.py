"""The format ``openai-chat`` keeps the contract of formats."""

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

CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "x"}
USER = {"role": "user", "content": "go"}
PICTURE = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}


def asked(*calls: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


class TestOpenAIChat(FormatSuite):
    @property
    def format(self) -> Format:
        return format_of("openai-chat")

    @property
    def vectors(self) -> Path:
        return Path(__file__).parents[1] / "vectors" / "interop"

    def problems(self, body: Any) -> list[str]:
        return chat_request.problems(body)

    @property
    def broken(self) -> Mapping[str, Any]:
        return {
            "every call gets one result, right after it": {"messages": [USER, asked(CALL), USER]},
            "a result follows its call": {"messages": [USER, RESULT]},
            "ids of the calls of one message differ": {"messages": [asked(CALL, CALL), RESULT, RESULT]},
            "content is there": {"messages": [{"role": "user", "content": None}]},
            "pictures are the user's": {"messages": [{"role": "assistant", "content": [PICTURE]}]},
            "a call names its tool and has arguments": {
                "messages": [asked({"id": "c1", "type": "function", "function": {"name": "look"}}), RESULT]
            },
        }
