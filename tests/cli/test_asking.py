"""Commands about answers of models elsewhere: ``ask``, ``asks`` and ``serve``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

import llmcrdt
from llmcrdt.document.act_writer import ActWriter
from llmcrdt.document.conversation import core_of

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def trip(run: Run) -> str:
    return str(json.loads(run("new", "Trip", "--json")[1])["id"])


def test_an_ask_that_nobody_answers_is_kept_and_listed(run: Run, trip: str) -> None:
    code, out, _ = run("ask", trip, "Where to?", "--model", "smol*", "--max-tokens", 9, "--no-wait", "--json")
    made = json.loads(out)
    assert code == 0 and (made["state"], made["model"], made["settings"]) == ("waiting", "smol*", {"max_tokens": 9})
    code, out, err = run("ask", trip, "--timeout", 0.1)
    assert code == 1 and "goes on waiting" in err and "No relay is known" in err
    assert [each["state"] for each in json.loads(run("asks", trip, "--json")[1])] == ["waiting", "waiting"]
    assert "smol*" in run("asks", trip)[1]


def test_a_failed_ask_says_why(run: Run, trip: str, tmp_path: Path) -> None:
    made = json.loads(run("ask", trip, "Where to?", "--no-wait", "--json")[1])
    with llmcrdt.open(tmp_path / "a.db") as repo:
        ActWriter(core_of(repo.get(trip))).reply(made["id"], None, code="engine", text="Out of memory.")
    (listed,) = json.loads(run("asks", trip, "--json")[1])
    assert (listed["state"], listed["code"], listed["text"]) == ("failed", "engine", "Out of memory.")
    assert "Out of memory." in run("asks", trip)[1]


@pytest.mark.parametrize("model", ["=x.gguf", "nowhere.gguf"])
def test_serve_refuses_what_is_no_model(run: Run, model: str) -> None:
    code, _, err = run("serve", "--model", model)
    assert code == 1 and "gguf" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--http", "0.0.0.0:80"], "Without a key"),
        (["--http", "here"], "no address"),
        (["--http", "1", "--http-keys", "nowhere"], "can't be read"),
        (["--http-keys", "nowhere"], "are for --http"),
    ],
)
def test_serve_refuses_an_http_server_that_can_not_be(run: Run, options: list[str], words: str) -> None:
    pytest.importorskip("uvicorn")
    code, _, err = run("serve", *options)
    assert code in (1, 2) and words in err


def the_page_is_there(address: str) -> None:
    """Beside the HTTP APIs, with the guard of the page: a host, an origin, a token, and its policy."""
    base, _, token = address.partition("#token=")

    def get(path: str, **headers: str) -> tuple[int, str]:
        request = urllib.request.Request(base + path, headers={name.title(): each for name, each in headers.items()})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.headers["content-security-policy"] + answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, ""

    bearer = f"Bearer {token}"
    assert get("")[0] == 200 and "default-src 'none'" in get("")[1]
    code, library = get("api/library", authorization=bearer)
    assert code == 200 and "Trip" in library and "tiny" in library
    assert get("api/library")[0] == get("api/library", authorization="Bearer x")[0] == 401
    assert get("api/library", authorization=bearer, origin="https://evil.example")[0] == 403
    assert get("", host="evil.example")[0] == 421


def test_a_phone_asks_and_another_process_serves(run: Run, tmp_path: Path) -> None:
    """Both commands as people run them, on one database; SIGTERM ends the server."""
    pytest.importorskip("llama_cpp")
    pytest.importorskip("uvicorn")
    from llmcrdt.testing.models import write_model

    model = write_model(tmp_path / "tiny.gguf", n_layer=2)
    trip = json.loads(run("new", "Trip", "--json")[1])["id"]
    command = [sys.executable, "-m", "llmcrdt", "--db", str(tmp_path / "a.db"), "serve", "--model", f"tiny={model}"]
    command += ["--cache", str(tmp_path / "kv"), "--http", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as serving:
        try:
            assert serving.stdout is not None and "Serving tiny" in serving.stdout.readline()
            models = urllib.request.Request(f"{serving.stdout.readline().split()[-1]}/models")
            with urllib.request.urlopen(models, timeout=60) as answer:
                assert [each["id"] for each in json.load(answer)["data"]] == ["tiny"]
            the_page_is_there(serving.stdout.readline().split()[-1])
            code, out, _ = run(
                "ask", trip, "Where to?", "--model", "tiny", "--max-tokens", 5, "--timeout", 60, "--json"
            )
            assert code == 0 and json.loads(out)["status"] == "complete"
        finally:
            serving.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + 30
            while serving.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            if serving.poll() is None:
                serving.kill()
    assert serving.returncode == 0
    assert [each["state"] for each in json.loads(run("asks", trip, "--json")[1])] == ["answered"]
