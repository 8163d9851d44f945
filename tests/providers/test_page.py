"""docs/providers.md tells the truth: its Python runs, from top to bottom, against stand-ins."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmcrdt.providers import Anthropic, Gemini, Ollama, OpenAI, Provider

from .anthropic_stand_in import AnthropicStandIn
from .openai_stand_in import ResponsesStandIn
from .stand_in import Said

PAGE = (Path(__file__).parents[2] / "docs" / "providers.md").read_text(encoding="utf-8")


def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for sdk in ("openai", "anthropic"):
        pytest.importorskip(sdk)
    monkeypatch.chdir(tmp_path)
    with ResponsesStandIn() as gpt, AnthropicStandIn() as claude:
        gpt.says, claude.says = [Said("No, 11 °C.", "Hm.")], [Said("Yes, 23 °C.", "Hm.")]
        monkeypatch.setenv("OPENAI_API_KEY", "key-1")
        monkeypatch.setenv("OPENAI_BASE_URL", f"{gpt.url}/v1")
        monkeypatch.setenv("ANTHROPIC_API_KEY", "key-1")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", claude.url)
        space: dict[str, object] = {}
        for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
            exec(compile(block, "providers.md", "exec"), space)
        assert gpt.refused == claude.refused == [] and len(claude.accepted) == 4


@pytest.mark.parametrize(
    "provider",
    [Anthropic("m"), OpenAI("m"), OpenAI("m", api="chat"), Gemini("m"), Gemini("m", api="interactions"), Ollama("m")],
    ids=repr,
)
def test_its_table_names_the_settings_of_each_api(provider: Provider) -> None:
    rows = {
        "anthropic": "Messages",
        "openai-responses": "Responses",
        "gemini": "generateContent",
        "ollama": "Ollama's own chat",
        "gemini-interactions": "Interactions",
        "openai-chat": "chat completions, which many other servers speak (`base_url=`)",
    }
    (row,) = [line for line in PAGE.splitlines() if line.split(" | ")[1:2] == [rows[provider.api]]]
    named = set(re.findall(r"`(\w+)`", row.split(" | ")[2]))
    if provider.api == "openai-chat":  # "those, and ..."
        named |= OpenAI("m").supported
    assert named == provider.supported
