"""One server for all tests here, over a tiny model of random weights and a repo of its own."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import llmcrdt

pytest.importorskip("starlette", reason='the HTTP APIs need Starlette: pip install "llmcrdt[serve]"')
pytest.importorskip("uvicorn", reason='the HTTP APIs need uvicorn: pip install "llmcrdt[serve]"')
pytest.importorskip("llama_cpp")
pytest.importorskip("gguf")

from llmcrdt.kvcache import NullCache
from llmcrdt.serve.http.keys import Keys
from llmcrdt.serve.http.limits import HttpLimits
from llmcrdt.serve.http.server import HttpServer
from llmcrdt.testing.models import write_model

ALICE, BOB = "alice-has-this-key", "bob-has-that-key-"


class Served:
    """A server, and short ways to ask it. ``url``: without /v1."""

    def __init__(self, server: HttpServer, repo: llmcrdt.Repo, engine: llmcrdt.LlamaEngine) -> None:
        self.server, self.repo, self.engine, self.url = server, repo, engine, server.url

    def send(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, timeout: float = 60.0
    ) -> tuple[int, Any, http.client.HTTPMessage]:
        """Status, JSON and headers of an answer."""
        connection = self.connection(timeout)
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        connection.request(method, path, data, {"content-type": "application/json", **(headers or {})})
        response = connection.getresponse()
        text = response.read()
        connection.close()
        return response.status, json.loads(text) if text else None, response.headers

    def connection(self, timeout: float = 60.0) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=timeout)

    def chat(self, messages: list[Any], headers: dict[str, str] | None = None, **more: Any) -> Any:
        """The answer to a request of chat completions."""
        body = {"model": "tiny", "messages": messages, "max_tokens": 4, "seed": 1, **more}
        status, answer, sent = self.send("POST", "/v1/chat/completions", body, headers)
        assert status == 200, answer
        answer["conversation"] = sent["llmcrdt-conversation"]
        return answer

    def texts(self, conversation: str) -> list[str]:
        """The texts that a conversation shows."""
        return [entry.text for entry in self.repo.get(conversation).transcript() if entry.text]


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[llmcrdt.LlamaEngine]:
    folder = tmp_path_factory.mktemp("http")
    made = llmcrdt.LlamaEngine(write_model(folder / "tiny.gguf", n_layer=2), folder / "cache", n_threads=1)
    yield made
    made.close()


@pytest.fixture(scope="session")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[llmcrdt.LlamaEngine]:
    """An engine whose model never ends its turn by itself."""
    folder = tmp_path_factory.mktemp("endless")
    made = llmcrdt.LlamaEngine(write_model(folder / "tiny.gguf", n_layer=2), NullCache(), n_threads=1)
    made.tokenizer.is_end = lambda token: False
    yield made
    made.close()


@pytest.fixture(scope="session")
def served(
    tmp_path_factory: pytest.TempPathFactory, engine: llmcrdt.LlamaEngine, endless: llmcrdt.LlamaEngine
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("repo")
    with llmcrdt.open(folder / "server.db", author="server") as repo:
        limits = HttpLimits(body=1 << 20, arrival=1.0, requests=8)
        with HttpServer(repo, {"tiny": engine, "endless/tiny": endless}, limits=limits) as server:
            yield Served(server, repo, engine)


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory, engine: llmcrdt.LlamaEngine) -> Iterator[Served]:
    """A server with two keys."""
    folder: Path = tmp_path_factory.mktemp("guarded")
    with llmcrdt.open(folder / "server.db", author="server") as repo:
        keys = Keys({ALICE: "alice", BOB: "bob"})
        with HttpServer(repo, {"tiny": engine}, keys=keys, origins=["https://app.example"]) as server:
            yield Served(server, repo, engine)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def said(answer: Any) -> dict[str, Any]:
    """The message of an answer, as clients send it again."""
    message: dict[str, Any] = answer["choices"][0]["message"]
    return message
