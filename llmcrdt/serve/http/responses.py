"""``/v1/responses``: OpenAI's Responses. A response is an entry: its id names the conversation and the entry, so any
server of the library knows it, at any time after.

============  ==========================================================================
the entry     the response
============  ==========================================================================
streaming     in_progress
complete      completed; incomplete, where its tokens ran out
stopped       cancelled
failed        failed
erased        there is none
============  ==========================================================================
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ...document.canonical import JSON
from ...document.conversation import Conversation
from ...document.deltas import CallArguments, CallBegun, CallEnded, ReasoningDelta, TextDelta
from ...document.entry import Entry, Reasoning, Text, ToolCall, visible_text
from ...generation.events import GenerationEvent
from ...generation.options import GenerationOptions
from ...ids import DocumentId, EntryId, is_document_id, is_entry_id
from ...providers.base import Provider
from .api import CONVERSATION, MAX_TEMPERATURE, Incoming, Logprobs, json_response, schema_of, tokens_used
from .api import answer as answered
from .chat import NO_LOGPROBS, tool_choice
from .drafts import drafts_of, tools_of
from .errors import HttpError, bad_request
from .fields import Fields
from .keys import Caller
from .sse import EventStream, event
from .turns import LIMITED, Asked, Turn, Turns

_UNKNOWN = "Unknown parameter: '{}'."
_ALIVE = b": waiting\n\n"
_NOTHING_HERE = (
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "service_tier",
    "parallel_tool_calls",
    "reasoning",
    "max_tool_calls",
    "stream_options",
)
_INCLUDED = ("reasoning.encrypted_content", "message.output_text.logprobs")


async def create(incoming: Incoming, turns: Turns) -> Response:
    """Answer a request."""
    asked, stream = _asked(await _with_references(incoming, turns), turns)
    if not asked.background:
        return await answered(incoming, turns, asked, ResponseStream, response_of, stream=stream)
    turn = await turns.start(asked, ResponseStream)
    headers = {CONVERSATION.lower(): turn.conversation.id}
    if stream:
        return EventStream(turn.feed.follow(0, turns.limits.silence, _ALIVE), turn.leave, headers)
    turn.leave()
    return json_response(response_of(turn), headers=headers)


def _asked(incoming: Incoming, turns: Turns) -> tuple[Asked, bool]:
    fields = incoming.fields
    model = fields.needed_text("model")
    turns.engine(model)
    instructions, given = fields.text("instructions"), fields.any("input")
    previous, conversation = fields.text("previous_response_id"), _conversation(fields)
    if previous is not None and conversation is not None:
        raise bad_request("Give previous_response_id or conversation.", "previous_response_id", "mutually_exclusive")
    if given in (None, "", []) and previous is None and conversation is None:
        raise bad_request("One of 'input' or 'previous_response_id' has to be there.", "input")
    value: dict[str, JSON] = {"input": given if given is not None else []}
    stand_ins = _calls_elsewhere(given) if previous is not None or conversation is not None else []
    if stand_ins:
        value["input"] = [*stand_ins, *given]
    if instructions:
        value["instructions"] = instructions
    drafts = drafts_of("openai-responses", value, model, most=turns.limits.items)
    if stand_ins:
        first = 1 if instructions else 0
        drafts = [*drafts[:first], *drafts[first + 2 :]]
    metadata = fields.object("metadata") or {}
    named = incoming.conversation(metadata)
    store, background, stream = fields.flag("store", True), fields.flag("background"), fields.flag("stream")
    if background and not store:
        raise bad_request("A response in the background has to be stored.", "background", "unsupported_value")
    tools = tools_of("openai-responses", fields.list("tools") or [])
    options, echo = _options(fields, turns, model, tools)
    echo |= {"instructions": instructions, "metadata": metadata, "previous_response_id": previous}
    echo["conversation"] = {"id": f"conv_{conversation}"} if conversation else None
    echo["tools"] = incoming.body.get("tools") or []
    fields.end(_UNKNOWN)
    asked = Asked(
        incoming.caller,
        model,
        drafts,
        tools,
        options,
        conversation=conversation or named,
        after=ids_of(previous) if previous is not None else None,
        at_the_end=conversation is not None,
        store=store,
        background=background,
        retry=incoming.retry,
        echo=echo,
    )
    return asked, stream


def _options(
    fields: Fields, turns: Turns, model: str, tools: Sequence[JSON]
) -> tuple[GenerationOptions, dict[str, JSON]]:
    """The settings that a request asks for, and as the response tells them."""
    fields.ignore(*_NOTHING_HERE)
    fields.only("truncation", ("disabled",), "a conversation that is too long is refused, and not cut.")
    if fields.has("prompt"):
        raise bad_request("Prompt templates are not kept here.", "prompt", "unsupported_parameter")
    include = fields.texts("include", 16)
    for each in include:
        if each not in _INCLUDED:
            raise bad_request(f"Nothing is there to include for {each[:80]!r}.", "include", "unsupported_value")
    most, top = fields.whole("max_output_tokens", 1), fields.whole("top_logprobs", 0, 20)
    text = Fields(fields.object("text") or {}, "text")
    text.ignore("verbosity")
    schema = schema_of(text, "format")
    text.end(_UNKNOWN)
    if "message.output_text.logprobs" in include and isinstance(turns.engine(model), Provider):
        raise bad_request(NO_LOGPROBS, "include", "unsupported_parameter")
    choice, forced = tool_choice(fields, tools, turns.template(model))
    if schema and forced:
        raise bad_request("A call can't be forced beside a format of the text.", "tool_choice")
    options = GenerationOptions(
        max_tokens=min(most or turns.limits.tokens, turns.limits.tokens),
        temperature=fields.number("temperature", 0, MAX_TEMPERATURE),
        top_p=fields.number("top_p", 0, 1),
        json_schema=schema or "",
        grammar=forced,
        top_logprobs=(top or 1) if "message.output_text.logprobs" in include else 0,
        tools=choice,
    )
    form = {"type": "json_schema", "name": "answer", "schema": schema} if schema else {"type": "text"}
    return options, {
        "max_output_tokens": most,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "tool_choice": "none" if choice == "off" else "required" if forced else "auto",
        "text": {"format": form},
    }


async def _with_references(incoming: Incoming, turns: Turns) -> Incoming:
    """The request with the items in the places of references to them. Raises HttpError."""
    given = incoming.body.get("input") if isinstance(incoming.body, dict) else None
    if not isinstance(given, list) or not any(_is_reference(item) for item in given):
        return incoming

    def resolved() -> list[JSON]:
        return [_item(incoming.caller, item, turns) if _is_reference(item) else item for item in given]

    return replace(incoming, body={**incoming.body, "input": await asyncio.to_thread(resolved)})


def _is_reference(item: JSON) -> bool:
    return isinstance(item, dict) and item.get("type") == "item_reference"


def _item(caller: Caller, reference: Mapping[str, JSON], turns: Turns) -> JSON:
    """The item that a reference names."""
    id = reference.get("id")
    missing = HttpError(404, f"Item with id '{str(id)[:120]}' not found.", code="item_not_found", param="input")
    _, _, rest = id.partition("_") if isinstance(id, str) else ("", "", "")
    document, _, rest = rest.partition("_")
    entry, _, _ = rest.rpartition("_")
    if not is_document_id(document) or not is_entry_id(entry):
        raise missing
    try:
        conversation = turns.placer.conversation(caller, document)
        items = items_of(conversation.id, conversation.entry(EntryId(entry)))
    except (HttpError, KeyError):
        raise missing from None
    found = next((item for item in items if item["id"] == id), None)
    if found is None:
        raise missing
    return found


def _calls_elsewhere(given: JSON) -> list[JSON]:
    """Stand-ins for the calls whose outputs are in an input, and that stand where it goes on from; a message after them
    keeps them apart from what follows."""
    items = [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []
    made = {item.get("call_id") for item in items if not str(item.get("type")).endswith("_output")}
    ids = [item.get("call_id") for item in items if str(item.get("type")).endswith("_output")]
    missing = dict.fromkeys(id for id in ids if isinstance(id, str) and id not in made)
    calls: list[JSON] = [{"type": "function_call", "call_id": id, "name": "-", "arguments": "{}"} for id in missing]
    return [*calls, {"role": "user", "content": "-"}] if calls else []


def _conversation(fields: Fields) -> str | None:
    given = fields.any("conversation")
    id = given.get("id") if isinstance(given, dict) else given
    if id is None:
        return None
    if not isinstance(id, str):
        raise bad_request("conversation is an id, or an object with one.", "conversation", "invalid_value")
    return id.removeprefix("conv_")


def ids_of(response: str) -> tuple[DocumentId, EntryId]:
    """The conversation and the entry that a response's id names. Raises HttpError."""
    prefix, _, rest = response.partition("_")
    conversation, _, entry = rest.partition("_")
    if prefix != "resp" or not is_document_id(conversation) or not is_entry_id(entry):
        raise _missing(response)
    return DocumentId(conversation), EntryId(entry)


def _missing(id: str) -> HttpError:
    return HttpError(404, f"Response with id '{id[:120]}' not found.", code="response_not_found")


def _id(conversation: str, entry: str) -> str:
    return f"resp_{conversation}_{entry}"


# responses by their id


def _found(id: str, caller: Caller, turns: Turns) -> tuple[Conversation, Entry, Turn | None]:
    """The entry that an id names, and its turn where that is known here. Raises HttpError."""
    document, name = ids_of(id)
    try:
        conversation = turns.placer.conversation(caller, document)
        entry = conversation.entry(name)
    except (HttpError, KeyError):
        raise _missing(id) from None
    if entry.frame is None or entry.status == "erased":
        raise _missing(id)
    turn = turns.find(document, name)
    if turn is None and entry.status == "streaming" and time.time() - entry.created_at > turns.limits.seconds:
        entry = conversation.seal(entry)  # no server writes for so long: this one ended in the middle
    return conversation, entry, turn


async def get(request: Request, caller: Caller, turns: Turns) -> Response:
    """A response; as a stream, from ``starting_after`` on, where the query says so."""
    id, query = request.path_params["id"], request.query_params
    conversation, entry, turn = await asyncio.to_thread(_found, id, caller, turns)
    if query.get("stream") not in ("true", "1"):
        found = response_of(turn) if turn is not None else await asyncio.to_thread(_told, conversation, entry)
        return json_response(found)
    after = query.get("starting_after", "-1")
    if not after.removeprefix("-").isdigit() or len(after) > 9:
        raise bad_request("starting_after is a number.", "starting_after", "invalid_value")
    first = max(0, int(after) + 1)
    if turn is not None:
        turn.enter()
        return EventStream(turn.feed.follow(first, turns.limits.silence, _ALIVE), turn.leave, {})
    told = await asyncio.to_thread(_told, conversation, entry)
    return EventStream(_each(_retold(conversation.id, told, entry)[first:]), lambda: None, {})


async def cancel(request: Request, caller: Caller, turns: Turns) -> Response:
    """Stop a response, wherever it is written; one that is over stays as it is."""
    conversation, entry, turn = await asyncio.to_thread(_found, request.path_params["id"], caller, turns)
    if turn is not None:
        if not turn.asked.background:
            raise bad_request("Only a response in the background can be cancelled.", "id", "not_background")
        turn.cancel()
        await turn.feed.wait()
        return json_response(response_of(turn))
    if entry.status == "streaming":
        await asyncio.to_thread(conversation.stop, entry)
    return json_response(await asyncio.to_thread(_told, conversation, entry))


async def delete(request: Request, caller: Caller, turns: Turns) -> Response:
    """Erase the words of a response, on every device, for good."""
    id = request.path_params["id"]
    conversation, entry, turn = await asyncio.to_thread(_found, id, caller, turns)
    if turn is not None and not turn.feed.ended:
        turn.cancel()
        await turn.feed.wait()
    await asyncio.to_thread(conversation.erase, entry)
    return json_response({"id": id, "object": "response", "deleted": True})


async def input_items(request: Request, caller: Caller, turns: Turns) -> Response:
    """The list that a response was computed on, the youngest first, as the API has it."""
    conversation, entry, _ = await asyncio.to_thread(_found, request.path_params["id"], caller, turns)
    listed = await asyncio.to_thread(conversation.frame_entries, entry)
    return json_response(page_of(request, [item for each in listed for item in items_of(conversation.id, each)]))


def page_of(request: Request, items: Sequence[Mapping[str, JSON]]) -> JSON:
    """A page of items, as the query wants it. Raises HttpError."""
    query = request.query_params
    limit, order = query.get("limit", "20"), query.get("order", "desc")
    if not limit.isdigit() or not 1 <= int(limit) <= 100 or order not in ("asc", "desc"):
        raise bad_request("limit is a number from 1 to 100, order is asc or desc.", "limit", "invalid_value")
    listed = list(items) if order == "asc" else list(reversed(items))
    after = query.get("after")
    if after is not None:
        at = next((i for i, item in enumerate(listed) if item["id"] == after), None)
        if at is None:
            raise bad_request(f"There is no item {after[:80]!r}.", "after", "invalid_value")
        listed = listed[at + 1 :]
    page = listed[: int(limit)]
    first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    return {"object": "list", "data": page, "first_id": first, "last_id": last, "has_more": len(page) < len(listed)}


# as JSON


def items_of(conversation: str, entry: Entry) -> list[dict[str, JSON]]:
    """The items that an entry of a conversation is. The id of an item names both, and its number."""
    if entry.status == "erased" or not entry.sealed:
        return []
    if entry.role == "assistant":
        return output_of(conversation, entry, "completed")
    if entry.role == "tool":
        call = entry.answers[1] if entry.answers else ""
        item = {"type": "function_call_output", "call_id": call, "output": entry.text, "status": "completed"}
        return [{"id": f"fco_{conversation}_{entry.id}_0", **item}]
    if entry.role == "system" and not visible_text(entry.parts):
        return []
    content = [{"type": "input_text", "text": entry.text}]
    message = {"type": "message", "role": entry.role, "status": "completed", "content": content}
    return [{"id": f"msg_{conversation}_{entry.id}_0", **message}]


def output_of(conversation: str, entry: Entry, status: str, logprobs: Sequence[JSON] = ()) -> list[dict[str, JSON]]:
    """The items of an answer."""
    items: list[dict[str, JSON]] = []
    for part in entry.parts:
        name, item = f"{conversation}_{entry.id}_{len(items)}", None
        match part:
            case Reasoning(text):
                item = _reasoning(name, text, status)
            case Text(text):
                item = _message(name, text, status, logprobs)
            case ToolCall():
                item = _call(name, part.id, part.name, part.arguments, status)
        if item is not None:
            items.append(item)
    return items


def _message(name: str, text: str | None, status: str, logprobs: Sequence[JSON] = ()) -> dict[str, JSON]:
    content = [] if text is None else [_text(text, logprobs)]
    return {"id": f"msg_{name}", "type": "message", "role": "assistant", "status": status, "content": content}


def _text(text: str, logprobs: Sequence[JSON] = ()) -> dict[str, JSON]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(logprobs)}


def _reasoning(name: str, text: str | None, status: str) -> dict[str, JSON]:
    content = [] if text is None else [{"type": "reasoning_text", "text": text}]
    return {"id": f"rs_{name}", "type": "reasoning", "summary": [], "content": content, "status": status}


def _call(name: str, id: str, tool: str, arguments: str, status: str) -> dict[str, JSON]:
    call = {"call_id": id, "name": tool, "arguments": arguments, "status": status}
    return {"id": f"fc_{name}", "type": "function_call", **call}


def _usage(prompt: int, cached: int, sampled: int) -> dict[str, JSON]:
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": sampled,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + sampled,
    }


def _whole(id: str, created_at: float, model: str, status: str, **more: Any) -> dict[str, JSON]:
    """A response."""
    return {
        "id": id,
        "object": "response",
        "created_at": int(created_at),
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "model": model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": True,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "truncation": "disabled",
        "usage": None,
        **more,
    }


def response_of(turn: Turn) -> dict[str, JSON]:
    """The response that a turn is by now. Raises the turn's HttpError, unless it is in the background."""
    asked, entry = turn.asked, turn.entry
    if turn.error is not None and not asked.background:
        raise turn.error
    more: dict[str, JSON] = {"background": asked.background, "store": asked.store, **asked.echo}
    status = "in_progress"
    if turn.error is not None:
        status = "failed"
        more["error"] = {"code": turn.error.code or "server_error", "message": turn.error.message}
    elif entry is not None:
        status, details = _ended(entry, turn.stats.get("finish", ""))
        more["incomplete_details"], more["usage"] = details, _usage(*tokens_used(turn.stats))
        done = "completed" if status == "completed" else "incomplete"
        more["output"] = output_of(turn.conversation.id, entry, done, Logprobs(turn).rest())
    return _whole(_id(turn.conversation.id, turn.id), turn.created_at, asked.model, status, **more)


def _told(conversation: Conversation, entry: Entry) -> dict[str, JSON]:
    """The response that an entry is, by what the document says."""
    usage, more = entry.usage, dict[str, JSON]()
    status = "in_progress"
    if entry.sealed:
        status, more["incomplete_details"] = _ended(entry, str(usage.get("finish", "")))
        done = "completed" if status == "completed" else "incomplete"
        more["output"] = output_of(conversation.id, entry, done)
        counts = (usage.get(name) for name in ("prompt_tokens", "sampled_tokens"))
        prompt, sampled = (count if isinstance(count, int) else 0 for count in counts)
        more["usage"] = _usage(prompt, 0, sampled)
        if status == "failed":
            more["error"] = {"code": "server_error", "message": "The answer failed."}
    if entry.frame is not None and entry.frame.base is not None:
        more["previous_response_id"] = _id(conversation.id, entry.frame.base[0])
    name = entry.model.get("name")
    model = name if isinstance(name, str) else entry.author
    return _whole(_id(conversation.id, entry.id), entry.created_at, model, status, **more)


def _ended(entry: Entry, finish: str) -> tuple[str, JSON]:
    """The status of a response that is over, and what is incomplete about it."""
    if entry.status == "complete":
        return ("incomplete", {"reason": "max_output_tokens"}) if finish in LIMITED else ("completed", None)
    return ("cancelled" if entry.status == "stopped" else "failed"), None


# as events


class _Events:
    """Numbers the events of a response, and puts its items together."""

    def __init__(self, conversation: str, entry: str) -> None:
        self._entry, self._number, self._index = f"{conversation}_{entry}", 0, -1
        self._kind, self._said, self._tool = "", "", ("", "")

    def event(self, kind: str, **more: JSON) -> bytes:
        data = {"type": kind, "sequence_number": self._number, **more}
        self._number += 1
        return event(data, kind)

    def grow(self, kind: str, text: str, logprobs: Sequence[JSON] = ()) -> list[bytes]:
        """More text of an item; of a new one, where the last was of another kind."""
        new = [] if self._kind == kind else self._begin(kind)
        self._said += text
        deltas = {"message": "output_text", "reasoning": "reasoning_text"}
        more: dict[str, JSON] = {"logprobs": list(logprobs)} if kind == "message" else {}
        at = {**self._at(), "content_index": 0}
        return [*new, self.event(f"response.{deltas[kind]}.delta", **at, delta=text, **more)]

    def begin_call(self, id: str, name: str) -> list[bytes]:
        return self._begin("call", (id, name))

    def arguments(self, text: str) -> list[bytes]:
        self._said += text
        return [self.event("response.function_call_arguments.delta", **self._at(), delta=text)]

    def close(self, status: str = "completed", logprobs: Sequence[JSON] = ()) -> list[bytes]:
        """The end of the item that is open, if one is."""
        kind, text, done = self._kind, self._said, list[bytes]()
        if not kind:
            return []
        at = self._at()
        if kind == "message":
            inner = {**at, "content_index": 0}
            done.append(self.event("response.output_text.done", **inner, text=text, logprobs=list(logprobs)))
            done.append(self.event("response.content_part.done", **inner, part=_text(text, logprobs)))
        elif kind == "reasoning":
            done.append(self.event("response.reasoning_text.done", **at, content_index=0, text=text))
        else:
            done.append(self.event("response.function_call_arguments.done", **at, arguments=text, name=self._tool[1]))
        item = self._item(text, status, logprobs)
        done.append(self.event("response.output_item.done", output_index=self._index, item=item))
        self._kind = ""
        return done

    def _begin(self, kind: str, tool: tuple[str, str] = ("", "")) -> list[bytes]:
        events = self.close()
        self._index, self._kind, self._said, self._tool = self._index + 1, kind, "", tool
        item = self._item(None, "in_progress")
        events.append(self.event("response.output_item.added", output_index=self._index, item=item))
        if kind == "message":
            at = {**self._at(), "content_index": 0}
            events.append(self.event("response.content_part.added", **at, part=_text("")))
        return events

    def _at(self) -> dict[str, JSON]:
        return {"item_id": self._item(None, "")["id"], "output_index": self._index}

    def _item(self, text: str | None, status: str, logprobs: Sequence[JSON] = ()) -> dict[str, JSON]:
        name = f"{self._entry}_{self._index}"
        if self._kind == "message":
            return _message(name, text, status, logprobs)
        if self._kind == "reasoning":
            return _reasoning(name, text, status)
        return _call(name, *self._tool, text or "", status)


class ResponseStream:
    """The events of an answer."""

    def __init__(self, turn: Turn) -> None:
        self._turn, self._events, self._logprobs = turn, _Events(turn.conversation.id, turn.id), Logprobs(turn)

    def begin(self) -> Sequence[bytes]:
        response = response_of(self._turn)
        kinds = ("response.created", "response.in_progress")
        return [self._events.event(kind, response=response) for kind in kinds]

    def take(self, event: GenerationEvent) -> Sequence[bytes]:
        match event:
            case TextDelta(text):
                return self._events.grow("message", text, self._logprobs.of(text))
            case ReasoningDelta(text):
                return self._events.grow("reasoning", text)
            case CallBegun(_, id, name):
                return self._events.begin_call(id, name)
            case CallArguments(_, text):
                return self._events.arguments(text)
            case CallEnded():
                return self._events.close()
        return []

    def end(self, entry: Entry) -> Sequence[bytes]:
        response = response_of(self._turn)
        status = "completed" if response["status"] == "completed" else "incomplete"
        done = self._events.close(status, Logprobs(self._turn).rest())
        return [*done, self._events.event(_last(response), response=response)]

    def fail(self, error: HttpError) -> Sequence[bytes]:
        said = {"code": error.code or "server_error", "message": error.message}
        response = _whole(
            _id(self._turn.conversation.id, self._turn.id),
            self._turn.created_at,
            self._turn.asked.model,
            "failed",
            **{**self._turn.asked.echo, "error": said},
        )
        return [*self._events.close("incomplete"), self._events.event("response.failed", response=response)]


def _last(response: Mapping[str, JSON]) -> str:
    status = response["status"]
    return f"response.{status}" if status in ("completed", "failed") else "response.incomplete"


def _retold(conversation: str, response: dict[str, JSON], entry: Entry) -> list[bytes]:
    """The events of a response whose stream is not known any more."""
    events = _Events(conversation, entry.id)
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    told = [events.event(kind, response=begun) for kind in ("response.created", "response.in_progress")]
    if response["status"] == "in_progress":
        return told
    for part in entry.parts:
        match part:
            case Reasoning(text):
                told += events.grow("reasoning", text)
            case Text(text):
                told += events.grow("message", text)
            case ToolCall():
                told += [*events.begin_call(part.id, part.name), *events.arguments(part.arguments)]
        told += events.close("completed" if response["status"] == "completed" else "incomplete")
    return [*told, events.event(_last(response), response=response)]


async def _each(events: Sequence[bytes]) -> AsyncIterator[bytes]:
    for each in events:
        yield each
