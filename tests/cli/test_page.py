"""``llmcrdt open``: the page's address is printed, and Ctrl-C ends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from ..waiting import eventually

pytest.importorskip("starlette")
pytest.importorskip("nh3")

Run = Callable[..., tuple[int, str, str]]


def test_the_address_is_printed_and_ctrl_c_ends_it(run: Run, tmp_path: Path) -> None:
    run("new", "Trip")
    command = [sys.executable, "-m", "llmcrdt", "--db", str(tmp_path / "a.db"), "open", "--no-model", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        address = process.stdout.readline().split()[-1]
        base, _, token = address.partition("#token=")
        request = urllib.request.Request(base + "api/library", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert b"Trip" in answer.read()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0 and process.stderr.read() == ""


def test_the_token_is_in_no_arguments(run: Run, tmp_path: Path) -> None:
    """Other users see those: the browser gets a code, which is good once."""
    run("new", "Trip")
    seen = tmp_path / "arguments"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf "%s" "$*" > {seen}.part\nmv {seen}.part {seen}\n')
    browser.chmod(0o700)
    command = [sys.executable, "-m", "llmcrdt", "--db", str(tmp_path / "a.db"), "open", "--no-model"]
    env = {**os.environ, "BROWSER": f"{browser} %s"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        base, _, token = process.stdout.readline().split()[-1].partition("#token=")
        eventually(seen.exists)
        opened, _, code = seen.read_text().partition("#code=")
        assert opened == base and token not in seen.read_text()

        def exchange() -> str:
            request = urllib.request.Request(
                base + "api/token", method="POST", headers={"Authorization": f"Code {code}"}
            )
            with urllib.request.urlopen(request, timeout=30) as answer:
                return str(json.load(answer)["token"])

        assert exchange() not in ("", token)
        with pytest.raises(urllib.error.HTTPError) as refused:
            exchange()
        refused.value.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_a_port_that_is_taken_is_told(run: Run) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = run("open", "--no-model", "--no-browser", "--port", port)
    assert code == 1 and f"Port {port}" in err and "--port" in err
