"""Whether JSON is a request that Google's generateContent takes; written from its reference, not from the exporter.

Nothing here imports ``llmcrdt``.
"""

from __future__ import annotations

import re
from typing import Any

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}")


def problems(request: Any, *, log: bool = False) -> list[str]:
    """Why it would be refused; empty where it would not. ``log``: the contents may end with any turn, or be none."""
    contents = request.get("contents") if isinstance(request, dict) else None
    if not isinstance(contents, list):
        return ["contents: must be a list"]
    found = [why for i, content in enumerate(contents) for why in _content_problems(content, i)]
    if found:
        return found
    found = _turn_problems(contents)
    if not log:
        if not contents:
            found.append("contents is not specified")
        elif _role(contents[-1]) == "model":
            found.append("Please ensure that the last turn is a user turn")
        found += _request_problems(request)
        if "gemini-3" in str(request.get("model", "")):
            found += _signature_problems(contents)
    return found


def _role(content: Any) -> str:
    return "user" if content.get("role", "user") in ("user", "function") else "model"


def _content_problems(content: Any, i: int) -> list[str]:
    if not isinstance(content, dict) or content.get("role", "user") not in ("user", "model", "function"):
        return [f"contents[{i}]: Please use a valid role: user, model."]
    parts = content.get("parts")
    if not isinstance(parts, list) or not parts:
        return [f"contents[{i}]: contents.parts must not be empty"]
    return [f"contents[{i}].parts[{j}]: {why}" for j, part in enumerate(parts) for why in _part_problems(part, content)]


def _part_problems(part: Any, content: Any) -> list[str]:
    if not isinstance(part, dict) or not part:
        return ["required oneof field 'data' must have one initialized field"]
    signature = part.get("thoughtSignature", "")
    if not isinstance(signature, str):
        return ["thought_signature: must be bytes"]
    if "text" in part:
        if not isinstance(part["text"], str) or not (part["text"] or signature):
            return ["required oneof field 'data' must have one initialized field"]
        return []
    for key, side in (("functionCall", "model"), ("functionResponse", "user")):
        if key in part:
            block = part[key]
            if _role(content) != side:
                return ["Function calls are the model's, and responses are not"]
            if not isinstance(block, dict) or not _NAME.fullmatch(str(block.get("name", ""))):
                return ["Invalid function name. Must start with a letter or an underscore"]
            if key == "functionCall" and not isinstance(block.get("args", {}), dict):
                return ["function_call.args: must be an object"]
            if key == "functionResponse" and not isinstance(block.get("response"), dict):
                return ["function_response.response: must be an object"]
            if key == "functionResponse" and not all(map(_is_media, block.get("parts", []))):
                return ["function_response.parts: required oneof field 'data' must have one initialized field"]
    return []


def _is_media(part: Any) -> bool:
    return isinstance(part, dict) and sum(isinstance(part.get(key), dict) for key in ("inlineData", "fileData")) == 1


def _turn_problems(contents: list[Any]) -> list[str]:
    found: list[str] = []
    if contents and _role(contents[0]) == "model":
        found.append("Please ensure that the first turn is a user turn")
    waiting: list[Any] = []
    for i, content in enumerate(contents):
        calls = [part["functionCall"] for part in content["parts"] if "functionCall" in part]
        answers = [part["functionResponse"] for part in content["parts"] if "functionResponse" in part]
        if answers and not waiting:
            found.append("Please ensure that function response turn comes immediately after a function call turn")
        elif len(answers) != len(waiting) or sorted(a["name"] for a in answers) != sorted(c["name"] for c in waiting):
            found.append(
                "Please ensure that the number of function response parts is equal to the number of function call parts"
                f" of the function call turn, at contents[{i}]"
            )
        if sorted(str(a.get("id")) for a in answers) != sorted(str(c.get("id")) for c in waiting) and not found:
            found.append(f"contents[{i}]: function_response.id does not match")
        if calls and i and _role(contents[i - 1]) == "model":
            found.append(
                "Please ensure that function call turn comes immediately after a user turn or after a function"
                " response turn"
            )
        waiting = calls
    if waiting:
        found.append(
            "Please ensure that the number of function response parts is equal to the number of function call parts"
        )
    return found


def _signature_problems(contents: list[Any]) -> list[str]:
    found = []
    for i, content in enumerate(contents):
        first = next((part for part in content["parts"] if "functionCall" in part), None)
        if first is not None and not isinstance(first.get("thoughtSignature"), str):
            name = first["functionCall"]["name"]
            found.append(f"Function call `{name}` in the `{i}.` content block is missing a `thought_signature`")
    return found


def _request_problems(request: Any) -> list[str]:
    found = []
    names: list[str] = []
    system = request.get("systemInstruction", request.get("system_instruction"))
    if system is not None:
        parts = system.get("parts") if isinstance(system, dict) else None
        if not isinstance(parts, list) or not all(isinstance(part.get("text"), str) for part in parts):
            found.append("system_instruction: must have parts with text")
    for tool in request.get("tools", []):
        if not isinstance(tool, dict):
            found.append("tools: must be objects")
            continue
        found += [
            "Invalid function name. Must start with a letter or an underscore"
            for one in tool.get("functionDeclarations", [])
            if not _NAME.fullmatch(str(one.get("name", "")))
        ]
        names += [str(one.get("name")) for one in tool.get("functionDeclarations", [])]
    if len(names) != len(set(names)):
        found.append(f"Duplicate function declaration found: {names}")
    return found
