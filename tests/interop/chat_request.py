"""Whether JSON is a chat-completions request that OpenAI's API takes; written from its reference, not from the
exporter.

Nothing here imports ``llmcrdt``.
"""

from __future__ import annotations

import re
from typing import Any

ROLES = ("system", "developer", "user", "assistant", "tool")
_SAYS_SOMETHING_ELSE = ("refusal", "audio", "function_call")
"""An assistant's message with one of these needs no content."""
_NO_RESULT = "An assistant message with 'tool_calls' must be followed by tool messages"
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NO_NAME = "string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'."
_NO_CALL = "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'"


def problems(request: Any) -> list[str]:
    """Why it would be refused; empty where it would not."""
    if not isinstance(request, dict) or not isinstance(request.get("messages"), list):
        return ["has no list of messages"]
    if not request["messages"]:
        return [
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead."
        ]
    found: list[str] = []
    open_calls: list[str] = []
    for i, message in enumerate(request["messages"]):
        at = f"messages[{i}]"
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            return [*found, f"{at} has no role"]
        if message["role"] == "tool":
            if message.get("tool_call_id") in open_calls:
                open_calls.remove(message["tool_call_id"])
            else:
                found.append(f"{_NO_CALL}: {at} answers {message.get('tool_call_id')!r}")
        elif open_calls:
            found.append(f"{_NO_RESULT}: {at} stands where results of {open_calls} must stand")
            open_calls = []
        elif "tool_call_id" in message:
            found.append(f"{at} has a tool_call_id and is no result")
        found += [f"{at}.{why}" for why in _content_problems(message)]
        if "tool_calls" in message:
            if message["role"] != "assistant":
                found.append(f"{at} has calls and is not an assistant's")
            found += [f"{at}.tool_calls{why}" for why in _call_problems(message["tool_calls"])]
            if isinstance(message["tool_calls"], list):
                open_calls = [call["id"] for call in message["tool_calls"] if isinstance(call, dict) and "id" in call]
    if open_calls:
        found.append(f"{_NO_RESULT}: the calls {open_calls} at the end have none")
    return found + (_tool_problems(request["tools"]) if "tools" in request else [])


def _content_problems(message: dict[str, Any]) -> list[str]:
    content, role = message.get("content"), message["role"]
    if content is None:
        free = role == "assistant" and (message.get("tool_calls") or any(message.get(k) for k in _SAYS_SOMETHING_ELSE))
        return [] if free else ["content is missing: Invalid value for 'content': expected a string, got null"]
    if isinstance(content, str):
        return []
    if not isinstance(content, list) or not content:
        return ["content is neither text nor a list with something in it"]
    found = []
    for i, part in enumerate(content):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            found.append(f"content[{i}] has no type")
        elif part["type"] == "text" and not isinstance(part.get("text"), str):
            found.append(f"content[{i}] has no text")
        elif part["type"] == "image_url" and role != "user":
            found.append(f"content[{i}] is a picture, which only users show: Invalid value: 'image_url'")
    return found


def _call_problems(calls: Any) -> list[str]:
    if not isinstance(calls, list) or not calls:
        return [" is no list with something in it"]
    found, ids = [], [call.get("id") if isinstance(call, dict) else None for call in calls]
    for i, call in enumerate(calls):
        if not isinstance(ids[i], str) or not ids[i]:
            found.append(f"[{i}] has no id")
            continue
        if ids.index(ids[i]) != i:
            found.append(f"[{i}] has the id of another one: Duplicate value for 'tool_call_id'")
        kind, words = call.get("type"), {"function": "arguments", "custom": "input"}
        if not isinstance(kind, str):
            found.append(f"[{i}] has no type")
        elif kind in words:
            inner = call.get(kind)
            if not isinstance(inner, dict) or not isinstance(inner.get("name"), str) or not inner["name"]:
                found.append(f"[{i}] names no tool: Missing required parameter")
            elif not _NAME.fullmatch(inner["name"]):
                found.append(f"[{i}].{kind}.name: {_NO_NAME}")
            elif not isinstance(inner.get(words[kind]), str):
                found.append(f"[{i}] has no arguments: Missing required parameter")
    return found


def _tool_problems(tools: Any) -> list[str]:
    if not isinstance(tools, list) or not tools:
        return ["tools is no list with something in it"]
    found = []
    names: list[str] = []
    for i, tool in enumerate(tools):
        if not isinstance(tool, dict) or not isinstance(tool.get("type"), str):
            found.append(f"tools[{i}] has no type")
        elif tool["type"] in ("function", "custom"):
            inner = tool.get(tool["type"])
            if not isinstance(inner, dict) or not isinstance(inner.get("name"), str) or not inner["name"]:
                found.append(f"tools[{i}] has no name")
                continue
            if not _NAME.fullmatch(inner["name"]):
                found.append(f"Invalid 'tools[{i}].function.name': {_NO_NAME}")
            if inner["name"] in names:
                found.append(f"Duplicate tool name {inner['name']}")
            names.append(inner["name"])
    return found


_USER = {"role": "user", "content": "go"}
_CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
_RESULT = {"role": "tool", "tool_call_id": "c1", "content": "x"}
_PICTURE = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}


def _asked(*calls: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


def _tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


BROKEN: dict[str, Any] = {
    "every call gets one result, right after it": {"messages": [_USER, _asked(_CALL), _USER]},
    "a result follows its call": {"messages": [_USER, _RESULT]},
    "ids of the calls of one message differ": {"messages": [_asked(_CALL, _CALL), _RESULT, _RESULT]},
    "names of tools have a form": {"messages": [_USER], "tools": [_tool("a b")]},
    "names of tools differ": {"messages": [_USER], "tools": [_tool("a"), _tool("a")]},
    "there are messages": {"messages": []},
    "content is there": {"messages": [{"role": "user", "content": None}]},
    "pictures are the user's": {"messages": [{"role": "assistant", "content": [_PICTURE]}]},
    "a call names its tool and has arguments": {
        "messages": [_asked({"id": "c1", "type": "function", "function": {"name": "look"}}), _RESULT]
    },
}
"""For each rule of the format a request that breaks it."""
