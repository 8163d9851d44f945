"""The Yjs door, frame by frame: what it takes, what it refuses, and with which code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcrdt.exceptions import MalformedFrame
from llmcrdt.sync.wire import Announcement
from sync_server.doors import yjs

MESSAGES = {
    "step 1": yjs.StepOne(b"\x00"),
    "step 2": yjs.StepTwo(b"\x00\x00"),
    "update": yjs.Update(bytes.fromhex("01020700040101740161440700016200")),
    "awareness": yjs.Awareness((Announcement(300, 2, '{"name":"é"}'), Announcement(7, 1, ""))),
    "query awareness": yjs.QueryAwareness(),
    "denied": yjs.Denied("no"),
}
VECTORS = Path(__file__).parents[1] / "vectors" / "y_websocket.json"


@pytest.mark.parametrize("name", MESSAGES)
def test_frozen_frames(name: str) -> None:
    frame = bytes.fromhex(json.loads(VECTORS.read_text())[name])
    assert yjs.encode(MESSAGES[name]) == frame
    assert yjs.decode(frame) == MESSAGES[name]


@given(
    frame=st.binary(max_size=60) | st.builds(lambda kind, rest: bytes([kind]) + rest, st.integers(0, 4), st.binary())
)
def test_bytes_are_a_message_or_malformed(frame: bytes) -> None:
    try:
        message = yjs.decode(frame)
    except MalformedFrame:
        return
    assert yjs.decode(yjs.encode(message)) == message
