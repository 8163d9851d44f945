"""Streams of Ollama's chat: a JSON text a line, each with more of the message; the last one says that it is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ...document.canonical import JSON, exact_json
from ...document.deltas import CallArguments, CallBegun, CallEnded, Delta, ReasoningDelta, TextDelta, UsageDelta
from ..json_input import list_at, object_at
from ..native import mapping
from .events import LineParser
from .growing import add, put, settled
from .stream import ResponseStream

_COUNTS = ("prompt_eval_count", "eval_count")


class OllamaStream(ResponseStream):
    """Reads the lines of an answer."""

    parser = LineParser

    def __init__(self) -> None:
        super().__init__()
        self._head: dict[str, JSON] = {}
        self._message: dict[str, JSON] | None = None
        self._calls: list[JSON] | None = None

    def event(self, event: Mapping[str, JSON]) -> Iterator[Delta]:
        if event.get("error") is not None:
            yield from self.fail(event["error"])
        elif "message" in event:
            put(self._head, {key: value for key, value in event.items() if key != "message"})
            self.name(event.get("model"))
            yield from self._grow(object_at(event["message"], "message"))
            if event.get("done") is True:
                yield UsageDelta({key: event[key] for key in _COUNTS if key in event})
                yield from self.end(event.get("done_reason"))

    def response(self) -> dict[str, JSON] | None:
        if self._message is None:
            return None
        calls = {} if self._calls is None else {"tool_calls": list(self._calls)}
        return {**self._head, "message": {**settled(self._message), **calls}}

    def _grow(self, message: Mapping[str, JSON]) -> Iterator[Delta]:
        if self._message is None:
            self._message = {}
        for key, value in message.items():
            if key in ("content", "thinking"):
                add(self._message, {key: value})
                if isinstance(value, str) and value:
                    yield TextDelta(value) if key == "content" else ReasoningDelta(value)
            elif key == "tool_calls" and value is not None:
                self._calls = [] if self._calls is None else self._calls
                for call in list_at(value, "message.tool_calls"):
                    self._calls.append(call)
                    yield from _call(len(self._calls) - 1, call)
            else:
                put(self._message, {key: value})


def _call(number: int, call: JSON) -> Iterator[Delta]:
    """A call, which comes whole."""
    function, id_ = mapping(mapping(call).get("function")), mapping(call).get("id")
    name = function.get("name")
    yield CallBegun(number, id_ if isinstance(id_, str) else f"call-{number}", name if isinstance(name, str) else "")
    if "arguments" in function:
        yield CallArguments(number, exact_json(function["arguments"]))
    yield CallEnded(number)
