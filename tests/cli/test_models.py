"""Which model a command takes where none is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import llmcrdt
from llmcrdt.cli import main
from llmcrdt.cli.models import PACKAGE, installed_model, named_model, needed_model
from llmcrdt.exceptions import EngineMissing
from llmcrdt.testing.models import write_model


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is named, and nothing installed."""
    monkeypatch.delenv("LLMCRDT_MODEL", raising=False)
    monkeypatch.setattr("llmcrdt.cli.models.PACKAGE", "no_such_package_of_a_model")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of that name, whose code can't be imported: it needs another program."""
    monkeypatch.delenv("LLMCRDT_MODEL", raising=False)
    folder = tmp_path / "site" / PACKAGE
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('llm is not here')\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    return write_model(folder / "Small-Q4_1.gguf")


def test_the_variable_comes_before_what_is_installed(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert named_model() == installed_model() == needed_model(None) == installed
    monkeypatch.setenv("LLMCRDT_MODEL", "mine.gguf")
    assert needed_model(None) == Path("mine.gguf")
    assert needed_model(Path("named.gguf")) == Path("named.gguf")
    monkeypatch.setenv("LLMCRDT_MODEL", "")
    assert needed_model(None) == installed
    os.remove(installed)
    assert named_model() is None, "a package without a model is none"


def test_without_any_it_is_said_how_to_get_one(bare: None) -> None:
    assert named_model() is None
    with pytest.raises(EngineMissing, match=r"--model.*LLMCRDT_MODEL.*pip install"):
        needed_model(None)


def test_an_answer_needs_no_model_to_be_named(
    installed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with llmcrdt.open(tmp_path / "a.db") as repo:
        conversation = repo.create()
        conversation.append("user", "Hello")
    words = ["--db", str(tmp_path / "a.db"), "generate", conversation.id, "--cache", str(tmp_path / "kv")]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--max-tokens", "4", "--seed", "1"])  # another seed may end its turn before
    assert ended.value.code == 0 and "4 sampled" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["generate", "chat", "kv plan", "kv pin"])
def test_a_command_without_a_model_says_so_and_makes_nothing(
    bare: None, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--db", str(tmp_path / "a.db"), *command.split(), "some-id"])
    assert ended.value.code == 1 and "No model is named" in capsys.readouterr().err
    assert not (tmp_path / "a.db").exists()
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
