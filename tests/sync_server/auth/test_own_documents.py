"""Tokens for what belongs to a subject, through each door of a relay that runs."""

from __future__ import annotations

import json
from pathlib import Path

from websockets.sync.client import connect

import llmcrdt
from llmcrdt.ids import document_bytes, document_id
from llmcrdt.sync.messages import Ack, Error, ErrorCode, Message, Open, Opened, Push
from sync_server.auth.tokens import OWN, Tokens
from sync_server.doors import yjs
from sync_server.doors.registry import DOORS
from sync_server.log import operator
from sync_server.log.file import DATABASE
from sync_server.testing import json_door
from sync_server.thread import RelayThread

from ..yjs_peers import Bare, update
from .test_tokens import ask, command, connected

D, S = b"d" * 16, b"s" * 16


def _code(message: Message) -> int | None:
    return message.code if isinstance(message, Error) else None


def test_a_library_and_all_in_it_is_for_its_subject_and_nobody_else(tmp_path: Path) -> None:
    """Two devices of ann's, a guest in one of her conversations, and somebody who knows every id."""
    tokens = Tokens(tmp_path / "relay")
    ann, eve = tokens.make("ann", "append", [OWN]), tokens.make("eve", "append", [OWN])
    with (
        RelayThread(tmp_path / "relay") as relay,
        llmcrdt.open(tmp_path / "phone") as phone,
        llmcrdt.open(tmp_path / "desk", library=phone.library) as desk,
        llmcrdt.open(tmp_path / "guest") as guest,
        llmcrdt.open(tmp_path / "eve", library=phone.library) as other,
    ):
        conv = phone.create("shared")
        conv.append("user", "for a guest as well")
        private = phone.create("private")
        private.append("user", "for ann alone")
        phone.connect(relay.url, token=ann).wait_synced(30)
        desk.connect(relay.url, token=ann).wait_synced(30)
        assert [e.text for e in desk.get(private.id).transcript()] == ["for ann alone"]

        named = tokens.make("bob", "append", [OWN, conv.id])
        link = guest.connect(relay.url, token=named)
        joined = guest.join(conv.id)
        link.wait_synced(30)
        joined.append("user", "the guest's words")
        link.wait_synced(30)
        assert [e.text for e in guest.get(conv.id).transcript()] == ["for a guest as well", "the guest's words"]
        with connected(relay.url, named) as (client, _):
            assert _code(ask(client, Open(document_bytes(private.id), "yjs"))) == ErrorCode.FORBIDDEN

        other.join(private.id).append("user", "let me in")
        with other.connect(relay.url, token=eve):
            for document in (phone.library, conv.id, private.id):
                with connected(relay.url, eve) as (client, _):
                    assert _code(ask(client, Open(document_bytes(document), "yjs"))) == ErrorCode.FORBIDDEN
        assert [e.text for e in other.get(private.id).transcript()] == ["let me in"]
        desk.connect(relay.url, token=ann).wait_synced(30)
        assert [e.text for e in desk.get(private.id).transcript()] == ["for ann alone"]


def test_each_door_keeps_others_out(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    ann, eve = tokens.make("ann", "append", [OWN]), tokens.make("eve", "append", [OWN])
    name = document_id(D)
    with RelayThread(tmp_path, doors=(*DOORS, json_door.DOOR)) as relay:
        with Bare(relay.url, name, f"?token={eve}") as early:
            assert early.sync() == b"\x00\x00", "nobody has begun it"
            with Bare(relay.url, name, f"?token={ann}") as page:
                page.sync()
                page.send(yjs.Update(update("k", "mine")))
                with Bare(relay.url, name, f"?token={ann}") as second:
                    while second.sync() == b"\x00\x00":
                        pass
                assert early.close_code() == 4403
        with Bare(relay.url, name, f"?token={eve}") as late:
            late.send(yjs.StepOne(b"\x00"))
            assert late.close_code() == 4403
        with connected(relay.url, eve) as (client, _):
            assert _code(ask(client, Open(D, "yjs"))) == ErrorCode.FORBIDDEN
            assert _code(ask(client, Push(D, S, 1, (update("k", "not mine"),)))) == ErrorCode.FORBIDDEN
        with connect(f"{relay.url}{json_door.PATH}{name}?token={eve}", proxy=None) as lines:
            lines.send(json.dumps({"open": "yjs"}))
            assert json.loads(lines.recv(timeout=20))["error"] == ErrorCode.FORBIDDEN
        with connected(relay.url, ann) as (client, _):
            opened = ask(client, Open(D, "yjs"))
            assert isinstance(opened, Opened) and opened.head.position == 1


def test_a_new_token_of_the_subject_opens_what_one_that_was_revoked_wrote(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    first = tokens.make("ann", "append", [OWN])
    with RelayThread(tmp_path) as relay:
        with connected(relay.url, first) as (client, _):
            ask(client, Open(D, "blobs"))
            assert isinstance(ask(client, Push(D, S, 1, (b"mine",))), Ack)
        tokens.revoke(tokens.list()[0][0].id)
        with connected(relay.url, tokens.make("ann", "read", [OWN])) as (client, _):
            assert isinstance(ask(client, Open(D, "blobs")), Opened)


def test_tokens_for_a_subject_s_own_come_from_the_command_line(tmp_path: Path) -> None:
    asked = ("token", "make", "--data", tmp_path, "--subject", "ann", "--own")
    made = command(*asked).stdout.strip().encode()
    grant = Tokens(tmp_path).check(made)
    assert grant.patterns == (OWN,) and grant.own
    made = command(*asked, "--documents", document_id(D)).stdout.strip().encode()
    grant = Tokens(tmp_path).check(made)
    assert grant.patterns == (OWN, document_id(D)) and grant.names(D) and not grant.names(S)


def test_what_was_written_without_tokens_is_given_to_a_subject(tmp_path: Path) -> None:
    with RelayThread(tmp_path) as relay, connected(relay.url) as (client, _):
        for document in (D, S):
            ask(client, Open(document, "blobs"))
            assert isinstance(ask(client, Push(document, S, 1, (b"old",))), Ack)
    token = Tokens(tmp_path).make("ann", "append", [OWN])
    with RelayThread(tmp_path) as relay, connected(relay.url, token) as (client, _):
        assert _code(ask(client, Open(D, "blobs"))) == ErrorCode.FORBIDDEN
    assert command("assign", "--data", tmp_path, "--subject", "bob", document_id(S)).returncode == 0
    assert command("assign", "--data", tmp_path, "--subject", "ann").returncode == 0
    assert command("assign", "--data", tmp_path, "--subject", "ann", document_id(b"n" * 16)).returncode == 1
    assert command("assign", "--data", tmp_path, "--subject", "ann", "nonsense").returncode == 4
    with operator.inspect(tmp_path / DATABASE) as rows:
        assert {row.document: row.owner for row in rows} == {D: "ann", S: "bob"}
    with RelayThread(tmp_path) as relay, connected(relay.url, token) as (client, _):
        assert _code(ask(client, Open(S, "blobs"))) == ErrorCode.FORBIDDEN
        assert isinstance(ask(client, Open(D, "blobs")), Opened)
