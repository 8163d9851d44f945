"""OpenRouter, DeepSeek, Moonshot and Ollama, from stand-ins over HTTP; and the price of answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import llmcrdt
from llmcrdt import ReasoningDelta, TextDelta
from llmcrdt.exceptions import InvalidContent, ProviderError, ProviderRefused, ProviderUnreachable, ResponseFailed
from llmcrdt.providers import (
    Anthropic,
    DeepSeek,
    Gemini,
    Moonshot,
    Ollama,
    OpenAI,
    OpenRouter,
    Prices,
    Provider,
    Settings,
    named,
)
from llmcrdt.providers.ollama import address_of

from .anthropic_stand_in import AnthropicStandIn
from .compatible_stand_in import OllamaStandIn, OpenRouterStandIn, ReasoningStandIn
from .conftest import provider
from .stand_in import Cut, GiveUp, Refusal, Said, StandIn

OpenRepo = Callable[..., llmcrdt.Repo]
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
KINDS: dict[str, tuple[Any, type[StandIn], str]] = {
    "openrouter": (OpenRouter, OpenRouterStandIn, "/api/v1"),
    "deepseek": (DeepSeek, ReasoningStandIn, ""),
    "moonshot": (Moonshot, ReasoningStandIn, ""),
    "ollama": (Ollama, OllamaStandIn, ""),
}
every_kind = pytest.mark.parametrize("kind", sorted(KINDS))


@pytest.fixture
def conv(open_repo: OpenRepo) -> llmcrdt.Conversation:
    conversation = open_repo("laptop").create()
    conversation.append("system", "Be brief.", tools=TOOLS)
    conversation.append("user", "Is it warm in Rome?")
    return conversation


@pytest.fixture
def stand_in(kind: str) -> Iterator[StandIn]:
    pytest.importorskip("openai")
    with KINDS[kind][1]() as made:
        yield made


def asked(kind: str, stand_in: StandIn, **more: Any) -> Provider:
    made, _, path = KINDS[kind]
    found: Provider = made("m-1", base_url=f"{stand_in.url}{path}", **{"api_key": "key-1", "timeout": 30.0, **more})
    return found


@every_kind
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_calls_their_results_and_what_was_thought_go_back(
    conv: llmcrdt.Conversation, kind: str, stand_in: StandIn, stream: bool
) -> None:
    stand_in.says = [Said("", "Hm.", [("look", '{"at": 1}')]), Said("It is warm, 23 °C.", "Let me think.")]
    entry = llmcrdt.generate(conv, asked(kind, stand_in, stream=stream), max_tokens=9).result(60)
    (call,) = entry.tool_calls
    conv.append("tool", "a cat", call=call)
    generation = llmcrdt.generate(conv, asked(kind, stand_in, stream=stream))
    *deltas, usage, _ = generation.events()
    assert "".join(e.text for e in deltas if isinstance(e, TextDelta)) == "It is warm, 23 °C."
    if kind == "openrouter":
        assert "openrouter/reasoning_details" in entry.hidden
        opaque = json.loads(entry.hidden["openrouter/reasoning_details"].data)[0][1][0]["data"]
        assert opaque in json.dumps(stand_in.accepted[-1])
    else:
        assert "".join(e.text for e in deltas if isinstance(e, ReasoningDelta)) == "Let me think."
        assert "Hm." in json.dumps(stand_in.accepted[-1])
    assert usage.prompt_tokens == 10 and usage.output_tokens == 5  # type: ignore[union-attr]
    assert stand_in.refused == [] and conv.verify() == [] and entry.model["api"] == asked(kind, stand_in).api
    longest = stand_in.accepted[0].get("options", stand_in.accepted[0])
    assert longest["num_predict" if kind == "ollama" else "max_tokens"] == 9


@every_kind
def test_failures_are_those_of_every_provider(conv: llmcrdt.Conversation, kind: str, stand_in: StandIn) -> None:
    before = conv.version()
    stand_in.faults = [Refusal(400, "too long"), Refusal(500, "oh"), Cut(0)]
    for error in (ProviderRefused, ProviderRefused, ProviderUnreachable):
        with pytest.raises(error):
            llmcrdt.generate(conv, asked(kind, stand_in)).result(60)
    assert conv.version() == before
    stand_in.says, stand_in.faults = [Said("many words " * 9)] * 2, [GiveUp(5, "It broke."), Cut(5)]
    for told in (ResponseFailed, ProviderUnreachable):
        with pytest.raises(told):
            llmcrdt.generate(conv, asked(kind, stand_in)).result(60)
        assert conv.transcript()[-1].status == "stopped"
        conv.append("user", "Go on.")
    assert llmcrdt.generate(conv, asked(kind, stand_in)).result(60).status == "complete"


@pytest.mark.parametrize("kind", ["deepseek", "moonshot", "openrouter"])
def test_the_key_of_another_provider_is_never_sent(
    conv: llmcrdt.Conversation, kind: str, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = KINDS[kind][0]
    monkeypatch.setenv("OPENAI_API_KEY", "key-1")
    monkeypatch.delenv(made.key_variable, raising=False)
    with pytest.raises(ProviderError, match=rf"\${made.key_variable}"):
        llmcrdt.generate(conv, asked(kind, stand_in, api_key=None)).result(60)
    monkeypatch.setenv(made.key_variable, "key-1")
    assert llmcrdt.generate(conv, asked(kind, stand_in, api_key=None)).result(60).status == "complete"


def test_names_and_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, (made, _, _) in KINDS.items():
        assert isinstance(named(f"{kind}/a/b"), made) and named(f"{kind}/a/b").model == "a/b"
        assert named(f"{kind}/a").name == kind
    assert "tools" not in Ollama("m").body({"tools": [1]}, Settings(tools=False), stream=True)
    given = Settings(temperature=0.5, stop=("x",), json_schema={"type": "object"})
    body = Ollama("m", think=True).body({"options": {"num_ctx": 9}}, given, stream=False)
    assert body["options"] == {"num_ctx": 9, "temperature": 0.5, "stop": ["x"]}
    assert (body["format"], body["think"]) == ({"type": "object"}, True)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("box", "http://box:11434"), ("box:80", "http://box:80"), (":8080", "http://127.0.0.1:8080"),
        ("https://box/x", "https://box/x"), ("[::1]", "http://[::1]:11434"), ("0.0.0.0", "http://0.0.0.0:11434"),
    ],
)  # fmt: skip
def test_the_address_of_ollama(host: str, address: str) -> None:
    assert address_of(host) == address


def test_ollama_is_asked_where_the_environment_says(
    conv: llmcrdt.Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openai")
    with OllamaStandIn() as stand_in:
        monkeypatch.setenv("OLLAMA_HOST", stand_in.url.removeprefix("http://"))
        assert llmcrdt.generate(conv, named("ollama/m-1")).result(60).status == "complete"


def test_a_price_that_the_provider_says_is_kept(conv: llmcrdt.Conversation) -> None:
    pytest.importorskip("openai")
    with OpenRouterStandIn() as stand_in:
        prices = {"prompt": 1, "output": 1}
        generation = llmcrdt.generate(conv, asked("openrouter", stand_in, prices=prices))
        entry = generation.result(60)
    assert generation.stats["cost"] == {"amount": 0.00014, "currency": "USD", "by": "provider"}
    assert entry.usage["priced"] == generation.stats["cost"] and entry.usage["cost"] == 0.00014


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_price_by_the_users_own_prices_is_kept(conv: llmcrdt.Conversation, stream: bool) -> None:
    prices = {"prompt": 3, "output": 15, "cached": 0.3, "written": 3.75, "currency": "EUR"}
    with AnthropicStandIn() as stand_in:
        ask = provider(stand_in, "anthropic", "m-1", prices=prices, stream=stream)
        generation = llmcrdt.generate(conv, ask)
        entry = generation.result(60)
        unpriced = llmcrdt.generate(conv, provider(stand_in, "anthropic", "m-1"), instead_of=entry)
        assert "priced" not in unpriced.result(60).usage and "cost" not in unpriced.stats
    each = 10 * 3 + 4 * 0.3 + 5 * 15  # tokens: ten of the prompt, four of them cached beside, five of the answer
    assert generation.stats["cost"] == {"amount": pytest.approx(each / 1e6), "currency": "EUR", "by": "prices"}
    assert entry.usage["priced"] == generation.stats["cost"]
    assert entry.usage["output_tokens"] == 5 and conv.verify() == []


def test_tokens_cost_what_their_prices_say() -> None:
    prices = Prices(2, 10)
    cost = OpenAI("m", prices=prices).cost
    assert cost({"input_tokens": 1_000_000, "output_tokens": 100_000}) == {
        "amount": 3.0, "currency": "USD", "by": "prices"
    }  # fmt: skip
    assert cost({"input_tokens": 5}) is None and OpenAI("m").cost({"input_tokens": 5, "output_tokens": 5}) is None
    cached = Prices(1, 0, cached=0.1, written=1.25)
    usage = {"input_tokens": 1, "cache_read_input_tokens": 10, "cache_creation_input_tokens": 100, "output_tokens": 0}
    assert Anthropic("m", prices=cached).cost(usage) == {
        "amount": pytest.approx((1 + 1 + 125) / 1e6), "currency": "USD", "by": "prices"
    }  # fmt: skip
    told = {"promptTokenCount": 10, "cachedContentTokenCount": 10, "candidatesTokenCount": 1, "thoughtsTokenCount": 1}
    found = Gemini("m", prices=Prices(1, 1, cached=0)).cost(told)
    assert found is not None and found["amount"] == pytest.approx(2e-6)


def test_prices_come_from_the_users_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "prices.json"
    monkeypatch.setenv("LLMCRDT_PRICES", str(file))
    with pytest.raises(InvalidContent, match="can't be read"):
        named("openai/gpt-1")
    file.write_text(json.dumps({"openai/gpt-1": {"prompt": 2, "output": 8}, "openai/bad": {"prompt": -1, "output": 1}}))
    assert named("openai/gpt-1").prices == Prices(2, 8) and named("openai/gpt-2").prices is None
    for name in ("openai/bad",):
        with pytest.raises(InvalidContent, match="openai/bad"):
            named(name)
    for odd in ({"prompt": 1}, {"prompt": 1, "output": "2"}, {"prompt": 1, "output": 2, "image": 3}, 5,
                {"prompt": True, "output": 1}, {"prompt": 1, "output": 1, "currency": 5}):  # fmt: skip
        with pytest.raises(InvalidContent):
            OpenAI("m", prices=odd)  # type: ignore[arg-type]
