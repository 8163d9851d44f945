"""``/v1/messages``: a request of Anthropic's Messages, and its answer; ``/v1/messages/count_tokens``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from ...document.canonical import JSON
from ...document.deltas import CallArguments, CallBegun, CallEnded, ReasoningDelta, TextDelta
from ...document.entry import Entry, Reasoning, Text, ToolCall
from ...exceptions import LLMCRDTError
from ...generation.events import GenerationEvent
from ...generation.options import GenerationOptions
from ...interop.format import Draft
from ...interop.turns import object_of
from ...prompt.token_log import prompt_ids
from ...providers.base import Provider
from .api import Incoming, answer, json_response, schema_of, tokens_used
from .drafts import drafts_of, tools_of
from .errors import HttpError, bad_request, error_of
from .fields import Fields
from .forced import call_grammar
from .sse import event
from .turns import Asked, Turn, Turns

_UNKNOWN = "{}: Extra inputs are not permitted"
_STOP = {"length": "max_tokens", "end": "end_turn", "stop": "stop_sequence", "cancelled": "end_turn"}
_NOTHING_HERE = ("service_tier", "inference_geo", "cache_control", "speed")
PING = event({"type": "ping"}, "ping")


async def create(incoming: Incoming, turns: Turns) -> Response:
    """Answer a request."""
    fields = incoming.fields
    model, drafts, tools = _list(fields, turns)
    most = fields.whole("max_tokens", 1)
    if most is None:
        raise bad_request("max_tokens: Field required", "max_tokens")
    stream, thinks = fields.flag("stream"), _thinks(fields)
    fields.ignore(*_NOTHING_HERE)
    choice, forced = _tool_choice(fields, tools, turns.template(model))
    schema = _schema(fields)
    if schema and forced:
        raise bad_request("tool_choice: a call can't be forced beside a format of the output", "tool_choice")
    options = GenerationOptions(
        max_tokens=min(most, turns.limits.tokens),
        temperature=fields.number("temperature", 0, 1),
        top_p=fields.number("top_p", 0, 1),
        top_k=fields.whole("top_k", 0),
        stop=fields.texts("stop_sequences", 16),
        json_schema=schema,
        grammar=forced,
        tools=choice,
    )
    store = fields.flag("store", True)
    conversation = incoming.conversation(fields.object("metadata"))
    fields.end(_UNKNOWN)
    asked = Asked(
        incoming.caller,
        model,
        drafts,
        tools,
        options,
        conversation=conversation,
        store=store,
        retry=incoming.retry,
        echo={"thinks": thinks},
    )
    return await answer(incoming, turns, asked, MessageStream, message_of, stream=stream, alive=PING)


async def count(incoming: Incoming, turns: Turns) -> Response:
    """Say how many tokens a request would have. Nothing of it is kept."""
    fields = incoming.fields
    model, drafts, tools = _list(fields, turns)
    fields.ignore("max_tokens", "thinking", "tool_choice", "output_config", "metadata", "stream", *_NOTHING_HERE)
    fields.end(_UNKNOWN)
    engine = turns.engine(model)
    if isinstance(engine, Provider):
        raise bad_request("model: only its provider can count its tokens", "model")
    tokenizer = engine.tokenizer

    def counted() -> int:
        placed = turns.scratch.place(incoming.caller, drafts, tools, ())
        try:
            entries = tuple(placed.branch)
            return len(prompt_ids(entries, tokenizer, created_at=placed.conversation.created_at).ids)
        finally:
            turns.scratch.drop(placed.conversation)

    try:
        return json_response({"input_tokens": await asyncio.to_thread(counted)})
    except LLMCRDTError as error:
        raise error_of(error) from None


def _list(fields: Fields, turns: Turns) -> tuple[str, Sequence[Draft], Sequence[JSON]]:
    """The model, the messages and the tools of a request."""
    model = fields.needed_text("model")
    turns.engine(model)
    messages, system = fields.list("messages"), fields.any("system")
    if not messages:
        raise bad_request("messages: at least one message is required", "messages")
    value = {"messages": messages, **({} if system is None else {"system": system})}
    drafts = drafts_of("anthropic", value, model, most=turns.limits.items)
    if not drafts or drafts[-1].role == "assistant":
        raise bad_request(
            "messages: a model here does not go on in the middle of an answer; the last message is the user's.",
            "messages",
        )
    return model, drafts, tools_of("anthropic", fields.list("tools") or [])


def _thinks(fields: Fields) -> bool:
    given = fields.object("thinking") or {}
    return given.get("type") in ("enabled", "adaptive")


def _schema(fields: Fields) -> JSON:
    config = fields.object("output_config")
    if config is None:
        return schema_of(fields, "output_format") or ""
    inner = Fields(config, "output_config")
    inner.ignore("effort")
    schema = schema_of(inner, "format")
    inner.end(_UNKNOWN)
    return schema or ""


def _tool_choice(fields: Fields, tools: Sequence[JSON], template: str) -> tuple[Any, str]:
    """How the answer is read for calls, and the grammar that has a model make one, if it is to."""
    match fields.object("tool_choice"):
        case None | {"type": "auto"}:
            return "auto", ""
        case {"type": "none"}:
            return "off", ""
        case {"type": "any"}:
            return "auto", call_grammar(template, tools, None)
        case {"type": "tool", "name": str(name)}:
            return "auto", call_grammar(template, tools, name)
    raise bad_request("tool_choice: its type is one of auto, any, tool, none", "tool_choice")


def message_of(turn: Turn) -> JSON:
    """The whole answer."""
    entry = turn.sealed
    content: list[JSON] = []
    for part in entry.parts:
        match part:
            case Reasoning(text) if turn.asked.echo["thinks"]:
                content.append({"type": "thinking", "thinking": text, "signature": ""})
            case Text(text) if text:
                content.append({"type": "text", "text": text})
            case ToolCall():
                inner = object_of(part.arguments)
                content.append({"type": "tool_use", "id": part.id, "name": part.name, "input": inner})
    reason, sequence = _stop_of(turn, entry)
    return {**_head(turn), "content": content, "stop_reason": reason, "stop_sequence": sequence, "usage": _usage(turn)}


def _head(turn: Turn) -> dict[str, JSON]:
    return {"id": f"msg_{turn.id}", "type": "message", "role": "assistant", "model": turn.asked.model}


def _stop_of(turn: Turn, entry: Entry) -> tuple[str, str | None]:
    """Why it ended, and the stop sequence that ended it, where only one can have."""
    reason, stops = _STOP.get(turn.ended_by, "end_turn"), turn.asked.options.stop
    if entry.tool_calls and reason == "end_turn":
        reason = "tool_use"
    return reason, stops[0] if reason == "stop_sequence" and len(stops) == 1 else None


def _usage(turn: Turn) -> dict[str, JSON]:
    """Tokens whose state was at hand are not among the input's, as the API counts them."""
    prompt, cached, sampled = tokens_used(turn.stats)
    read = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": cached}
    return {"input_tokens": prompt - cached, **read, "output_tokens": sampled}


class MessageStream:
    """The events of an answer: blocks, one after the other. The first one says how many tokens the prompt has, so it
    comes with the first words."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._begun = False
        self._block = -1
        self._open = ""

    def begin(self) -> Sequence[bytes]:
        return []

    def take(self, event: GenerationEvent) -> Sequence[bytes]:
        match event:
            case TextDelta(text):
                return self._grow("text", {"type": "text", "text": ""}, {"type": "text_delta", "text": text})
            case ReasoningDelta(text) if self._turn.asked.echo["thinks"]:
                block = {"type": "thinking", "thinking": "", "signature": ""}
                return self._grow("thinking", block, {"type": "thinking_delta", "thinking": text})
            case CallBegun(_, id, name):
                return self._new("tool_use", {"type": "tool_use", "id": id, "name": name, "input": {}})
            case CallArguments(_, text):
                return self._delta({"type": "input_json_delta", "partial_json": text})
            case CallEnded():
                return self._close()
        return []

    def end(self, entry: Entry) -> Sequence[bytes]:
        reason, sequence = _stop_of(self._turn, entry)
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        last = _event({"type": "message_delta", "delta": delta, "usage": _usage(self._turn)})
        return [*self._start(), *self._close(), last, _event({"type": "message_stop"})]

    def fail(self, error: HttpError) -> Sequence[bytes]:
        return [event(error.anthropic(), "error")]

    def _start(self) -> list[bytes]:
        if self._begun:
            return []
        self._begun = True
        usage = {**_usage(self._turn), "output_tokens": 0}
        message = {**_head(self._turn), "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
        return [_event({"type": "message_start", "message": message})]

    def _grow(self, kind: str, block: dict[str, JSON], delta: dict[str, JSON]) -> list[bytes]:
        new = [] if self._open == kind else self._new(kind, block)
        return [*new, *self._delta(delta)]

    def _new(self, kind: str, block: dict[str, JSON]) -> list[bytes]:
        before = [*self._start(), *self._close()]
        self._block, self._open = self._block + 1, kind
        return [*before, _event({"type": "content_block_start", "index": self._block, "content_block": block})]

    def _delta(self, delta: dict[str, JSON]) -> list[bytes]:
        return [_event({"type": "content_block_delta", "index": self._block, "delta": delta})]

    def _close(self) -> list[bytes]:
        if not self._open:
            return []
        self._open = ""
        return [_event({"type": "content_block_stop", "index": self._block})]


def _event(data: dict[str, JSON]) -> bytes:
    return event(data, data["type"])
