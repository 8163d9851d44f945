"""KV state: the same conversation by llmcrdt's cache, llama-cpp-python's two caches, its live context, and no cache.

All of them answer the same prompts in one run, in turns, each in a process of its own, with the same model and threads:
a conversation, a fork, an edit in the middle, a merge, a restart.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from llmcrdt.engine.llama.engine import LlamaEngine
from llmcrdt.testing.models import write_model

from .kv_ways import ANSWER, N_CTX, WAYS, Remote, Stopwatch, Took, Turn, usual_threads
from .report import Report, median

SYSTEM, USER = 128, 58  # a turn is no whole number of chunks: tails of every length come up
CHUNK = 64
WORK = ", processor time"  # beside that by the clock: a busy machine stretches only the latter
STEPS = ("fork", "back", "edit in the middle", "merge", "restart")


@dataclass
class KvReport(Report):
    """Also, for each way: seconds to the first token by turn, and of the steps after the last turn."""

    by_turn: dict[str, list[float]] = field(default_factory=dict)
    by_step: dict[str, dict[str, float]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        more = {"first_token_seconds_by_turn": self.by_turn, "first_token_seconds_by_step": self.by_step}
        return super().as_json() | more


@dataclass
class Said:
    """The run of one way: every turn, every step after them, and their cost."""

    turns: list[Turn] = field(default_factory=list)
    steps: dict[str, Turn] = field(default_factory=dict)
    chunk: list[Took] = field(default_factory=list)
    held: int = 0
    peak: int = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, help="GGUF file (default: a random one of 106M parameters, F16)")
    parser.add_argument("--turns", type=int, default=20, help="turns of the conversation (default 20)")
    parser.add_argument("--prefix", type=int, default=4096, help="tokens of the prefix to restore (default 4,096)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw time to first token by turn, as PNG")
    parser.add_argument("--quick", action="store_true", help="a tiny model, six turns, a prefix of 1,024")


def run(options: argparse.Namespace) -> Report:
    if options.plot:  # said at once where matplotlib is missing
        from .kv_plot import draw
    report = KvReport("kv")
    turns, prefix = (6, 1024) if options.quick else (options.turns, options.prefix)
    threads = usual_threads()
    with tempfile.TemporaryDirectory(prefix="llmcrdt-bench-") as name:
        folder = Path(name)
        model = options.model or write_random(folder / "random.gguf", quick=options.quick)
        said = {way: Said() for way in WAYS}
        talks = [_converse(Remote(way, model, threads, folder), turns, said[way]) for way in WAYS]
        while sum(next(talk, False) for talk in talks):  # in turns: a busy machine is busy for all of them
            talks.append(talks.pop(0))
        _tell(report, said, turns)
        _compare(report, said, turns)
        _restore(report, model, threads, folder / "prefix", prefix)
    if options.plot:
        draw(report.by_turn, report.by_step, options.plot)
    return report


def write_random(path: Path, *, quick: bool) -> Path:
    if quick:
        return write_model(path, quant="F16", context=8192)
    return write_model(path, quant="F16", n_layer=11, n_embd=1024, context=8192)


def _converse(way: Remote, turns: int, said: Said) -> Iterator[bool]:
    """The whole script, by one way, an answer a step. Each goes on from its own answers; all are equally long."""
    new = random.Random(1)

    def words(n: int) -> list[int]:
        return [new.randrange(300, 780) for _ in range(n)]

    ids, starts = words(SYSTEM), []
    for _ in range(turns):
        starts.append(len(ids))
        ids += words(USER)
        said.turns.append(way.answer(ids))
        ids += said.turns[-1].said
        yield True
    live = ids[: len(ids) - ANSWER]
    said.chunk = [way.evaluate(live, words(CHUNK)) for _ in range(5)]
    yield True
    middle = starts[turns // 2]
    prompts = {
        "fork": ids[:middle] + words(USER),
        "back": ids + words(USER),
        "edit in the middle": ids[:middle] + words(USER) + ids[middle + USER :] + words(USER),
        "merge": ids + words(3 * USER),
    }
    for name, prompt in prompts.items():
        said.steps[name] = way.answer(prompt)
        yield True
    said.held, said.peak = way.held(), way.peak()
    way.restart()
    said.steps["restart"] = way.answer(ids + words(USER))
    way.close()
    yield True


def _tell(report: KvReport, said: dict[str, Said], turns: int) -> None:
    """Every figure of every way."""
    for name, found in said.items():
        for step, turn in {f"turn {turns}": found.turns[-1], **found.steps}.items():
            report.add(f"{name}: {step}, first token", turn.first * 1000, "ms")
            report.add(f"{name}: {step}, evaluated", turn.evaluated, "tokens")
        report.add(f"{name}: saving in a turn, while others wait", median([t.saved for t in found.turns]) * 1000, "ms")
        report.add(f"{name}: saving in a turn, on another thread", median([t.aside for t in found.turns]) * 1000, "ms")
        report.add(f"{name}: settling after a turn, mean", fmean(t.settled for t in found.turns) * 1000, "ms")
        report.add(f"{name}: written in {turns} turns", sum(t.written for t in found.turns) / 2**20, "MiB")
        report.add(f"{name}: saved state in memory", found.held / 2**20, "MiB")
        report.add(f"{name}: peak memory of the process", found.peak / 2**20, "MiB")
        report.by_turn[name] = [turn.first for turn in found.turns]
        report.by_step[name] = {step: turn.first for step, turn in found.steps.items()}


def _compare(report: KvReport, said: dict[str, Said], turns: int) -> None:
    """The budgets, and by how much each is met or missed."""
    ours, live, disk = said["llmcrdt"], said["live context"], said["LlamaDiskCache"]
    everything = [*ours.turns, *ours.steps.values()]
    wrong = sum(turn.evaluated != turn.planned for turn in everything)
    report.add(f"answers of {len(everything)} that did not evaluate what was planned", wrong, "answers", 0)
    late = slice(-max(3, turns // 4), None)
    for kind, first, theirs, chunk in (
        ("", [t.first for t in ours.turns[late]], [t.first for t in live.turns[late]], [t.clock for t in live.chunk]),
        (WORK, [t.work for t in ours.turns[late]], [t.work for t in live.turns[late]], [t.work for t in live.chunk]),
    ):
        most = median(theirs) + median(chunk)
        report.add(f"evaluating one chunk of {CHUNK} after turn {turns}{kind}", median(chunk) * 1000, "ms")
        report.add(f"late turns: first token, live context{kind}", median(theirs) * 1000, "ms")
        report.add(f"late turns: first token, llmcrdt{kind}", median(first) * 1000, "ms", most * 1000)
        report.add(f"late turns: first token, llmcrdt / live context{kind}", median(first) / median(theirs), "x")
    saved = median([t.saved for t in disk.turns])
    for name, turns_saved in (
        ("saving, LlamaDiskCache / llmcrdt", [t.saved for t in ours.turns]),
        ("saving, LlamaDiskCache / llmcrdt with what is done aside", [t.saved + t.aside for t in ours.turns]),
    ):
        report.add(name, saved / median(turns_saved), "x", 10, "least")
    least = sum(t.written for t in disk.turns) / max(1, sum(t.written for t in ours.turns))
    report.add("bytes written, LlamaDiskCache / llmcrdt", least, "x")
    for step in STEPS:
        best = min(said[name].steps[step].first for name in said if name != "llmcrdt")
        report.add(f"{step}: first token, best other / llmcrdt", best / ours.steps[step].first, "x")


def _restore(report: Report, model: Path, threads: int, cache: Path, prefix: int) -> None:
    """Evaluate a prefix cold; then take it from disk, verified, and from memory. In batches of 512, as the engine does.

    The cost of evaluating the last two tokens, where all else is live, is subtracted.
    """
    new = random.Random(2)
    ids, other = ([new.randrange(300, 780) for _ in range(prefix + 2)] for _ in range(2))
    cold, disk, memory, tail = [], [], [], []
    with LlamaEngine(model, cache, n_ctx=N_CTX, n_threads=threads) as engine:
        cold += [_logits(engine, ids), _logits(engine, other)]
        engine.settled()
    for _ in range(3):
        with LlamaEngine(model, cache, n_ctx=N_CTX, n_threads=threads) as engine:
            disk.append(_logits(engine, ids))
            engine.logits([5, 6]).result()
            memory.append(_logits(engine, ids))
            engine.logits(ids).result()
            tail.append(_logits(engine, ids))
    for kind in ("clock", "work"):
        whole, rest = (median([getattr(took, kind) for took in found]) for found in (cold, tail))
        of = WORK if kind == "work" else ""
        report.add(f"{prefix} tokens: evaluate{of}", whole, "s")
        for name, found in (("from disk, verified", disk), ("from memory", memory)):
            seconds = max(median([getattr(took, kind) for took in found]) - rest, 1e-9)
            report.add(f"{prefix} tokens: restore {name}{of}", seconds * 1000, "ms")
            report.add(f"{prefix} tokens: evaluate / restore {name}{of}", whole / seconds, "x", 100, "least")


def _logits(engine: LlamaEngine, ids: Sequence[int]) -> Took:
    watch = Stopwatch()
    engine.logits(ids).result()
    return watch.read()
