"""The benchmark runs, and what it counts is what must be so; its times are for people."""

import argparse

import pytest

from benchmarks import kv
from benchmarks.kv_ways import ANSWER, WAYS

SERIES = {way: [0.5, 0.01, 0.02] for way in WAYS}
STEPS = {way: dict.fromkeys(kv.STEPS, 0.1) for way in WAYS}


def test_a_small_run_counts_what_must_be_so():
    report = kv.run(argparse.Namespace(model=None, turns=6, prefix=256, quick=True, plot=None))
    figures = {figure.name: figure.value for figure in report.figures}
    assert figures["no cache: turn 6, evaluated"] == kv.SYSTEM + 6 * kv.USER + 5 * ANSWER
    for step in ("turn 6", "fork", "back", "restart"):
        assert figures[f"llmcrdt: {step}, evaluated"] <= kv.USER + 64 + 1, step
    assert figures["llmcrdt: merge, evaluated"] <= 3 * kv.USER + 64 + 1
    assert figures["LlamaRAMCache: restart, evaluated"] == figures["no cache: restart, evaluated"], "it is lost"
    assert figures["llmcrdt: written in 6 turns"] * 5 < figures["LlamaDiskCache: written in 6 turns"]
    assert figures["answers of 11 that did not evaluate what was planned"] == 0
    for way in WAYS:
        assert figures[f"{way}: peak memory of the process"] > 1
    found = report.as_json()
    assert set(found["first_token_seconds_by_turn"]) == set(WAYS)
    assert [*found["first_token_seconds_by_step"]["llmcrdt"]] == list(kv.STEPS)
    budgets = {figure.name for figure in report.figures if figure.budget is not None}
    assert len(budgets) == 9
    for name in budgets:
        assert name in report.table()


def test_the_plot_is_a_picture(tmp_path):
    pytest.importorskip("matplotlib", reason="the plot needs the extra bench")
    from benchmarks.kv_plot import draw

    draw(SERIES, STEPS, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
