"""The installed model speaks: asked for by ``LLMCRDT_SPEAK=1``, for all other tests need no words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

import llmcrdt
from llmcrdt.cli import main
from llmcrdt.cli.models import INSTALL, installed_model

ASKED = "Tell me about the river in Lisbon."


@pytest.mark.skipif(not os.environ.get("LLMCRDT_SPEAK"), reason="opt-in: LLMCRDT_SPEAK=1")
def test_the_installed_model_says_what_llama_cpp_has_it_say(tmp_path: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    model = installed_model()
    assert model is not None, f"install it: {INSTALL}"
    words = ["--db", str(tmp_path / "a.db"), "chat", "--cache", str(tmp_path / "kv"), "--temperature", "0"]
    environment = {"LLMCRDT_MODEL": ""}
    done = CliRunner().invoke(main, [*words, "--max-tokens", "24"], input=ASKED + "\nAnd then?\n", env=environment)
    assert done.exit_code == 0, done.output
    with llmcrdt.open(tmp_path / "a.db") as repo:
        asked, answered, *_ = transcript = repo.get(repo.list()[0].id).transcript()
        assert [entry.role for entry in transcript] == ["user", "assistant"] * 2
    bare = llama_cpp.Llama(str(model), n_ctx=512, verbose=False)
    try:
        told = bare.create_chat_completion([{"role": "user", "content": asked.text}], temperature=0, max_tokens=24)
    finally:
        bare.close()
    assert answered.text == told["choices"][0]["message"]["content"]
    said = "".join(entry.text for entry in transcript if entry.role == "assistant")
    assert sum(c.isalpha() or c.isspace() for c in said) > 0.8 * len(said) > 40, said
