"""``/v1/chat/completions``: a request of OpenAI's chat completions, and its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

from ...document.canonical import JSON
from ...document.deltas import CallArguments, CallBegun, ReasoningDelta, TextDelta
from ...document.entry import Entry
from ...generation.events import GenerationEvent
from ...generation.options import GenerationOptions
from ...providers.base import Provider
from .api import MAX_TEMPERATURE, Incoming, Logprobs, answer, schema_of, tokens_used
from .drafts import drafts_of, tools_of
from .errors import HttpError, bad_request
from .fields import Fields
from .forced import call_grammar
from .sse import event
from .turns import Asked, Turn, Turns

DONE = b"data: [DONE]\n\n"
_UNKNOWN = "Unrecognized request argument supplied: {}"
NO_LOGPROBS = "A model of a provider tells no log probabilities here."
_TEXTS = "This server has models of text alone."
_FINISH = {"length": "length", "end": "stop", "stop": "stop", "cancelled": "stop"}
_NOTHING_HERE = (
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "service_tier",
    "parallel_tool_calls",
    "reasoning_effort",
    "verbosity",
)
"""Members that are for the provider alone: they change nothing here, and are taken."""


async def create(incoming: Incoming, turns: Turns) -> Response:
    """Answer a request."""
    fields = incoming.fields
    model = fields.needed_text("model")
    turns.engine(model)
    messages = fields.list("messages")
    if not messages:
        raise bad_request("Invalid 'messages': empty array. Give one message at least.", "messages")
    drafts = drafts_of("openai-chat", {"messages": messages}, model, most=turns.limits.items)
    if not drafts:
        raise bad_request("No message says anything.", "messages")
    stream = fields.flag("stream")
    with_usage = _stream_options(fields, stream)
    store = fields.flag("store", True)
    tools = tools_of("openai-chat", fields.list("tools") or [])
    options = options_of(fields, turns, model, tools)
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
    )
    return await answer(incoming, turns, asked, lambda turn: ChatStream(turn, with_usage), completion_of, stream=stream)


def options_of(fields: Fields, turns: Turns, model: str, tools: Sequence[JSON]) -> GenerationOptions:
    """The settings that a request asks for. Raises HttpError for those that can't be followed."""
    fields.ignore(*_NOTHING_HERE)
    fields.only("n", (1,), "one answer is given to a request; send it again for another one.")
    fields.only("modalities", (["text"],), _TEXTS)
    for name in ("audio", "prediction", "web_search_options", "functions", "function_call"):
        if fields.has(name):
            raise bad_request(f"{name} is not supported here.", name, "unsupported_parameter")
    most = fields.whole("max_completion_tokens", 1) or fields.whole("max_tokens", 1) or turns.limits.tokens
    fields.ignore("max_tokens")
    logprobs, top = fields.flag("logprobs"), fields.whole("top_logprobs", 0, 20)
    if top is not None and not logprobs:
        raise bad_request("top_logprobs is given without logprobs.", "top_logprobs", "invalid_value")
    if logprobs and isinstance(turns.engine(model), Provider):
        raise bad_request(NO_LOGPROBS, "logprobs", "unsupported_parameter")
    choice, forced = tool_choice(fields, tools, turns.template(model))
    schema, grammar = schema_of(fields, "response_format") or "", fields.text("grammar") or ""
    if sum(map(bool, (schema, grammar, forced))) > 1:
        raise bad_request("Of response_format, grammar and a forced tool_choice one may be given.", "tool_choice")
    return GenerationOptions(
        max_tokens=min(most, turns.limits.tokens),
        temperature=fields.number("temperature", 0, MAX_TEMPERATURE),
        top_p=fields.number("top_p", 0, 1),
        top_k=fields.whole("top_k", -1),
        min_p=fields.number("min_p", 0, 1),
        repeat_penalty=fields.number("repeat_penalty", 0, 100),
        presence_penalty=fields.number("presence_penalty", -2, 2),
        frequency_penalty=fields.number("frequency_penalty", -2, 2),
        seed=fields.whole("seed", -(1 << 63), (1 << 64) - 1),
        stop=fields.texts("stop", 16),
        logit_bias=_logit_bias(fields),
        grammar=grammar or forced,
        json_schema=schema,
        top_logprobs=(top or 1) if logprobs else 0,
        tools=choice,
    )


def tool_choice(fields: Fields, tools: Sequence[JSON], template: str) -> tuple[Any, str]:
    """How the answer is read for calls, and the grammar that has a model with this chat template make one, if it is to.
    Raises HttpError for a choice that can't be enforced."""
    choice = fields.any("tool_choice")
    match choice:
        case None | "auto":
            return "auto", ""
        case "none":
            return "off", ""
        case "required":
            return "auto", call_grammar(template, tools, None)
        case {"type": "function", "function": {"name": str(name)}} | {"type": "function", "name": str(name)}:
            return "auto", call_grammar(template, tools, name)
    raise bad_request("tool_choice is auto, none, required or a function.", "tool_choice", "unsupported_value")


def _logit_bias(fields: Fields) -> Mapping[int, float] | None:
    given = fields.object("logit_bias")
    if given is None:
        return None
    bias: dict[int, float] = {}
    for token, value in given.items():
        usable = isinstance(value, (int, float)) and not isinstance(value, bool) and -100 <= value <= 100
        if not token.isdigit() or len(token) > 9 or not usable:
            raise bad_request("logit_bias maps token ids to numbers from -100 to 100.", "logit_bias", "invalid_value")
        bias[int(token)] = float(value)
    return bias


def _stream_options(fields: Fields, stream: bool) -> bool:
    """Whether the counts of tokens are streamed too."""
    given = fields.object("stream_options")
    if given is None:
        return False
    if not stream:
        raise bad_request("stream_options is given without stream.", "stream_options", "invalid_value")
    inner = Fields(given, "stream_options")
    inner.ignore("include_obfuscation")
    found = inner.flag("include_usage")
    inner.end(_UNKNOWN)
    return found


def completion_of(turn: Turn) -> JSON:
    """The whole answer."""
    entry = turn.sealed
    message: dict[str, JSON] = {"role": "assistant", "content": entry.text, "refusal": None, "annotations": []}
    if entry.reasoning:
        message["reasoning_content"] = entry.reasoning
    if entry.tool_calls:
        message["content"] = entry.text or None
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in entry.tool_calls
        ]
    logprobs = {"content": Logprobs(turn).rest(), "refusal": None} if turn.asked.options.top_logprobs else None
    choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": finish_of(turn, entry)}
    return {**_head(turn, "chat.completion"), "choices": [choice], "usage": usage_of(turn)}


def finish_of(turn: Turn, entry: Entry) -> str:
    """Why it ended, in the API's word."""
    found = _FINISH.get(turn.ended_by, "stop")
    return "tool_calls" if entry.tool_calls and found == "stop" else found


def usage_of(turn: Turn) -> dict[str, JSON]:
    """The tokens that were used."""
    prompt, cached, sampled = tokens_used(turn.stats)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": sampled,
        "total_tokens": prompt + sampled,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _head(turn: Turn, kind: str) -> dict[str, JSON]:
    id = f"chatcmpl-{turn.id}"
    return {"id": id, "object": kind, "created": int(turn.created_at), "model": turn.asked.model}


class ChatStream:
    """The chunks of an answer."""

    def __init__(self, turn: Turn, with_usage: bool) -> None:
        self._turn, self._with_usage, self._logprobs = turn, with_usage, Logprobs(turn)

    def begin(self) -> Sequence[bytes]:
        return [self._chunk({"role": "assistant", "content": "", "refusal": None})]

    def take(self, event: GenerationEvent) -> Sequence[bytes]:
        match event:
            case TextDelta(text):
                return [self._chunk({"content": text}, logprobs=self._logprobs.of(text))]
            case ReasoningDelta(text):
                return [self._chunk({"reasoning_content": text})]
            case CallBegun(index, id, name):
                function = {"name": name, "arguments": ""}
                return [self._call({"index": index, "id": id, "type": "function", "function": function})]
            case CallArguments(index, text):
                return [self._call({"index": index, "function": {"arguments": text}})]
        return []

    def end(self, entry: Entry) -> Sequence[bytes]:
        last = [self._chunk({}, finish_of(self._turn, entry), self._logprobs.rest())]
        if self._with_usage:
            last.append(event({**self._head(), "choices": [], "usage": usage_of(self._turn)}))
        return [*last, DONE]

    def fail(self, error: HttpError) -> Sequence[bytes]:
        return [event(error.openai())]

    def _head(self) -> dict[str, JSON]:
        return _head(self._turn, "chat.completion.chunk")

    def _call(self, call: dict[str, JSON]) -> bytes:
        return self._chunk({"tool_calls": [call]})

    def _chunk(self, delta: dict[str, JSON], finish: str | None = None, logprobs: Sequence[JSON] = ()) -> bytes:
        listed = {"content": list(logprobs), "refusal": None} if logprobs else None
        choice = {"index": 0, "delta": delta, "logprobs": listed, "finish_reason": finish}
        usage = {"usage": None} if self._with_usage else {}
        return event({**self._head(), "choices": [choice], **usage})
