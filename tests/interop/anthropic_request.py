"""Whether JSON is a request that Anthropic's Messages API takes; written from its reference, not from the exporter.

Nothing here imports ``llmcrdt``.
"""

from __future__ import annotations

import re
from typing import Any

_ID = re.compile(r"[a-zA-Z0-9_-]+")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_SERVER = ("server_tool_use", "mcp_tool_use")
_MADE_BY_MODEL = ("thinking", "redacted_thinking", "tool_use", *_SERVER, "compaction")
_MADE_BY_USER = ("image", "document", "search_result", "container_upload", "tool_result")


def problems(request: Any, *, log: bool = False) -> list[str]:
    """Why it would be refused; empty where it would not. ``log``: only the messages are looked at, and they may end
    with any turn."""
    messages = request.get("messages") if isinstance(request, dict) else None
    if not isinstance(messages, list):
        return ["messages: Field required"]
    found: list[str] = []
    if not log:
        found += _request_problems(request, messages)
    found += _turn_problems(messages)
    if not found:
        found += _tool_problems(messages) + _server_tool_problems(messages)
        found += _cache_problems([] if log else [request.get("system"), request.get("tools")], messages)
    return found


def _request_problems(request: Any, messages: list[Any]) -> list[str]:
    found = []
    if not isinstance(request.get("max_tokens"), int):
        found.append("max_tokens: Field required")
    if not messages:
        return [*found, "messages: at least one message is required"]
    if "system" in request:
        system = request["system"]
        if isinstance(system, list):
            for i, block in enumerate(system):
                if not isinstance(block, dict) or block.get("type") != "text":
                    found.append(f"system.{i}: Input tag is not 'text'")
                elif not isinstance(block.get("text"), str) or not block["text"].strip():
                    found.append("system: text content blocks must be non-empty")
        elif not isinstance(system, str):
            found.append("system: Input should be a valid string or list")
    for i, tool in enumerate(request.get("tools", [])):
        if not isinstance(tool, dict) or not isinstance(tool.get("name"), str) or not _NAME.fullmatch(tool["name"]):
            found.append(f"tools.{i}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
        elif "type" not in tool and tool.get("input_schema", {}).get("type") != "object":
            found.append(f"tools.{i}.input_schema.type: Field required")
    named = [tool.get("name") for tool in request.get("tools", []) if isinstance(tool, dict)]
    if len(named) != len(set(map(str, named))):
        found.append("tools: Tool names must be unique.")
    last = messages[-1]
    if isinstance(last, dict) and last.get("role") != "user":
        content = last.get("content")
        goes_on = isinstance(content, list) and content and _kind(content[-1]) in _SERVER
        if not goes_on:
            found.append(
                "This model does not support assistant message prefill. The conversation must end with a user message."
            )
    thinking = request.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") == "enabled" and len(messages) > 1:
        content, before = last.get("content"), messages[-2].get("content")
        loop = isinstance(content, list) and any(_kind(block) == "tool_result" for block in content)
        if loop and (not isinstance(before, list) or _kind(before[0]) not in ("thinking", "redacted_thinking")):
            found.append("Expected `thinking` or `redacted_thinking`, but found `tool_use`")
    return found


def _kind(block: Any) -> str:
    kind = block.get("type") if isinstance(block, dict) else None
    return kind if isinstance(kind, str) else ""


def _turn_problems(messages: list[Any]) -> list[str]:
    found: list[str] = []
    began = False
    for i, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("user", "assistant", "system"):
            return [*found, f"messages.{i}.role: Input should be 'user' or 'assistant'"]
        blocks = _content(message)
        if blocks is None:
            return [*found, f"messages.{i}.content: Input should be a valid list"]
        if not blocks or message["content"] == "":
            found.append(f"messages.{i}: all messages must have non-empty content")
        compaction = i == 0 and blocks and _kind(blocks[0]) == "compaction"
        if not began and role == "assistant" and not compaction:
            found.append('messages: first message must use the "user" role')
        began = began or role != "system"
        for j, block in enumerate(blocks):
            found += [f"messages.{i}.content.{j}: {why}" for why in _block_problems(block, role, first=i == j == 0)]
    return found


def _content(message: Any) -> list[Any] | None:
    content = message.get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return content if isinstance(content, list) else None


def _block_problems(block: Any, role: str, *, first: bool) -> list[str]:
    kind = _kind(block)
    if not kind:
        return ["Input tag is missing"]
    wrong_side = _MADE_BY_MODEL if role != "assistant" else _MADE_BY_USER
    if kind in wrong_side or (role != "assistant" and kind.endswith("_tool_result")):
        return [f"Input tag '{kind}' does not match any of the expected tags"]
    found = []
    if "cache_control" in block and not _kind(block["cache_control"]):
        found.append("cache_control.type: Field required")
    if kind == "text":
        if not isinstance(block.get("text"), str) or not block["text"].strip():
            found.append("text content blocks must be non-empty")
        for citation in block.get("citations") or []:
            if _kind(citation) == "web_search_result_location":
                found += _needs(citation, "encrypted_index", "citations")
    elif kind == "thinking":
        if not isinstance(block.get("signature"), str):
            found.append("thinking.signature: Field required")
        if not isinstance(block.get("thinking"), str):
            found.append("thinking.thinking: Field required")
    elif kind == "redacted_thinking" and not isinstance(block.get("data"), str):
        found.append("redacted_thinking.data: Field required")
    elif kind == "tool_use":
        if not isinstance(block.get("id"), str) or not _ID.fullmatch(block["id"]):
            found.append("tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'")
        if not isinstance(block.get("name"), str) or not _NAME.fullmatch(block["name"]):
            found.append("tool_use.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'")
        if not isinstance(block.get("input"), dict):
            found.append("tool_use.input: Input should be a valid dictionary")
    elif kind == "compaction" and not first:
        found.append("compaction_block_misplaced")
    elif kind == "web_search_tool_result" and isinstance(block.get("content"), list):
        for result in block["content"]:
            if _kind(result) == "web_search_result":
                found += _needs(result, "encrypted_content", "web_search_tool_result.content")
    elif kind == "code_execution_tool_result" and _kind(block.get("content")) == "encrypted_code_execution_result":
        found += _needs(block["content"], "encrypted_stdout", "code_execution_tool_result.content")
    elif kind == "tool_result":
        content = block.get("content", "")
        if not isinstance(block.get("is_error", False), bool):
            found.append("tool_result.is_error: Input should be a valid boolean")
        if isinstance(content, list):
            for inner in content:
                if not _kind(inner) or _kind(inner) in (*_MADE_BY_MODEL, "tool_result"):
                    found.append(f"tool_result.content: Input tag '{_kind(inner)}' does not match")
                elif _kind(inner) == "text" and not isinstance(inner.get("text"), str):
                    found.append("tool_result.content.text: Field required")
        elif not isinstance(content, str):
            found.append("tool_result.content: Input should be a valid string or list")
    return found


def _needs(value: Any, key: str, where: str) -> list[str]:
    return [] if isinstance(value.get(key), str) else [f"{where}.{key}: Field required"]


def _tool_problems(messages: list[Any]) -> list[str]:
    found: list[str] = []
    seen: set[str] = set()
    for i, message in enumerate(messages):
        blocks = _content(message) or []
        for block in blocks:
            if _kind(block) == "tool_use":
                if block["id"] in seen:
                    found.append(f"messages.{i}: `tool_use` ids must be unique")
                seen.add(block["id"])
        asked = [block["id"] for block in _content(messages[i - 1]) or [] if _kind(block) == "tool_use"] if i else []
        answered = [block.get("tool_use_id") for block in blocks if _kind(block) == "tool_result"]
        if sorted(map(str, answered)) != sorted(set(map(str, answered))):
            found.append(f"messages.{i}: each tool_use must have a single result: unexpected `tool_use_id` found")
        found += [
            f"messages.{i}: unexpected `tool_use_id` found in `tool_result` blocks: {id_}"
            for id_ in answered
            if id_ not in asked
        ]
        begin = [_kind(block) for block in blocks[: len(answered)]]
        if set(asked) - set(answered) or any(kind != "tool_result" for kind in begin):
            found.append(
                f"messages.{i}: `tool_use` ids were found without `tool_result` blocks immediately after: {asked}"
            )
    if messages and any(_kind(block) == "tool_use" for block in _content(messages[-1]) or []):
        found.append("`tool_use` ids were found without `tool_result` blocks immediately after: at the end")
    return found


def _server_tool_problems(messages: list[Any]) -> list[str]:
    """Tools of the server's have their results in the same turn, which may be several messages."""
    found: list[str] = []
    waiting: dict[str, str] = {}
    for message in messages:
        if message["role"] != "assistant":
            found += [f"`{name}` tool use with id `{i}` was found without a corresponding result block"
                      for i, name in waiting.items()]  # fmt: skip
            waiting = {}
            continue
        for block in _content(message) or []:
            if _kind(block) in _SERVER:
                waiting[block["id"]] = block["name"]
            elif _kind(block).endswith("_tool_result") and waiting.pop(block.get("tool_use_id"), None) is None:
                found.append(f"{_kind(block)} was found without a corresponding tool use")
    if waiting and messages:
        last = _content(messages[-1]) or [{}]
        if _kind(last[-1]) not in _SERVER:
            found.append(f"tool uses {waiting} were found without a corresponding result block")
    return found


def _cache_problems(elsewhere: list[Any], messages: list[Any]) -> list[str]:
    points = 0
    lists = [*elsewhere, *(message["content"] for message in messages)]
    for blocks in lists:
        for block in blocks if isinstance(blocks, list) else []:
            if isinstance(block, dict):
                points += "cache_control" in block
                inner = block.get("content")
                within = inner if isinstance(inner, list) else []
                points += sum("cache_control" in one for one in within if isinstance(one, dict))
    return [f"A maximum of 4 blocks with cache_control may be provided. Found {points}."] if points > 4 else []
