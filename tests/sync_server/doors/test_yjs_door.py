"""The Yjs door, frame by frame: what it takes, what it refuses, and with which code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcrdt.exceptions import MalformedFrame
from llmcrdt.ids import document_id, new_document_id
from llmcrdt.sync.messages import MAX_PRESENCE, MAX_STATE, Announcement
from sync_server.auth.tokens import Tokens
from sync_server.doors import yjs
from sync_server.doors.base import Door, DoorContext, Upgrade
from sync_server.testing.door_suite import DoorSuite
from sync_server.thread import RelayThread

from ..hostile_updates import FRAMES, STATE_VECTORS
from ..yjs_peers import Bare, update

MESSAGES = {
    "step 1": yjs.StepOne(b"\x00"),
    "step 2": yjs.StepTwo(b"\x00\x00"),
    "update": yjs.Update(bytes.fromhex("01020700040101740161440700016200")),
    "awareness": yjs.Awareness((Announcement(300, 2, '{"name":"é"}'), Announcement(7, 1, ""))),
    "query awareness": yjs.QueryAwareness(),
    "denied": yjs.Denied("no"),
}


class TestYjsDoor(DoorSuite):
    def make(self, context: DoorContext, document: bytes, token: bytes) -> Door:
        return yjs.DOOR.make(Upgrade(yjs.PATH + document_id(document), token), context)

    def reading(self, document: bytes) -> bytes:
        return yjs.encode(yjs.StepOne(b"\x00"))

    def writing(self, document: bytes) -> bytes:
        return yjs.encode(MESSAGES["update"])


VECTORS = Path(__file__).parents[2] / "vectors" / "y_websocket.json"


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


def test_hostile_frames_end_their_connection_and_no_other(tmp_path: Path) -> None:
    document = new_document_id()
    with RelayThread(tmp_path) as relay, Bare(relay.url, document) as other:
        for frame in FRAMES.values():
            with Bare(relay.url, document) as client:
                client.send(frame)
                assert client.close_code() == 4400
        for version in STATE_VECTORS.values():
            with Bare(relay.url, document) as client:
                client.send(yjs.StepOne(version))
                assert client.close_code() == 4400
        with Bare(relay.url, "nonsense") as client:
            assert client.close_code() == 4404
        assert other.sync() == b"\x00\x00"


def test_every_frame_at_every_level(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    document, elsewhere = new_document_id(), document_id(b"?" * 16)
    news = update("k", 1)
    ends = {"update": yjs.Update(news), "step 2": yjs.StepTwo(news)}
    made = {level: tokens.make("ann", level, [document]) for level in ("read", "append", "admin")}
    with RelayThread(tmp_path) as relay:
        for level, token in made.items():
            query = "?token=" + token
            with Bare(relay.url, elsewhere, query) as client:
                assert client.close_code() == 4403
            for message in ends.values():
                with Bare(relay.url, document, query) as client:
                    client.send(message)
                    if level == "read":
                        assert client.close_code() == 4403
                    else:
                        client.sync()
            for message in (MESSAGES["step 2"], MESSAGES["awareness"], MESSAGES["query awareness"]):
                with Bare(relay.url, document, query) as client:
                    client.send(message)
                    client.sync()
        for query in ("", "?token=wrong"):
            with Bare(relay.url, document, query) as client:
                assert client.close_code() == 4401


def test_what_is_too_large_of_awareness_is_passed_over_and_the_rest_is_heard() -> None:
    """A page sends on what it hears, and may need more letters for it."""
    fits = '{"a":"' + "x" * (MAX_STATE - 8) + '"}'
    small, large = Announcement(1, 1, "{}"), Announcement(2, 1, fits[:-2] + 'x"}')
    gone = Announcement(3, 5, "")
    assert yjs.decode(yjs.encode(yjs.Awareness((small, large, gone)))) == yjs.Awareness((small, gone))
    most = MAX_PRESENCE // MAX_STATE
    many = tuple(Announcement(n, 1, fits) for n in range(most + 3))
    assert yjs.decode(yjs.encode(yjs.Awareness(many))) == yjs.Awareness(many[:most])
