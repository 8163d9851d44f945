"""The plugin for llm: its commands, fragments and models, as llm itself runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("llm")

import llm
from llm.cli import cli
from llm.plugins import load_plugins, pm

import llmcrdt
from llmcrdt import llm_plugin

ROOT = Path(__file__).parents[1]
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs ``llm`` with the plugin, on a folder and a database of the test's own."""
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path / "llm"))
    monkeypatch.setenv("LLMCRDT_DB", str(tmp_path / "a.db"))
    load_plugins()
    ours = not pm.is_registered(llm_plugin)
    if ours:
        pm.register(llm_plugin, name="crdt")
    llm_plugin.register_commands(cli)

    def run(*words: str, code: int = 0) -> Result:
        done = CliRunner().invoke(cli, list(words))
        assert done.exit_code == code, (done.output, done.exception)
        return done

    yield run
    if ours:
        pm.unregister(llm_plugin)
        del cli.commands["crdt"]


@pytest.fixture
def talk(tmp_path: Path) -> str:
    """The id of a conversation in the database."""
    with llmcrdt.open(tmp_path / "a.db") as repo:
        conversation = repo.create("Trip")
        conversation.append("user", "Where to in May?")
        conversation.append("assistant", "To Lisbon.", frame=conversation.transcript())
        conversation.append("user", "How?")
        return conversation.id


def test_llm_finds_it_and_loads_next_to_nothing_of_it() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        assert tomllib.load(file)["project"]["entry-points"]["llm"] == {"crdt": llm_plugin.__name__}
    code = """
import sys, llm.cli
before = set(sys.modules)
from llmcrdt import llm_plugin
llm_plugin.register_commands(llm.cli.cli)
llm_plugin.register_models(lambda model: None)
llm_plugin.register_fragment_loaders(lambda prefix, loader: None)
print(*sorted(set(sys.modules) - before))
"""
    env = {**os.environ, "LLM_LOAD_PLUGINS": ""}
    env["LLM_USER_PATH"] = str(ROOT / "tests")  # there is no file of models
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=ROOT, timeout=120)
    assert done.stdout.split() == ["llmcrdt", "llmcrdt.llm_plugin"], done.stderr


def test_the_commands_are_llmcrdts_own(run: Run, talk: str, tmp_path: Path) -> None:
    assert "Trip" in run("crdt", "list").output
    assert "To Lisbon." in run("crdt", "show", talk[:8]).output
    assert json.loads(run("crdt", "search", "lisbon", "--json").output)[0]["conversation"] == talk
    assert "search" in run("crdt", "--help").output
    assert "llmcrdt: " in run("crdt", "show", "zzz", code=1).output
    assert "No such option" in run("crdt", "list", "--nonsense", code=2).output


def test_a_fragment_is_what_was_said(run: Run, talk: str) -> None:
    said = llm_plugin.fragment(talk[:8])
    assert said == "user: Where to in May?\n\nassistant: To Lisbon.\n\nuser: How?"
    assert said.source == f"crdt:{talk}"
    with pytest.raises(ValueError, match="llmcrdt list"):
        llm_plugin.fragment("zzz")


class Echo(llm.Model):
    """Says what it was asked."""

    model_id = "echo-for-tests"

    def execute(
        self, prompt: llm.Prompt, stream: bool, response: llm.Response, conversation: llm.Conversation | None
    ) -> Iterator[str]:
        yield f"You said: {prompt.prompt}"


@pytest.fixture
def echo() -> Iterator[None]:
    class Plugin:
        @llm.hookimpl
        def register_models(self, register: Callable[..., None]) -> None:
            register(Echo())

    plugin = Plugin()
    pm.register(plugin)
    yield
    pm.unregister(plugin)


def test_a_conversation_goes_into_a_prompt_and_llms_logs_come_back(run: Run, talk: str, echo: None) -> None:
    done = run("-m", "echo-for-tests", "-f", f"crdt:{talk}", "Sum it up")
    assert "assistant: To Lisbon." in done.output and "Sum it up" in done.output
    assert "zzz" in run("-m", "echo-for-tests", "-f", "crdt:zzz", "x", code=1).output
    imported = json.loads(run("crdt", "import", "--json", "--local").output)
    shown = run("crdt", "show", imported["id"]).output
    assert imported["entries"] == 2 and shown.count("assistant: To Lisbon.") == 2, "in the prompt, and its echo"


def test_a_model_answers_in_a_conversation_of_the_repo(run: Run, tmp_path: Path, echo: None) -> None:
    """It goes on there with -c, begins with what another model said, and keeps words, frames and token logs."""
    pytest.importorskip("llama_cpp")
    from llmcrdt.testing.models import write_model

    model = write_model(tmp_path / "tiny.gguf", n_layer=2)
    (tmp_path / "llm").mkdir()
    (tmp_path / "llm" / llm_plugin.MODELS).write_text(json.dumps({"tiny": str(model)}))
    assert "crdt/tiny" in run("models").output and "crdt/default" in run("models").output

    few = "-o", "max_tokens", "4", "-o", "temperature", "0"
    run("-m", "crdt/tiny", "-s", "Be brief.", *few, "Where to in May?")
    run("-c", *few, "And in June?")
    with llmcrdt.open(tmp_path / "a.db") as repo:
        (row,) = repo.list()
        said = [(entry.role, entry.author) for entry in repo.get(row.id).transcript()]
        assert row.title == "Where to in May?" and [role for role, _ in said] == [
            "system", "user", "assistant", "user", "assistant",
        ]  # fmt: skip
        assert all(entry.frame for entry in repo.get(row.id).transcript() if entry.role == "assistant")
    logged = json.loads(run("logs", "list", "--json", "-n", "1").output)[0]
    assert logged["input_tokens"] > 0 and logged["output_tokens"] == 4

    run("-m", "echo-for-tests", "Hello")
    run("-c", "-m", "crdt/tiny", *few, "-o", "local", "1", "Again")
    run("-m", "crdt/tiny", *few, "-o", "conversation", row.id[:8], "And in July?")
    with llmcrdt.open(tmp_path / "a.db") as repo:
        other, first = repo.list()
        assert first.id == row.id and repo.get(row.id).transcript()[-2].text == "And in July?"
        assert [entry.text for entry in repo.get(other.id).transcript()][:3] == ["Hello", "You said: Hello", "Again"]
        frame = repo.get(other.id).transcript()[1].frame
        assert other.local and frame is not None and frame.assumed
    assert "no conversation" in run("-m", "crdt/tiny", "-o", "conversation", "zzz", "x", code=1).output


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 5}'])
def test_a_file_of_models_that_is_none_is_told(run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "llm").mkdir()
    (tmp_path / "llm" / llm_plugin.MODELS).write_text(text)
    assert llm_plugin.MODELS in run("models", code=1).output
