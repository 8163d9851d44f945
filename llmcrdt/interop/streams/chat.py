"""Streams of chat completions and of all that is written like them: chunks, each with a part of the one message.

Text goes on after the text of the same member. Calls grow by their index, or by their id where a server gives them
none, and so do the pieces of signed reasoning. A call is whole when the answer is, or when its arguments are an object.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ...document.canonical import JSON
from ...document.deltas import CallArguments, CallBegun, CallEnded, Delta, ReasoningDelta, TextDelta, UsageDelta
from ..json_input import bad, list_at, object_at
from ..native import mapping
from .growing import Growing, object_in, put, settled
from .stream import ResponseStream

_IN_CHUNKS = ("choices", "usage", "object", "obfuscation")
_WHOLE = ("role", "id", "type", "name", "format", "index", "expires_at")  # members that don't come in pieces
_SIGNED = ("reasoning_details", "thinking_blocks")
_REASONING = ("reasoning_content", "reasoning")


class ChatStream(ResponseStream):
    """Reads chunks. ``opaque``: the members of a message that hold a provider's own state."""

    def __init__(self, opaque: Sequence[str] = ()) -> None:
        super().__init__()
        self._opaque = opaque
        self._head: dict[str, JSON] | None = None
        self._choice: dict[str, JSON] = {"index": 0, "finish_reason": None}
        self._message: dict[str, JSON] = {}
        self._calls: list[_Call] = []
        self._call_at: dict[JSON, _Call] = {}  # by index, or by id
        self._signed: dict[str, _Signed] = {}
        self._last: set[str] = set()  # the members of the message that grew last
        self._reasoning = ""  # the member that is shown as reasoning

    def event(self, event: Mapping[str, JSON]) -> Iterator[Delta]:
        if event.get("error") is not None:
            yield from self.fail(event["error"])
            return
        if "choices" not in event:
            return
        if self._head is None:
            self._head = {"object": "chat.completion"}
        put(self._head, {key: value for key, value in event.items() if key not in _IN_CHUNKS})
        self.name(event.get("model"))
        for place, choice in enumerate(list_at(event["choices"], "choices")):
            path = f"choices[{place}]"
            if object_at(choice, path).get("index", 0) != 0:
                raise bad(f"{path}.index", "is that of a second answer", "Ask for one answer a request.")
            delta = choice.get("delta")
            yield from self._grow(object_at(delta, f"{path}.delta") if delta is not None else {}, f"{path}.delta")
            put(
                self._choice, {key: value for key, value in choice.items() if key not in ("delta", "logprobs", "index")}
            )
            _merge(self._choice, {"logprobs": choice.get("logprobs")})
            if choice.get("finish_reason"):
                yield from self._finish(choice["finish_reason"])
        if isinstance(usage := event.get("usage"), dict):
            self._head["usage"] = usage
            yield UsageDelta(usage)

    def response(self) -> dict[str, JSON] | None:
        if self._head is None:
            return None
        message = {key: settled(value) for key, value in self._message.items()}
        for key, signed in self._signed.items():
            items = signed.items if self.ended or key not in self._last else signed.items[:-1]
            message |= {key: settled(items)} if items or self.ended else {}
        calls = [call for call in self._calls if self.ended or call.is_whole()]
        if calls:
            message["tool_calls"] = [call.value() for call in calls]
        if not self.ended:
            for key in self._last & {*self._opaque} - self._signed.keys():
                message.pop(key, None)
            if object_in(mapping(message.get("function_call")).get("arguments", "")) is None:
                message.pop("function_call", None)
        return {**settled(self._head), "choices": [{**settled(self._choice), "message": message}]}

    def _grow(self, delta: Mapping[str, JSON], path: str) -> Iterator[Delta]:
        for key, value in delta.items():
            if key == "tool_calls" and value is not None:
                for i, call in enumerate(list_at(value, f"{path}.tool_calls")):
                    yield from self._grow_call(object_at(call, f"{path}.tool_calls[{i}]"))
            elif key in _SIGNED and isinstance(value, list):
                signed = self._signed.setdefault(key, _Signed())
                for i, item in enumerate(value):
                    signed.add(object_at(item, f"{path}.{key}[{i}]"))
            elif key != "tool_calls" or not self._calls:
                _merge(self._message, {key: value})
                yield from self._show(key, value)
        self._last = {key for key, value in delta.items() if value and key != "role"} or self._last

    def _show(self, key: str, value: JSON) -> Iterator[Delta]:
        if key == "content":
            items = value if isinstance(value, list) else [{"type": "text", "text": value}]
            texts = [item.get("text") for item in items if isinstance(item, dict) and item.get("type") == "text"]
            yield from (TextDelta(text) for text in texts if isinstance(text, str) and text)
        elif key in _REASONING and isinstance(value, str) and value:
            self._reasoning = self._reasoning or key
            if key == self._reasoning:
                yield ReasoningDelta(value)

    def _grow_call(self, delta: Mapping[str, JSON]) -> Iterator[Delta]:
        index, id_ = delta.get("index"), delta.get("id")
        named = id_ if isinstance(id_, str) else ""
        call = self._call_at.get(index) if isinstance(index, int) else self._calls[-1] if self._calls else None
        if call is not None and named and call.id not in ("", named):
            call = self._call_at.get(named)  # some servers number every call 0, or none
        if call is None:
            if self._calls and self._calls[-1].is_whole():
                yield from self._calls[-1].end()
            call = _Call(len(self._calls))
            self._calls.append(call)
            call.add(delta)
            yield CallBegun(call.number, call.id, call.name)
        else:
            call.add(delta)
        if isinstance(index, int):
            self._call_at[index] = call
        if call.id:
            self._call_at[call.id] = call
        text = call.words_of(delta)
        if text:
            yield CallArguments(call.number, text)

    def _finish(self, finish: JSON) -> Iterator[Delta]:
        if not self.ended:
            for call in self._calls:
                if finish != "length" or call.is_whole():  # else it may be half of one, as in an answer that came whole
                    yield from call.end()
        yield from self.end(finish)


class _Call:
    """A call that grows; ``number``: among the calls of the answer."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._value: dict[str, JSON] = {}
        self._ended = False

    @property
    def id(self) -> str:
        id_ = self._value.get("id")
        return id_ if isinstance(id_, str) else ""

    @property
    def name(self) -> str:
        name = mapping(self._value.get(self._kind)).get("name")
        return name if isinstance(name, str) else ""

    def add(self, delta: Mapping[str, JSON]) -> None:
        _merge(self._value, {key: value for key, value in delta.items() if key != "index"})

    def words_of(self, delta: Mapping[str, JSON]) -> str:
        """The text that a delta adds to the arguments."""
        text = mapping(delta.get(self._kind)).get("arguments" if self._kind == "function" else "input")
        return text if isinstance(text, str) else ""

    def is_whole(self) -> bool:
        """Whether nothing is missing, for sure."""
        arguments = mapping(self._value.get("function")).get("arguments")
        return self._kind == "function" and object_in(str(arguments or "")) is not None and bool(self.name)

    def end(self) -> Iterator[Delta]:
        """It is whole; told once."""
        if not self._ended:
            self._ended = True
            yield CallEnded(self.number)

    def value(self) -> JSON:
        made: JSON = settled(self._value)
        if isinstance(function := made.get("function"), dict):
            function.setdefault("arguments", "")
        return {"id": "", "type": self._kind, **{key: value for key, value in made.items() if value is not None}}

    @property
    def _kind(self) -> str:
        kind = self._value.get("type")
        if isinstance(kind, str) and kind:
            return kind
        return "custom" if "custom" in self._value else "function"


class _Signed:
    """The list of a message's signed or encrypted reasoning. An item goes on the one of its type and index, or the last
    one where there is no index and no signature has ended it."""

    def __init__(self) -> None:
        self.items: list[dict[str, JSON]] = []
        self._at: dict[tuple[str, int], dict[str, JSON]] = {}

    def add(self, item: Mapping[str, JSON]) -> None:
        kind, index = str(item.get("type")), item.get("index")
        if isinstance(index, int):
            old = self._at.get((kind, index))
        else:
            last = self.items[-1] if self.items else {}
            goes_on = last.get("type") == item.get("type") and not last.get("signature") and "index" not in last
            old = last if goes_on and not ("data" in item or "summary" in item) else None
        if old is None:
            old = {}
            self.items.append(old)
        if isinstance(index, int):
            self._at[kind, index] = old
        _merge(old, item)


def _merge(target: dict[str, JSON], delta: Mapping[str, JSON]) -> None:
    """Add what a delta brings: text goes on, objects are merged, lists are joined; all else is set."""
    for key, value in delta.items():
        old = target.get(key)
        if isinstance(value, dict):
            inner = old if isinstance(old, dict) else {}
            _merge(inner, value)
            target[key] = inner
        elif isinstance(value, str) and key not in _WHOLE:
            if isinstance(old, Growing):
                old.add(value)
            elif isinstance(old, list):
                old.append({"type": "text", "text": value})
            else:
                target[key] = Growing(value)
        elif isinstance(value, list):
            if isinstance(old, list):
                old += value
            else:
                target[key] = [
                    *([{"type": "text", "text": str(old)}] if isinstance(old, Growing) and old else []),
                    *value,
                ]
        elif (value is not None and value != "") or key not in target:
            target[key] = value
