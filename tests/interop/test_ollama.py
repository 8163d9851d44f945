"""The format ``ollama`` keeps the contract of formats."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmcrdt.interop.format import Format
from llmcrdt.interop.registry import format_of
from llmcrdt.testing.format_suite import FormatSuite


def problems(request: Any) -> list[str]:
    """Why Ollama would refuse it, or a template would print it wrongly; written from its API, not from the exporter."""
    if not isinstance(request, dict) or not isinstance(request.get("messages"), list):
        return ["messages: is no list"]
    found: list[str] = []
    waiting: list[Any] = []
    for i, message in enumerate(request["messages"]):
        if not isinstance(message, dict) or message.get("role") not in ("system", "user", "assistant", "tool"):
            return [*found, f"messages[{i}]: invalid role"]
        if not isinstance(message.get("content", ""), str):
            found.append("json: cannot unmarshal array into Go struct field .messages.content of type string")
        for image in message.get("images", []):
            try:
                base64.b64decode(image, validate=True)
            except (TypeError, ValueError, binascii.Error):
                found.append("illegal base64 data at input byte 0")
        calls = message.get("tool_calls", [])
        for call in calls:
            if not isinstance(call.get("function", {}).get("name"), str) or not call["function"]["name"]:
                found.append(f"messages[{i}]: a call names no tool")
            if not isinstance(call["function"].get("arguments", {}), dict):
                found.append("json: cannot unmarshal string into Go struct field .arguments of type map")
        if message["role"] == "tool":
            at = next((j for j, call in enumerate(waiting) if _answers(message, call)), None)
            if at is None:
                found.append(f"messages[{i}]: answers no call of the message before")
            else:
                del waiting[at]
        elif waiting:
            found.append(f"messages[{i}]: stands where results must stand")
            waiting = []
        waiting = waiting if message["role"] == "tool" else list(calls)
    return found + (["calls at the end have no result"] if waiting else [])


def _answers(message: Any, call: Any) -> bool:
    named = {"tool_name": call["function"]["name"], "tool_call_id": call.get("id")}
    return all(message[key] == value for key, value in named.items() if key in message)


USER = {"role": "user", "content": "go"}


class TestOllama(FormatSuite):
    @property
    def format(self) -> Format:
        return format_of("ollama")

    @property
    def vectors(self) -> Path:
        return Path(__file__).parents[1] / "vectors" / "interop"

    def problems(self, body: Any) -> list[str]:
        return problems(body)

    @property
    def broken(self) -> Mapping[str, Any]:
        asked, result = {"role": "assistant", "content": ""}, {"role": "tool", "content": "x"}
        call = {"function": {"name": "f", "arguments": "{}"}}
        return {
            "content is a text": {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
            "arguments are an object": {"messages": [{**asked, "tool_calls": [call]}, result]},
            "pictures are in base64": {"messages": [{**USER, "images": ["data:image/png;base64,AAAA"]}]},
        }
