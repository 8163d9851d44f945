"""Benchmarks run, and say what they found to people and to machines. The figures are not tested here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main, names
from benchmarks.conversation import history
from benchmarks.report import Report, growth


def test_the_benchmark_of_conversations_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conversation", "--quick", "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    table = capsys.readouterr().out
    assert found["benchmark"] == "conversation"
    for figure in found["figures"]:
        assert figure["name"] in table
        assert (figure["held"] is None) == (figure["budget"] is None)
    ratio = next(figure for figure in found["figures"] if figure["name"] == "  append / bare SQLite")
    assert (ratio["unit"], ratio["budget"]) == ("x", 2)
    assert not found.get("notes"), "rows were left out"
    rows = {figure["name"]: figure for figure in found["figures"]}
    for row in history.ROWS.values():
        assert set(rows[row.name]["by_size"]) == {"40", "80"}
        assert rows[row.name]["exponent"] is not None


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


def test_growth_is_the_exponent_of_the_size() -> None:
    squares: dict[int, float] = {1_000: 2e6, 2_000: 8e6, 10_000: 2e8}
    assert growth(squares) == pytest.approx(2)
    assert growth({1_000: 3.0, 2_000: 3.0}) == pytest.approx(0)
    assert growth({1_000: 3.0}) is None
    report = Report("x")
    report.add_growing("at all sizes", squares | {50_000: 5e9}, "ms", 1)
    assert report.figures[0].value == 2e8
    assert "n^2.00" in report.table()
    assert "50,000" in report.table()


def test_a_row_that_would_take_too_long_is_left_out_and_says_so() -> None:
    rows = history.Rows(patience=10)
    for size, took in ((1_000, 1.0), (2_000, 4.0)):
        assert rows.bearable("fork", size)
        rows.note("fork", size, took)
    assert not rows.bearable("fork", 5_000)
    report = Report("x")
    rows.report(report)
    assert report.figures[0].by_size == {1_000: 1_000.0, 2_000: 4_000.0}
    assert any("5,000" in note for note in report.notes)
