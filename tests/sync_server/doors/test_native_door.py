"""The door of the native protocol passes the suite. Its tokens are in test_tokens.py and test_public_keys.py."""

from __future__ import annotations

from llmcrdt.sync import codec
from llmcrdt.sync.messages import FEATURES, Hello, Open, Push
from sync_server.doors.base import Door, DoorContext, Upgrade
from sync_server.doors.native import DOOR
from sync_server.testing.door_suite import DoorSuite, S


class TestNativeDoor(DoorSuite):
    def make(self, context: DoorContext, document: bytes, token: bytes) -> Door:
        return DOOR.make(Upgrade(DOOR.path), context)

    def greeting(self, document: bytes, token: bytes) -> bytes:
        return codec.encode(Hello("test", token, FEATURES))

    def reading(self, document: bytes) -> bytes:
        return codec.encode(Open(document, "yjs"))

    def writing(self, document: bytes) -> bytes:
        return codec.encode(Push(document, S, 1, (b"a", b"bc")))
