"""A real server that speaks OpenAI's API over HTTP: llama-cpp-python's own, with a tiny model."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from urllib.request import urlopen

import pytest

import llmcrdt
from llmcrdt import TextDelta, Usage
from llmcrdt.exceptions import FormatError, ProviderRefused
from llmcrdt.providers import OpenAI
from llmcrdt.testing.models import write_model

from ..waiting import eventually

OpenRepo = Callable[..., llmcrdt.Repo]
_NEEDED = ("llama_cpp", "openai", "uvicorn", "fastapi", "sse_starlette", "starlette_context", "pydantic_settings")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"the server of llama-cpp-python needs {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("server")
    model = write_model(folder / "tiny.gguf", context=4096)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(model), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--n_ctx", "4096", "--n_threads", "1", "--model_alias", "tiny"]
    with (folder / "log.txt").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    try:

        def answers() -> bool:
            assert server.poll() is None, (folder / "log.txt").read_text(errors="replace")[-2000:]
            try:
                with urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5) as response:
                    return "tiny" in json.dumps(json.load(response))
            except OSError:
                return False

        eventually(answers)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(60)


def test_a_conversation_is_answered_turn_by_turn(url: str, open_repo: OpenRepo) -> None:
    conv = open_repo("laptop").create()
    conv.append("system", "You are a guide.")
    for turn in range(4):
        provider = OpenAI("tiny", api="chat", base_url=url, api_key="none", stream=turn % 2 == 0)
        conv.append("user", f"Where shall we go? {turn}")
        generation = llmcrdt.generate(conv, provider, max_tokens=12, temperature=0.5, seed=turn)
        *deltas, usage, _ = generation.events()
        entry = generation.result()
        assert "".join(event.text for event in deltas if isinstance(event, TextDelta)) == entry.text
        assert isinstance(usage, Usage) and entry.status == "complete" and entry.usage["finish"] in ("stop", "length")
        assert entry.model == {"api": "openai-chat", "name": "tiny"}
    assert conv.verify() == [] and len(conv.transcript()) == 9


def test_what_it_refuses_is_told(url: str, open_repo: OpenRepo) -> None:
    """Of a stream it says nothing: the response is empty."""
    conv = open_repo("laptop").create()
    conv.append("user", "much " * 5000)
    before = conv.version()
    with pytest.raises(ProviderRefused, match="context") as caught:
        llmcrdt.generate(conv, OpenAI("tiny", api="chat", base_url=url, api_key="none", stream=False)).result(60)
    assert caught.value.status == 400
    with pytest.raises(FormatError, match="before there was an answer"):
        llmcrdt.generate(conv, OpenAI("tiny", api="chat", base_url=url, api_key="none")).result(60)
    assert conv.version() == before
