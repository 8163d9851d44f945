"""The guides tell the truth: their Python runs, from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmcrdt.crdt.backend import MAX_VALUE
from llmcrdt.document import canonical, presence
from llmcrdt.document.entry_fields import MAX_NAME
from llmcrdt.interop import account_export, json_input, source
from llmcrdt.page.app import MAX_ATTACHMENT
from llmcrdt.serve.http.limits import HttpLimits
from llmcrdt.serve.worker import MOST_TOKENS
from llmcrdt.sync.messages import MAX_RECORD
from llmcrdt.testing.models import write_model
from sync_server.core.limits import Limits

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize(
    "name",
    [
        "hidden-state.md",
        "attachments.md",
        "sync.md",
        "interop.md",
        "page.md",
        "tutorial.md",
        "servers.md",
        "serve.md",
        "tools.md",
        "backup.md",
    ],
)
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


def test_the_limits_are_those_of_the_code() -> None:
    relay, http = Limits(), HttpLimits()
    for text in (
        f"hidden field | {MAX_VALUE >> 20} MiB as UTF-8",
        f"through the page {MAX_ATTACHMENT >> 30} GiB",
        f"{canonical.MAX_DEPTH} objects and lists; {json_input.MAX_DEPTH} in imported files",
        f"| {MAX_NAME:,} bytes |",
        f"relay | {MAX_RECORD >> 20} MiB",
        f"{relay.log >> 30} GiB of data; {relay.subject_log >> 30} GiB for all of one subject",
        f"{relay.attachment >> 20} MiB; {relay.attachments:,} and {relay.attachment_bytes >> 30} GiB of one document",
        f"{presence.MAX_ANNOUNCED:,} bytes of JSON",
        f"a line of a log | {source.MAX_LINE >> 20} MiB",
        f"{account_export.MAX_CONVERSATION // 10**6} million characters",
        f"{account_export.MAX_RATIO} times its size, where it holds more than {account_export.FREE >> 20} MiB",
        f"| {MOST_TOKENS:,} tokens |",
        f"{http.body >> 20} MiB, {http.items:,} messages; {http.requests} answers at once; {http.seconds:.0f} s each",
        f"{relay.connections:,} connections, {relay.subject_connections} of one subject",
    ):
        assert text in (DOCS / "limits.md").read_text(encoding="utf-8")
