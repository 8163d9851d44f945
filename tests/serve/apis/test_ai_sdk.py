"""The AI SDK (npm `ai`) with its providers for OpenAI, Anthropic and servers like them, unmodified."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import Served

PEERS = Path(__file__).parents[2] / "peers"
NODE = shutil.which("node")


@pytest.mark.skipif(
    NODE is None or not (PEERS / "node_modules" / "@ai-sdk" / "openai").is_dir(),
    reason="Node or the AI SDK is missing: run make peers",
)
def test_each_provider_has_one_conversation(served: Served) -> None:
    command = [str(NODE), str(PEERS / "ai_http.mjs"), served.url, "endless/tiny"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"responses", "chat", "compatible", "anthropic"}
    shown = [served.texts(row.id) for row in served.repo.list(200)]
    for name, told in found.items():
        assert [f"From {name}", told["first"], "Go on", told["second"]] in shown and told["tokens"] > 0
