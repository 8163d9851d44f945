"""Chat templates of real models, where llama-cpp-python's source package is here: the log keeps what a model saw."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import templates
from benchmarks.sdist import NoSdist, models_folder
from llmcrdt.testing.templates import CHATML, STRIPS

# It sees results of tools only with arguments as text; made anew, calls are told in words.
TRICKY = ("google-gemma-4-31B-it", "openai", "CohereForAI", "Kimi-K2", "NVIDIA", "microsoft", "llama-cpp", "meetkai")
UNLIKE = {("meetkai-functionary-medium-v3.2", "tool call")}


def test_real_templates_that_render_extend_what_the_model_saw(sdist: Path) -> None:
    """Those of which each did something else wrong once, and some of the rest. The benchmark looks at all of them."""
    every = sorted((sdist / "templates").glob("*.jinja"))
    files = [file for n, file in enumerate(every) if n % 5 == 0 or file.stem.startswith(TRICKY)]
    assert len(files) > 14
    report = templates.look_at(files)
    assert len(report.found) >= len(files) * len(templates.KINDS) * 0.9
    assert [f"{f.template}, {f.kind}" for f in report.found if not f.with_log] == []
    assert len(report.long) >= len(files) * 0.9
    assert [name for name, held in report.long.items() if not all(held)] == []
    assert {(f.template, f.kind) for f in report.found if not f.alike} <= UNLIKE
    for kind in templates.KINDS:
        assert sum(f.without for f in report.found if f.kind == kind) < len(files), "else there is nothing to show"


def test_the_report_says_what_breaks_without_the_log(tmp_path: Path) -> None:
    for name, source in {"chatml": CHATML, "strips": STRIPS, "broken": "{{ nothing.at.all }}"}.items():
        (tmp_path / f"{name}.jinja").write_text(source)
    report = templates.look_at(sorted(tmp_path.iterdir()))
    found = {(f.template, f.kind): f for f in report.found}
    assert all(f.with_log and f.alike for f in report.found)
    assert found["chatml", "text"].without
    assert found["chatml", "other ids"].why == "the same text is other tokens"
    assert found["strips", "reasoning"].why.startswith("the prompt itself is printed otherwise: '<think>")
    assert {name.partition(",")[0] for name in report.refused} == {"broken"}
    figures = {figure.name: figure.value for figure in report.figures}
    assert figures["templates that render"] == 2
    table = report.table()
    assert "broken, text: The model's chat template failed" in table
    assert table.count("strips, reasoning") == 1


def test_where_the_package_is_not_the_word_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMCRDT_SDIST", str(tmp_path))
    with pytest.raises(NoSdist, match="python -m benchmarks templates"):
        models_folder()
    (tmp_path / "x" / "vendor" / "llama.cpp" / "models" / "templates").mkdir(parents=True)
    assert models_folder() == tmp_path / "x" / "vendor" / "llama.cpp" / "models"
