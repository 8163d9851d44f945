"""Curves as text, and as pictures."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcrdt.cli.plot import MARKS, check_plot, text_plot, write_plot
from llmcrdt.exceptions import LLMCRDTError

NAMES = ("first", "second", "third")


@given(st.data(), st.integers(1, 120), st.integers(1, 3), st.integers(12, 80), st.integers(2, 12))
def test_every_value_stands_at_its_height(data: st.DataObject, turns: int, n: int, width: int, height: int) -> None:
    values = st.lists(st.integers(0, 10**6), min_size=turns, max_size=turns)
    curves = {name: data.draw(values) for name in NAMES[:n]}
    lines = text_plot(curves, width=width, height=height)
    rows = [line.split("┤", 1)[1].ljust(width) for line in lines[:height]]
    top = max(map(max, curves.values())) or 1
    for column in range(width):
        drawn = {height - 1 - n: row[column] for n, row in enumerate(rows) if row[column] != " "}
        wanted = {}
        for mark, points in reversed([*zip(MARKS, curves.values(), strict=False)]):
            value = points[round(column * (turns - 1) / (width - 1))]
            wanted[round(value / top * (height - 1))] = mark
        assert drawn == wanted
    assert lines[0].split(" ┤")[0].strip() == f"{top:,}"
    assert [line.split()[1] for line in lines[-n:]] == [*curves]


def test_a_picture_that_cannot_be_drawn_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(LLMCRDTError, match=r"pip install 'llmcrdt\[bench\]'"):
        check_plot(tmp_path / "a.png")


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install 'llmcrdt[bench]'")
    check_plot(tmp_path / "a.png")
    write_plot({"bytes": {"one": [1.0, 2.0], "two": [3.0, 4.0]}, "tokens": {"one": [1.0]}}, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    for wrong in ("a", "a.docx", "nowhere/a.png"):
        with pytest.raises(LLMCRDTError):
            check_plot(tmp_path / wrong)
