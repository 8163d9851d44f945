"""Runs the load generator against a server, and looks at the server meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .servers import Server

ROOT = Path(__file__).resolve().parent.parent.parent


class Failed(Exception):
    """The server did not do what was asked, or sent something wrong: there is no figure."""


@dataclass(frozen=True)
class Found:
    """The generator's counts, and what the server took for them: processor time as a share of one core, resident
    bytes before and after, and the most in between; ``own``: how many the process has more without its children."""

    counted: dict[str, Any]
    cpu: float
    before: int
    after: int
    peak: int
    own: int


def run(server: Server, do: str, **task: Any) -> Found:
    """One task, in a process of its own. Raises Failed."""
    task |= {"do": do, "url": server.url, "dialect": server.kind.dialect, "deflate": server.kind.deflate}
    task.setdefault("name", "room")
    command = [sys.executable, "-m", "benchmarks.relay.load"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            _say(process, json.dumps(task))
            _hear(process, "open")
            server.settle()
            before, own = server.memory, server.own_memory
            cpu, began = server.cpu, time.perf_counter()
            with server.peak() as peak:
                _say(process)
                _hear(process, "done")
                took, cpu, after = time.perf_counter() - began, server.cpu - cpu, server.memory
                own = server.own_memory - own
            _say(process)
            return Found(_hear(process, "end"), cpu / took, before, after, peak[-1], own)
        finally:
            process.kill()


def _say(process: subprocess.Popen[str], line: str = "") -> None:
    assert process.stdin
    process.stdin.write(line + "\n")
    process.stdin.flush()


def _hear(process: subprocess.Popen[str], at: str) -> dict[str, Any]:
    assert process.stdout
    line = process.stdout.readline()
    event: dict[str, Any] = json.loads(line) if line else {"at": "failed", "why": "The load generator ended."}
    if event["at"] != at:
        raise Failed(event.get("why", f"{event['at']} instead of {at}"))
    return event
