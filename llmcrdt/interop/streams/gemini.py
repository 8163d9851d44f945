"""Streams of Google's generateContent: responses, each with more parts of the one content.

Texts of a kind go on; a part with a signature stays one of its own. A call comes whole, or in pieces of its arguments,
each with the path at which it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ...document.canonical import JSON, exact_json
from ...document.deltas import CallArguments, CallBegun, CallEnded, Delta, ReasoningDelta, TextDelta, UsageDelta
from ..json_input import MAX_DEPTH, bad, list_at, object_at
from ..native import mapping
from .growing import Growing, put, settled
from .stream import ResponseStream

_STEP = re.compile(r"""\.([^.\[\]'"]+)|\[(\d{1,9})\]|\['([^'\\]*)'\]|\["([^"\\]*)"\]""")
_VALUES = ("stringValue", "numberValue", "boolValue", "nullValue")


class GeminiStream(ResponseStream):
    """Reads responses, each with a part of the answer."""

    def __init__(self) -> None:
        super().__init__()
        self._head: dict[str, JSON] | None = None
        self._candidate: dict[str, JSON] | None = None
        self._content: dict[str, JSON] | None = None
        self._parts: list[dict[str, JSON]] = []
        self._growing: dict[str, JSON] | None = None  # the call that goes on
        self._in_pieces = False  # whether pieces of its arguments came
        self._calls = 0

    def event(self, event: Mapping[str, JSON]) -> Iterator[Delta]:
        if event.get("error") is not None:
            yield from self.fail(event["error"])
            return
        if not event.keys() & {"candidates", "usageMetadata", "promptFeedback"}:
            return
        if self._head is None:
            self._head = {}
        put(self._head, {key: value for key, value in event.items() if key != "candidates"})
        self.name(event.get("modelVersion"))
        if isinstance(usage := event.get("usageMetadata"), dict):
            yield UsageDelta(usage)
        for i, candidate in enumerate(list_at(event.get("candidates") or [], "candidates")):
            if object_at(candidate, f"candidates[{i}]").get("index", 0) != 0:
                raise bad(f"candidates[{i}].index", "is that of a second answer", "Ask for one answer a request.")
            yield from self._grow(candidate)

    def response(self) -> dict[str, JSON] | None:
        if self._head is None:
            return None
        if self._candidate is None:
            return dict(self._head)
        candidate = dict(self._candidate)
        if self._content is not None:
            parts = [part for part in self._parts if part is not self._growing]
            candidate["content"] = {**self._content, "parts": settled(parts)}
        return {**self._head, "candidates": [candidate]}

    def _grow(self, candidate: Mapping[str, JSON]) -> Iterator[Delta]:
        if self._candidate is None:
            self._candidate = {}
        put(self._candidate, {key: value for key, value in candidate.items() if key != "content"})
        if isinstance(content := candidate.get("content"), dict):
            if self._content is None:
                self._content = {}
            put(self._content, {key: value for key, value in content.items() if key != "parts"})
            for i, part in enumerate(list_at(content.get("parts") or [], "content.parts")):
                yield from self._add(dict(object_at(part, f"content.parts[{i}]")))
        if candidate.get("finishReason"):
            if not self._in_pieces:  # else it is half of one
                yield from self._end_call()
            yield from self.end(candidate["finishReason"])

    def _add(self, part: dict[str, JSON]) -> Iterator[Delta]:
        call = part.get("functionCall")
        if isinstance(call, dict) and (self._growing is not None or call.keys() & {"partialArgs", "willContinue"}):
            yield from self._grow_call(part, call)
        elif isinstance(call, dict):
            self._parts.append(part)
            yield from self._begin_call(call)
            if "args" in call:
                yield CallArguments(self._calls - 1, exact_json(call["args"]))
            yield CallEnded(self._calls - 1)
        elif isinstance(text := part.get("text"), str):
            last = self._parts[-1] if self._parts else {}
            plain = part.keys() <= {"text", "thought"}
            goes_on = plain and isinstance(last.get("text"), Growing) and last.get("thought") == part.get("thought")
            if goes_on:
                last["text"].add(text)
            elif text or not plain:
                self._parts.append({**part, "text": Growing(text)} if plain else part)
            if text:
                yield ReasoningDelta(text) if part.get("thought") is True else TextDelta(text)
        else:
            self._parts.append(part)

    def _begin_call(self, call: Mapping[str, JSON]) -> Iterator[Delta]:
        number, self._calls = self._calls, self._calls + 1
        id_, name = call.get("id"), call.get("name")
        yield CallBegun(
            number, id_ if isinstance(id_, str) else f"call-{number}", name if isinstance(name, str) else ""
        )

    def _grow_call(self, part: dict[str, JSON], call: Mapping[str, JSON]) -> Iterator[Delta]:
        told = {key: value for key, value in call.items() if key not in ("partialArgs", "willContinue")}
        if self._growing is None:
            args = settled(dict(mapping(call.get("args"))))
            self._growing = {**part, "functionCall": {**told, "args": args, "willContinue": True}}
            self._parts.append(self._growing)
            yield from self._begin_call(call)
        else:
            put(self._growing, {key: value for key, value in part.items() if key != "functionCall"})
        for piece in list_at(call.get("partialArgs") or [], "functionCall.partialArgs"):
            self._in_pieces = True
            _place(self._growing["functionCall"]["args"], object_at(piece, "partialArgs"))
        if call.get("willContinue") is not True:
            del self._growing["functionCall"]["willContinue"]
            yield from self._end_call()

    def _end_call(self) -> Iterator[Delta]:
        """The call that went on is whole."""
        if self._growing is not None:
            args = self._growing["functionCall"]["args"] = settled(self._growing["functionCall"]["args"])
            self._growing, self._in_pieces = None, False
            yield CallArguments(self._calls - 1, exact_json(args))
            yield CallEnded(self._calls - 1)


def _place(args: dict[str, JSON], piece: Mapping[str, JSON]) -> None:
    """Put a piece of the arguments where its path says; text goes on after the text that is there."""
    path = piece.get("jsonPath")
    steps = _steps(path) if isinstance(path, str) else []
    given = [key for key in _VALUES if key in piece]
    if not steps or not given:
        raise bad("partialArgs.jsonPath", f"is {str(path)[:60]!r}, or has no value", "Pass the events as they came.")
    value = None if given[0] == "nullValue" else piece[given[0]]
    target: JSON = args
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        old = _at(target, step)
        if following is not None:
            new: JSON = old if isinstance(old, (dict, list)) else [] if isinstance(following, int) else {}
        elif isinstance(value, str):
            new = old if isinstance(old, Growing) else Growing()
            new.add(value)
        else:
            new = value
        listed = isinstance(target, list) and isinstance(step, int) and step <= len(target)
        if not listed and not (isinstance(target, dict) and isinstance(step, str)):
            raise bad("partialArgs.jsonPath", f"is {str(path)[:60]!r}, which is nowhere", "Pass the events in order.")
        if listed and step == len(target):
            target.append(new)
        else:
            target[step] = new
        target = new


def _at(value: JSON, step: str | int) -> JSON:
    if isinstance(value, dict):
        return value.get(str(step))
    return value[step] if isinstance(value, list) and isinstance(step, int) and step < len(value) else None


def _steps(path: str) -> list[str | int]:
    """The keys and indexes of a JSON path; none where it is another kind of path."""
    found: list[str | int] = []
    at = 1
    while path.startswith("$") and at < len(path) and len(found) < MAX_DEPTH // 2:
        step = _STEP.match(path, at)
        if step is None:
            return []
        key, index, quoted, other = step.groups()
        found.append(int(index) if index is not None else next(k for k in (key, quoted, other) if k is not None))
        at = step.end()
    return found if at >= len(path) else []
