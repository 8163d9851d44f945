"""Every limit is a number that flag, environment and file can set; those that go by subject hold at a real relay."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from llmcrdt.exceptions import RelayRefused
from llmcrdt.ids import document_id
from llmcrdt.sync import codec
from llmcrdt.sync.link import Link, control_of
from llmcrdt.sync.messages import (
    DELETE_DONE,
    DELETE_REFUSED,
    PATH,
    SUBPROTOCOL,
    Ack,
    Delete,
    Deleted,
    Error,
    ErrorCode,
    Hello,
    Message,
    Open,
    Push,
    Welcome,
)
from llmcrdt.testing.local_documents import BlobDocuments
from sync_server.__main__ import _options
from sync_server.admin import settings
from sync_server.auth.tokens import Tokens
from sync_server.core.limits import Limits
from sync_server.thread import RelayThread

from ...waiting import eventually

D, E, S = b"d" * 16, b"e" * 16, b"s" * 16
NAMES = [field.name for field in dataclasses.fields(Limits)]


@pytest.mark.parametrize("name", NAMES)
def test_each_is_set_by_flag_environment_and_file(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    default = getattr(Limits(), name)
    # Within what burst and rate allow each other.
    values = [default * 2, default * 3, default * 4] if name == "burst" else [default // 2 or 1, default // 3 or 1, 1]
    file = tmp_path / "relay.toml"
    file.write_text(f"[limits]\n{name} = {values[0]}\n")
    arguments = ["--data", str(tmp_path), "--config", str(file)]
    assert getattr(_options(arguments).limits, name) == values[0]
    monkeypatch.setenv("LLMCRDT_RELAY_LIMITS", f"{name}={values[1]}")
    assert getattr(_options(arguments).limits, name) == values[1]
    assert getattr(_options([*arguments, "--limit", f"{name}={values[2]}"]).limits, name) == values[2]
    with pytest.raises(ValueError, match=name):
        settings.checked({name: -1})


@pytest.mark.parametrize(("old", "new"), settings.OLD_NAMES.items())
def test_a_limit_goes_by_its_old_name_too(tmp_path: Path, old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each source overrides the one before, whichever name it uses."""
    file = tmp_path / "relay.toml"
    file.write_text(f"[limits]\n{old} = 3\n")
    arguments = ["--data", str(tmp_path), "--config", str(file)]
    assert getattr(_options(arguments).limits, new) == 3
    monkeypatch.setenv("LLMCRDT_RELAY_LIMITS", f"{new}=4")
    assert getattr(_options(arguments).limits, new) == 4
    assert getattr(_options([*arguments, "--limit", f"{old}=5"]).limits, new) == 5
    with pytest.raises(ValueError, match=f"{old} is the old name of {new}"):
        settings.limits([f"{old}=1", f"{new}=2"])


def connected(url: str) -> ClientConnection:
    return connect(url + PATH, subprotocols=[Subprotocol(SUBPROTOCOL)], proxy=None)


def until(client: ClientConnection, kind: type, *messages: Message) -> Message:
    for message in messages:
        client.send(codec.encode(message))
    while True:
        frame = client.recv(timeout=30)
        assert isinstance(frame, bytes)
        found = codec.decode(frame)
        if isinstance(found, kind):
            return found


def test_a_subject_has_one_budget_over_connections_tokens_and_restarts(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    ann, too, bob = (tokens.make(subject, "append", ["*"]).encode() for subject in ("ann", "ann", "bob"))
    limits = Limits(subject_log=100)
    with RelayThread(tmp_path, limits=limits) as relay, connected(relay.url) as client:
        until(client, Welcome, Hello("t", ann))
        assert isinstance(until(client, Ack, Open(D, "blobs"), Push(D, S, 1, (b"x" * 80,))), Ack)
    with RelayThread(tmp_path, limits=limits) as relay, connected(relay.url) as client, connected(relay.url) as other:
        until(client, Welcome, Hello("t", too))
        refused = until(client, Error, Open(E, "blobs"), Push(E, S, 1, (b"x" * 21,)))
        assert isinstance(refused, Error)
        assert (refused.code, refused.document, refused.n) == (ErrorCode.SUBJECT_FULL, E, 1)
        until(other, Welcome, Hello("t", bob))
        assert until(other, Deleted, Delete(D)) == Deleted(D, DELETE_REFUSED)
        assert until(client, Deleted, Delete(D)) == Deleted(D, DELETE_DONE)
        assert until(client, Ack, Push(E, S, 1, (b"x" * 100,))) == Ack(E, S, 1, 1, 1)


def test_an_admin_deletes_what_is_others(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    ann, root = tokens.make("ann", "append", ["*"]).encode(), tokens.make("root", "admin", ["*"]).encode()
    with RelayThread(tmp_path) as relay, connected(relay.url) as client, connected(relay.url) as admin:
        until(client, Welcome, Hello("t", ann))
        until(client, Ack, Open(D, "blobs"), Push(D, S, 1, (b"x",)))
        until(admin, Welcome, Hello("t", root))
        assert until(admin, Deleted, Delete(D)) == Deleted(D, DELETE_DONE)
        gone = until(client, Error)
        assert isinstance(gone, Error) and gone.code == ErrorCode.GONE


def test_headers_of_a_proxy_change_nothing(tmp_path: Path) -> None:
    """No limit goes by an address: who claims many has no more room, and no header is needed."""
    tokens = Tokens(tmp_path)
    ann = tokens.make("ann", "read", ["*"]).encode()
    headers = [{"X-Forwarded-For": f"10.0.0.{n}", "X-Real-IP": f"10.0.0.{n}"} for n in range(2)]
    with RelayThread(tmp_path, limits=Limits(subject_connections=1)) as relay:
        options = [{"additional_headers": h, "subprotocols": [Subprotocol(SUBPROTOCOL)]} for h in headers]
        with (
            connect(relay.url + PATH, proxy=None, **options[0]) as first,  # type: ignore[arg-type]
            connect(relay.url + PATH, proxy=None, **options[1]) as second,  # type: ignore[arg-type]
        ):
            until(first, Welcome, Hello("t", ann))
            refused = until(second, Error, Hello("t", ann))
            assert isinstance(refused, Error) and refused.code == ErrorCode.TOO_MANY_CONNECTIONS


def test_a_device_whose_subject_has_no_room_reads_on(tmp_path: Path) -> None:
    """As docs/protocol.md says of SUBJECT_FULL: nothing more is pushed, what is there stays, and others are heard."""
    token, document = Tokens(tmp_path).make("ann", "append", ["*"]), document_id(D)
    one, two = BlobDocuments(1), BlobDocuments(2)
    for local in (one, two):
        local.follow(document, "blobs")
    one.put(document, b"x" * 60)
    with (
        RelayThread(tmp_path, limits=Limits(subject_log=100)) as relay,
        Link(relay.url, one, token=token) as first,
        Link(relay.url, two, token=token) as second,
    ):
        first.wait_synced(20)
        second.wait_synced(20)
        two.put(document, b"y" * 60)
        control_of(second).notify(document)
        with pytest.raises(RelayRefused) as refused:
            second.wait_synced(20)
        assert refused.value.code == ErrorCode.SUBJECT_FULL
        one.put(document, b"z")
        control_of(first).notify(document)
        first.wait_synced(20)
        eventually(lambda: two.blobs(document), lambda blobs: b"z" in blobs)
        assert two.outbox(document), "what was refused stays"
