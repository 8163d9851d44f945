"""Shared by the APIs: how a request is read, and how an answer goes out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ...document.canonical import JSON
from ...generation.events import GenerationStats
from ...providers.base import Provider
from ...tokenizer import Tokenizer
from .drafts import parsed
from .errors import HttpError, bad_request
from .fields import Fields
from .keys import Caller
from .sse import EventStream, compact, disconnected
from .turns import Asked, Translator, Turn, Turns, digest_of

CONVERSATION = "LLMCRDT-Conversation"
"""The header that names a conversation, in requests and answers."""
MAX_TEMPERATURE = 2.0


@dataclass(frozen=True)
class Incoming:
    """The body of a request, with whoever sent it."""

    request: Request
    caller: Caller
    raw: bytes
    body: JSON

    @property
    def fields(self) -> Fields:
        """Its members."""
        return Fields(self.body)

    def conversation(self, metadata: Mapping[str, JSON] | None) -> str | None:
        """The conversation that the request names, by a header or in its metadata; None where it names none."""
        inner = (metadata or {}).get("llmcrdt_conversation")
        if inner is not None and not isinstance(inner, str):
            raise bad_request("metadata.llmcrdt_conversation is not a text.", "metadata.llmcrdt_conversation")
        return self.request.headers.get(CONVERSATION) or inner

    @property
    def retry(self) -> tuple[str, str] | None:
        """The key by which a repeat is known."""
        key = self.request.headers.get("Idempotency-Key")
        return (key[:256], digest_of(self.raw)) if key else None


async def read(request: Request, caller: Caller, turns: Turns) -> Incoming:
    """Read the body of a request. Raises HttpError."""
    limits = turns.limits
    length = request.headers.get("content-length", "")
    too_large = HttpError(413, f"The body may have {limits.body:,} bytes.", code="request_too_large")
    if length.isdigit() and int(length) > limits.body:
        raise too_large
    kind = request.headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise HttpError(415, f"The body is {kind[:60]}; send application/json.", code="unsupported_media_type")
    pieces: list[bytes] = []
    size = 0
    if turns.bodies >= limits.bodies:
        raise HttpError(429, "The server reads as many requests as it may. Ask again.", code="rate_limit_exceeded")
    turns.bodies += 1
    try:
        async with asyncio.timeout(limits.arrival):
            async for piece in request.stream():
                size += len(piece)
                if size > limits.body:
                    raise too_large
                pieces.append(piece)
    except TimeoutError:
        raise HttpError(408, f"The body did not arrive within {limits.arrival:g} s.", code="timeout") from None
    except ClientDisconnect:
        raise HttpError(400, "The connection was closed.") from None
    finally:
        turns.bodies -= 1
    raw = b"".join(pieces)
    body = parsed(raw) if size < 1 << 16 else await asyncio.to_thread(parsed, raw)
    return Incoming(request, caller, raw, body)


async def answer(
    incoming: Incoming,
    turns: Turns,
    asked: Asked,
    translate: Callable[[Turn], Translator],
    whole: Callable[[Turn], JSON],
    *,
    stream: bool,
    alive: bytes = b": waiting\n\n",
) -> Response:
    """Have a request answered: as a stream of events, or whole."""
    turn = await turns.start(asked, translate)
    headers = {CONVERSATION.lower(): turn.conversation.id} if asked.store else {}
    if stream:
        return EventStream(turn.feed.follow(0, turns.limits.silence, alive), turn.leave, headers)
    try:
        await _ended(turn, incoming.request)
    finally:
        turn.leave()
    return json_response(whole(turn), headers=headers)


async def _ended(turn: Turn, request: Request) -> None:
    """Wait for the end of a turn, or until the client has gone."""
    gone = asyncio.ensure_future(disconnected(request.receive))
    ended = asyncio.ensure_future(turn.feed.wait())
    try:
        await asyncio.wait([gone, ended], return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            raise HttpError(400, "The connection was closed.")
    finally:
        for task in (gone, ended):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def json_response(value: JSON, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A body of JSON."""
    data = compact(value).encode("utf-8", "replace")
    return Response(data, status, dict(headers or {}), media_type="application/json")


def schema_of(fields: Fields, name: str) -> Mapping[str, JSON] | None:
    """The JSON Schema that a member asks the answer to follow, in the forms that the APIs have: ``{"type": "text"}``,
    "json_object", or "json_schema" with the schema in it. Raises HttpError."""
    given = fields.object(name)
    if given is None:
        return None
    path = fields.path(name)
    match given.get("type"):
        case "text":
            return None
        case "json_object":
            return {"type": "object"}
        case "json_schema":
            inner = given.get("json_schema", given)
            schema = inner.get("schema") if isinstance(inner, dict) else None
            if isinstance(schema, dict):
                return schema
            raise bad_request(f"{path}.schema is not an object.", f"{path}.schema", "invalid_value")
    raise bad_request(f"{path}.type is none of text, json_object, json_schema.", f"{path}.type", "invalid_value")


def tokens_used(stats: GenerationStats) -> tuple[int, int, int]:
    """Tokens of the prompt, those of them that were at hand, tokens of the answer."""
    return stats.get("total", 0), stats.get("reused", 0), stats.get("sampled", 0)


class Logprobs:
    """How likely each token of an answer was, if the request asked for that; as far as its text has come."""

    def __init__(self, turn: Turn) -> None:
        self._turn, self._next, self._missing = turn, 0, 0

    def of(self, text: str) -> list[JSON]:
        """Those of the tokens that made ``text``, which came after all before."""
        found: list[JSON] = []
        self._missing += len(text.encode("utf-8", "replace"))
        while self._missing > 0 and (more := self._rest(self._next + 1)):
            found += more
        return found

    def rest(self) -> list[JSON]:
        """All others. Tokens that print nothing are left out."""
        return self._rest(None)

    def _rest(self, end: int | None) -> list[JSON]:
        listed = self._turn.stats.get("logprobs", []) if self._turn.asked.options.top_logprobs else []
        some = listed[self._next : end]
        self._next += len(some)
        engine, found = self._turn.engine, list[JSON]()
        if isinstance(engine, Provider):  # it tells none
            return found
        tokenizer = engine.tokenizer
        for token, logprob, top in some:
            self._missing -= len(tokenizer.decode([token]))
            if not tokenizer.is_end(token):
                others = [_logprob(tokenizer, *other) for other in top]
                found.append({**_logprob(tokenizer, token, logprob), "top_logprobs": others})
        return found


def _logprob(tokenizer: Tokenizer, token: int, logprob: float) -> dict[str, JSON]:
    data = tokenizer.decode([token])
    return {"token": data.decode("utf-8", "replace"), "logprob": max(logprob, -9999.0), "bytes": list(data)}
