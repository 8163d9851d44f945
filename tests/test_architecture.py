"""Pages that name files name files that are there, and a class has few methods."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = "llmcrdt|sync_server|tests|scripts|benchmarks|docs|deploy"
NAMED = re.compile(rf"`((?:{FOLDERS})/(?:[\w./-]*(?:\.\w+|/))?|docs/decisions/\d{{4}})(?:::\w+)?`")


def named(text: str) -> list[str]:
    """The files and folders of this project that a text names whole."""
    return sorted({*NAMED.findall(text)})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    """A decision may be named by its number."""
    names = named(page.read_text(encoding="utf-8"))
    missing = [name for name in names if not (ROOT / name).exists()]
    assert [name for name in missing if not [*ROOT.glob(f"{name}-*.md")]] == []


def test_the_architecture_names_many() -> None:
    names = named((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    assert len(names) > 80 and "llmcrdt/document/order.py" in names


def test_names_are_found() -> None:
    text = "see `llmcrdt/a.py`, `tests/b/test_c.py::test_d`, `engine/x.py`, `llmcrdt/tokens` and `sync_server/`"
    assert named(text) == ["llmcrdt/a.py", "sync_server/", "tests/b/test_c.py"]


def test_a_class_has_few_methods() -> None:
    """One idea each. Those that have more say why: public names are many, or those of the contract."""
    found: dict[str, int] = {}
    for path in (path for package in ("llmcrdt", "sync_server") for path in sorted((ROOT / package).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found[f"{path.stem}.{node.name}"] = sum(
                    isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) for each in node.body
                )
    assert [name for name, methods in found.items() if methods > 25] == [
        "conversation.Conversation",
        "local_documents.BlobDocuments",
    ]
