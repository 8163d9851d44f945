"""Streams of Google's Interactions: steps by their index that begin, grow and stop; what became of the whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ...document.canonical import JSON, exact_json
from ...document.deltas import CallArguments, CallBegun, CallEnded, Delta, ReasoningDelta, TextDelta, UsageDelta
from ..hiding import type_of
from ..json_input import bad, object_at
from ..native import mapping
from .growing import Growing, object_in, put, settled
from .stream import ResponseStream

_GAVE_UP = ("failed", "cancelled")
_MEDIA = ("image", "audio", "video", "document")


class InteractionsStream(ResponseStream):
    """Reads the events of an interaction."""

    def __init__(self) -> None:
        super().__init__()
        self._whole: dict[str, JSON] | None = None
        self._steps: dict[int, _Step] = {}
        self._calls = 0

    def event(self, event: Mapping[str, JSON]) -> Iterator[Delta]:
        match event.get("event_type"):
            case "interaction.created" | "interaction.completed" as kind:
                yield from self._respond(object_at(event.get("interaction"), "interaction"))
                status = mapping(self._whole).get("status")
                if kind == "interaction.completed" and status in _GAVE_UP:
                    yield from self.fail(mapping(self._whole).get("error") or {"message": f"The interaction {status}."})
                elif kind == "interaction.completed":
                    yield from self.end(status)
            case "interaction.status_update":
                told = {key: event[key] for key in ("status", "usage") if key in event}
                yield from self._respond(told)
            case "step.start":
                yield from self._begin(_index(event), object_at(event.get("step"), "step"))
            case "step.delta":
                step, delta = self._step(event), object_at(event.get("delta"), "delta")
                if step.call is not None and (text := _text(delta.get("arguments"))):
                    yield CallArguments(step.call, text)
                yield from step.grow(delta)
            case "step.stop":
                step = self._step(event)
                if step.close() and step.call is not None:
                    if given := step.given():
                        yield CallArguments(step.call, given)
                    yield CallEnded(step.call)
            case "error":
                yield from self.fail(event.get("error"))

    def response(self) -> dict[str, JSON] | None:
        if self._whole is None:
            return None
        steps = [self._steps[index].value() for index in sorted(self._steps)]
        made = [step for step in steps if step is not None]
        told = self._whole.get("steps")
        status = {} if self.ended else {"status": "incomplete"}
        return {**self._whole, **status, "steps": told if self.ended and told and not made else made}

    def _respond(self, interaction: Mapping[str, JSON]) -> Iterator[Delta]:
        if self._whole is None:
            self._whole = {}
        put(self._whole, interaction)
        self.name(interaction.get("model"))
        if isinstance(usage := interaction.get("usage"), dict):
            yield UsageDelta(usage)

    def _begin(self, index: int, start: Mapping[str, JSON]) -> Iterator[Delta]:
        if index in self._steps:
            raise bad("index", f"is {index}, which began before", "Pass each event once, in the order they came in.")
        step = self._steps[index] = _Step(start)
        if type_of(start) == "function_call":
            step.call, self._calls = self._calls, self._calls + 1
            yield CallBegun(step.call, _text(start.get("id")), _text(start.get("name")))
        yield from step.shown()

    def _step(self, event: Mapping[str, JSON]) -> _Step:
        if _index(event) not in self._steps:
            raise bad("index", f"is {_index(event)}, and no step has begun there", "Pass every event, in their order.")
        return self._steps[_index(event)]


class _Step:
    """A step that grows. ``call``: its number among the calls of the app's functions."""

    def __init__(self, start: Mapping[str, JSON]) -> None:
        self.call: int | None = None
        self._kind = type_of(start)
        self._start = dict(start)
        self._list = "summary" if self._kind == "thought" else "content"
        listed = start.get(self._list)
        self._contents: list[JSON] = (
            [settled(one) for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        )
        self._arguments = Growing()
        self._whole = False

    def shown(self) -> Iterator[Delta]:
        """The text with which it begins."""
        texts = [_text(content.get("text")) for content in self._contents if type_of(content) == "text"]
        if self._kind == "thought":
            yield from (ReasoningDelta(text) for text in ["\n".join(texts)] if text)
        elif self._kind == "model_output":
            yield from (TextDelta(text) for text in texts if text)

    def grow(self, delta: Mapping[str, JSON]) -> Iterator[Delta]:
        """Add what a delta brings."""
        kind = type_of(delta)
        members = {key: value for key, value in delta.items() if key != "type"}
        if kind == "text" and self._kind in ("model_output", "thought"):
            yield from self._say(members)
        elif kind == "thought_summary":
            said = mapping(members.get("content"))
            if type_of(said) in ("", "text"):
                yield from self._say({key: value for key, value in said.items() if key != "type"})
            else:
                self._contents.append(dict(said))
        elif kind == "text_annotation_delta":
            content, told = self._texts(), members.get("annotations")
            if isinstance(told, list):
                old = content.get("annotations")
                content["annotations"] = old if isinstance(old, list) else []
                content["annotations"] += told
        elif kind == "thought_signature":
            put(self._start, {"signature": members.get("signature")})
        elif kind == "arguments_delta":
            self._arguments.add(_text(members.get("arguments")))
        elif kind in _MEDIA:
            self._contents.append(dict(delta))
        else:
            put(self._start, members)

    def close(self) -> bool:
        """Nothing more comes; whether that makes a step. The arguments of a call may have been cut short."""
        if self._kind == "function_call":
            given = object_in(str(self._arguments)) if self._arguments else self._start.get("arguments", {})
            if given is None:
                return False
            self._start["arguments"] = given
        self._whole = True
        return True

    def given(self) -> str:
        """The arguments that no delta told of."""
        arguments = self._start.get("arguments")
        return "" if self._arguments or not arguments else exact_json(arguments)

    def value(self) -> JSON:
        """The step; of one that is not whole what people can see of it; else None."""
        contents = [settled(content) for content in self._contents]
        if self._whole:
            return {**self._start, **({self._list: contents} if contents else {})}
        shown = [content for content in contents if type_of(content) != "text" or content.get("text")]
        if self._kind not in ("model_output", "thought") or not shown:
            return None
        return {key: value for key, value in self._start.items() if key != "signature"} | {self._list: shown}

    def _say(self, members: Mapping[str, JSON]) -> Iterator[Delta]:
        before, text = len(self._contents), _text(members.get("text"))
        content = self._texts()
        content["text"].add(text)
        put(content, {key: value for key, value in members.items() if key != "text"})
        if text and self._kind == "thought":
            new = 0 < before < len(self._contents)  # contents of a thought are lines of one text
            yield ReasoningDelta("\n" + text if new else text)
        elif text:
            yield TextDelta(text)

    def _texts(self) -> dict[str, JSON]:
        """The text that goes on: the last content, or a new one."""
        if not self._contents or type_of(self._contents[-1]) != "text":
            self._contents.append({"type": "text", "text": Growing()})
        last: dict[str, JSON] = self._contents[-1]
        if not isinstance(last.get("text"), Growing):
            last["text"] = Growing(_text(last.get("text")))
        return last


def _index(event: Mapping[str, JSON]) -> int:
    index = event.get("index")
    if not isinstance(index, int) or isinstance(index, bool):
        raise bad("index", "is no number", "Pass the events as they came.")
    return index


def _text(value: JSON) -> str:
    return value if isinstance(value, str) else ""
