"""The same turns beside ``llama-server``: both answer on this machine, in turns, with as many threads each.

Seconds are of the processor, up to the first word or to the end: those of this process, and of the server's. With one
thread each nobody waits busily, so a machine that is busy otherwise changes them little.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import llmcrdt

from .report import Report, median

_WAIT = 600.0
_ANSWER = 12  # tokens
_WORDS = ["river", "bridge", "village", "morning", "boat", "hill", "castle", "tram", "rain", "music"]


@dataclass(frozen=True)
class Took:
    """``first``, ``whole``: seconds of the processor to the first word, and to the end. ``evaluated``: tokens of the
    prompt."""

    first: float
    whole: float
    evaluated: int


def found(named: Path | None) -> Path | None:
    """The program: the one that is named, or on the path."""
    on_path = shutil.which("llama-server")
    return named or (Path(on_path) if on_path else None)


class Server:
    """``llama-server`` as a process of its own, with ``slots``; a context manager."""

    def __init__(self, program: Path, model: Path, folder: Path, slots: int, threads: int) -> None:
        self.saved = folder / "saved"
        self.saved.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port = free.getsockname()[1]
        command = [str(program), "-m", str(model), "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["-t", str(threads), "-np", str(slots), "-c", str(8192 * slots), "--slot-save-path", str(self.saved)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self) -> Server:
        deadline = time.monotonic() + _WAIT
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError):
                if self._request("GET", "/health", None).status == 200:
                    return self
            time.sleep(0.1)
        self._process.kill()
        raise SystemExit("llama-server does not start.")

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def slot(self, what: Literal["save", "restore"]) -> None:
        """Save the state of its first slot, or read it again."""
        response = self._request("POST", f"/slots/0?action={what}", {"filename": "slot.bin"})
        if response.status != 200:
            raise SystemExit(f"llama-server can't {what} a slot: {response.read()!r}")
        response.read()

    def work(self) -> float:
        """Seconds that it has used the processor."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def chat(self, messages: list[dict[str, str]], at_first: Callable[[], None] = lambda: None) -> Took:
        """Answer, and append the answer to the messages."""
        began, first, said = self.work(), 0.0, ""
        counts: dict[str, Any] = {}
        body = {"messages": messages, "max_tokens": _ANSWER, "temperature": 0, "stream": True, "cache_prompt": True}
        for line in self._request("POST", "/v1/chat/completions", body):
            if line.startswith(b"data: {"):
                told: dict[str, Any] = json.loads(line[6:])
                delta = (told.get("choices") or [{"delta": {}}])[0]["delta"].get("content") or ""
                if delta and not said:
                    first = self.work() - began
                    at_first()
                said, counts = said + delta, told.get("timings") or counts
        messages.append({"role": "assistant", "content": said})
        return Took(first, self.work() - began, int(counts.get("prompt_n", 0)))

    def _request(self, method: str, path: str, body: object) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_WAIT)
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Content-Type": "application/json", "Connection": "close"})
        return connection.getresponse()


def answered(
    conversation: llmcrdt.Conversation, engine: llmcrdt.LlamaEngine, at_first: Callable[[], None] = lambda: None
) -> Took:
    """The next answer of an engine, from the document to the document."""
    began, first = time.process_time(), 0.0
    generation = llmcrdt.generate(conversation, engine, max_tokens=_ANSWER, temperature=0.0)
    for piece in generation:
        if piece and not first:
            first = time.process_time() - began
            at_first()
    generation.result(_WAIT)
    whole = time.process_time() - began
    return Took(first or whole, whole, generation.stats["evaluated"])


def beside(report: Report, folder: Path, model: Path, program: Path, options: argparse.Namespace) -> None:
    """Late turns, a turn after a restart, and four conversations at once."""
    _late_turns(report, folder, model, program, options)
    _at_once(report, folder, model, program, options)


@contextlib.contextmanager
def _engine(model: Path, cache: Path, options: argparse.Namespace, **more: Any) -> Iterator[llmcrdt.LlamaEngine]:
    with llmcrdt.LlamaEngine(model, cache=cache, n_threads=options.threads, **more) as engine:
        engine.settled(_WAIT)
        yield engine


def _late_turns(
    report: Report, folder: Path, model: Path, program: Path, options: argparse.Namespace, turns: int = 14
) -> None:
    rng, took = random.Random(1), dict[str, list[Took]]()
    with contextlib.ExitStack() as stack:
        repo = stack.enter_context(llmcrdt.open(folder / "beside.db"))
        server = stack.enter_context(Server(program, model, folder, 1, options.threads))
        engines = {
            mode: stack.enter_context(_engine(model, folder / mode, options, mode=mode)) for mode in ("fast", "exact")
        }
        conversations = {mode: repo.create() for mode in engines}
        messages: list[dict[str, str]] = []
        for _ in range(turns):
            words = " ".join(rng.choice(_WORDS) for _ in range(60))
            messages.append({"role": "user", "content": words})
            took.setdefault("server", []).append(server.chat(messages))
            for mode, engine in engines.items():
                conversations[mode].append("user", words)
                took.setdefault(mode, []).append(answered(conversations[mode], engine))
                engine.settled(_WAIT)
        server.slot("save")
        words = "And now?"
        messages.append({"role": "user", "content": words})
        conversations["exact"].append("user", words)
        engines["exact"].close()
        chunk = engines["exact"].chunk
        again = stack.enter_context(Server(program, model, folder, 1, options.threads))
        reopened = stack.enter_context(_engine(model, folder / "exact", options))
        again.slot("restore")
        theirs, ours = again.chat(messages), answered(conversations["exact"], reopened)
    late = {name: median([each.first for each in some[turns // 2 :]]) for name, some in took.items()}
    report.add("late turns: first word of llama-server, of the processor", 1000 * late["server"], "ms")
    for mode, most in (("fast", 1.05), ("exact", 1.3)):
        report.add(f"late turns: first word in {mode} mode, of the processor", 1000 * late[mode], "ms")
        report.add(f"  times that of llama-server, {mode} mode", late[mode] / late["server"], "x", most)
    report.add("after a restart: tokens evaluated by llama-server", theirs.evaluated, "tokens")
    report.add("after a restart: tokens evaluated beyond those", ours.evaluated - theirs.evaluated, "tokens", chunk)
    report.add("after a restart: first word of llama-server, of the processor", 1000 * theirs.first, "ms")
    report.add("after a restart: first word, of the processor", 1000 * ours.first, "ms")


def _at_once(report: Report, folder: Path, model: Path, program: Path, options: argparse.Namespace) -> None:
    rng, took = random.Random(2), dict[str, list[tuple[float, float]]]()
    with contextlib.ExitStack() as stack:
        repo = stack.enter_context(llmcrdt.open(folder / "at-once.db"))
        server = stack.enter_context(Server(program, model, folder, 4, options.threads))
        engine = stack.enter_context(_engine(model, folder / "at-once", options, slots=4))
        for _ in range(options.rounds):
            words = [" ".join(rng.choice(_WORDS) for _ in range(80)) for _ in range(4)]
            conversations = [repo.create() for _ in words]
            for conversation, said in zip(conversations, words, strict=True):
                conversation.append("user", said)
            lists = [[{"role": "user", "content": said}] for said in words]
            took.setdefault("server", []).append(_all(server.work, [_bound(server.chat, each) for each in lists]))
            ours = [_bound(answered, each, engine) for each in conversations]
            took.setdefault("ours", []).append(_all(time.process_time, ours))
            engine.settled(_WAIT)
    for n, (what, most) in enumerate((("all", 0.9), ("last first word", 1.05))):
        theirs, mine = (median([each[n] for each in took[name]]) for name in ("server", "ours"))
        report.add(f"four at once: {what}, llama-server, of the processor", theirs, "s")
        report.add(f"four at once: {what}, of the processor", mine, "s")
        report.add(f"  times that of llama-server, {what}", mine / theirs, "x", most)


def _bound(answer: Callable[..., Took], *arguments: object) -> Callable[[Callable[[], None]], Took]:
    return lambda at_first: answer(*arguments, at_first)


def _all(work: Callable[[], float], answers: list[Callable[[Callable[[], None]], Took]]) -> tuple[float, float]:
    """Seconds of the processor until all have ended, and until the last of them said its first word."""
    began, firsts = work(), list[float]()
    threads = [threading.Thread(target=each, args=[lambda: firsts.append(work() - began)]) for each in answers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_WAIT)
    return work() - began, max(firsts, default=0.0)
