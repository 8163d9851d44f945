"""Simple entries are read in a short way; it says of them what the long one says, and takes no others."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from llmcrdt.document.entry import HiddenField, content_hash
from llmcrdt.document.entry_fields import write_hidden
from llmcrdt.document.entry_state import entry_state_of, searchable_text
from llmcrdt.document.projector import only_version
from llmcrdt.document.simple_entry import read_simple_entry, words_of_version
from llmcrdt.exceptions import InvalidContent
from llmcrdt.ids import EntryId

ENTRY, OTHER, SESSION, HASH = EntryId("e" * 16), "o" * 16, "s" * 22, "h" * 32
ODD: list[Any] = [None, True, 0, -1, 1.0, 1e400, 1 << 53, (1 << 53) - 1, "", "x", [], {}, [OTHER, OTHER], [None], OTHER]
FRAME = {"appended": [[OTHER, HASH]], "hash": HASH}
BLOB = {"type": "blob", "hash": "f" * 64, "media_type": "image/png", "size": 3}


def made(rng: random.Random) -> dict[str, Any]:
    """The fields of an entry, simple or a little odd."""
    head: dict[str, Any] = {"role": rng.choice(("user", "assistant", "system", "tool")), "author": "a"}
    head |= {"session": SESSION, "parents": rng.choice(([], [OTHER])), "lamport": 5, "created_at": 1_800_000_000_000}
    version: dict[str, Any] = {"by": SESSION, "lamport": 5, "nonce": "n" * 16}
    parts = ({"type": "text", "text": "été"}, {"type": "reasoning", "text": "r"}, {"type": "tool_result", "text": "t"})
    version["parts"] = rng.choices((*parts, BLOB), (9, 3, 3, 1), k=rng.randrange(3))
    if rng.random() < 0.4:
        head["frame"] = FRAME
    if rng.random() < 0.3:
        version["hidden"] = {"x/y": HASH}
    for value in (head, version):
        if rng.random() < 0.4:
            rare = ("after", "alternative_of", "answers", "model", "covers", "saw_erased", "status", "usage", "new")
            name = rng.choice((*value, *value, *rare))
            value[name] = rng.choice((*ODD, "stopped", [OTHER], [OTHER, "c"], FRAME, {"name": "m"}))
            if rng.random() < 0.2:
                del value[name]
    text = json.dumps(version)
    fields: dict[str, Any] = {"head": json.dumps(head), f"version:{content_hash(str(head.get('role')), text)}": text}
    if rng.random() < 0.4:
        odd = ("live:0:text", "erased:x", "hidden:x/y", "hidden:", "version:" + HASH, "head", "more", "version:")
        fields[rng.choice(odd)] = rng.choice(("{}", "x", b"x", write_hidden(HiddenField(b"h"))))
    return fields


@pytest.mark.parametrize("seed", range(20))
def test_the_short_way_says_what_the_long_one_says(seed: int) -> None:
    rng = random.Random(seed)
    taken = 0
    for _ in range(300):
        fields = made(rng)
        found = read_simple_entry(ENTRY, fields)
        if found is None:
            continue
        node, version = found
        state = entry_state_of(ENTRY, fields)
        assert state.head.node(ENTRY) == node
        assert only_version(state) == version
        assert state.erased is None
        assert words_of_version(fields["version:" + version]) == searchable_text(state, None)
        taken += 1
    assert taken > 60


def test_an_entry_that_says_little_is_simple() -> None:
    """And no way reads one whose name or content is wrong."""
    text = json.dumps({"by": SESSION, "lamport": 1, "nonce": "", "parts": [{"type": "text", "text": "hello"}]})
    head = {"role": "user", "author": "", "session": SESSION, "parents": [], "lamport": 1, "created_at": 0}
    fields = {"head": json.dumps(head), f"version:{content_hash('user', text)}": text}
    assert read_simple_entry(ENTRY, fields) is not None
    wrong = {"head": fields["head"], f"version:{HASH}": text}
    for entry, odd in ((EntryId("short"), fields), (ENTRY, wrong), (ENTRY, None), (ENTRY, {"head": fields["head"]})):
        assert read_simple_entry(entry, odd) is None
        with pytest.raises(InvalidContent):
            entry_state_of(entry, odd)
