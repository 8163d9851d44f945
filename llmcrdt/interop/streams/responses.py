"""Streams of OpenAI's Responses: items by their index, each whole when it is done; at the end the whole response."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ...document.canonical import JSON
from ...document.deltas import CallArguments, CallBegun, CallEnded, Delta, ReasoningDelta, TextDelta, UsageDelta
from ..hiding import type_of
from ..json_input import bad, object_at
from ..native import mapping
from .growing import Growing, put, settled
from .stream import ResponseStream

_CALLS = ("function_call", "custom_tool_call")
_ARGUMENTS = ("response.function_call_arguments.delta", "response.custom_tool_call_input.delta")
_ENDS = ("response.completed", "response.incomplete")
_TEXTS = {"output_text": "text", "refusal": "refusal", "summary_text": "text", "reasoning_text": "text"}
_LISTS = {
    "response.content_part.added": ("content", "content_index", ""),
    "response.output_text.delta": ("content", "content_index", "output_text"),
    "response.output_text.annotation.added": ("content", "content_index", "output_text"),
    "response.refusal.delta": ("content", "content_index", "refusal"),
    "response.reasoning_text.delta": ("content", "content_index", "reasoning_text"),
    "response.reasoning_summary_part.added": ("summary", "summary_index", ""),
    "response.reasoning_summary_text.delta": ("summary", "summary_index", "summary_text"),
}
"""By the event that grows it: the list of an item, the event's index into it, and the type of what stands there."""


class ResponsesStream(ResponseStream):
    """Reads the events of a response."""

    def __init__(self) -> None:
        super().__init__()
        self._whole: dict[str, JSON] | None = None
        self._items: dict[int, _Item] = {}
        self._calls = 0

    def event(self, event: Mapping[str, JSON]) -> Iterator[Delta]:
        kind = type_of(event)
        if kind == "error":
            told = event.get("error")
            yield from self.fail(told if told is not None else {k: v for k, v in event.items() if k != "type"})
        elif isinstance(event.get("response"), dict):
            yield from self._respond(kind, event["response"])
        elif kind == "response.output_item.added":
            yield from self._begin(_index(event), object_at(event.get("item"), "item"))
        elif kind == "response.output_item.done":
            index, item = _index(event), object_at(event.get("item"), "item")
            if index not in self._items:
                yield from self._begin(index, item)
            self._items[index].done = item
            if (call := self._items[index].call) is not None:
                yield CallEnded(call)
        elif kind in _LISTS or kind in _ARGUMENTS:
            yield from self._grow(kind, event)

    def response(self) -> dict[str, JSON] | None:
        if self._whole is None:
            return None
        values = [self._items[index].value() for index in sorted(self._items)]
        output = [value for value in values if value is not None]
        told = self._whole.get("output")
        if self.ended and (told or not output):
            return {**self._whole, "output": told or []}
        ended = {} if self.ended else {"status": "incomplete", "error": None}
        return {**self._whole, **ended, "output": output}

    def _respond(self, kind: str, response: Mapping[str, JSON]) -> Iterator[Delta]:
        if self._whole is None:
            self._whole = {}
        put(self._whole, response)
        self.name(response.get("model"))
        if isinstance(usage := response.get("usage"), dict):
            yield UsageDelta(usage)
        if kind == "response.failed" or response.get("error") is not None:
            yield from self.fail(response.get("error") or {"message": "The response failed."})
        elif kind in _ENDS:
            reason = mapping(response.get("incomplete_details")).get("reason")
            yield from self.end(reason or response.get("status"))

    def _begin(self, index: int, start: Mapping[str, JSON]) -> Iterator[Delta]:
        if index in self._items:
            raise bad("output_index", f"is {index}, which began before", "Pass each event once, in their order.")
        item = self._items[index] = _Item(start)
        if type_of(start) in _CALLS:
            item.call, self._calls = self._calls, self._calls + 1
            id_, name = start.get("call_id"), start.get("name")
            yield CallBegun(item.call, id_ if isinstance(id_, str) else "", name if isinstance(name, str) else "")

    def _grow(self, kind: str, event: Mapping[str, JSON]) -> Iterator[Delta]:
        if _index(event) not in self._items:
            raise bad("output_index", f"is {_index(event)}, and no item has begun there", "Pass every event.")
        item, delta = self._items[_index(event)], event.get("delta")
        text = delta if isinstance(delta, str) else ""
        if kind in _ARGUMENTS:
            if item.call is not None and text:
                yield CallArguments(item.call, text)
            return
        listed, index, type_ = _LISTS[kind]
        part = mapping(event.get("part")) or {"type": type_}
        piece = item.piece(listed, _index(event, index), part)
        if kind == "response.output_text.annotation.added":
            piece.setdefault("annotations", []).append(event.get("annotation"))
        elif text and isinstance(growing := piece.get(_TEXTS.get(type_, "text")), Growing):
            growing.add(text)
            if type_ == "output_text":
                yield TextDelta(text)
            elif type_ != "refusal":
                new = item.last not in (None, id(piece))  # pieces of reasoning are lines of one text
                item.last = id(piece)
                yield ReasoningDelta("\n" + text if new else text)


class _Item:
    """An item that grows. ``done``: as it is at the end. ``call``: its number among the calls. ``last``: the piece of
    reasoning that was shown last."""

    def __init__(self, start: Mapping[str, JSON]) -> None:
        self.start = start
        self.done: JSON = None
        self.call: int | None = None
        self.last: int | None = None
        self._lists: dict[str, dict[int, dict[str, JSON]]] = {}

    def piece(self, listed: str, index: int, part: Mapping[str, JSON]) -> dict[str, JSON]:
        """The piece at a place of a list; ``part``: it, where it begins."""
        pieces = self._lists.setdefault(listed, {})
        if index not in pieces:
            key = _TEXTS.get(type_of(part), "text")
            text = part.get(key)
            lists = {name: list(value) for name, value in part.items() if isinstance(value, list)}
            pieces[index] = {**part, **lists, key: Growing(text if isinstance(text, str) else "")}
        return pieces[index]

    def value(self) -> JSON:
        """The item; of one that is not done what people can read of it; else None."""
        kind = type_of(self.start)
        if self.done is not None or kind not in ("", "message", "reasoning"):
            return self.done
        lists = {key: _said(pieces) for key, pieces in self._lists.items()}
        if not any(lists.values()):
            return None
        if kind == "reasoning":
            return {"type": kind, "summary": [], **lists}  # neither id nor content: it does not go back
        return {**self.start, "status": "incomplete", **lists}


def _said(pieces: Mapping[int, dict[str, JSON]]) -> list[JSON]:
    listed = [settled(pieces[index]) for index in sorted(pieces)]
    return [piece for piece in listed if piece.get(_TEXTS.get(type_of(piece), "text"))]


def _index(event: Mapping[str, JSON], key: str = "output_index") -> int:
    index = event.get(key)
    if not isinstance(index, int) or isinstance(index, bool):
        raise bad(key, "is no number", "Pass the events as they came.")
    return index
