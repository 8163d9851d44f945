"""The tutorial tells the truth: its commands are run as they stand there, then its Python; the examples run as well."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("llama_cpp")
    from llmcrdt.testing.models import write_model

    return Path(write_model(tmp_path_factory.mktemp("models") / "tiny.gguf", n_layer=2))


def test_its_commands_run(tmp_path: Path, model: Path, free_port: int) -> None:
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    assert len(lines) > 20 and all(line.startswith("$ ") for line in lines)
    commands = "\n".join(line[2:] for line in lines).replace("8765", str(free_port))
    (tmp_path / "bin").mkdir()
    for name, run in [("llmcrdt", "-m llmcrdt "), ("python3", "")]:
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {run}"$@"\n')
        program.chmod(0o755)
    script = f"set -eu -o pipefail\ntrap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n{commands}\n"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("LLMCRDT_")},
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "LLMCRDT_MODEL": str(model),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Said on the laptop" not in done.stderr and "Traceback" not in done.stderr


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture
def chat(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    pytest.importorskip("fastapi")
    from fastapi.testclient import TestClient

    monkeypatch.setenv("CHAT_DB", str(tmp_path / "chats.db"))
    monkeypatch.setenv("LLMCRDT_MODEL", str(model))
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import chat_server

    with TestClient(chat_server.app) as client:
        yield client


def test_the_chat_server_answers_and_keeps_what_was_said(chat: Any) -> None:
    id = chat.post("/conversations").json()["id"]
    answer = chat.post(f"/conversations/{id}", json={"text": "Hello"})
    assert answer.status_code == 200
    said = chat.get(f"/conversations/{id}").json()
    assert said == [{"role": "user", "text": "Hello"}, {"role": "assistant", "text": answer.text}]
    assert chat.get("/conversations/none").status_code == 404


def test_the_desktop_app_shows_what_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tkinter = pytest.importorskip("tkinter")
    try:
        root = tkinter.Tk()
    except tkinter.TclError as error:
        pytest.skip(f"no screen: {error}")
    import llmcrdt

    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import desktop

    with llmcrdt.open(tmp_path / "a.db", author="ann") as repo:
        conv = repo.create(title="Trip")
        window = desktop.Window(root, conv)
        window.line.insert(0, "Where to?")
        window.say()
        while "ann: Where to?" not in window.words.get("1.0", "end"):
            root.update()
        window.stop()
        root.destroy()
