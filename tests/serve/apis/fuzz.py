"""Random requests: good ones of each API, bent anywhere. Each gets an answer, or an error in the API's shape that is
the client's; never one that is the server's. The model that is asked has random weights.

    python -m tests.serve.apis.fuzz [SECONDS] [SEED]

Then schemathesis, where it is installed, asks what /openapi.json describes, for as long.
"""

from __future__ import annotations

import copy
import http.client
import importlib.util
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import llmcrdt
from llmcrdt.serve.http.limits import HttpLimits
from llmcrdt.serve.http.server import HttpServer
from llmcrdt.testing.models import write_model

TOOL = {"type": "object", "properties": {"city": {"type": "string"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
GOOD: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "a"},
            {"role": "user", "content": [{"type": "text", "text": "b"}]},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "d"},
            {"role": "user", "content": "e"},
        ],
        "max_tokens": 2,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 1,
        "stop": ["x"],
        "logit_bias": {"1": 2},
        "logprobs": True,
        "top_logprobs": 1,
        "stream": False,
        "tools": [{"type": "function", "function": {"name": "f", "description": "g", "parameters": TOOL}}],
        "tool_choice": "auto",
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": TOOL}},
        "metadata": {"a": "b"},
        "store": True,
        "user": "u",
    },
    "/v1/messages": {
        "model": "tiny",
        "max_tokens": 2,
        "system": [{"type": "text", "text": "a"}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "d"}]},
        ],
        "tools": [{"name": "f", "description": "g", "input_schema": TOOL}],
        "tool_choice": {"type": "auto"},
        "stop_sequences": ["x"],
        "temperature": 0.5,
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "metadata": {"user_id": "u"},
        "stream": False,
    },
    "/v1/responses": {
        "model": "tiny",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "b"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "s"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "d"},
        ],
        "instructions": "a",
        "max_output_tokens": 2,
        "tools": [{"type": "function", "name": "f", "parameters": TOOL, "strict": False}],
        "tool_choice": "auto",
        "text": {"format": {"type": "text"}},
        "include": ["message.output_text.logprobs"],
        "top_logprobs": 1,
        "metadata": {"a": "b"},
        "previous_response_id": None,
        "conversation": None,
        "background": False,
        "stream": False,
        "store": True,
    },
    "/v1/conversations": {"items": [{"role": "user", "content": "a"}], "metadata": {}},
}
ODD: list[Any] = [
    None, True, False, 0, -1, 1.5, 10**30, 1e308, "", "x", "\ud800", "\u0000", "résumé 🙂", "a" * 5000, [], {}, [[]],
    [None], {"": None}, {"type": "text"}, {"type": []}, "tiny", "auto", "resp_x", ["text"],
]  # fmt: skip


def bent(value: Any, chance: random.Random, much: float) -> Any:
    """A value with some of it replaced, left out or doubled."""
    if chance.random() < much:
        return copy.deepcopy(chance.choice(ODD))
    if isinstance(value, dict):
        made = {key: bent(inner, chance, much) for key, inner in value.items() if chance.random() > much / 2}
        if chance.random() < much:
            made[chance.choice(["colour", "type", "role", "content", "id", "", "name"])] = chance.choice(ODD)
        return made
    if isinstance(value, list):
        made_list = [bent(inner, chance, much) for inner in value if chance.random() > much / 2]
        return made_list + made_list[:1] if chance.random() < much / 2 else made_list
    return value


def check(path: str, status: int, kind: str, body: bytes) -> None:
    """Raises AssertionError for what is no answer and no error of this API."""
    assert 200 <= status < 500, f"{status}: {body[:500]!r}"
    if kind.startswith("text/event-stream"):
        assert body.endswith(b"\n\n")
        return
    value = json.loads(body)
    if status >= 400:
        if path.startswith("/v1/messages"):
            assert value["type"] == "error" and isinstance(value["error"]["message"], str)
        else:
            assert isinstance(value["error"]["message"], str) and "code" in value["error"]


def main(seconds: float, seed: int) -> None:
    """Ask for so long."""
    chance = random.Random(seed)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        repo = stack.enter_context(llmcrdt.open(folder / "x.db"))
        engine = stack.enter_context(
            llmcrdt.LlamaEngine(write_model(folder / "tiny.gguf", n_layer=2), folder, n_threads=1)
        )
        server = stack.enter_context(HttpServer(repo, {"tiny": engine}, limits=HttpLimits(seconds=20, tokens=16)))
        statuses: Counter[int] = Counter()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            statuses[ask(server.url, chance, seed)] += 1
        print(f"{statuses.total()} requests (0: left before the answer): {dict(sorted(statuses.items()))}")
        failed = described(server.url, seconds, seed)
        for row in repo.list(100_000):
            assert repo.get(row.id).verify() == []
    if failed:
        sys.exit(failed)


def described(url: str, seconds: float, seed: int) -> int:
    """Have schemathesis ask; its exit status."""
    if importlib.util.find_spec("schemathesis") is None:
        print("schemathesis is not here: /openapi.json is not asked by it")
        return 0
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/openapi.json", "-u", url]
    command += ["--phases", "coverage,fuzzing", "--max-time", str(max(1, int(seconds))), "--seed", str(seed)]
    command += ["-c", f"{checks},unsupported_method,allow_header_conformance", "--no-color"]
    return subprocess.run(command, check=False).returncode


def ask(url: str, chance: random.Random, seed: int) -> int:
    """Ask once; the status of the answer, 0 where nobody waited for one."""
    path = chance.choice([*GOOD, "/v1/messages/count_tokens"])
    good = GOOD["/v1/messages" if path.endswith("tokens") else path]
    data = json.dumps(bent(good, chance, chance.choice([0, 0.01, 0.03, 0.1]))).encode()
    if chance.random() < 0.05:
        data = data[: chance.randrange(len(data))]
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    connection.request("POST", path, data, {"content-type": "application/json"})
    if chance.random() < 0.02:
        connection.close()
        return 0
    response = connection.getresponse()
    found = response.read()
    connection.close()
    try:
        check(path, response.status, response.headers["content-type"], found)
    except Exception:
        print(f"seed {seed}: {path}\n{data.decode()[:3000]}")
        raise
    return response.status


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0, int(sys.argv[2]) if len(sys.argv) > 2 else 0)
