"""A transcript as chat messages, the form that models' templates take.

Entries of a merged conversation can stand in an order that no model was trained on. The repairs here are pure and
prefix-stable: ``messages(frame + g + more)`` begins with ``messages(frame)``, whatever comes later.

- A call whose result is not there before the next entry that is not a tool's gets a synthetic result.
- A second result of one call, or one that comes after a synthetic result was sent, becomes a later item of the user's.
- A summary stands where the first entry that it covers stood, in place of all of them; system entries stay. An
  older summary that a newer one covers counts for nothing.
- Unsealed and erased entries, and answers that failed or were stopped before they said anything, are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..document.canonical import JSON, parse_json
from ..document.entry import Entry, Text, ToolCall, ToolResult, oldest_first
from ..document.frame import Frame
from ..exceptions import InvalidContent
from ..ids import EntryId

RENDERER = "llmcrdt.chat/1"
"""The version of these rules; a frame records it."""

NO_RESULT = "No result was recorded."
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
    builder = _Builder()
    kept = tuple(entries)
    for entry in _with_summaries(kept):
        builder.add(entry)
    builder.flush()
    return Chat(tuple(builder.messages), tuple(builder.sources), settings(kept))


def summaries(entries: Sequence[Entry]) -> dict[EntryId, set[EntryId]]:
    """The summaries that a prompt for ``entries`` prints, newest first, and what each stands for."""
    found: dict[EntryId, set[EntryId]] = {}
    covered: set[EntryId] = set()
    if not any(entry.covers for entry in entries):
        return found
    here = {entry.id: entry for entry in entries}
    for entry in reversed(entries):
        if entry.covers and is_shown(entry) and entry.id not in covered:
            found[entry.id] = {i for i in _listed(entry.covers, here) if here[i].role != "system"} - covered
            covered |= found[entry.id]
    return found


def _listed(frame: Frame | None, here: Mapping[EntryId, Entry]) -> Iterator[EntryId]:
    """The entries of a frame's whole list, as far as they stand in this transcript."""
    while frame is not None:
        yield from (entry for entry, _ in frame.pins if entry in here)
        base = here.get(frame.base[0]) if frame.base else None
        frame = base.frame if base else None


def _with_summaries(entries: Sequence[Entry]) -> Iterator[Entry]:
    """The entries that are printed, each summary in the place of what it covers."""
    printed = summaries(entries)
    by_covered = {covered: summary for summary, ids in printed.items() for covered in ids}
    here, done = {entry.id: entry for entry in entries}, set()
    for entry in entries:
        summary = by_covered.get(entry.id, entry.id)
        if summary not in done:
            yield here[summary]
        if summary != entry.id or summary in printed:
            done.add(summary)


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


def is_shown(entry: Entry) -> bool:
    """Whether an entry takes part in prompts with a message."""
    if not entry.sealed or entry.status in ("erased", "streaming"):
        return False
    if entry.role == "system":
        return any(isinstance(part, Text) for part in entry.parts)
    if entry.role == "assistant" and entry.status in ("failed", "stopped"):
        return bool(entry.text or entry.reasoning or entry.tool_calls)
    return True


class _Builder:
    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.sources: list[EntryId | None] = []
        self._names: dict[tuple[EntryId, str], str] = {}  # every call seen, by entry and call id
        self._open: list[tuple[EntryId, str]] = []  # calls of the last assistant message, still without a result
        self._late: list[Entry] = []  # results without an open call: they wait so as not to part a call from its result

    def add(self, entry: Entry) -> None:
        if not is_shown(entry):
            return
        if entry.role == "tool":
            self._result(entry)
            return
        self.flush()
        message: Message = {"role": entry.role, "content": entry.text}
        if entry.role == "assistant":
            if entry.reasoning:
                message["reasoning_content"] = entry.reasoning
            if calls := entry.tool_calls:
                message["tool_calls"] = [_call(call) for call in calls]
                self._open = [(entry.id, call.id) for call in calls]
                self._names.update({(entry.id, call.id): call.name for call in calls})
        self._put(message, entry.id)

    def flush(self) -> None:
        """End the results of the last calls: each call gets one, and those that came too late follow."""
        for entry, call in self._open:
            self._put(_result_message(call, self._names[entry, call], NO_RESULT), None)
        self._open = []
        for late in self._late:
            name = self._names.get(late.answers) if late.answers else None
            words = f"Late result of {name}: " if name else "Result of a tool: "
            self._put({"role": "user", "content": words + late.text}, late.id)
        self._late = []

    def _result(self, entry: Entry) -> None:
        if entry.answers not in self._open:
            self._late.append(entry)
            return
        self._open.remove(entry.answers)
        call = entry.answers[1]
        self._put(_result_message(call, self._names[entry.answers], entry.text), entry.id)

    def _put(self, message: Message, source: EntryId | None) -> None:
        self.messages.append(message)
        self.sources.append(source)


def _result_message(call: str, name: str, text: str) -> Message:
    return {"role": "tool", "content": text, "tool_call_id": call, "name": name}


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
