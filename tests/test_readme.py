"""The README tells the truth: its Python runs, and its commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from llmcrdt.cli.group import HOMES
from llmcrdt.testing.models import write_model

README = Path(__file__).parents[1] / "README.md"


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_model("model.gguf")
    command = [sys.executable, "-m", "sync_server", "--port", "0", "--data", str(tmp_path / "relay")]
    relay = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=README.parent)
    try:
        assert relay.stdout is not None
        url = relay.stdout.readline().split()[-1]
        space: dict[str, object] = {}
        for block in blocks():
            exec(compile(block.replace("ws://127.0.0.1:8765", url), "README.md", "exec"), space)
        for name in ("repo", "other"):
            space[name].close()  # type: ignore[attr-defined]
    finally:
        relay.terminate()
        relay.wait(10)
        assert relay.stdout is not None
        relay.stdout.close()
    assert "evaluate=" in capsys.readouterr().out


def test_its_python_passes_a_strict_type_checker(tmp_path: Path) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text("\n".join(blocks()), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(sample)]
    checked = subprocess.run(command, cwd=README.parent, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_its_commands_exist() -> None:
    text = README.read_text(encoding="utf-8").split("## The commands")[1].split("## The tree")[0]
    for name in HOMES:
        assert re.search(rf"\b{name}\b", text), f"README does not tell of {name}"
