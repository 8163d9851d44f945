"""The chat and ``llmcrdt generate`` with models of providers, which stand-ins answer for."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import llmcrdt
from llmcrdt.cli import main
from llmcrdt.testing.models import write_model

from ..providers.anthropic_stand_in import AnthropicStandIn
from ..providers.gemini_stand_in import GeminiStandIn, InteractionsStandIn
from ..providers.openai_stand_in import ResponsesStandIn
from ..providers.stand_in import Said, StandIn

Talk = Callable[..., tuple[str, str]]


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[StandIn, StandIn]]:
    """OpenAI's Responses and Anthropic's Messages, where the environment says."""
    for sdk in ("openai", "anthropic"):
        pytest.importorskip(sdk)
    with ResponsesStandIn() as gpt, AnthropicStandIn() as claude:
        monkeypatch.setenv("OPENAI_API_KEY", "key-1")
        monkeypatch.setenv("OPENAI_BASE_URL", f"{gpt.url}/v1")
        monkeypatch.setenv("ANTHROPIC_API_KEY", "key-1")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", claude.url)
        yield gpt, claude


@pytest.fixture
def talk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Talk:
    """``talk(said, *arguments)`` -> stdout, stderr of ``llmcrdt chat``."""

    def run(said: str, *arguments: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(said))
        with pytest.raises(SystemExit) as ended:
            main(["--db", str(tmp_path / "a.db"), *arguments])
        out, err = capsys.readouterr()
        assert ended.value.code == 0, err
        return out, err

    return run


def test_models_can_be_changed_in_the_middle_and_what_stays_here_is_told_once(
    stand_ins: tuple[StandIn, StandIn], talk: Talk, tmp_path: Path
) -> None:
    gpt, claude = stand_ins
    gpt.says = [Said("It is warm.", "Hm."), Said("Back again.", "Hm.")]
    claude.says = [Said("Oslo is not.", "Hmm."), Said("Nor is it now.", "Hmm.")]
    words = "Rome?\n/model anthropic/claude-1\nOslo?\nAnd now?\n/plan\n/model openai/gpt-1\nRome again?\n"
    out, err = talk(words, "chat", "--model", "openai/gpt-1")
    for said in ("It is warm.", "Oslo is not.", "Nor is it now.", "Back again.", "were sent before"):
        assert said in out
    lines = [line for line in err.splitlines() if "not sent" in line]
    assert lines == [
        "llmcrdt: not sent: 1 x hidden field 'openai-responses/reasoning': it is for another provider",
        "llmcrdt: not sent: 2 x hidden field 'anthropic/thinking': it is for another provider",
    ]
    assert gpt.refused == claude.refused == []
    with llmcrdt.open(tmp_path / "a.db") as repo:
        (row,) = repo.list()
        id_, authors = row.id, [entry.author for entry in repo.get(row.id).transcript() if entry.frame]
    assert authors == ["gpt-1", "claude-1", "claude-1", "gpt-1"]
    model = write_model(tmp_path / "tiny.gguf")
    local = [id_, "--model", str(model), "--cache", str(tmp_path / "kv"), "--max-tokens", "4"]
    _, err = talk("And you?\n/model anthropic/claude-1\nAnd you?\n", "chat", *local)
    assert "openai-responses/reasoning" in err and claude.refused == []
    claude.says = [Said("The end.")]
    with llmcrdt.open(tmp_path / "a.db") as repo:
        repo.get(id_).append("user", "Well?")
    out, err = talk("", "generate", id_, "--model", "anthropic/claude-1")
    assert "The end." in out and "4 of 14 prompt tokens reused, 5 sampled (end_turn)\n" in err


def test_what_an_answer_cost_is_kept_and_shown(
    stand_ins: tuple[StandIn, StandIn], talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prices.json").write_text(json.dumps({"openai/gpt-1": {"prompt": 100, "output": 1000}}))
    monkeypatch.setenv("LLMCRDT_PRICES", str(tmp_path / "prices.json"))
    talk("Rome?\nOslo?\n", "chat", "--model", "openai/gpt-1")
    talk("Bern?\n", "chat", "--model", "anthropic/claude-1")
    with llmcrdt.open(tmp_path / "a.db") as repo:
        (other, id_) = (row.id for row in repo.list())
        repo.get(id_).append("user", "And now?")
    _, err = talk("", "generate", id_, "--model", "openai/gpt-1")
    assert "5 sampled (completed), 0.006000 USD" in err
    shown = json.loads(talk("", "show", id_, "--json")[0])
    assert shown["costs"] == {"USD": 0.018}
    kept = [entry["usage"].get("priced") for entry in shown["entries"] if entry["role"] == "assistant"]
    assert kept == [{"amount": 0.006, "currency": "USD", "by": "prices"}] * 3
    assert "0.018000 USD, transcript" in talk("", "show", id_)[0]
    assert json.loads(talk("", "show", other, "--json")[0])["costs"] == {} and "USD" not in talk("", "show", other)[0]


def test_gemini_by_its_name(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("google.genai")
    with GeminiStandIn() as gemini, InteractionsStandIn() as steps:
        gemini.says, steps.says = [Said("It is warm.", "Hm.")], [Said("Oslo is not.", "Hmm.")]
        monkeypatch.setenv("GEMINI_API_KEY", "key-1")
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", gemini.url)
        out, _ = talk("Rome?\n", "chat", "--model", "gemini/g-1")
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", steps.url)
        more, _ = talk("Oslo?\n", "chat", "--model", "gemini-interactions/g-1")
        assert "It is warm." in out and "Oslo is not." in more and gemini.refused == steps.refused == []


def test_a_model_that_is_refused_ends_no_chat(stand_ins: tuple[StandIn, StandIn], talk: Talk) -> None:
    _, claude = stand_ins
    claude.keys = {"another"}
    _, err = talk("Rome?\n/model nonsense/x.gguf\n/model\n", "chat", "--model", "anthropic/claude-1")
    assert "refused the request (401)" in err and "nonsense/x.gguf" in err and "/model is no command, or lacks" in err
