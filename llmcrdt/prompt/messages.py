"""A transcript as chat messages, the form that models' templates take.

Entries of a merged conversation can stand in an order that no model was trained on. The repairs here are pure and
prefix-stable: ``messages(frame + g + more)`` begins with ``messages(frame)``, whatever comes later.

- Each call gets one result, right after it (``document/repairs.py``); any other result becomes a message of the user's.
- A summary stands where the first entry that it covers stood, in place of all of them; system entries stay. An
  older summary that a newer one covers counts for nothing.
- Unsealed and erased entries, and answers that failed or were stopped before they said anything, are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..document.canonical import JSON, parse_json
from ..document.entry import Entry, Text, ToolCall, ToolResult, oldest_first
from ..document.repairs import NO_RESULT, Late, Result, Said, with_results
from ..document.summaries import is_shown, with_summaries
from ..exceptions import InvalidContent
from ..ids import EntryId

RENDERER = "llmcrdt.chat/1"
"""The version of these rules; a frame records it."""

MAX_ARGUMENT_DEPTH = 64
"""Arguments nested deeper than this stay text: templates walk them recursively."""

Message = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """The youngest settings of config parts: ``tools``, ``template`` (arguments of the template), ``date``."""

    tools: tuple[JSON, ...] | None = None
    template: Mapping[str, JSON] | None = None
    date: JSON = None


@dataclass(frozen=True)
class Chat:
    """Messages for a template. ``sources[i]`` is the entry that ``messages[i]`` prints, None for a repair."""

    messages: tuple[Message, ...]
    sources: tuple[EntryId | None, ...]
    settings: Settings


def messages(entries: Iterable[Entry]) -> Chat:
    """The chat of ``entries``, which are a whole transcript in order."""
    kept = tuple(entries)
    found: list[Message] = []
    sources: list[EntryId | None] = []
    for item in with_results(filter(is_shown, with_summaries(kept)), _calls):
        found.append(_message(item))
        sources.append(item.entry.id if item.entry else None)
    return Chat(tuple(found), tuple(sources), settings(kept))


def _message(item: Said | Result | Late) -> Message:
    match item:
        case Result(call, entry):
            content = entry.text if entry else NO_RESULT
            return {"role": "tool", "content": content, "tool_call_id": call.id, "name": call.name}
        case Late(entry, _):
            return {"role": "user", "content": item.introduction + entry.text}
    entry = item.entry
    message: Message = {"role": entry.role, "content": entry.text}
    if entry.role == "assistant":
        if entry.reasoning:
            message["reasoning_content"] = entry.reasoning
        if calls := entry.tool_calls:
            message["tool_calls"] = [_call(call) for call in calls]
    return message


def _calls(entry: Entry) -> list[tuple[str, str]]:
    return [(call.id, call.name) for call in entry.tool_calls] if entry.role == "assistant" else []


def settings(entries: Iterable[Entry]) -> Settings:
    """The settings that count after ``entries``: of each the youngest, wherever a merge has put it. A value of the
    wrong type counts for nothing."""
    tools: tuple[JSON, ...] | None = None
    template: Mapping[str, JSON] | None = None
    date: JSON = None
    for entry in oldest_first(entries):
        if entry.role != "system" or not entry.sealed or entry.status == "erased":
            continue
        config = entry.config
        if isinstance(config.get("tools"), list):
            tools = tuple(config["tools"])
        if isinstance(config.get("template"), dict):
            template = config["template"]
        if isinstance(config.get("date"), (str, int, float)):
            date = config["date"]
    return Settings(tools or None, template or None, date)


def _call(call: ToolCall) -> Message:
    function = {"name": call.name, "arguments": _arguments(call.arguments)}
    return {"type": "function", "id": call.id, "function": function}


def _arguments(text: str) -> JSON:
    """An object where the model wrote one, else its text: templates print objects, and pass text on."""
    try:
        value = parse_json(text)
    except InvalidContent:
        return text
    return value if isinstance(value, dict) and _fits(value, MAX_ARGUMENT_DEPTH) else text


def _fits(value: JSON, depth: int) -> bool:
    if not isinstance(value, (dict, list)):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_fits(item, depth - 1) for item in inner)


def words_of(entry: Entry) -> tuple[str, ...]:
    """The pieces of an entry's own words that a prompt may show, in order."""
    words = [entry.reasoning] if entry.reasoning else []
    words += [part.text for part in entry.parts if isinstance(part, (Text, ToolResult))]
    return tuple(words)
