"""Files that other programs keep: each source holds its contract, and its conversations are what the files say."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from llmcrdt.interop.registry import sources
from llmcrdt.testing.source_suite import SourceSuite

VECTORS = Path(__file__).parents[1] / "vectors" / "interop"


def files_of(name: str, folder: Path) -> list[Path]:
    """The files of a source; databases are made of the statements that stand for them."""
    found = sorted((VECTORS / name).iterdir())
    made: list[Path] = []
    for path in found:
        if path.suffix == ".sql":
            database = folder / f"{path.stem}.db"
            if not database.exists():
                with closing(sqlite3.connect(database)) as db:
                    db.executescript(path.read_text("utf-8"))
            path = database
        made.append(path)
    return made


class _Vectors(SourceSuite):
    def files(self, folder: Path) -> Sequence[Path]:
        return files_of(self.name, folder)


class TestClaudeCode(_Vectors):
    name = "claude-code"


class TestCodex(_Vectors):
    name = "codex"


class TestLLM(_Vectors):
    name = "llm"


class TestChatGPT(_Vectors):
    name = "chatgpt"


class TestClaude(_Vectors):
    name = "claude"


def test_every_source_is_tested() -> None:
    tested = {each.name for each in _Vectors.__subclasses__()}
    assert tested == set(sources())
