"""Models of providers behind the HTTP APIs and behind asks: stand-ins for three APIs, asked through the real SDKs."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import llmcrdt
from llmcrdt.cli.asking import served_model
from llmcrdt.exceptions import AskFailed, InvalidContent
from llmcrdt.providers import Provider
from llmcrdt.serve import Worker

from .anthropic_stand_in import AnthropicStandIn
from .conftest import provider
from .openai_stand_in import ChatStandIn, ResponsesStandIn
from .stand_in import Refusal, Said, StandIn

pytest.importorskip("starlette", reason='the HTTP APIs need Starlette: pip install "llmcrdt[serve]"')
pytest.importorskip("uvicorn", reason='the HTTP APIs need uvicorn: pip install "llmcrdt[serve]"')

from llmcrdt.serve.http.server import HttpServer

KINDS: dict[str, type[StandIn]] = {
    "openai-chat": ChatStandIn,
    "openai-responses": ResponsesStandIn,
    "anthropic": AnthropicStandIn,
}
TOOL = {"type": "object", "properties": {"city": {"type": "string"}}}


class Behind:
    """A server with one model, ``m``, of a stand-in."""

    def __init__(self, server: HttpServer, repo: llmcrdt.Repo, stand_in: StandIn, model: Provider) -> None:
        self.repo, self.stand_in, self.model = repo, stand_in, model
        self._address = urlsplit(server.url).netloc

    def send(self, path: str, body: dict[str, Any]) -> tuple[int, bytes, Any]:
        """Status, body and headers of an answer."""
        with closing(http.client.HTTPConnection(self._address, timeout=60)) as connection:
            connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read(), response.headers

    def chat(self, messages: list[Any], **more: Any) -> Any:
        """The answer to a request of chat completions."""
        status, data, headers = self.send("/v1/chat/completions", {"model": "m", "messages": messages, **more})
        assert status == 200, data
        return json.loads(data) | {"conversation": headers["llmcrdt-conversation"]}

    def events(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """The events of a stream."""
        status, data, _ = self.send(path, {"model": "m", "stream": True, **body})
        assert status == 200, data
        return [json.loads(line[6:]) for line in data.decode().splitlines() if line.startswith("data: {")]

    def texts(self, conversation: str) -> list[str]:
        """The texts that a conversation shows."""
        return [entry.text for entry in self.repo.get(conversation).transcript() if entry.text]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


@pytest.fixture(params=KINDS)
def behind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Behind]:
    with KINDS[request.param]() as stand_in, llmcrdt.open(tmp_path / "server.db", author="server") as repo:
        model = provider(stand_in, request.param, "m-1")
        with HttpServer(repo, {"m": model}) as server:
            yield Behind(server, repo, stand_in, model)


def test_a_chat_completion_is_answered_and_gone_on_from(behind: Behind) -> None:
    behind.stand_in.says = [Said("To the sea."), Said("By train.")]
    messages = [user("Where to?")]
    first = behind.chat(messages)
    assert first["choices"][0]["message"]["content"] == "To the sea." and first["choices"][0]["finish_reason"] == "stop"
    assert first["usage"]["prompt_tokens"] > 0 and first["usage"]["completion_tokens"] > 0
    messages += [first["choices"][0]["message"], user("How?")]
    second = behind.chat(messages)
    assert second["conversation"] == first["conversation"], "what is resent is one conversation"
    assert behind.texts(second["conversation"]) == ["Where to?", "To the sea.", "How?", "By train."]
    assert len(behind.stand_in.accepted) == 2


def test_what_a_device_said_meanwhile_is_not_sent(behind: Behind) -> None:
    """The request's list is the frame."""
    first = behind.chat([user("Where to?")])
    behind.repo.get(first["conversation"]).append("user", "A word of a device.")
    messages = [user("Where to?"), first["choices"][0]["message"], user("How?")]
    behind.chat(messages)
    sent = json.dumps(behind.stand_in.accepted[-1])
    assert "How?" in sent and "A word of a device." not in sent
    assert "A word of a device." in behind.texts(first["conversation"])


def test_each_api_streams_the_words_and_says_what_was_used(behind: Behind) -> None:
    behind.stand_in.says = [Said("To the sea.") for _ in range(3)]
    chunks = behind.events("/v1/chat/completions", {"messages": [user("a")], "stream_options": {"include_usage": True}})
    deltas = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]]
    assert "".join(deltas) == "To the sea." and chunks[-1]["usage"]["completion_tokens"] > 0
    found = behind.events("/v1/responses", {"input": "b"})
    assert "".join(e["delta"] for e in found if e["type"] == "response.output_text.delta") == "To the sea."
    assert found[-1]["response"]["usage"]["output_tokens"] > 0 and found[-1]["response"]["status"] == "completed"
    found = behind.events("/v1/messages", {"messages": [user("c")], "max_tokens": 9})
    assert "".join(e["delta"].get("text", "") for e in found if e["type"] == "content_block_delta") == "To the sea."
    (last,) = (e for e in found if e["type"] == "message_delta")
    assert last["usage"]["output_tokens"] > 0 and last["delta"]["stop_reason"] == "end_turn"


def test_a_tool_is_offered_called_and_answered(behind: Behind) -> None:
    behind.stand_in.says = [Said("", calls=[("weather", '{"city":"Rome"}')]), Said("It rains.")]
    tools = [{"type": "function", "function": {"name": "weather", "parameters": TOOL}}]
    messages: list[Any] = [user("And the weather?")]
    first = behind.chat(messages, tools=tools)
    choice = first["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls" and json.loads(call["function"]["arguments"]) == {"city": "Rome"}
    messages += [choice["message"], {"role": "tool", "tool_call_id": call["id"], "content": "rain"}]
    second = behind.chat(messages, tools=tools)
    assert second["choices"][0]["message"]["content"] == "It rains."
    assert second["conversation"] == first["conversation"]
    assert "weather" in json.dumps(behind.stand_in.accepted[0]["tools"])


def test_what_only_an_engine_can_is_refused_and_failures_are_told(behind: Behind) -> None:
    wrong = [{"logprobs": True}, {"grammar": 'root ::= "x"'}, {"min_p": 0.1}]
    for more in wrong:
        body = {"model": "m", "messages": [user("x")], **more}
        assert behind.send("/v1/chat/completions", body)[0] == 400, more
    body = {"model": "m", "messages": [user("x")]}
    assert behind.send("/v1/messages/count_tokens", body)[0] == 400
    behind.model.attempts = 1
    for status, told in ((429, 429), (401, 502), (500, 502)):
        behind.stand_in.faults = [Refusal(status, "no")]
        got, answer, _ = behind.send("/v1/chat/completions", body)
        assert got == told and b"error" in answer, answer
    assert behind.chat([user("x")])["choices"][0]["message"]["content"]


def test_an_ask_is_answered_by_a_model_of_a_provider(behind: Behind, open_repo: Callable[..., llmcrdt.Repo]) -> None:
    repo = open_repo("laptop")
    conversation = repo.create()
    behind.stand_in.says = [Said("To the sea.")]
    with Worker(repo, {"m": behind.model}):
        ask = conversation.ask("Where to?", settings={"max_tokens": 20})
        answer = ask.result(30)
        assert answer.text == "To the sea." and answer.frame is not None
        assert [each.id for each in conversation.transcript()][-1] == answer.id
        behind.model.attempts = 1
        behind.stand_in.faults = [Refusal(401, "no")]
        with pytest.raises(AskFailed) as raised:
            conversation.ask("And then?", settings={"max_tokens": 20}).result(30)
        assert raised.value.code == "provider"
    assert conversation.verify() == []


def test_a_model_is_a_file_or_a_providers_with_a_name_or_without() -> None:
    pytest.importorskip("openai")
    assert served_model("m=models/tiny.gguf") == ("m", Path("models/tiny.gguf"))
    assert served_model("models/tiny.gguf") == ("tiny", Path("models/tiny.gguf"))
    for given, name in (("m=openai/gpt", "m"), ("openai/gpt", "openai/gpt")):
        called, model = served_model(given)
        assert called == name and isinstance(model, Provider) and model.model == "gpt"
    with pytest.raises(InvalidContent):
        served_model("=openai/gpt")
