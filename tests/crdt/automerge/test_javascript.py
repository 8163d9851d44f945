"""JavaScript's own Automerge, with the code of docs/schema.md: each reads what the other wrote."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llmcrdt
from llmcrdt.crdt.automerge.derive import root_change

sys.path.insert(0, str(Path(__file__).parent))
from needs_automerge import needs_automerge

PEERS = Path(__file__).parents[2] / "peers"
NODE = shutil.which("node")
pytestmark = [
    needs_automerge,
    pytest.mark.skipif(
        NODE is None or not (PEERS / "node_modules" / "@automerge" / "automerge").is_dir(),
        reason="Node or its packages are missing: run make peers",
    ),
]
DRIVER = """
import { readFileSync, writeFileSync } from 'node:fs'
import * as Automerge from '@automerge/automerge'
%s
const [from, to, ...texts] = process.argv.slice(2)
let doc = open(readFileSync(from))
const before = read(doc)
for (const text of texts) doc = say(doc, text, 'js')[0]
writeFileSync(to, Automerge.save(doc))
console.log(JSON.stringify(before.map((e) => e.text)))
"""


def run_js(folder: Path, document: bytes, *texts: str) -> tuple[list[str], bytes]:
    """Open a document, read it, and say some texts: the texts that were there, and the document then."""
    page = (Path(__file__).parents[3] / "docs" / "schema.md").read_text()
    code = re.findall(r"^```js\n(.*?)^```", page, re.M | re.S)[-1]
    code = code.replace("import * as Automerge from '@automerge/automerge'\n", "")
    script = PEERS / f".automerge-{folder.name}.mjs"
    script.write_text(DRIVER % code)
    (folder / "in").write_bytes(document)
    assert NODE
    try:
        done = subprocess.run(
            [NODE, script, folder / "in", folder / "out", *texts], cwd=PEERS, capture_output=True, text=True, check=True
        )
    finally:
        script.unlink()
    return json.loads(done.stdout), (folder / "out").read_bytes()


def test_a_conversation_goes_to_javascript_and_back(open_repo: Callable[..., Any], tmp_path: Path) -> None:
    repo = open_repo("a")
    conversation: llmcrdt.Conversation = repo.create("Trip", crdt="automerge")
    conversation.append("user", "Hello 😀")
    conversation.append("assistant", "Hi", frame=conversation.transcript(), hidden={"x/y": b"\0\xff"})
    with conversation.stream("user") as stream:
        stream.write("not sealed")
        read, written = run_js(tmp_path, conversation.diff(), "from JavaScript é😀", "and more")
    assert sorted(read)[:2] == ["Hello 😀", "Hi"]
    conversation.append("user", "meanwhile")
    conversation.apply(written)
    texts = [entry.text for entry in conversation.transcript()]
    assert {"Hello 😀", "Hi", "not sealed", "from JavaScript é😀", "and more", "meanwhile"} == set(texts)
    assert not conversation.verify()
    assert sorted(run_js(tmp_path, conversation.diff())[0]) == sorted(texts)


def test_a_document_that_javascript_began_is_read(open_repo: Callable[..., Any], tmp_path: Path) -> None:
    start = b"".join(root_change(root).raw for root in ("meta", "entries", "acts"))
    read, written = run_js(tmp_path, start, "the first words")
    assert read == []
    repo = open_repo("a")
    conversation: llmcrdt.Conversation = repo.create("Trip", crdt="automerge")
    conversation.apply(written)
    assert [entry.text for entry in conversation.transcript()] == ["the first words"]
    assert not conversation.verify()
