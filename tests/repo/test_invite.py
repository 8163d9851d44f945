"""Invites: they come back as they were, nothing but InvalidInvite leaves the decoder, and joining loses nothing."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llmcrdt
from llmcrdt.exceptions import (
    InvalidContent,
    InvalidInvite,
    KeyringUnusable,
    LibraryMismatch,
    RelayRefused,
    RelayUnreachable,
)
from llmcrdt.ids import DocumentId, document_id
from llmcrdt.repo.invite import Invite, read_invite, write_invite
from llmcrdt.repo.repo import _own_token
from sync_server.auth.tokens import Tokens
from sync_server.thread import RelayThread

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "invite.json").read_text())
PATIENCE = 60

names = st.binary(min_size=16, max_size=16).map(document_id)
keys = st.tuples(names, st.integers(0, (1 << 53) - 1), st.binary(min_size=32, max_size=32))
invites = st.builds(
    Invite,
    st.sampled_from(["ws://h", "wss://relay.example:8765/päth", "ws://[::1]:1"]),
    names,
    st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300),
    st.lists(keys, max_size=3).map(tuple),
)


@given(invites)
def test_round_trip(invite: Invite) -> None:
    text = write_invite(invite)
    assert read_invite(text) == invite
    wrapped = "\n  ".join(text[i : i + 40] for i in range(0, len(text), 40))
    assert read_invite(f" {wrapped}\n") == invite


@pytest.mark.parametrize("name", sorted(VECTORS["invites"]))
def test_frozen_invites(name: str) -> None:
    vector = VECTORS["invites"][name]
    found = tuple((DocumentId(c), created, bytes.fromhex(secret)) for c, created, secret in vector["keys"])
    invite = Invite(vector["relay"], DocumentId(vector["library"]), vector["token"], found)
    assert write_invite(invite) == vector["text"]
    assert read_invite(vector["text"]) == invite


@pytest.mark.parametrize("name", sorted(VECTORS["refused"]))
def test_frozen_refusals_say_what_is_wrong(name: str) -> None:
    text, why = VECTORS["refused"][name]
    with pytest.raises(InvalidInvite, match=why) as refused:
        read_invite(text)
    assert refused.value.hint


@settings(max_examples=500)
@given(invites, st.data())
def test_what_is_changed_or_cut_is_refused(invite: Invite, data: st.DataObject) -> None:
    text = write_invite(invite)
    with pytest.raises(InvalidInvite):
        read_invite(text[: data.draw(st.integers(0, len(text) - 1))])
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from("AZaz09-_=.é").filter(lambda c: c != text[at]))
    with pytest.raises(InvalidInvite):
        read_invite(text[:at] + other + text[at + 1 :])


@pytest.mark.parametrize("url", ["ws://h", "ws://hh", "ws://hhh"])
def test_every_bit_counts(url: str) -> None:
    """base64 has room for bits that stand for no byte: they are not ignored."""
    text = write_invite(Invite(url, document_id(b"l" * 16)))
    for last in set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") - {text[-1]}:
        with pytest.raises(InvalidInvite):
            read_invite(text[:-1] + last)


@settings(max_examples=500)
@given(st.text() | st.text("AZaz09-_=").map("llmcrdt-invite-1-".__add__))
def test_nothing_but_invalid_invite_leaves_the_decoder(text: str) -> None:
    try:
        invite = read_invite(text)
    except InvalidInvite:
        return
    assert write_invite(invite) == "".join(text.split())


@pytest.mark.parametrize("wrong", [b"llmcrdt-invite-1-AAAA", 5, ["llmcrdt-invite-1-AAAA"]])
def test_what_is_no_string_is_refused_by_its_type(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(InvalidInvite, match=f"a str, not {type(wrong).__name__}") as refused:
        llmcrdt.open(tmp_path / "a.db", invite=wrong)
    assert "AAAA" not in str(refused.value)
    with pytest.raises(InvalidContent, match="is not a document id"):
        llmcrdt.open(tmp_path / "a.db", library=wrong)
    assert not list(tmp_path.iterdir())


def test_errors_and_repr_tell_no_secrets() -> None:
    invite = Invite("ws://h", document_id(b"l" * 16), "the token", ((document_id(b"c" * 16), 1, b"k" * 32),))
    assert "the token" not in repr(invite) and "kkk" not in repr(invite)
    text = write_invite(invite)
    with pytest.raises(InvalidInvite) as refused:
        read_invite(text[:-1] + "!")
    assert text[20:40] not in str(refused.value) and "token" not in str(refused.value)


def test_an_invite_that_is_too_large_is_refused() -> None:
    many = tuple((document_id(b"c" * 16), n, bytes(32)) for n in range(80_000))
    with pytest.raises(InvalidInvite, match="too much"):
        write_invite(Invite("ws://h", document_id(b"l" * 16), None, many))
    with pytest.raises(InvalidInvite):
        read_invite("llmcrdt-invite-1-" + "A" * (9 << 20))


# ---------------------------------------------------------------- joining


def test_a_device_joins_and_opens_what_is_sealed(tmp_path: Path) -> None:
    pytest.importorskip("nacl", reason="PyNaCl seals fields: pip install 'llmcrdt[seal]'")
    with RelayThread(tmp_path / "relay") as relay, llmcrdt.open(tmp_path / "a.db") as a:
        conversation = a.create("trip")
        field = llmcrdt.HiddenField(b"secret", {}, sealed=True)
        entry = conversation.append("user", "Book it", hidden={"x/token": field})
        invite = a.invite(relay.url)
        with a.connect() as link:
            link.wait_synced(PATIENCE)
        with llmcrdt.open(tmp_path / "b.db", invite=invite) as b, b.connect() as link:
            link.wait_synced(PATIENCE)
            assert b.library == a.library
            assert b.get(conversation.id).entry(entry.id).hidden["x/token"].data == b"secret"
        with llmcrdt.open(tmp_path / "b.db") as b, b.connect() as link:  # it is remembered
            link.wait_synced(PATIENCE)
            assert b.invite() == invite
        without = a.invite(keys=False)
        with llmcrdt.open(tmp_path / "c.db", invite=without) as c, c.connect() as link:
            link.wait_synced(PATIENCE)
            assert c.get(conversation.id).entry(entry.id).hidden["x/token"].locked


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_secrets_stay_with_their_owner(tmp_path: Path) -> None:
    with llmcrdt.open(tmp_path / "a.db") as a:
        a.invite("ws://h", "the token")
    file = tmp_path / "a.db.relay"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o644)
    with llmcrdt.open(tmp_path / "a.db") as a:
        with pytest.raises(KeyringUnusable, match="0644"):
            a.connect()
        file.chmod(0o600)
        assert a.relay is not None and (a.relay.url, a.relay.token) == ("ws://h", "the token")
        assert "the token" not in repr(a.relay)
        file.write_text("{}")
        with pytest.raises(KeyringUnusable, match="damaged"):
            a.invite()


def test_a_repo_of_another_library_is_left_as_it_is(tmp_path: Path) -> None:
    with llmcrdt.open(tmp_path / "a.db") as a, llmcrdt.open(tmp_path / "b.db") as b:
        a.keyring.newest(a.create().id)
        invite, mine = a.invite("ws://a"), b.create("mine")
        b.invite("ws://b")
        library = b.library
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(LibraryMismatch):
        llmcrdt.open(tmp_path / "b.db", invite=invite)
    with pytest.raises(LibraryMismatch):
        llmcrdt.open(tmp_path / "c.db", library=library, invite=invite)
    with pytest.raises(InvalidInvite):
        llmcrdt.open(tmp_path / "c.db", invite=invite[:-1])
    assert sorted(os.listdir(tmp_path)) == before, "no file was made, and no key was taken in"
    with llmcrdt.open(tmp_path / "b.db") as b:
        assert b.library == library and b.relay and b.relay.url == "ws://b"
        assert [row.id for row in b.list()] == [mine.id]


def test_a_library_of_its_own_gives_way_only_while_nothing_was_ever_written_in_it(tmp_path: Path) -> None:
    with llmcrdt.open(tmp_path / "a.db") as a:
        a.create("Trip")
        invite, library = a.invite("ws://a"), a.library
    llmcrdt.open(tmp_path / "new.db").close()
    with llmcrdt.open(tmp_path / "new.db", invite=invite) as new:
        assert new.library == library and new.relay and new.relay.url == "ws://a"
    with llmcrdt.open(tmp_path / "new.db") as new:
        assert new.library == library
        other = llmcrdt.open(tmp_path / "other.db")
        with pytest.raises(LibraryMismatch):  # what was joined is somebody's choice, however empty
            llmcrdt.open(tmp_path / "new.db", library=other.library)
        deleted = other.create("")
        other.delete(deleted.id)
        other.close()
    with pytest.raises(LibraryMismatch):
        llmcrdt.open(tmp_path / "other.db", invite=invite)


def test_a_process_whose_file_joined_another_library_meanwhile_writes_in_neither(tmp_path: Path) -> None:
    with llmcrdt.open(tmp_path / "a.db") as a:
        invite, library = a.invite("ws://a"), a.library
    with llmcrdt.open(tmp_path / "b.db") as early:
        llmcrdt.open(tmp_path / "b.db", invite=invite).close()
        for write in (lambda: early.create("lost?"), lambda: early.join(document_id(b"x" * 16))):
            with pytest.raises(LibraryMismatch, match="Open the repo again"):
                write()
    with llmcrdt.open(tmp_path / "b.db") as late:
        assert late.library == library and late.list() == []
        late.create("here")
    with llmcrdt.open(tmp_path / "b.db", library=library) as late:
        assert [row.title for row in late.list()] == ["here"]


def test_joining_twice_is_harmless_and_takes_the_newer_relay(tmp_path: Path) -> None:
    with llmcrdt.open(tmp_path / "a.db") as a:
        old, new = a.invite("ws://old", "one"), a.invite("ws://new", "two")
        assert read_invite(a.invite()) == read_invite(new)
    for invite in (old, old, new):
        llmcrdt.open(tmp_path / "b.db", invite=invite).close()
    with llmcrdt.open(tmp_path / "b.db") as b:
        assert b.relay and (b.relay.url, b.relay.token) == ("ws://new", "two")


def test_an_invite_with_a_token_for_another_device_leaves_this_one_its_own(tmp_path: Path) -> None:
    with llmcrdt.open(tmp_path / "a.db") as a:
        a.invite("ws://h", "mine")
        theirs = a.invite("ws://h/", "theirs")
        a.invite("ws://h")
        assert read_invite(theirs).token == "theirs"
        assert a.relay and (a.relay.url, a.relay.token) == ("ws://h", "mine")
        assert read_invite(a.invite(token="others")).token == "others"
        assert a.relay and a.relay.token == "mine"
        a.invite("ws://h")
        assert a.relay and a.relay.token == "mine"


def test_a_known_token_goes_to_its_own_relay_only(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "relay")
    token = tokens.make("ann", "append", ["*"])
    both = RelayThread(tmp_path / "relay"), RelayThread(tmp_path / "other")
    with both[0] as relay, both[1] as other, llmcrdt.open(tmp_path / "a.db") as a:
        a.invite(relay.url, token)
        with a.connect(relay.url) as link:
            link.wait_synced(PATIENCE)
        assert _own_token(a._core, other.url) is None
        with a.connect(relay.url, "wrong") as link, pytest.raises(RelayRefused):
            link.wait_synced(PATIENCE)
        (tmp_path / "a.db.relay").write_text("{}")
        with a.connect(other.url) as link:
            link.wait_synced(PATIENCE)


def test_without_a_relay_there_is_no_invite_and_no_connection(tmp_path: Path) -> None:
    with llmcrdt.open(tmp_path / "a.db") as a:
        for ask in (a.connect, a.invite):
            with pytest.raises(RelayUnreachable, match="No relay is known"):
                ask()
        with pytest.raises(RelayUnreachable, match="not the address"):
            a.invite("http://h")
        assert a.relay is None
