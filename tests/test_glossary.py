"""One word for one thing: the glossary's words are used, and older words for the same things are gone."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GLOSSARY = ROOT / "docs" / "glossary.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# An older word, and the one that took its place.
OLDER = {
    r"keepers?": "validator",
    r"fold(?:s|ed|ing)?": "compact, compaction",
    r"condens(?:e|es|ed|ing|er)": "catch-up snapshot",
    r"lately": "recently used",
    r"owed|owes?": "is still to do",
    r"doomed": "deleted",
    r"held for gone": "considered offline",
    r"is read on": "reading continues",
    r"renaming": "rekey",
    r"pulse": "keepalive",
}

# Names that are stored, sent or set, and the names of files, keep theirs.
NAMES = re.compile(
    r"`+[^`]+`+"  # code: settings, metrics, fields, commands, files
    r"|\]\([^)]*\)"  # targets of links
    r"|\w+=\d+"
    r"|(?m:^ *(?:fold|condense) {2,})"  # orders to a worker, in a table
    r"|decisions/\d{4}[-\w]*"
    r"|\b(?:FOLD|FOLDED)\b"  # messages of the protocol
)


def words(text: str) -> str:
    return NAMES.sub(" ", text)


def docstrings() -> Iterator[tuple[str, str]]:
    """The place of each docstring of the packages, and its text."""
    for package in ("llmcrdt", "sync_server"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                    text = ast.get_docstring(node)
                    if text:
                        yield f"{path.relative_to(ROOT)}:{getattr(node, 'name', '')}", text


def defined() -> list[str]:
    """The words that the glossary defines."""
    lines = re.findall(r"(?m)^- (.*(?:\n  .*)*)", GLOSSARY.read_text(encoding="utf-8"))
    return [word for line in lines for word in re.findall(r"\*\*([^*]+)\*\*", line)]


def used(word: str, text: str) -> bool:
    *first, last = word.lower().split()
    stem = last.rstrip("es") if len(last) > 4 else last
    return re.search(r"[\s_-]+".join([*map(re.escape, first), rf"{re.escape(stem)}\w*"]), text) is not None


@pytest.fixture(scope="module")
def project() -> str:
    command = ["git", "-C", str(ROOT), "ls-files", "README.md", "docs/*.md", "llmcrdt/*.py", "sync_server/*.py"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    paths = [ROOT / name for name in names]
    return "\n".join(p.read_text(encoding="utf-8") for p in paths if p != GLOSSARY and p.is_file()).lower()


def test_the_glossary_defines_words_once() -> None:
    words = defined()
    assert len(words) > 50
    assert len(words) == len({word.lower() for word in words})


@pytest.mark.parametrize("word", defined())
def test_a_word_that_is_defined_is_used(word: str, project: str) -> None:
    assert used(word, project)


def test_a_word_that_nobody_uses_would_be_noticed() -> None:
    assert used("content hash", "by the content hashes of") and not used("content hash", "a hash of content")


@pytest.fixture(scope="module")
def prose() -> list[tuple[str, str]]:
    """The place of each line of a page and of each docstring, and its words without names. Read once for all words."""
    lines = [
        (f"{path.relative_to(ROOT)}:{number}", words(line))
        for path in PAGES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    ]
    return lines + [(where, words(text)) for where, text in docstrings()]


@pytest.mark.parametrize("older", OLDER)
def test_an_older_word_is_in_no_page_and_no_docstring(older: str, prose: list[tuple[str, str]]) -> None:
    pattern = re.compile(rf"\b(?:{older})\b", re.IGNORECASE)
    found = [f"{where}: {match[0]}" for where, text in prose if (match := pattern.search(text))]
    assert found == [], f"say {OLDER[older]}"


def test_an_older_word_would_be_noticed_and_a_name_is_none() -> None:
    assert re.search(r"\bfolds\b", words("The relay folds logs.")) is not None
    names = "the limit `fold_tail`, and FOLD: see docs/decisions/0010-the-relay-folds-in-a-worker.md"
    assert "fold" not in words(names).lower()
