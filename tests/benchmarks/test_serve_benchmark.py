"""The benchmark runs, and what it counts is what must be so; its times are for people."""

from __future__ import annotations

import argparse
import json

import pytest

pytest.importorskip("llama_cpp")

from benchmarks import serve


def test_a_small_run_counts_what_must_be_so() -> None:
    options = argparse.Namespace(
        model=None, turns=20, tokens=4, threads=1, against=None, prompt=20, rounds=1, llama_server=None
    )
    report = serve.run(options)
    figures = {figure.name: figure.value for figure in report.figures}
    first, last = report.turns[1], report.turns[-1]
    assert last.sent + last.received < 1.3 * (first.sent + first.received), (
        "a turn costs what it says, not what was said"
    )
    assert last.resent > 5 * first.resent
    assert all(turn.evaluated < 200 for turn in report.turns) and last.whole > 400
    cold = next(value for name, value in figures.items() if name.startswith("a cold worker: tokens"))
    restarted = next(value for name, value in figures.items() if name.startswith("a restarted worker: tokens"))
    assert cold > last.whole and restarted < 200
    assert {name.partition(":")[0] for name in figures} >= {f"{n} at once" for n in (1, 2, 4, 8)}
    assert figures["2,000 tokens, cold: evaluated"] == 2000 and "2,000 tokens, handed over: first token" in figures
    assert "--against" in report.table() and "●" in report.table()
    assert len(json.loads(json.dumps(report.as_json()))["turns"]) == 20
