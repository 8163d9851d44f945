"""Whether JSON is a request that Google's Interactions API takes; written from its SDK's types, not from the exporter.

Nothing here imports ``llmcrdt``.
"""

from __future__ import annotations

import re
from typing import Any

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}")
_INPUT = ("user_input", "function_result")
_MEDIA = ("image", "document", "audio", "video")


def problems(request: Any, *, log: bool = False) -> list[str]:
    """Why it would be refused; empty where it would not. ``log``: the steps may end with any, or be none."""
    given = request.get("input") if isinstance(request, dict) else None
    if isinstance(given, str):
        return []
    if not isinstance(given, list):
        return ["input: is missing"]
    found = [f"input[{i}]: {why}" for i, step in enumerate(given) for why in _step(step)]
    if found:
        return found
    found = _order(given)
    if not log:
        if not given:
            found.append("input: is missing")
        elif not _is_input(given[-1]):
            found.append("the last step is the model's")
        if not isinstance(request.get("system_instruction", ""), str):
            found.append("system_instruction: must be a text")
        for tool in request.get("tools", []):
            if not isinstance(tool, dict) or not isinstance(tool.get("type"), str):
                found.append("tools: must be objects with a type")
            elif tool["type"] == "function" and not _NAME.fullmatch(str(tool.get("name", "f"))):
                found.append("Invalid function name. Must start with a letter or an underscore")
        names = [tool.get("name") for tool in request.get("tools", []) if isinstance(tool, dict) and "name" in tool]
        if len(names) != len(set(map(str, names))):
            found.append(f"Duplicate function declaration: {names}")
    return found


def _is_input(step: Any) -> bool:
    kind = step["type"]
    known = kind in ("model_output", "thought") or (kind.endswith(("_call", "_result")) and kind != "function_result")
    return not known


def _step(step: Any) -> list[str]:
    if not isinstance(step, dict) or not isinstance(step.get("type"), str) or not step["type"]:
        return ["type: is missing"]
    kind = step["type"]
    if not isinstance(step.get("signature", ""), str):
        return ["signature: must be bytes"]
    if kind == "thought":
        return [] if isinstance(step.get("signature"), str) else ["thought.signature: is missing"]
    if kind in ("user_input", "model_output"):
        return [why for content in step.get("content") or [] for why in _content(content)]
    if kind == "function_call":
        if not isinstance(step.get("id"), str) or not isinstance(step.get("name"), str):
            return ["function_call: id and name are required"]
        if not _NAME.fullmatch(step["name"]):
            return ["Invalid function name. Must start with a letter or an underscore"]
        return [] if isinstance(step.get("arguments"), dict) else ["function_call.arguments: must be an object"]
    if kind == "function_result":
        if not isinstance(step.get("call_id"), str) or not isinstance(step.get("result"), (str, dict, list)):
            return ["function_result: call_id and result are required"]
        if not isinstance(step.get("is_error", True), bool) or not isinstance(step.get("name", ""), str):
            return ["function_result: is_error is a boolean, name a text"]
        return [why for content in step["result"] if isinstance(step["result"], list) for why in _content(content)]
    return []


def _content(content: Any) -> list[str]:
    if not isinstance(content, dict) or not isinstance(content.get("type"), str) or not content["type"]:
        return ["content: is invalid, it has no type"]
    kind = content["type"]
    if kind == "text" and not isinstance(content.get("text"), str):
        return ["content: is invalid, text is missing"]
    if kind in _MEDIA:
        members = [content[key] for key in ("data", "uri") if key in content]
        if not members or not all(isinstance(one, str) for one in (*members, content.get("mime_type", ""))):
            return ["content: is invalid, data or uri is missing"]
    wrong = kind in (*_INPUT, "model_output", "thought") or kind.endswith(("_call", "_result"))
    return ["content: is invalid, it is a step"] if wrong else []


def _order(steps: list[Any]) -> list[str]:
    found: list[str] = []
    if steps and not _is_input(steps[0]):
        found.append("the first step is the model's")
    waiting: dict[str, Any] = {}
    calls: set[str] = set()
    begun: set[str] = set()
    for i, step in enumerate(steps):
        kind = step["type"]
        if kind == "function_call":
            if step["id"] in calls:
                found.append(f"Duplicate id of a function_call: {step['id']}")
            calls.add(step["id"])
            waiting[step["id"]] = step
        elif kind == "function_result":
            if waiting.pop(step["call_id"], None) is None:
                found.append(f"No function_call for function_result {step['call_id']}")
        else:
            if kind == "user_input" and waiting:
                found.append(f"No function_result for function_call {min(waiting)}, at input[{i}]")
                waiting = {}
            if kind.endswith("_call"):
                if not isinstance(step.get("id"), str):
                    found.append(f"{kind}.id is required")
                else:
                    begun.add(step["id"])
            elif kind.endswith("_result") and step.get("call_id") not in begun:
                found.append(f"{kind} {step.get('call_id')} belongs to no step before it")
    return found + [f"No function_result for function_call {call}" for call in waiting]
