"""Entries -> messages that the API takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...document.blob import Blob
from ...document.canonical import JSON
from ...document.entry import Entry, Part, Reasoning, Text, ToolCall, ToolResult, Unknown, oldest_first
from ...document.summaries import is_shown
from ..format import Draft, ReadBlob
from ..native import is_native_type, mapping, without_native
from ..pictures import is_attachment, note_of, picture_of
from ..tool_names import Rename, ToolNames, renamed_at
from .parts import CALL, EXTRA, ITEM, MESSAGE, NAMES, REASONING, WORDS, configs, role_of

_RENAMED = {kind: renamed_at(kind) for kind in WORDS}
_INSTEAD_OF_CONTENT = ("refusal", "audio", "function_call")
_SHOW = ("user", "tool")
"""The roles whose attachments are shown: those of results stand in a message of the user's behind them."""


def settings_after(entries: Sequence[Entry]) -> tuple[list[JSON], dict[str, JSON]]:
    """The tools, and the other members of the file, that count after ``entries``."""
    tools: list[JSON] = []
    whole: dict[str, JSON] = {}
    settings = oldest_first(entry for entry in entries if is_exported(entry) and entry.role == "system")
    for part in configs(settings):  # the youngest count, wherever a merge has put them
        if isinstance(part.values.get("tools"), list):
            tools = [tool for tool in part.values["tools"] if _is_tool(tool)]
        whole |= mapping(part.values.get(EXTRA))
    return tools, whole


def sent_tools(tools: Sequence[JSON]) -> tuple[list[JSON], ToolNames]:
    """The tools as they are sent, and their names."""
    names = ToolNames(NAMES)
    return names.declare(tools, _renamed), names


def _renamed(tool: JSON, give: Rename) -> JSON:
    return _RENAMED[tool["type"]](tool, give) if tool["type"] in _RENAMED else tool


def whole_of(messages: JSON, title: str | None, whole: Mapping[str, JSON], tools: JSON, bare: bool) -> JSON:
    if bare:
        return messages
    rest = {key: value for key, value in whole.items() if key not in ("messages", "tools", "title")}
    head = {} if title is None else {"title": title}
    return {**head, **rest, "messages": messages, **({} if tools is None else {"tools": tools})}


def write_message(entry: Entry | Draft, calls: Sequence[JSON], read_blob: ReadBlob) -> dict[str, JSON]:
    kept: Mapping[str, JSON] = {}
    items: list[JSON] = []
    reasoning: list[str] = []
    for part in entry.parts:
        match part:
            case Reasoning():
                reasoning.append(part.text)
            case Text() | ToolResult():
                items.append({**without_native(part.extra), "type": "text", "text": part.text})
            case Blob():
                items.append(_write_attachment(part, read_blob if entry.role in _SHOW else lambda blob: None))
            case Unknown() if is_native_type(part.type):
                if entry.role in _SHOW and is_attachment(part):
                    items.append(_write_attachment(part, read_blob))
            case Unknown() if part.type == MESSAGE:
                kept = part.json
            case Unknown() if part.type == ITEM and isinstance(part.json.get("item"), dict):
                items.append(part.json["item"])
            case Unknown() if part.type != CALL:
                items.append(dict(part.json))
    name, key = kept.get("role"), kept.get("reasoning")  # strangers' words, like all that is kept beside parts
    message: dict[str, JSON] = {"role": name if role_of(name) == entry.role else entry.role}
    if reasoning:
        message[key if key in REASONING else REASONING[0]] = "".join(reasoning)
    if kept.get("content") != "absent" or items:
        message["content"] = _write_content(items, kept.get("content"), entry.role == "assistant")
    if calls:
        message["tool_calls"] = list(calls)
    return {**message, **{key: item for key, item in mapping(kept.get("fields")).items() if key not in message}}


def calls_of(entry: Entry | Draft) -> list[JSON]:
    """The calls of an entry as they were read or made."""
    calls: list[JSON] = []
    for part in entry.parts:
        if isinstance(part, ToolCall):
            calls.append(_write_call(part))
        elif isinstance(part, Unknown) and part.type == CALL and isinstance(part.json.get("call"), dict):
            calls.append(part.json["call"])
    return calls


def _write_content(items: list[JSON], form: JSON, nullable: bool) -> JSON:
    if form == "list":
        return items
    if not items:
        return None if nullable else ""
    if all(
        isinstance(item, dict) and item.get("type") == "text" and isinstance(item.get("text"), str) for item in items
    ):
        return "".join(item["text"] for item in items)
    return items


def _write_attachment(part: Part, read_blob: ReadBlob) -> JSON:
    picture = picture_of(part, read_blob)
    if picture is None:
        return {"type": "text", "text": note_of(part)}
    return {"type": "image_url", "image_url": {"url": picture.as_url}}


def _write_call(call: ToolCall) -> JSON:
    rest = mapping(call.extra.get(EXTRA))
    kind = "custom" if rest.get("kind") == "custom" else "function"
    inner = {**mapping(rest.get("inner")), "name": call.name, WORDS[kind]: call.arguments}
    return {**mapping(rest.get("call")), "id": call.id, "type": kind, kind: inner}


def is_exported(entry: Entry) -> bool:
    if entry.role == "system":
        return entry.sealed and entry.status != "erased"
    if entry.role == "assistant" and entry.status in ("failed", "stopped"):
        return is_shown(entry) and bool(entry.text or entry.reasoning or usable_calls(entry))
    return is_shown(entry)


def usable_calls(entry: Entry) -> list[JSON]:
    """The calls that somebody can run: an answer that was cut short may end with half of one."""
    return [call for call in calls_of(entry) if _is_usable(call)] if entry.role == "assistant" else []


def _is_usable(call: JSON) -> bool:
    kind = call.get("type")
    if not isinstance(call.get("id"), str) or not isinstance(kind, str):
        return False
    words = WORDS.get(kind)
    return words is None or (bool(id_and_name(call)[1]) and isinstance(mapping(call[kind]).get(words), str))


def id_and_name(call: JSON) -> tuple[str, str]:
    name = mapping(call.get(call["type"])).get("name")
    return call["id"], name if isinstance(name, str) else ""


def sent_calls(entry: Entry, calls: Sequence[JSON]) -> list[JSON]:
    """The calls of one message as they are sent, each with an id of its own there."""
    taken: set[str] = set()
    out: list[JSON] = []
    for index, call in enumerate(calls):
        name = call["id"]
        if not name or name in taken:
            name = f"call_{entry.id}_{index}"
        taken.add(name)
        inner = call.get(call["type"])
        named = {call["type"]: {**inner, "name": NAMES.of(inner["name"])}} if call["type"] in WORDS else {}
        out.append({**call, "id": name, **named})
    return out


def pictures_in(message: Mapping[str, JSON]) -> list[JSON]:
    """The pictures of a message, as it was written."""
    content = message.get("content")
    items = content if isinstance(content, list) else []
    return [item for item in items if isinstance(item, dict) and item.get("type") == "image_url"]


def valid_message(message: dict[str, JSON]) -> dict[str, JSON]:
    """A message without what makes a request invalid; otherwise as it is."""
    calls = message.get("tool_calls")
    valid = {key: value for key, value in message.items() if key not in ("tool_calls", "tool_call_id")}
    if isinstance(calls, list) and calls and message["role"] == "assistant":
        valid["tool_calls"] = calls
    content = message.get("content")
    if isinstance(content, list):
        content = [item for item in content if _is_item(item, message["role"])]
        valid["content"] = content or ""
    elif content is None and not any(valid.get(key) for key in ("tool_calls", *_INSTEAD_OF_CONTENT)):
        valid["content"] = ""
    return valid


def _is_item(item: JSON, role: str) -> bool:
    if item.get("type") == "image_url" and role != "user":
        return False
    return isinstance(item.get("type"), str) and (item["type"] != "text" or isinstance(item.get("text"), str))


def _is_tool(tool: JSON) -> bool:
    if not isinstance(tool, dict) or not isinstance(tool.get("type"), str):
        return False
    name = mapping(tool.get("function")).get("name")
    return tool["type"] != "function" or (isinstance(name, str) and bool(name))
