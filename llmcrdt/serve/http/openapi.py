"""``/openapi.json``: the paths, for tools that read OpenAPI. It says as much as programs need to ask; what each member
does is in docs/serve.md and in the APIs' own documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...document.canonical import JSON
from .limits import HttpLimits

_TEXT: Mapping[str, JSON] = {"type": "string"}
_OBJECT: Mapping[str, JSON] = {"type": "object"}


def description(models: Sequence[str], limits: HttpLimits) -> dict[str, JSON]:
    """The description of a server with these models."""
    model = {"type": "string", "enum": list(models)}
    most = {"type": "integer", "minimum": 1, "maximum": limits.tokens}
    common: dict[str, JSON] = {"model": model, "stream": {"type": "boolean"}, "metadata": _OBJECT}
    chat = {
        **common,
        "messages": _list(_message("system", "user", "assistant"), 1),
        "max_tokens": most,
        "temperature": _number(0, 2),
        "top_p": _number(0, 1),
        "seed": {"type": "integer", "minimum": 0, "maximum": 1 << 31},
        "stop": _list(_TEXT),
        "store": {"type": "boolean"},
    }
    messages = {
        "model": model,
        "stream": {"type": "boolean"},
        "messages": _list(_message("user"), 1),
        "system": _TEXT,
        "max_tokens": most,
        "temperature": _number(0, 1),
        "stop_sequences": _list(_TEXT),
    }
    responses = {
        **common,
        "input": {"anyOf": [{"type": "string", "minLength": 1}, _list(_message("user"), 1)]},
        "instructions": _TEXT,
        "max_output_tokens": most,
        "previous_response_id": _TEXT,
        "conversation": _TEXT,
        "background": {"type": "boolean"},
        "store": {"type": "boolean"},
        "temperature": _number(0, 2),
        "top_p": _number(0, 1),
    }
    response = _answer("id", "object", "status", "output", "model")
    listed = _answer("object", "data", "first_id", "last_id", "has_more")
    conversation = _answer("id", "object", "created_at", "metadata")
    counted = {name: messages[name] for name in ("model", "messages", "system")}
    paths: dict[str, JSON] = {
        "/v1/models": {"get": _of(_answer("object", "data"))},
        "/v1/models/{id}": {"get": _of(_answer("id", "object"), id=True)},
        "/v1/chat/completions": {
            "post": _of(_answer("id", "choices", "usage"), _body(chat, "model", "messages"), streams=True)
        },
        "/v1/messages": {
            "post": _of(
                _answer("id", "content", "usage"), _body(messages, "model", "messages", "max_tokens"), streams=True
            )
        },
        "/v1/messages/count_tokens": {"post": _of(_answer("input_tokens"), _body(counted, "model", "messages"))},
        "/v1/responses": {"post": _of(response, _body(responses, "model", "input"), streams=True)},
        "/v1/responses/{id}": {
            "get": _of(response, id=True, streams=True),
            "delete": _of(_answer("id", "deleted"), id=True),
        },
        "/v1/responses/{id}/cancel": {"post": _of(response, id=True)},
        "/v1/responses/{id}/input_items": {"get": _of(listed, id=True)},
        "/v1/conversations": {
            "post": _of(conversation, _body({"items": _list(_message("user")), "metadata": _OBJECT}))
        },
        "/v1/conversations/{id}": {
            "get": _of(conversation, id=True),
            "delete": _of(_answer("id", "deleted"), id=True),
        },
        "/v1/conversations/{id}/items": {"get": _of(listed, id=True)},
    }
    for path, methods in paths.items():
        errors = _errors("type", "error") if path.startswith("/v1/messages") else _errors("error")
        for operation in methods.values():
            operation["responses"] |= errors
    return {
        "openapi": "3.1.0",
        "info": {"title": "llmcrdt", "version": "1", "description": "docs/serve.md"},
        "paths": paths,
        "security": [{"bearer": []}, {"key": []}, {}],
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            }
        },
    }


def _number(least: float, most: float) -> dict[str, JSON]:
    return {"type": "number", "minimum": least, "maximum": most}


def _list(items: Mapping[str, JSON], least: int = 0) -> dict[str, JSON]:
    return {"type": "array", "items": items, "minItems": least}


def _message(*roles: str) -> dict[str, JSON]:
    properties = {"role": {"type": "string", "enum": list(roles)}, "content": {"type": "string", "minLength": 1}}
    return {"type": "object", "properties": properties, "required": ["role", "content"]}


def _answer(*required: str) -> dict[str, JSON]:
    return {"type": "object", "required": list(required)}


def _body(properties: Mapping[str, JSON], *required: str) -> dict[str, JSON]:
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _of(
    answer: Mapping[str, JSON], body: Mapping[str, JSON] | None = None, *, id: bool = False, streams: bool = False
) -> dict[str, JSON]:
    """An operation. ``id``: its path names something; ``streams``: it answers with events where it is asked to."""
    content: dict[str, JSON] = {"application/json": {"schema": answer}}
    if streams:
        content["text/event-stream"] = {}
    operation: dict[str, JSON] = {"responses": {"200": {"description": "the answer", "content": content}}}
    if body is not None:
        operation["requestBody"] = body
    if id:
        operation["parameters"] = [{"name": "id", "in": "path", "required": True, "schema": _TEXT}]
    return operation


def _errors(*required: str) -> dict[str, JSON]:
    content = {"application/json": {"schema": _answer(*required)}}
    return {"4XX": {"description": "an error of the request", "content": content}}
