"""KV state: the same conversation by llmcrdt's cache, llama-cpp-python's two caches, its live context, and no cache.

All of them answer the same prompts in one run, with the same model and threads: a conversation, a fork, an edit in the
middle, a merge, a restart. The first token counts from the call on. Tokens are counted where llama.cpp decodes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from llmcrdt.engine.engine import Engine, Event, Failed, Finished, Sampled, Sampling
from llmcrdt.engine.llama_cpp import LlamaEngine
from llmcrdt.testing.models import write_model

from .report import Report, median

SYSTEM, USER, ANSWER = 128, 48, 16
N_CTX = 4608


@dataclass(frozen=True)
class Turn:
    """One answer. ``after``: seconds of saving or settling once it was said; ``written``: bytes put on disk."""

    first: float
    evaluated: int
    after: float
    written: int
    said: tuple[int, ...]


@dataclass
class KvReport(Report):
    """Also: (turn, seconds to the first token) for each way."""

    series: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return super().as_json() | {"first_token_seconds_by_turn": self.series}


class Way(Protocol):
    """One way to answer prompts. ``restart``: as a new process would."""

    def answer(self, ids: Sequence[int]) -> Turn: ...
    def restart(self) -> None: ...
    def held(self) -> int: ...
    def close(self) -> None: ...


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, help="GGUF file (default: a random one of 106M parameters, F16)")
    parser.add_argument("--turns", type=int, default=20, help="turns of the conversation (default 20)")
    parser.add_argument("--prefix", type=int, default=4096, help="tokens of the prefix to restore (default 4,096)")
    parser.add_argument("--quick", action="store_true", help="a tiny model, six turns, a prefix of 1,024")


def run(options: argparse.Namespace) -> Report:
    report = KvReport("kv")
    turns, prefix = (6, 1024) if options.quick else (options.turns, options.prefix)
    threads = max(1, (os.cpu_count() or 2) - 1)
    with tempfile.TemporaryDirectory(prefix="llmcrdt-bench-") as name:
        folder = Path(name)
        model = options.model or _model(folder / "random.gguf", quick=options.quick)
        ways: dict[str, Callable[[], Way]] = {
            "no cache": lambda: Peer(model, threads, "none", folder),
            "live context": lambda: Peer(model, threads, "live", folder),
            "LlamaRAMCache": lambda: Peer(model, threads, "ram", folder),
            "LlamaDiskCache": lambda: Peer(model, threads, "disk", folder),
            "llmcrdt": lambda: Ours(model, threads, folder / "ours"),
        }
        said: dict[str, dict[str, Any]] = {name: {} for name in ways}
        talks = [_converse(make(), turns, said[name]) for name, make in ways.items()]
        for _ in zip(*talks, strict=True):  # in turns, so that a busy machine is busy for all of them
            pass
        _compare(report, said, turns)
        _restore(report, model, threads, folder / "prefix", prefix)
    return report


def _model(path: Path, *, quick: bool) -> Path:
    if quick:
        return write_model(path, quant="F16", context=8192)
    return write_model(path, quant="F16", n_layer=11, n_embd=1024, context=8192)


def _converse(way: Way, turns: int, found: dict[str, Any]) -> Iterator[None]:
    """The whole script, by one way, an answer a step. Each goes on from its own answers; all are equally long."""
    new = random.Random(1)

    def words(n: int) -> list[int]:
        return [new.randrange(300, 780) for _ in range(n)]

    ids, starts, talk = words(SYSTEM), [], []
    for _ in range(turns):
        starts.append(len(ids))
        ids += words(USER)
        talk.append(way.answer(ids))
        ids += talk[-1].said
        yield
    middle = starts[turns // 2]
    steps = {
        "fork": ids[:middle] + words(USER),
        "back": ids + words(USER),
        "edit in the middle": ids[:middle] + words(USER) + ids[middle + USER :] + words(USER),
        "merge": ids + words(3 * USER),
    }
    found["turn"] = talk
    for name, prompt in steps.items():
        found[name] = [way.answer(prompt)]
        yield
    found["held"] = way.held()
    way.restart()
    found["restart"] = [way.answer(ids + words(USER))]
    way.close()
    yield


def _compare(report: KvReport, said: dict[str, Any], turns: int) -> None:
    for name, found in said.items():
        for step in ("turn", "fork", "back", "edit in the middle", "merge", "restart"):
            last = found[step][-1]
            label = f"turn {turns}" if step == "turn" else step
            report.add(f"{name}: {label}, first token", last.first * 1000, "ms")
            report.add(f"{name}: {label}, evaluated", last.evaluated, "tokens")
        report.add(f"{name}: after a turn, median", median([t.after for t in found["turn"]]) * 1000, "ms")
        report.add(f"{name}: written in {turns} turns", sum(t.written for t in found["turn"]) / 2**20, "MiB")
        report.add(f"{name}: cache in memory", found["held"] / 2**20, "MiB")
    ours, live, disk = said["llmcrdt"], said["live context"], said["LlamaDiskCache"]
    most = live["turn"][-1].evaluated + 64
    report.add(f"turn {turns}: llmcrdt evaluates", ours["turn"][-1].evaluated, "tokens", most)
    late = slice(-max(3, turns // 4), None)
    ratio = median([t.first for t in ours["turn"][late]]) / median([t.first for t in live["turn"][late]])
    report.add("first token, llmcrdt / live context, late turns", ratio, "x")
    least = sum(t.written for t in disk["turn"]) / max(1, sum(t.written for t in ours["turn"]))
    report.add("bytes written, LlamaDiskCache / llmcrdt", least, "x")
    for step in ("back", "restart"):
        best = min(said[n][step][0].first for n in said if n != "llmcrdt")
        report.add(f"{step}: first token, best other / llmcrdt", best / ours[step][0].first, "x")
    series = ((n, t, turn.first) for n, found in said.items() for t, turn in enumerate(found["turn"], 1))
    for name, t, first in series:
        report.series.setdefault(name, []).append((t, first))


def _restore(report: Report, model: Path, threads: int, cache: Path, prefix: int) -> None:
    """Evaluate a prefix once, cold; then take it from disk, verified, and from memory."""
    new = random.Random(2)
    ids = [new.randrange(300, 780) for _ in range(prefix + 2)]
    with LlamaEngine(model, cache, n_ctx=N_CTX, n_threads=threads) as engine:
        cold = _logits_seconds(engine, ids)
        engine.settled()
    with LlamaEngine(model, cache, n_ctx=N_CTX, n_threads=threads) as engine:
        disk = _logits_seconds(engine, ids)
        engine.logits([5, 6]).result()
        memory = _logits_seconds(engine, ids)
        engine.logits(ids).result()
        tail = _logits_seconds(engine, ids)  # all is live: what evaluating the last two tokens costs
    report.add(f"{prefix} tokens: evaluate", cold, "s")
    report.add(f"{prefix} tokens: restore from disk, verified", max(disk - tail, 1e-9) * 1000, "ms")
    report.add(f"{prefix} tokens: restore from memory", max(memory - tail, 1e-9) * 1000, "ms")
    report.add(f"{prefix} tokens: evaluate / restore from disk", cold / max(disk - tail, 1e-9), "x")
    report.add(f"{prefix} tokens: evaluate / restore from memory", cold / max(memory - tail, 1e-9), "x", 100, "least")


def _logits_seconds(engine: Engine, ids: Sequence[int]) -> float:
    began = time.perf_counter()
    engine.logits(ids).result()
    return time.perf_counter() - began


class Ours:
    """LlamaEngine with its two tiers. ``after`` is what it settles and stores in the background."""

    def __init__(self, model: Path, threads: int, cache: Path) -> None:
        self._model, self._threads, self._cache = model, threads, cache
        self._engine = self._open()

    def _open(self) -> LlamaEngine:
        return LlamaEngine(self._model, self._cache, n_ctx=N_CTX, n_threads=self._threads)

    def answer(self, ids: Sequence[int]) -> Turn:
        engine, done = self._engine, threading.Event()
        first: list[float] = []
        last: list[Event] = []
        evaluated, size = engine.stats()["prompt_tokens"], folder_bytes(self._cache)

        def hear(event: Event) -> None:
            if isinstance(event, Sampled) and not first:
                first.append(time.perf_counter())
            if isinstance(event, (Finished, Failed)):
                last.append(event)
                done.set()

        ends = {token: -1000.0 for token in engine.tokenizer.special.values() if engine.tokenizer.is_end(token)}
        began = time.perf_counter()
        engine.start(
            ids, max_tokens=ANSWER, sampling=Sampling(temperature=0, logit_bias=ends), on_event=hear, owner="bench"
        )
        done.wait()
        over = time.perf_counter()
        engine.settled()
        after = time.perf_counter() - over
        assert isinstance(last[0], Finished)
        evaluated = engine.stats()["prompt_tokens"] - evaluated
        return Turn(first[0] - began, evaluated, after, folder_bytes(self._cache) - size, last[0].tokens)

    def restart(self) -> None:
        self._engine.close()
        self._engine = self._open()

    def held(self) -> int:
        return int(self._engine.stats()["cache"]["memory_held_bytes"])

    def close(self) -> None:
        self._engine.close()


class Peer:
    """llama-cpp-python's Llama. ``kind``: "none" empties it before each answer; "live" keeps the context as it stands;
    "ram" and "disk" add its cache."""

    def __init__(self, model: Path, threads: int, kind: str, folder: Path) -> None:
        self._model, self._threads, self._kind, self._folder = model, threads, kind, folder / "peer"
        self._evaluated, self._first = 0, 0.0
        self._after, self._written = 0.0, 0
        self._cache = self._new_cache()
        self._open()

    def answer(self, ids: Sequence[int]) -> Turn:
        if self._kind == "none":
            self._llama.reset()
        self._evaluated, self._written, self._first, self._after = 0, 0, 0.0, 0.0
        began = time.perf_counter()
        self._llama.create_completion(
            list(ids), max_tokens=ANSWER, temperature=0.0, top_k=1, repeat_penalty=1.0, logits_processor=[self._choose]
        )
        evaluated = self._evaluated
        said = tuple(int(token) for token in self._llama.input_ids[len(ids) : self._llama.n_tokens])
        said += (300,) * (ANSWER - len(said))  # the last one was drawn, and never evaluated
        return Turn(self._first - began, evaluated, self._after, self._written if self._kind == "disk" else 0, said)

    def restart(self) -> None:
        self._llama.close()
        if self._kind == "ram":
            self._cache = self._new_cache()
        self._open()

    def held(self) -> int:
        return int(self._cache.cache_size) if self._kind == "ram" else 0

    def close(self) -> None:
        self._llama.close()

    def _open(self) -> None:
        import llama_cpp

        llama: Any = llama_cpp.Llama(
            str(self._model), n_ctx=N_CTX, n_batch=512, n_threads=self._threads, n_threads_batch=self._threads,
            verbose=False,
        )  # fmt: skip
        vocab, way = llama._model.vocab, self
        self._ends = [t for t in range(llama.n_vocab()) if llama_cpp.llama_vocab_is_eog(vocab, t)]
        decode, save = llama._ctx.decode, llama.save_state

        def counted(batch: Any) -> None:
            if not way._first:
                way._evaluated += batch.batch.n_tokens
            decode(batch)

        def saved() -> Any:
            began = time.perf_counter()
            state = save()
            way._after += time.perf_counter() - began
            return state

        llama._ctx.decode, llama.save_state = counted, saved
        if self._cache is not None:
            llama.set_cache(self._cache)
        self._llama: Any = llama

    def _choose(self, ids: Any, scores: Any) -> Any:
        if not self._first:
            self._first = time.perf_counter()
        scores[self._ends] = -float("inf")
        return scores

    def _new_cache(self) -> Any:
        """The cache, and a clock around what it does when a turn is over."""
        if self._kind not in ("ram", "disk"):
            return None
        from llama_cpp import llama_cache

        kind: Any = llama_cache.LlamaRAMCache if self._kind == "ram" else llama_cache.LlamaDiskCache
        way = self

        class Timed(kind):  # type: ignore[misc]
            def __setitem__(self, key: Sequence[int], value: Any) -> None:
                began = time.perf_counter()
                with contextlib.redirect_stderr(io.StringIO()):  # it prints its steps
                    super().__setitem__(key, value)
                way._after += time.perf_counter() - began
                way._written += len(value.llama_state) + value.input_ids.nbytes + value.scores.nbytes

        return Timed(capacity_bytes=8 << 30) if self._kind == "ram" else Timed(str(self._folder), 8 << 30)


def folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0
