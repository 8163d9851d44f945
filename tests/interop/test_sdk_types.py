"""Requests are such as the providers' own SDKs say in their types: every vector of every format, exported to each API,
and logs that devices merged. Those of ``ai-sdk`` are read by npm's ``ai`` itself (``test_ai_sdk.py``)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from llmcrdt.interop.export import export
from llmcrdt.interop.json_input import parse
from llmcrdt.interop.registry import format_of, names
from llmcrdt.testing.format_suite import NOW, stored

sys.path.insert(0, str(Path(__file__).parent))
import merged_logs
from providers import VALIDATORS

VECTORS = Path(__file__).parents[1] / "vectors" / "interop"
SDKS = {
    "openai-chat": "openai", "openai-responses": "openai", "anthropic": "anthropic", "gemini": "google.genai",
    "gemini-interactions": "google.genai",
}  # fmt: skip
OTHERS = {
    "openai-chat": {"openai-chat/unknown-types", "reasoning-content/unknown"},
    "openai-responses": {"openai-responses/refusal-and-pieces", "openai-responses/unknown"},
    "anthropic": {"anthropic/mid-conversation-system", "anthropic/unknown-types"},
    "gemini": {"gemini/unknown"},
    "gemini-interactions": set[str](),
}
"""Vectors of an API's own with blocks that its SDK's types don't know: they go back as they came."""


@cache
def checker(api: str) -> Callable[[Any], object]:
    """Raises where a request's body is not of the SDK's types."""
    pytest.importorskip(SDKS[api])
    pydantic = pytest.importorskip("pydantic")

    def lists(**kinds: Any) -> Callable[[Any], object]:
        adapters = {member: pydantic.TypeAdapter(list[kind]) for member, kind in kinds.items()}
        return lambda body: [whole(adapter.validate_python(body.get(key, []))) for key, adapter in adapters.items()]

    if api == "openai-chat":
        from openai.types import chat

        return lists(messages=chat.ChatCompletionMessageParam, tools=chat.ChatCompletionToolUnionParam)
    if api == "openai-responses":
        from openai.types import responses

        return lists(input=responses.ResponseInputItemParam, tools=responses.ToolParam)
    if api == "anthropic":
        from anthropic.types import beta

        return lists(messages=beta.BetaMessageParam, tools=beta.BetaToolUnionParam)
    if api == "gemini":
        from google.genai import types

        return lists(contents=types.Content, tools=types.Tool)
    from google.genai.interactions import CreateModelInteraction

    return CreateModelInteraction.model_validate


def whole(value: Any) -> Any:
    """The value with all that pydantic checks only when it is read."""
    if isinstance(value, Mapping):
        return {key: whole(one) for key, one in value.items()}
    lazy = type(value).__name__ == "ValidatorIterator"
    return [whole(one) for one in value] if isinstance(value, (list, tuple)) or lazy else value


def as_typed(api: str, body: Any) -> Any:
    """A body with what the types ask for and the API does without: ids of items, a model. Signatures are those of
    the tests, which are no base64."""
    if api == "openai-responses":
        listed = body["input"] if isinstance(body["input"], list) else [{"role": "user", "content": body["input"]}]
        return {**body, "input": [item if item.get("role") == "user" else {"id": "x", **item} for item in listed]}
    if api == "gemini":
        return signed(body)
    return {"model": "m-1", **body}


def signed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: "AAAA" if key == "thoughtSignature" else signed(one) for key, one in value.items()}
    return [signed(one) for one in value] if isinstance(value, list) else value


def problems(api: str, body: Any) -> list[str]:
    """Why a body is not of the SDK's types."""
    import pydantic

    try:
        checker(api)(as_typed(api, body))
    except pydantic.ValidationError as error:
        return [str(error)[:2000]]
    return []


@pytest.mark.parametrize("api", sorted(SDKS))
def test_every_vector_of_every_format_is_of_the_sdks_types(api: str) -> None:
    form, checked = format_of(api), 0
    for name in names():
        for path in sorted((VECTORS / name).glob("*.json")):
            entries = stored(format_of(name).read(parse(path.read_text("utf-8"))))
            body = export(form, entries, form.target(model="m-1"), now=NOW).body
            if body[form.member]:  # else nothing is sent
                known = f"{name}/{path.stem}" not in OTHERS[api]
                assert bool(problems(api, body)) != known, (name, path.stem, problems(api, body))
                checked += known
    assert checked > 120


@pytest.mark.parametrize("api", sorted(SDKS))
def test_merged_logs_are_of_the_sdks_types(api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = 0

    def check(body: Any) -> list[str]:
        nonlocal checked
        checked += 1
        return problems(api, body)

    checker(api)
    monkeypatch.setattr(merged_logs, "VALIDATORS", {**dict.fromkeys(VALIDATORS, lambda body: []), api: check})
    for seed in range(2_000_000, 2_000_006):
        merged_logs.run_schedule(seed)
    assert checked > 20


@pytest.mark.parametrize("api", sorted(SDKS))
def test_a_request_of_other_types_is_seen(api: str) -> None:
    form = format_of(api)
    (path, *_) = sorted((VECTORS / "openai-chat").glob("*call*.json"))
    entries = stored(format_of("openai-chat").read(parse(path.read_text("utf-8"))))
    body = export(form, entries, form.target(model="m-1"), now=NOW).body
    assert problems(api, body) == []
    first = {"role": 5, "type": "function_call", "parts": [{"text": 5}], "content": 5}
    assert problems(api, {**body, form.member: [first, *body[form.member]]})
