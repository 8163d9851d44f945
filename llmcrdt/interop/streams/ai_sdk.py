"""Streams of the AI SDK (npm ``ai``): chunks that make one UIMessage, as its chats put them together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ...document.canonical import JSON, exact_json
from ...document.deltas import CallArguments, CallBegun, CallEnded, Delta, ReasoningDelta, TextDelta
from ..hiding import type_of
from ..json_input import bad
from .growing import Growing, put, settled
from .stream import ResponseStream

_TEXTS = ("text", "reasoning")
_PLAIN = ("file", "source-url", "source-document")
_OF_CALL = ("title", "toolMetadata", "providerExecuted")
_STATES = {
    "tool-input-start": "input-streaming",
    "tool-input-available": "input-available",
    "tool-input-error": "output-error",
    "tool-output-available": "output-available",
    "tool-output-error": "output-error",
    "tool-output-denied": "output-denied",
    "tool-approval-request": "approval-requested",
}


class UIMessageStream(ResponseStream):
    """Reads the chunks of a UIMessage."""

    def __init__(self) -> None:
        super().__init__()
        self._fields: dict[str, JSON] = {}
        self._begun = False
        self._parts: list[dict[str, JSON]] = []
        self._open: dict[tuple[str, str], dict[str, JSON]] = {}  # texts that grow, by type and id
        self._tools: dict[str, dict[str, JSON]] = {}  # the last part of each call
        self._data: dict[tuple[str, str], dict[str, JSON]] = {}
        self._calls: dict[str, int] = {}  # numbers of the calls that the app runs
        self._told: set[str] = set()  # calls whose arguments came in pieces

    def event(self, event: Mapping[str, JSON]) -> Iterator[Delta]:
        kind = type_of(event)
        text, _, step = kind.rpartition("-")
        match kind:
            case "start" | "finish" | "message-metadata":
                self._begun = True
                if isinstance(event.get("messageId"), str):
                    self._fields["id"] = event["messageId"]
                if event.get("messageMetadata") is not None:
                    old, new = self._fields.get("metadata"), event["messageMetadata"]
                    self._fields["metadata"] = _merged(old, new)
                if kind == "finish":
                    yield from self.end(event.get("finishReason"))
            case "start-step":
                self._parts.append({"type": "step-start"})
            case "finish-step":
                self._open.clear()
            case "error":
                yield from self.fail({"message": event.get("errorText")})
            case "tool-input-delta":
                yield from self._arguments(event)
            case _ if text in _TEXTS and step in ("start", "delta", "end"):
                yield from self._grow(text, step, event)
            case _ if kind in _PLAIN:
                self._parts.append({key: value for key, value in event.items() if value is not None})
            case _ if kind in _STATES:
                yield from self._tool(kind, event)
            case _ if kind.startswith("data-") and event.get("transient") is not True:
                self._put_data(kind, event)

    def response(self) -> dict[str, JSON] | None:
        if not self._begun and not self._parts:
            return None
        parts = [_part(part) for part in self._parts if self.ended or _is_kept(part)]
        return {**settled(self._fields), "role": "assistant", "parts": parts}

    def _grow(self, kind: str, step: str, event: Mapping[str, JSON]) -> Iterator[Delta]:
        key = (kind, _id(event, "id"))
        if step == "start":
            part: dict[str, JSON] = {"type": kind, "text": Growing(), "state": "streaming"}
            part |= {"id": event["id"]} if kind == "reasoning" else {}
            self._open[key] = part
            self._parts.append(part)
        elif key not in self._open:
            raise bad("id", f"is {key[1]!r}, and no {kind} has begun under it", "Pass every chunk, in their order.")
        part = self._open[key]
        if event.get("providerMetadata") is not None:
            part["providerMetadata"] = event["providerMetadata"]
        delta = event.get("delta")
        if step == "delta" and isinstance(delta, str) and delta:
            part["text"].add(delta)
            yield TextDelta(delta) if kind == "text" else ReasoningDelta(delta)
        elif step == "end":
            part["state"] = "done"
            del self._open[key]

    def _tool(self, kind: str, event: Mapping[str, JSON]) -> Iterator[Delta]:
        call, state = _id(event, "toolCallId"), _STATES[kind]
        part = self._tools.get(call)
        if part is None:
            name = event.get("toolName")
            if not kind.startswith("tool-input") or not isinstance(name, str):
                raise bad("toolCallId", f"is {call!r}, and no call has begun under it", "Pass every chunk.")
            dynamic = event.get("dynamic") is True
            kinds: dict[str, JSON] = {"type": "dynamic-tool", "toolName": name} if dynamic else {"type": f"tool-{name}"}
            part = self._tools[call] = {**kinds, "toolCallId": call}
            self._parts.append(part)
            if event.get("providerExecuted") is not True:
                self._calls[call] = len(self._calls)
                yield CallBegun(self._calls[call], call, name)
        part["state"] = state
        put(part, {key: event[key] for key in _OF_CALL if event.get(key) is not None})
        self._set(kind, part, event)
        if call in self._calls and kind == "tool-input-available":
            if call not in self._told and "input" in event:
                yield CallArguments(self._calls[call], exact_json(event["input"]))
            yield CallEnded(self._calls[call])

    def _set(self, kind: str, part: dict[str, JSON], event: Mapping[str, JSON]) -> None:
        """The members of a call's part that a chunk of this kind changes."""
        metadata = "resultProviderMetadata" if _STATES[kind].startswith("output") else "callProviderMetadata"
        if event.get("providerMetadata") is not None:
            part[metadata] = event["providerMetadata"]
        if kind in ("tool-input-available", "tool-input-error") and "input" in event:
            raw = kind == "tool-input-error" and part["type"] != "dynamic-tool"
            part["rawInput" if raw else "input"] = event["input"]
        for key in ("output", "errorText", "preliminary"):
            part.pop(key, None)
            if event.get(key) is not None or (key == "output" and key in event):
                part[key] = event[key]
        if kind == "tool-approval-request":
            names = {"approvalId": "id", "approvalDescriptor": "descriptor"}
            told = ("approvalId", "approvalDescriptor", "inputSchemaInput", "signature")
            part["approval"] = {names.get(key, key): event[key] for key in told if event.get(key) is not None}

    def _arguments(self, event: Mapping[str, JSON]) -> Iterator[Delta]:
        call, text = _id(event, "toolCallId"), event.get("inputTextDelta")
        if call not in self._tools:
            raise bad("toolCallId", f"is {call!r}, and no call has begun under it", "Pass every chunk.")
        if call in self._calls and isinstance(text, str) and text:
            self._told.add(call)
            yield CallArguments(self._calls[call], text)

    def _put_data(self, kind: str, event: Mapping[str, JSON]) -> None:
        id_ = event.get("id")
        old = self._data.get((kind, id_)) if isinstance(id_, str) else None
        if old is not None:
            old["data"] = event.get("data")
            return
        self._parts.append(dict(event))
        if isinstance(id_, str):
            self._data[kind, id_] = self._parts[-1]


def _is_kept(part: Mapping[str, JSON]) -> bool:
    """Whether a part of a message that is not whole may be kept."""
    if part["type"] in _TEXTS:
        return bool(part["text"]) or part["state"] == "done"
    return part.get("state") != "input-streaming"


def _part(part: Mapping[str, JSON]) -> JSON:
    """A part as a message has it; of a text that did not end without what the provider says of it."""
    if part["type"] in _TEXTS and part["state"] != "done":
        part = {key: value for key, value in part.items() if key != "providerMetadata"}
    return settled(dict(part))


def _merged(old: JSON, new: JSON) -> JSON:
    """Metadata with more of it; ``old`` changes."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return settled(new)
    for key, value in new.items():
        old[key] = _merged(old.get(key), value)
    return old


def _id(event: Mapping[str, JSON], key: str) -> str:
    id_ = event.get(key)
    if not isinstance(id_, str):
        raise bad(key, "is no text", "Pass the chunks as they came.")
    return id_
