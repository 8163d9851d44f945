"""Streams of Anthropic's Messages: a message that starts, blocks that grow by their index, what changed at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ...document.canonical import JSON, exact_json
from ...document.deltas import CallArguments, CallBegun, CallEnded, Delta, ReasoningDelta, TextDelta, UsageDelta
from ..hiding import type_of
from ..json_input import bad, object_at
from ..native import mapping
from .growing import Growing, add, object_in, put, settled
from .stream import ResponseStream

_AT_THE_END = ("type", "delta", "usage")


class AnthropicStream(ResponseStream):
    """Reads the events of a message."""

    def __init__(self) -> None:
        super().__init__()
        self._message: dict[str, JSON] | None = None
        self._blocks: dict[int, _Block] = {}
        self._calls = 0

    def event(self, event: Mapping[str, JSON]) -> Iterator[Delta]:
        match event.get("type"):
            case "message_start":
                self._message = dict(object_at(event.get("message"), "message"))
                self.name(self._message.get("model"))
                yield from self._usage(self._message.get("usage"))
            case "content_block_start":
                yield from self._begin(_index(event), object_at(event.get("content_block"), "content_block"))
            case "content_block_delta":
                yield from self._grow(self._block(event), object_at(event.get("delta"), "delta"))
            case "content_block_stop":
                block = self._block(event)
                if block.close() and block.call is not None:
                    if block.start.get("input") and not block.input:
                        yield CallArguments(block.call, exact_json(block.start["input"]))
                    yield CallEnded(block.call)
                if type_of(block.start) == "compaction" and (text := _text(block.start.get("content"))):
                    yield TextDelta(text)
            case "message_delta":
                yield from self._change(event)
            case "message_stop":
                yield from self.end(self._started().get("stop_reason"))
            case "error":
                yield from self.fail(event.get("error"))

    def response(self) -> dict[str, JSON] | None:
        if self._message is None:
            return None
        blocks = [self._blocks[index].value() for index in sorted(self._blocks)]
        return {**settled(self._message), "content": [block for block in blocks if block is not None]}

    def _begin(self, index: int, start: Mapping[str, JSON]) -> Iterator[Delta]:
        message = self._started()
        if index in self._blocks:
            raise bad("index", f"is {index}, which began before", "Pass each event once, in the order they came in.")
        block = self._blocks[index] = _Block(dict(start))
        if type_of(start) == "tool_use":
            block.call, self._calls = self._calls, self._calls + 1
            yield CallBegun(block.call, _text(start.get("id")), _text(start.get("name")))
        elif type_of(start) == "fallback":
            self.name(mapping(start.get("to")).get("model"))
            message["model"] = self.model
        yield from _shown(type_of(start), start)

    def _grow(self, block: _Block, delta: Mapping[str, JSON]) -> Iterator[Delta]:
        members = {key: value for key, value in delta.items() if key != "type"}
        match delta.get("type"):
            case "input_json_delta":
                text = _text(members.get("partial_json"))
                block.input.add(text)
                if block.call is not None and text:
                    yield CallArguments(block.call, text)
            case "citations_delta":
                block.citations.append(members.get("citation"))
            case "signature_delta":
                put(block.start, {"signature": members.get("signature")})
            case "compaction_delta":
                put(block.start, members)
            case "text_delta" | "thinking_delta":
                kind = "text" if "text" in members else "thinking"
                add(block.start, {kind: members.get(kind)})
                yield from _shown(type_of(block.start), members)
            case _:
                add(block.start, members)

    def _change(self, event: Mapping[str, JSON]) -> Iterator[Delta]:
        message = self._started()
        changed = {key: value for key, value in event.items() if key not in _AT_THE_END}
        put(message, {**mapping(event.get("delta")), **changed})
        if isinstance(usage := event.get("usage"), dict):
            message["usage"] = dict(mapping(message.get("usage")))
            put(message["usage"], usage)
            yield from self._usage(message["usage"])
        if isinstance(message.get("stop_reason"), str):
            yield from self.end(message["stop_reason"])

    def _usage(self, usage: JSON) -> Iterator[Delta]:
        if isinstance(usage, dict):
            yield UsageDelta(dict(usage))

    def _started(self) -> dict[str, JSON]:
        if self._message is None:
            raise bad("message_start", "is missing", "Pass the events from the first one on.")
        return self._message

    def _block(self, event: Mapping[str, JSON]) -> _Block:
        if _index(event) not in self._blocks:
            raise bad("index", f"is {_index(event)}, and no block has begun there", "Pass every event, in their order.")
        return self._blocks[_index(event)]


class _Block:
    """A block that grows. ``start``: the block as it began, with what was added. ``input``: the text of what a tool is
    given. ``call``: its number among the calls of the app's tools."""

    def __init__(self, start: dict[str, JSON]) -> None:
        self.start = start
        self.input = Growing()
        self.citations: list[JSON] = []
        self.call: int | None = None
        self._whole = False

    def close(self) -> bool:
        """Nothing more comes; whether that makes a block. The arguments of a tool may have been cut short."""
        if self.input:
            made = object_in(str(self.input))
            if made is None:
                return False
            self.start["input"] = made
        self._whole = True
        return True

    def value(self) -> JSON:
        """The block; of one that is not whole its visible text; else None."""
        kind = type_of(self.start)
        block = settled(self.start)
        cited = block.get("citations")
        if isinstance(cited, list) or self.citations:
            block.pop("citations", None)
            cited = [*(cited or []), *self.citations]
            block |= {"citations": cited} if cited else {}  # an empty list at the beginning says nothing
        if self._whole:
            return block
        if kind not in ("text", "thinking") or not block.get(kind):
            return None
        block.pop("signature", None)
        return block


def _shown(kind: str, members: Mapping[str, JSON]) -> Iterator[Delta]:
    """The text of these members that people see."""
    text = members.get(kind) if kind in ("text", "thinking") else None
    if isinstance(text, str) and text:
        yield TextDelta(text) if kind == "text" else ReasoningDelta(text)


def _index(event: Mapping[str, JSON]) -> int:
    index = event.get("index")
    if not isinstance(index, int) or isinstance(index, bool):
        raise bad("index", "is no number", "Pass the events as they came.")
    return index


def _text(value: JSON) -> str:
    return value if isinstance(value, str) else ""
