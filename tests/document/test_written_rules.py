"""docs/semantics.md and docs/schema.md say what the code says, and the JavaScript in them runs."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pycrdt
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
sys.path.insert(0, str(Path(__file__).parents[1] / "sim"))
sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))
import mutate
import schema_doc
from anchors import Definitions
from documents import sound_document
from mutations import MUTATIONS, Mutation
from sim_world import OPERATIONS, World
from strangers import Stranger

import llmcrdt
from llmcrdt.crdt.yjs.replica import YjsReplica
from llmcrdt.document import schema
from llmcrdt.document.entry import content_hash
from llmcrdt.document.frame import EMPTY_FRAME, extend_frame_hash
from llmcrdt.document.head import Head, write_head
from llmcrdt.document.view import ConversationView

ROOT = Path(__file__).parents[2]
VECTORS = json.loads((ROOT / "tests" / "vectors" / "document.json").read_text(encoding="utf-8"))


def test_the_list_of_mutations_is_the_one_that_is_run() -> None:
    assert mutate.page() == (ROOT / "docs" / "semantics.md").read_text(encoding="utf-8"), "run make docs"


def test_the_table_of_fields_is_the_one_of_the_code() -> None:
    assert schema_doc.page() == schema_doc.PAGE.read_text(encoding="utf-8"), "run make docs"


@pytest.fixture(scope="module")
def code() -> Definitions:
    return mutate.definitions()


@pytest.mark.parametrize("mutation", mutate.EVERY, ids=lambda m: m.name)
def test_each_mutation_fits_the_code_and_names_a_test(mutation: Mutation, code: Definitions) -> None:
    mutate.mutated(code, mutation)
    file, _, name = mutation.test.partition("::")
    # a mutation may name one case of it, or a class of tests, or one test that a class inherits
    function = name.partition("[")[0].partition("::")[0]
    assert not name or re.search(rf"^ *(def|class) {function}\(", (ROOT / file).read_text(encoding="utf-8"), re.M)


def test_every_rule_is_broken_once_at_least() -> None:
    assert {mutation.rule for mutation in MUTATIONS} == {f"O{n}" for n in range(1, 11)} | {"claims", "asks"}


RUN = """
import { readFileSync, writeFileSync } from 'node:fs'
import * as Y from 'yjs'
import { ask, H, read, say } from './conversation.mjs'
const doc = new Y.Doc()
Y.applyUpdate(doc, readFileSync('in.bin'))
const whole = (text) => JSON.stringify(text) === JSON.stringify(text.toWellFormed())
if (!read(doc).every((e) => whole(e.text))) throw new Error('half of an emoji was read')
const before = read(doc).map((e) => [e.head.role, e.text, e.hash ?? null])
const entry = say(doc, 'from JavaScript 😀', 'js')
const cut = say(doc, 'half 😀'.slice(0, 6), 'js 😀'.slice(0, 4))
writeFileSync('out.bin', Y.encodeStateAsUpdate(doc))
const asked = ask(doc, 'Where to?', 'smol*', { max_tokens: 9 }, 'js')
writeFileSync('asked.bin', Y.encodeStateAsUpdate(doc))
const vectors = JSON.parse(readFileSync('vectors.json'))
let frame = H('llmcrdt/frame/1')
for (const [e, v] of ['AB', 'CD']) frame = H('llmcrdt/frame/1', frame, e.repeat(16), v.repeat(32))
const version = H('llmcrdt/content/1', 'user', vectors.version.text)
console.log(JSON.stringify({ before, entry, cut, asked, frame, version }))
"""


@pytest.fixture(scope="session")
def yjs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where Node finds the package yjs: LLMCRDT_NODE_MODULES, or installed for this run."""
    if shutil.which("node") is None:
        pytest.skip("the JavaScript of docs/schema.md needs Node, which is not installed")
    folder = tmp_path_factory.mktemp("yjs")
    known = os.environ.get("LLMCRDT_NODE_MODULES")
    if known:
        (folder / "node_modules").symlink_to(known)
        return folder
    install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "yjs@13"]
    try:
        subprocess.run(install, cwd=folder, check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("the JavaScript of docs/schema.md needs the npm package yjs, which could not be installed")
    return folder


MANY = """
import { readFileSync, writeFileSync, readdirSync } from 'node:fs'
import * as Y from 'yjs'
import { read, say } from './conversation.mjs'
const out = {}
for (const name of readdirSync('.').filter((name) => name.endsWith('.in'))) {
  const doc = new Y.Doc()
  Y.applyUpdate(doc, readFileSync(name))
  const sound = read(doc).map((e) => e.entry)
  out[name] = [sound, say(doc, 'said first'), say(doc, 'said then')]
  writeFileSync(name + '.out', Y.encodeStateAsUpdate(doc))
}
console.log(JSON.stringify(out))
"""


def _sample(yjs: Path) -> None:
    """The JavaScript of the page, as a module in that folder."""
    page = schema_doc.PAGE.read_text(encoding="utf-8")
    code = page.partition("```js\n")[2].partition("```")[0]
    (yjs / "conversation.mjs").write_text(code + "\nexport { H }\n", encoding="utf-8")


def _viewed(update: bytes) -> ConversationView:
    replica = YjsReplica(schema.ROOTS, client_id=7)
    replica.apply(update)
    view = ConversationView(lambda entry: "local", threading.RLock())
    view.read_all(replica)
    return view


def _simulated(seed: int) -> bytes:
    """Devices that write, edit, select and erase, and a stranger among them."""
    rng = random.Random(seed)
    world = World(rng, 2)
    try:
        for _ in range(rng.randint(6, 26)):
            world.step(rng.choice(OPERATIONS), rng.choice(world.devices))
        for device in world.devices[1:]:
            world.devices[0].conv.apply(device.conv.diff())
        return world.devices[0].conv.diff()
    finally:
        world.close()


def _estranged(seed: int) -> bytes:
    """A conversation with something of everything, and what strangers made of it."""
    rng = random.Random(seed)
    stranger, known = Stranger(rng), sound_document()[0]
    for n in range(rng.randint(1, 3)):
        doc = pycrdt.Doc()
        doc.apply_update(known)
        doc.apply_update(stranger.conversation(known, 1000 * seed + n))
        known = doc.get_update()
    return known


def _one_malformed(open_repo: Callable[..., llmcrdt.Repo]) -> bytes:
    """The smallest case: an entry that lacks its parent, beside an act that is none."""
    conversation = open_repo("laptop").create()
    conversation.append("user", "Hello")
    doc: Any = pycrdt.Doc()
    doc.apply_update(conversation.diff())
    head = {"role": "user", "author": "", "session": "S" * 22, "parents": ["N" * 16], "lamport": 9, "created_at": 1}
    doc.get("entries", type=pycrdt.Map)["M" * 16] = pycrdt.Map(
        {"head": json.dumps(head), "live:0:text": pycrdt.Text("junk")}
    )
    doc.get("acts", type=pycrdt.Map)["claim:x:y"] = "no JSON"
    return bytes(doc.get_update())


def test_the_javascript_of_the_schema_loses_nothing_of_what_its_users_say(
    yjs: Path, open_repo: Callable[..., llmcrdt.Repo]
) -> None:
    """It finds the same entries sound as the library, and what it writes is shown: where entries are malformed, where
    there are alternatives and selections, and where something was erased."""
    _sample(yjs)
    (yjs / "many.mjs").write_text(MANY, encoding="utf-8")
    documents = {"malformed.in": _one_malformed(open_repo)}
    documents |= {f"simulated{seed}.in": _simulated(seed) for seed in range(60)}
    documents |= {f"strangers{seed}.in": _estranged(seed) for seed in range(60)}
    for name, update in documents.items():
        (yjs / name).write_bytes(update)
    done = subprocess.run(["node", "many.mjs"], cwd=yjs, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    for name, (sound, *said) in json.loads(done.stdout).items():
        assert sorted(sound) == sorted(_viewed(documents[name]).order.sound()), name
        transcript = _viewed((yjs / f"{name}.out").read_bytes()).transcript()
        assert [i for i in transcript.ids if i in said] == said, f"{name}: {transcript.malformed}"


def _half_an_emoji(document: bytes, after: llmcrdt.Entry) -> bytes:
    """The update of a client that cuts one and says it, written after an entry."""
    head = Head("user", "", "S" * 22, (after.id,), after.lamport + 1, 1)  # type: ignore[arg-type]
    text = f'{{"by":"{head.session}","lamport":{head.lamport},"parts":[{{"type":"text","text":"half \\ud83d"}}]}}'
    stranger = pycrdt.Doc()
    stranger.apply_update(document)
    fields = {"head": write_head(head), f"version:{content_hash('user', text)}": text}
    stranger.get("entries", type=pycrdt.Map)["S" * 16] = pycrdt.Map(fields)
    return stranger.get_update()


def test_the_javascript_of_the_schema_reads_and_writes_a_conversation(
    yjs: Path, open_repo: Callable[..., llmcrdt.Repo]
) -> None:
    conversation = open_repo("laptop").create()
    conversation.append("system", "Be brief.", tools=[])
    user = conversation.append("user", "Grüße 😀")
    answer = conversation.append("assistant", "Hi", frame=conversation.transcript(), hidden={"p/x": b"\x00\xff"})
    conversation.erase(user)
    conversation.apply(_half_an_emoji(conversation.diff(), answer))
    with conversation.stream("assistant") as stream:
        stream.write("growing")
        stream.flush()
        _sample(yjs)
        (yjs / "run.mjs").write_text(RUN, encoding="utf-8")
        (yjs / "in.bin").write_bytes(conversation.diff())
        shutil.copy(ROOT / "tests" / "vectors" / "document.json", yjs / "vectors.json")
        done = subprocess.run(["node", "run.mjs"], cwd=yjs, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert [text for _, text, _ in said["before"]] == ["Be brief.", "", "Hi", "half \ufffd", "growing"]
    assert said["before"][2] == ["assistant", "Hi", answer.hash]
    assert said["version"] == VECTORS["version"]["hash"]
    pins = [("A" * 16, "B" * 32), ("C" * 16, "D" * 32)]
    assert said["frame"] == extend_frame_hash(EMPTY_FRAME, pins) == VECTORS["frame_hash"]["two"]
    conversation.apply((yjs / "out.bin").read_bytes())
    last, cut = conversation.transcript()[-2:]
    assert (cut.id, cut.text, cut.author) == (said["cut"], "half \ufffd", "js \ufffd")
    written = pycrdt.Doc()
    written.apply_update((yjs / "out.bin").read_bytes())
    assert "\\u" not in str(written.get("entries", type=pycrdt.Map)[cut.id])
    assert (last.id, last.text, last.author, last.status) == (said["entry"], "from JavaScript 😀", "js", "complete")
    assert last.parents == (stream.id,)
    assert conversation.transcript().malformed == {}
    assert conversation.verify() == []
    conversation.apply((yjs / "asked.bin").read_bytes())
    (ask,) = conversation.asks()
    assert (ask.id, ask.model, ask.settings, ask.author) == (said["asked"], "smol*", {"max_tokens": 9}, "js")
    assert ask.state == "waiting" and ask.after == (conversation.transcript()[-1].id,)
