"""The HTTP application: which path is for whom, and who is let in."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ...exceptions import LLMCRDTError
from . import chat, conversations, messages, models, responses
from .api import CONVERSATION, Incoming, json_response, read
from .errors import HttpError, error_of
from .keys import Caller, Keys
from .openapi import description
from .turns import Turns

logger = logging.getLogger("llmcrdt.serve.http")

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_Handler = Callable[[Request, Caller], Awaitable[Response]]
_Create = Callable[[Incoming, Turns], Awaitable[Response]]


class App:
    """Makes the application. ``keys``: none lets everybody in, and then only requests that name this machine itself are
    taken, so that no page in a browser reaches it by another name. ``origins``: pages that may ask from a browser."""

    def __init__(self, turns: Turns, keys: Keys, origins: Collection[str] = ()) -> None:
        self._turns, self._keys, self._origins, self._since = turns, keys, frozenset(origins), time.time()

    def starlette(self) -> Starlette:
        """The application."""
        turns, since = self._turns, self._since
        paths: dict[str, dict[str, _Handler]] = {
            "/v1/models": {"GET": lambda request, _: models.listed(request, turns, since)},
            "/v1/models/{model:path}": {"GET": lambda request, _: models.one(request, turns, since)},
            "/v1/chat/completions": {"POST": self._posted(chat.create)},
            "/v1/messages": {"POST": self._posted(messages.create)},
            "/v1/messages/count_tokens": {"POST": self._posted(messages.count)},
            "/v1/responses": {"POST": self._posted(responses.create)},
            "/v1/responses/{id}": {"GET": self._named(responses.get), "DELETE": self._named(responses.delete)},
            "/v1/responses/{id}/cancel": {"POST": self._named(responses.cancel)},
            "/v1/responses/{id}/input_items": {"GET": self._named(responses.input_items)},
            "/v1/conversations": {"POST": self._posted(conversations.create)},
            "/v1/conversations/{id}": {
                "GET": self._named(conversations.get),
                "DELETE": self._named(conversations.delete),
            },
            "/v1/conversations/{id}/items": {"GET": self._named(conversations.items)},
        }
        routes = [self._route(path, handlers) for path, handlers in paths.items()]
        routes.append(Route("/openapi.json", self._described, methods=["GET"]))
        return Starlette(routes=routes, exception_handlers={HTTPException: self._unknown})

    async def _described(self, request: Request) -> Response:
        return json_response(description(list(self._turns.models), self._turns.limits))

    def _posted(self, create: _Create) -> _Handler:
        async def handle(request: Request, caller: Caller) -> Response:
            return await create(await read(request, caller, self._turns), self._turns)

        return handle

    def _named(self, handle: Callable[[Request, Caller, Turns], Awaitable[Response]]) -> _Handler:
        return lambda request, caller: handle(request, caller, self._turns)

    def _route(self, path: str, handlers: Mapping[str, _Handler]) -> Route:
        async def endpoint(request: Request) -> Response:
            method = "GET" if request.method == "HEAD" else request.method
            return await self._answered(request, handlers.get(method))

        return Route(path, endpoint, methods=[*handlers, "OPTIONS"])

    async def _answered(self, request: Request, handle: _Handler | None) -> Response:
        id = f"req_{secrets.token_hex(12)}"
        try:
            origin = self._check_place(request)
            if handle is None:  # OPTIONS: a browser asks whether it may ask
                response = Response(status_code=204)
            else:
                response = await handle(request, self._caller(request))
        except HttpError as error:
            response, origin = self._error(request, error, id), None
        except LLMCRDTError as error:
            response, origin = self._error(request, error_of(error), id), None
        except Exception:
            logger.exception("%s %s failed", request.method, request.url.path)
            response, origin = self._error(request, HttpError(500, "The server failed. See its log."), id), None
        response.headers["x-request-id"] = response.headers["request-id"] = id
        if origin is not None:
            response.headers["access-control-allow-origin"] = origin
            response.headers["vary"] = "Origin"
            response.headers["access-control-allow-methods"] = "GET, POST, DELETE"
            response.headers["access-control-allow-headers"] = request.headers.get(
                "access-control-request-headers", "authorization, content-type"
            )
            response.headers["access-control-expose-headers"] = f"{CONVERSATION}, X-Request-Id"
        return response

    def _check_place(self, request: Request) -> str | None:
        """The origin of the page that asks, if it is one that may. Raises HttpError."""
        if not self._keys:
            name = request.headers.get("host", "").rsplit(":", 1)[0] if "host" in request.headers else "localhost"
            if name not in _LOOPBACK and request.headers.get("host", "") not in _LOOPBACK:
                raise HttpError(403, f"This server is not {name[:80]!r}.", code="wrong_host")
        origin = request.headers.get("origin")
        if origin is not None and origin not in self._origins:
            raise HttpError(403, f"Pages of {origin[:80]!r} may not ask this server.", code="wrong_origin")
        return origin

    def _caller(self, request: Request) -> Caller:
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        key = given.strip() if kind.lower() == "bearer" else request.headers.get("x-api-key")
        caller = self._keys.caller(key)
        if caller is None:
            said = "Incorrect API key provided." if key else "You didn't provide an API key."
            raise HttpError(
                401, f"{said} Send it as Authorization: Bearer KEY, or as x-api-key.", code="invalid_api_key"
            )
        return caller

    def _error(self, request: Request, error: HttpError, id: str) -> Response:
        path = request.url.path
        body = error.anthropic(id) if path.startswith("/v1/messages") else error.openai()
        headers = {"retry-after": "1"} if error.status in (429, 503) else {}
        if error.status == 401:
            headers["www-authenticate"] = "Bearer"
        return json_response(body, error.status, headers)

    async def _unknown(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        words = f"Unknown request URL: {request.method} {request.url.path[:200]}."
        if status == 405:
            words = f"{request.method} is no method of {request.url.path[:200]}."
        response = self._error(request, HttpError(status, words, code="unknown_url"), f"req_{secrets.token_hex(12)}")
        response.headers.update(getattr(error, "headers", None) or {})  # which methods there are
        return response
