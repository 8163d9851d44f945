"""Frames have one codec: what the document and the tables keep of one is all of it."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import llmcrdt
from llmcrdt.document.canonical import canonical_json, parse_json
from llmcrdt.document.conversation import core_of
from llmcrdt.document.frame import Frame, Pin, frame_from_json, frame_from_row, frame_to_json, frame_to_row
from llmcrdt.document.nodes import Node
from llmcrdt.document.projection import read_nodes, write_node
from llmcrdt.ids import ContentHash, EntryId, FrameHash

_LETTERS = st.sampled_from("ABCDEFGHabcdefgh01234567-_")
_HASHES = st.text(_LETTERS, min_size=32, max_size=32)
PINS: st.SearchStrategy[Pin] = st.tuples(
    st.text(_LETTERS, min_size=16, max_size=16).map(EntryId), _HASHES.map(ContentHash)
)
FRAMES = st.builds(
    Frame,
    base=st.none() | PINS,
    appended=st.lists(PINS, max_size=3).map(tuple),
    hash=_HASHES.map(FrameHash),
    renderer=st.text(max_size=5),
    sent=st.none() | st.text(min_size=1, max_size=5),
    assumed=st.booleans(),
    partial=st.booleans(),
    restarts=st.text(max_size=5),
)


@given(FRAMES)
def test_both_forms_of_a_frame_keep_all_of_it(frame: Frame) -> None:
    assert frame_from_json(parse_json(canonical_json(frame_to_json(frame)))) == frame
    assert frame_from_row(json.loads(json.dumps(frame_to_row(frame)))) == frame


@given(FRAMES, FRAMES)
def test_a_row_of_the_tables_keeps_the_frames_of_its_entry(frame: Frame, covers: Frame) -> None:
    node = Node(EntryId("E" * 16), (EntryId("P" * 16),), 7, frame=frame, covers=covers)
    row = (node.id, True, write_node(node, erased=False, version=None))
    assert list(read_nodes([row])) == [(node, False, None)]


def test_a_conversation_read_from_its_tables_knows_why_a_frame_begins_anew(tmp_path: Path) -> None:
    with llmcrdt.open(tmp_path / "a.db") as repo:
        conversation = repo.create()
        secret = conversation.append("user", "a secret")
        conversation.append("assistant", "Answer.", frame=conversation.transcript())
        conversation.erase(secret)
        after = conversation.append("assistant", "Again.", frame=conversation.transcript())
        assert after.frame is not None
        assert after.frame.restarts == "erased"
    with llmcrdt.open(tmp_path / "a.db") as repo:
        core = core_of(repo.get(conversation.id))
        core.document.load()
        rows = core.host.index.nodes() if core.host.index else None
        frames = [found[0].frame for found in read_nodes(rows or ()) if isinstance(found, tuple)]
        assert after.frame in frames
