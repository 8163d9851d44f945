"""Stand-ins, and providers that ask them through the real SDKs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from llmcrdt.providers import Anthropic, Gemini, OpenAI, Provider

from .anthropic_stand_in import AnthropicStandIn
from .gemini_stand_in import GeminiStandIn, InteractionsStandIn
from .openai_stand_in import ChatStandIn, ResponsesStandIn
from .stand_in import StandIn

APIS = ("openai-chat", "openai-responses", "anthropic", "gemini", "gemini-interactions")
SDKS = {"anthropic": "anthropic", "gemini": "google.genai", "gemini-interactions": "google.genai"}
Ask = Callable[..., Provider]


@pytest.fixture
def stand_ins() -> Iterator[dict[str, StandIn]]:
    """One for each API."""
    made = (ChatStandIn, ResponsesStandIn, AnthropicStandIn, GeminiStandIn, InteractionsStandIn)
    with ExitStack() as stack:
        yield {api: stack.enter_context(kind()) for api, kind in zip(APIS, made, strict=True)}


@pytest.fixture
def ask(stand_ins: dict[str, StandIn]) -> Ask:
    """``ask(api, model=...)``: a provider that asks the stand-in for that API."""

    def made(api: str, model: str = "m-1", **more: Any) -> Provider:
        return provider(stand_ins[api], api, model, **more)

    return made


def provider(stand_in: StandIn, api: str, model: str, **more: Any) -> Provider:
    """A provider that asks a stand-in, through the real SDK; the test is skipped where that is not installed."""
    pytest.importorskip(SDKS.get(api, "openai"))
    options = {"api_key": "key-1", "timeout": 30.0, **more}
    if api == "anthropic":
        return Anthropic(model, base_url=stand_in.url, **options)
    if SDKS.get(api) == "google.genai":
        asked: Any = "interactions" if api == "gemini-interactions" else "generateContent"
        return Gemini(model, api=asked, base_url=stand_in.url, **options)
    return OpenAI(model, api="chat" if api == "openai-chat" else "responses", base_url=f"{stand_in.url}/v1", **options)
