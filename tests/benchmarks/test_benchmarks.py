"""Benchmarks run, and say what they found to people and to machines. What the figures are is not tested here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main, names
from benchmarks.report import Report


def test_the_benchmark_of_conversations_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ("--size", "60", "--search", "50", "--conversations", "3", "--appends", "3", "--tokens", "20")
    assert main(["conversation", "--json", str(tmp_path / "found.json"), *sizes]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    table = capsys.readouterr().out
    assert found["benchmark"] == "conversation"
    for figure in found["figures"]:
        assert figure["name"] in table
        assert (figure["held"] is None) == (figure["budget"] is None)
    ratio = next(figure for figure in found["figures"] if figure["name"] == "  append / bare SQLite")
    assert (ratio["unit"], ratio["budget"]) == ("x", 2)


def test_every_benchmark_is_listed_by_its_module(capsys: pytest.CaptureFixture[str]) -> None:
    assert "conversation" in names()
    assert "report" not in names()
    with pytest.raises(SystemExit):
        main(["nothing"])
    assert "conversation" in capsys.readouterr().err


def test_a_budget_is_a_bound_from_above_or_below() -> None:
    report = Report("x")
    report.add("most", 2, "ms", 2)
    report.add("over", 2.1, "ms", 2)
    report.add("least", 3, "x", 4, "least")
    report.add("told", 1, "x")
    assert [figure.held for figure in report.figures] == [True, False, False, None]
    assert "OVER" in report.table()
