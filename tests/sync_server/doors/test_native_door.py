"""The door of the native protocol passes the suite. Its tokens are in test_tokens.py and test_public_keys.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmcrdt.ids import document_id
from llmcrdt.sync import codec
from llmcrdt.sync.messages import (
    FEATURES,
    PLAIN,
    PRESENCE,
    AttachmentName,
    Data,
    Discard,
    Error,
    ErrorCode,
    Fetch,
    Held,
    Hello,
    Message,
    Offer,
    Open,
    Push,
)
from sync_server.auth.tokens import Tokens
from sync_server.core.limits import Limits
from sync_server.doors.base import Door, DoorContext, Refused, Upgrade
from sync_server.doors.native import DOOR, NativeDoor
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


def test_who_may_do_what_with_attachments(tmp_path: Path) -> None:
    """To fetch takes a token that may read the document; to bring or to discard, one that may append to it."""
    ours, theirs, name = b"d" * 16, b"e" * 16, AttachmentName(PLAIN, b"n" * 32)
    tokens = Tokens(tmp_path)

    def answer(level: str, message: Message, features: int = FEATURES) -> object:
        door = NativeDoor(Limits(), "relay", tokens)
        token = tokens.make("ann", level, [document_id(ours)]).encode()
        door.receive(codec.encode(Hello("t", token, features)))
        found = door.receive(codec.encode(message))
        return found.code if isinstance(found, Error) else found

    def changing(document: bytes) -> list[Message]:
        return [Offer(document, name, 1), Data(document, name, 1, 0, b"x"), Discard(document, name)]

    fetch = Fetch(ours, name, 0, 1)
    assert answer("read", fetch) == answer("append", fetch) == fetch
    assert answer("admin", Fetch(theirs, name, 0, 1)) == ErrorCode.FORBIDDEN
    for message in changing(ours):
        assert answer("append", message) == message and answer("read", message) == ErrorCode.READ_ONLY
    for message in (fetch, *changing(ours)):
        with pytest.raises(Refused) as refused:
            answer("append", message, PRESENCE)
        assert refused.value.error.code == ErrorCode.UNEXPECTED
    assert all(answer("append", message) == ErrorCode.READ_ONLY for message in changing(theirs))
    with pytest.raises(Refused):
        answer("append", Held(ours, name, 0, 1, 1))
