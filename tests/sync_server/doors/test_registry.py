"""The doors of a relay by path, and one more than it has by itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from llmcrdt.ids import document_id
from llmcrdt.sync import codec
from llmcrdt.sync.messages import PATH, Ack, Error, ErrorCode, Push, Record, Records
from sync_server.auth.tokens import Tokens
from sync_server.core.limits import Limits
from sync_server.doors import native, yjs
from sync_server.doors.base import Door, DoorContext, Refused, Upgrade
from sync_server.doors.registry import DOORS, describe, find
from sync_server.testing import json_door
from sync_server.testing.door_suite import DoorSuite, S
from sync_server.thread import RelayThread

from ..core.test_validation import ask, edits, hear
from ..core.test_validation import native as native_client

D, T = b"d" * 16, b"t" * 16


class TestJsonDoor(DoorSuite):
    def make(self, context: DoorContext, document: bytes, token: bytes) -> Door:
        text = token.decode("latin-1")
        return json_door.DOOR.make(Upgrade(f"{json_door.PATH}{document_id(document)}?token={text}", b""), context)

    def reading(self, document: bytes) -> str:
        return json.dumps({"open": "yjs"})

    def writing(self, document: bytes) -> str:
        return json.dumps({"push": ["61", "6263"], "session": S.hex(), "n": 1})


class _ReadOnly(json_door.JsonDoor):
    def _push(self, data: Sequence[Any], session: bytes, n: int) -> Error:
        return Error(ErrorCode.READ_ONLY, "Nothing is written here.", self.document, session, n)


class TestReadOnlyDoor(TestJsonDoor):
    """A door that takes no writes passes the suite too."""

    read_only = True

    def make(self, context: DoorContext, document: bytes, token: bytes) -> Door:
        path = f"{json_door.PATH}{document_id(document)}?token={token.decode('latin-1')}"
        return _ReadOnly(Upgrade(path, b""), context)


@pytest.mark.parametrize("kind", ["", "Yjs", "a kind", "k" * 17, "\u00e4"])
def test_a_kind_that_is_none_is_refused(kind: str, tmp_path: Path) -> None:
    door = json_door.DOOR.make(
        Upgrade(json_door.PATH + document_id(D), b""), DoorContext(Limits(), Tokens(tmp_path), "relay")
    )
    door.begin()
    with pytest.raises(Refused):
        door.receive(json.dumps({"open": kind}))


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (PATH, native.DOOR),
        (PATH + "?token=x", native.DOOR),
        (PATH + "/", None),
        ("/yjs/x", yjs.DOOR),
        ("/yjs/x?token=/", yjs.DOOR),
        ("/yjs", None),
        ("/?/yjs/", None),
        ("/json/x", None),
    ],
)
def test_a_door_is_found_by_its_path(path: str, found: object) -> None:
    assert find(DOORS, path) is found


def test_the_sentence_about_doors_names_each_with_its_path() -> None:
    text = describe((*DOORS, json_door.DOOR))
    assert text.startswith(f"The sync protocol is at {PATH}, ") and text.endswith(f", JSON at {json_door.PATH}.")
    assert all(f"{door.name} " in text and f"at {door.path}" in text for door in DOORS)


def test_a_third_door_is_mounted_with_a_line(tmp_path: Path) -> None:
    one, two = edits(2)
    limits = Limits(handshake=20.0)
    with RelayThread(tmp_path, limits=limits, doors=(*DOORS, json_door.DOOR)) as relay:
        with (
            native_client(relay.url, D) as device,
            connect(f"{relay.url}/json/{document_id(D)}", proxy=None) as script,
        ):

            def answer() -> dict[str, object]:
                found: dict[str, object] = json.loads(script.recv(timeout=20))
                return found

            script.send(json.dumps({"open": "yjs"}))
            assert answer() == {"opened": 0}
            assert ask(device, Push(D, S, 1, (one,))) == Ack(D, S, 1, 1, 1)
            assert answer() == {"records": [one.hex()], "position": 1}
            script.send(json.dumps({"push": [two.hex()], "session": T.hex(), "n": 1}))
            assert answer() == {"ack": 1, "position": 2}
            assert hear(device) == Records(D, 2, (Record(T, 1, two),))
            script.send("no line of this door")
            assert answer()["error"] == ErrorCode.MALFORMED
            with pytest.raises(ConnectionClosed) as closed:
                script.recv(timeout=20)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 4400
            # One connection ended; the other goes on.
            device.send(codec.encode(Push(D, S, 2, edits(1))))
        with pytest.raises(HTTPError) as missing:
            urlopen(relay.url.replace("ws", "http", 1) + "/elsewhere")
        text = missing.value.read().decode()
        missing.value.close()
        assert text == describe((*DOORS, json_door.DOOR)) + "\n"
