"""The benchmark runs, and what it counts is what must be so; its times are for people."""

import argparse

from benchmarks import kv


def test_a_small_run_counts_what_must_be_so(capsys):
    report = kv.run(argparse.Namespace(model=None, turns=6, prefix=256, quick=True))
    figures = {figure.name: figure.value for figure in report.figures}
    assert figures["no cache: turn 6, evaluated"] == kv.SYSTEM + 6 * kv.USER + 5 * kv.ANSWER
    for step in ("turn 6", "fork", "back", "restart"):
        assert figures[f"llmcrdt: {step}, evaluated"] <= kv.USER + 64 + 1, step
    assert figures["llmcrdt: merge, evaluated"] <= 3 * kv.USER + 64 + 1
    assert figures["LlamaRAMCache: restart, evaluated"] == figures["no cache: restart, evaluated"], "it is lost"
    assert figures["llmcrdt: written in 6 turns"] * 5 < figures["LlamaDiskCache: written in 6 turns"]
    assert set(report.as_json()["first_token_seconds_by_turn"]) == {
        "no cache", "live context", "LlamaRAMCache", "LlamaDiskCache", "llmcrdt",
    }  # fmt: skip
    assert "llmcrdt" in report.table()
