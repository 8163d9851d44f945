"""The guides tell the truth: their Python runs, from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmcrdt.testing.models import write_model

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("name", ["hidden-state.md", "attachments.md", "sync.md", "interop.md", "serve.md"])
def test_its_python_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nacl", reason='sealing needs PyNaCl: pip install "llmcrdt[seal]"')
    monkeypatch.chdir(tmp_path)
    if name == "serve.md":
        for package in ("uvicorn", "openai", "gguf", "llama_cpp"):
            pytest.importorskip(package)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        write_model("model.gguf", n_layer=2)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    space: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, name, "exec"), space)
