"""``docs/interop.md`` names every format, rule, error and hidden field."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmcrdt.interop.registry import format_of, names, source_of, sources

PAGE = (Path(__file__).parents[2] / "docs" / "interop.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", names())
def test_the_page_says_what_the_format_says(name: str) -> None:
    form = format_of(name)
    assert f"| `{name}` |" in PAGE
    for field in form.hidden_names:
        assert f"`{field}`" in PAGE, field
    for rule in form.rules:
        lines = [line for line in PAGE.splitlines() if line.startswith(f"| {rule.name} |") and rule.prevents in line]
        assert any(rule.repair in line and ("(ours)" in line) != rule.quoted for line in lines), rule


@pytest.mark.parametrize("name", sources())
def test_the_page_has_a_section_for_each_source(name: str) -> None:
    assert f"| `{name}` |" in PAGE
    assert f"\n### {name}\n" in PAGE.partition("## Sources")[2]
    assert all(f"`*{end}`" in PAGE for end in source_of(name).ends)
