"""Two processes: one has read a long conversation and offers its KV state, the other answers the next turn with it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llmcrdt
from llmcrdt.kvcache import HandoverKey, HttpPeer
from llmcrdt.testing.models import write_model

SECRET = "k" * 40
WORDS = "It rains in Lisbon and the trams are full of people who carry umbrellas. " * 8


class Strong:
    """``llmcrdt serve --offer-kv`` in a process of its own, over the database and cache in ``folder``."""

    def __init__(self, folder: Path, model: Path, *options: str) -> None:
        keys = folder / "keys"
        keys.write_text(SECRET)
        keys.chmod(0o600)
        command = [sys.executable, "-m", "llmcrdt", "--db", str(folder / "strong.db"), "serve", "--model", f"m={model}"]
        command += ["--cache", str(folder / "kv"), "--offer-kv", "0", "--kv-keys", str(keys), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        lines = [self.process.stdout.readline() for _ in range(2)]
        assert lines[0].startswith("Serving") and lines[1].startswith("KV state at http://127.0.0.1:"), lines
        self.url = lines[1].split()[-1]

    def end(self) -> None:
        self.process.kill()
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, llmcrdt.Conversation]]:
    """A folder, a model, and a conversation of one long turn that a worker in another process has answered."""
    folder = tmp_path_factory.mktemp("handed")
    model = write_model(folder / "model.gguf")
    with llmcrdt.open(folder / "strong.db", author="phone") as repo:
        conversation = repo.create("Lisbon")
        conversation.append("user", WORDS)
        strong = Strong(folder, model)
        conversation.ask(settings={"max_tokens": 40}).result(60)
        conversation.append("user", "And tomorrow?")
        strong.end()
        yield folder, model, conversation


CACHES = "weak", "alone"


def chunks(folder: Path, name: str) -> Iterator[Path]:
    return (folder / name / "chunks").glob("*.kv")


def weak(folder: Path, model: Path, name: str, *peers: HttpPeer) -> llmcrdt.LlamaEngine:
    engine = llmcrdt.LlamaEngine(model, cache=folder / name, n_threads=1, peers=peers)
    assert engine.settled(60)
    engine._core.model.speed.believe(1.0)  # as large as a model that takes a second for a token
    return engine


def answer(conversation: llmcrdt.Conversation, engine: llmcrdt.LlamaEngine) -> tuple[str, dict[str, Any]]:
    """An answer to the last question, instead of those before; and its figures."""
    last = conversation.transcript()[-1]
    before = {"instead_of": last.id} if last.role == "assistant" else {}
    generation = llmcrdt.generate(conversation, engine, max_tokens=8, temperature=0.0, seed=1, **before)
    entry = generation.result(60)
    assert engine.settled(60), "what was evaluated and fetched is on disk"
    return str(entry.text), dict(generation.stats)


def test_a_worker_with_an_empty_cache_answers_with_the_state_of_another_one(
    world: tuple[Path, Path, llmcrdt.Conversation],
) -> None:
    folder, model, conversation = world
    with weak(folder, model, "alone") as engine:
        truth, alone = answer(conversation, engine)
    assert alone["reused"] == 0
    strong = Strong(folder, model)
    try:
        with weak(folder, model, "weak", HttpPeer(strong.url, HandoverKey(SECRET))) as engine:
            plan = llmcrdt.plan(conversation, engine, instead_of=conversation.transcript()[-1].id)
            assert plan.peer == plan.reused and plan.evaluate <= engine.chunk + 1
            words, stats = answer(conversation, engine)
            assert words == truth
            assert stats["reused_from"] == {"live": 0, "memory": 0, "disk": 0, "peer": plan.reused}
            assert stats["evaluated"] == plan.evaluate
        fetched, evaluated = ({file.name: file.read_bytes() for file in chunks(folder, name)} for name in CACHES)
        assert len(fetched) >= plan.reused // 64 and fetched == evaluated, "every byte is what is evaluated here"
    finally:
        strong.end()


def test_a_worker_whose_peer_is_killed_in_the_middle_goes_on_alone(
    world: tuple[Path, Path, llmcrdt.Conversation],
) -> None:
    folder, model, conversation = world
    strong = Strong(folder, model, "--kv-rate", "0.2")  # a chunk takes a third of a second
    try:
        with weak(folder, model, "left", HttpPeer(strong.url, HandoverKey(SECRET))) as engine:
            done: list[tuple[str, dict[str, Any]]] = []
            thread = threading.Thread(target=lambda: done.append(answer(conversation, engine)))
            thread.start()
            until = time.monotonic() + 60
            while engine.stats()["peers"]["fetched"] < 2 and time.monotonic() < until:
                time.sleep(0.01)
            strong.process.kill()
            thread.join(60)
            ((_, stats),) = done
            peer = stats["reused_from"]["peer"]
            assert 2 * engine.chunk <= peer < engine.chunk * (stats["total"] // engine.chunk)
            assert stats["evaluated"] == stats["total"] - peer
            assert engine.stats()["peers"]["failed"] == 1
    finally:
        strong.end()
