"""Whether JSON is a request that OpenAI's Responses API takes; written from its reference, not from the exporter.

It stands in for a server that remembers: an item whose id says ``..._of_rs_1`` was made with the reasoning ``rs_1``.
Nothing here imports ``llmcrdt``.
"""

from __future__ import annotations

import re
from typing import Any

_CALLS = {"function_call": "arguments", "custom_tool_call": "input"}
_RUN_BY_APP = (*_CALLS, "computer_call", "local_shell_call", "shell_call", "apply_patch_call")
_INPUTS = ("item_reference", "mcp_approval_response", "compaction_trigger", "configuration_update", "additional_tools")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def problems(request: Any) -> list[str]:
    """Why it would be refused; empty where it would not."""
    items = request.get("input") if isinstance(request, dict) else None
    if not isinstance(items, (str, list)) or not items:
        return ["One of 'input' or 'previous_response_id' must be provided"]
    if not isinstance(request.get("instructions", ""), (str, type(None))):
        return ["instructions: Invalid type"]
    if isinstance(items, str):
        return _tool_problems(request.get("tools", []))
    return log_problems(items) + _tool_problems(request.get("tools", []))


def log_problems(items: list[Any]) -> list[str]:
    """The same of a list of items, which may be empty."""
    found: list[str] = []
    for i, item in enumerate(items):
        found += [f"input[{i}]: {why}" for why in _item_problems(item)]
    if found:
        return found
    return _id_problems(items) + _pair_problems(items) + _reasoning_problems(items) + _compaction_problems(items)


def _tool_problems(tools: Any) -> list[str]:
    found = []
    names = [tool["name"] for tool in tools if isinstance(tool, dict) and isinstance(tool.get("name"), str)]
    if len(names) != len(set(names)):
        found.append(f"Duplicate tool name in {names}")
    for i, tool in enumerate(tools):
        if not isinstance(tool, dict) or not isinstance(tool.get("type"), str):
            found.append(f"tools[{i}].type: Missing required parameter")
        elif tool["type"] in ("function", "custom") and not _is_name(tool.get("name")):
            found.append(f"tools[{i}].name: Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'")
    return found


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def _item_problems(item: Any) -> list[str]:
    if not isinstance(item, dict):
        return ["Invalid type: expected an object"]
    kind = item.get("type", "message")
    if not isinstance(kind, str) or not kind:
        return ["Invalid value: type"]
    if kind == "message":
        return _message_problems(item)
    found = []
    if kind == "reasoning":
        if not isinstance(item.get("summary"), list):
            found.append("Missing required parameter: 'summary'")
        if not any(isinstance(item.get(key), str) for key in ("id", "encrypted_content")):
            found.append("Missing required parameter: 'id' or 'encrypted_content'")
    elif kind in _RUN_BY_APP:
        if not isinstance(item.get("call_id"), str) or not item["call_id"]:
            found.append("Missing required parameter: 'call_id'")
        elif len(item["call_id"]) > 64:
            found.append("Invalid 'call_id': string too long. Expected a string with maximum length 64")
        if kind in _CALLS:
            if not _is_name(item.get("name")):
                found.append("Invalid 'name': Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'")
            if not isinstance(item.get(_CALLS[kind]), str):
                found.append(f"Missing required parameter: '{_CALLS[kind]}'")
    elif _is_output(kind):
        output = item.get("output")
        if kind.removesuffix("_output") in _CALLS and not isinstance(output, (str, list)):
            found.append("Missing required parameter: 'output'")
        for piece in output if isinstance(output, list) and kind.removesuffix("_output") in _CALLS else []:
            found += _piece_problems(piece, "input")
    elif kind == "compaction" and not isinstance(item.get("encrypted_content"), str):
        found.append("Missing required parameter: 'encrypted_content'")
    elif kind == "program" and not isinstance(item.get("fingerprint"), str):
        found.append("Missing required parameter: 'fingerprint'")
    elif kind == "item_reference" and not isinstance(item.get("id"), str):
        found.append("Missing required parameter: 'id'")
    return found


def _message_problems(item: dict[str, Any]) -> list[str]:
    role, content = item.get("role"), item.get("content")
    if role not in ("user", "assistant", "system", "developer"):
        return ["Invalid value: role"]
    if isinstance(content, str):
        return []
    if not isinstance(content, list):
        return ["Missing required parameter: 'content'"]
    side = "output" if role == "assistant" else "input"
    return [why for piece in content for why in _piece_problems(piece, side)]


def _piece_problems(piece: Any, side: str) -> list[str]:
    kind = piece.get("type") if isinstance(piece, dict) else None
    if not isinstance(kind, str):
        return ["Invalid value: content type"]
    of_model = kind in ("output_text", "refusal")
    if (side == "input" and of_model) or (side == "output" and kind.startswith("input_")):
        return [f"Invalid value: content type '{kind}'"]
    if kind in ("input_text", "output_text") and not isinstance(piece.get("text"), str):
        return ["Missing required parameter: 'text'"]
    if kind == "refusal" and not isinstance(piece.get("refusal"), str):
        return ["Missing required parameter: 'refusal'"]
    return []


def _is_output(kind: str) -> bool:
    return kind.endswith("_output") and kind.removesuffix("_output") in _RUN_BY_APP


def _id_problems(items: list[Any]) -> list[str]:
    ids = [item["id"] for item in items if isinstance(item.get("id"), str)]
    return [f"Duplicate item found with id {id_}" for id_ in sorted({id_ for id_ in ids if ids.count(id_) > 1})]


def _pair_problems(items: list[Any]) -> list[str]:
    found = []
    waiting: dict[str, str] = {}
    seen: set[str] = set()
    for item in items:
        kind = item.get("type", "message")
        if kind in _RUN_BY_APP:
            if item["call_id"] in seen:
                found.append(f"Duplicate call_id {item['call_id']}")
            seen.add(item["call_id"])
            waiting[item["call_id"]] = kind
        elif _is_output(kind) and waiting.pop(item.get("call_id"), None) != kind.removesuffix("_output"):
            found.append(f"No tool call found for function call output with call_id {item.get('call_id')}.")
    return found + [f"No tool output found for function call {id_}." for id_ in waiting]


def _made_by_model(item: Any) -> bool:
    kind = item.get("type", "message")
    if kind == "message":
        return bool(item.get("role") == "assistant")
    return not _is_output(kind) and kind not in _INPUTS


def _reasoning_problems(items: list[Any]) -> list[str]:
    """Reasoning and the items after it, up to the next input, are one group."""
    found = []
    for i, item in enumerate(items):
        after = next((other for other in items[i + 1 :] if other.get("type") != "reasoning"), None)
        if item.get("type") == "reasoning" and "id" not in item and after is not None and "id" in after:
            found.append(f"Item '{after['id']}' was provided without its required 'reasoning' item.")
        if item.get("type") == "reasoning" and (after is None or not _made_by_model(after)):
            found.append(
                f"Item '{item.get('id')}' of type 'reasoning' was provided without its required following item."
            )
        _, made_with, reasoning = str(item.get("id", "")).partition("_of_")
        if made_with:
            group: list[Any] = []
            for other in reversed(items[:i]):
                if not _made_by_model(other):
                    break
                group.append(other)
            if not any(other.get("type") == "reasoning" and other.get("id") == reasoning for other in group):
                found.append(f"Item '{item['id']}' was provided without its required 'reasoning' item: '{reasoning}'.")
    return found


def _compaction_problems(items: list[Any]) -> list[str]:
    before_last = items[:-1]
    wrong = any(item.get("type") == "compaction_trigger" for item in before_last)
    return ["compaction_trigger must be the final input item"] if wrong else []
