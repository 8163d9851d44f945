"""``llmcrdt open``: the page's address is printed, and Ctrl-C ends it."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

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


def test_a_port_that_is_taken_is_told(run: Run) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = run("open", "--no-model", "--no-browser", "--port", port)
    assert code == 1 and f"Port {port}" in err and "--port" in err
