"""Tokens: what each lets a connection do, and that expiry and revocation reach it while it is open."""

from __future__ import annotations

import io
import math
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from llmcrdt.exceptions import RelayRefused
from llmcrdt.ids import document_id
from llmcrdt.sync import codec
from llmcrdt.sync.link import Link, control_of
from llmcrdt.sync.messages import (
    FEATURES,
    FOLD_DONE,
    PATH,
    SUBPROTOCOL,
    Ack,
    Announcement,
    Barrier,
    Close,
    Error,
    ErrorCode,
    Fold,
    Folded,
    Hello,
    Message,
    Open,
    Opened,
    Presence,
    Push,
    Reached,
    Records,
    Welcome,
)
from llmcrdt.testing.local_documents import BlobDocuments
from sync_server.__main__ import main
from sync_server.auth.public_keys import AccessError
from sync_server.auth.tokens import KEY, LEVELS, TOKENS, Grant, TokenRefused, Tokens
from sync_server.core.limits import Limits
from sync_server.doors.base import Refused
from sync_server.doors.native import NativeDoor
from sync_server.thread import RelayThread

D, E, S = b"d" * 16, b"e" * 16, b"s" * 16


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def ask(client: ClientConnection, *messages: Message) -> Message:
    for message in messages:
        client.send(codec.encode(message))
    frame = client.recv(timeout=20)
    assert isinstance(frame, bytes)
    return codec.decode(frame)


@contextmanager
def connected(url: str, token: str = "") -> Iterator[tuple[ClientConnection, Message]]:
    with connect(url + PATH, subprotocols=[Subprotocol(SUBPROTOCOL)], proxy=None) as client:
        yield client, ask(client, Hello("test", token.encode()))


def close_code(client: ClientConnection) -> int | None:
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            client.recv(timeout=20)
    return closed.value.rcvd and closed.value.rcvd.code


def test_a_token_says_what_it_was_made_with(tmp_path: Path) -> None:
    clock = Clock()
    tokens = Tokens(tmp_path, clock)
    assert not tokens.on
    text = tokens.make("ann", "read", [document_id(D)], 60)
    grant = Tokens(tmp_path, clock).check(text.encode())
    assert (grant.subject, grant.level, grant.patterns, grant.expires) == ("ann", "read", (document_id(D),), 1_000_060)
    assert tokens.list() == [(grant, "good")]
    clock.now += 60
    with pytest.raises(TokenRefused, match="expired"):
        tokens.check(text.encode())
    assert tokens.list() == [(grant, "expired")]


def test_files_of_tokens_are_for_their_owner_and_hold_no_token(tmp_path: Path) -> None:
    text = Tokens(tmp_path).make("ann", "read", ["*"])
    for name in (KEY, TOKENS):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
        assert text.encode() not in (tmp_path / name).read_bytes()
    (tmp_path / KEY).chmod(0o644)
    with pytest.raises(AccessError, match="chmod"):
        Tokens(tmp_path)


@pytest.mark.parametrize("damage", [b'{"made":17', b"\xff", b"5"])
def test_a_line_that_is_damaged_in_the_middle_is_named(tmp_path: Path, damage: bytes) -> None:
    Tokens(tmp_path).make("ann", "append", ["*"])
    with (tmp_path / TOKENS).open("ab") as file:
        file.write(damage + b"\n")
    with pytest.raises(AccessError, match=r"Line 2 of .* is damaged") as raised:
        Tokens(tmp_path)
    assert "backup" in raised.value.hint


def test_a_line_that_a_crash_cut_short_is_left_out_and_the_next_begins_anew(tmp_path: Path) -> None:
    """It was never acknowledged. Damage anywhere else is none of a crash."""
    tokens, path = Tokens(tmp_path), tmp_path / TOKENS
    first, second = tokens.make("ann", "read", ["*"]), tokens.make("bob", "read", ["*"])
    whole = path.read_bytes()
    last = whole.index(b"\n") + 1
    for size in range(last + 1, len(whole) - 1):
        path.write_bytes(whole[:size])
        tokens = Tokens(tmp_path)
        assert [grant.subject for grant, _ in tokens.list()] == ["ann"]
        tokens.revoke(tokens.list()[0][0].id)
        assert [state for _, state in Tokens(tmp_path).list()] == ["revoked"]
        with pytest.raises(TokenRefused, match="revoked"):
            Tokens(tmp_path).check(first.encode())
    path.write_bytes(whole[:-1])  # as an editor may leave it
    assert [grant.subject for grant, _ in Tokens(tmp_path).list()] == ["ann", "bob"]
    Tokens(tmp_path).revoke(Tokens(tmp_path).check(second.encode()).id)
    assert [state for _, state in Tokens(tmp_path).list()] == ["good", "revoked"]
    path.write_bytes(whole[:20] + whole[last:])
    with pytest.raises(AccessError, match="Restore it from a backup"):
        Tokens(tmp_path)


def test_a_line_of_which_a_power_failure_left_zeros_is_left_out(tmp_path: Path) -> None:
    """Its end reached the disk, with its newline, and the sector before did not. It was never acknowledged."""
    Tokens(tmp_path).make("ann", "read", ["*"])
    before = (tmp_path / TOKENS).read_bytes()
    Tokens(tmp_path).make("b" * 600, "read", ["*"])
    whole = (tmp_path / TOKENS).read_bytes()
    for start, end in ((len(before), 512), (512, len(whole)), (len(before) + 100, 512)):
        (tmp_path / TOKENS).write_bytes(whole[:start] + bytes(end - start) + whole[end:])
        assert [grant.subject for grant, _ in Tokens(tmp_path).list()] == ["ann"]
        Tokens(tmp_path).make("carl", "read", ["*"])
        assert [grant.subject for grant, _ in Tokens(tmp_path).list()] == ["ann", "carl"]


def test_the_key_of_tokens_has_no_name_without_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(handle: int) -> None:
        raise OSError(5, "power")

    with monkeypatch.context() as patch, pytest.raises(AccessError):
        patch.setattr(os, "fsync", fail)
        Tokens(tmp_path).make("ann", "read", ["*"])
    assert not (tmp_path / KEY).exists() and not Tokens(tmp_path).on
    Tokens(tmp_path).make("ann", "read", ["*"])
    with pytest.raises(AccessError):  # two at once: the first one's key counts
        Tokens(tmp_path)._make_key()
    assert len((tmp_path / KEY).read_bytes()) == 32


@given(level=st.sampled_from(LEVELS), asked=st.sampled_from(LEVELS), document=st.binary(min_size=16, max_size=16))
def test_levels_and_patterns(level: str, asked: str, document: bytes) -> None:
    enough = LEVELS.index(asked) <= LEVELS.index(level)
    name = document_id(document)
    # No id holds the digit 0.
    for patterns in (("*",), (name,), (name[:5] + "*",), ("0*", name)):
        assert Grant("i", "s", level, patterns).allows(asked, document) is enough
    assert not Grant("i", "s", level, (name[:-1], "0*", "")).allows(asked, document)
    assert Grant("i", "s", level, ()).allows(asked) is enough


def forged(tmp_path: Path) -> list[bytes]:
    tokens = Tokens(tmp_path)
    good = tokens.make("ann", "read", ["*"])
    claims = {"jti": "x", "sub": "ann", "may": "admin", "doc": ["*"]}
    key = (tmp_path / KEY).read_bytes()
    head, body, _ = good.split(".")
    return [
        b"",
        b"token",
        b"\xff" * 40,
        good[:-4].encode(),
        f"{head}.{body}.".encode(),
        jwt.encode(claims, b"another key of thirty-two bytes!!", algorithm="HS256").encode(),
        jwt.encode(claims, None, algorithm="none").encode(),
        jwt.encode(claims, key * 2, algorithm="HS512").encode(),
        *(jwt.encode({**claims, **wrong}, key, algorithm="HS256").encode() for wrong in WRONG),
    ]


WRONG: list[dict[str, object]] = [
    {"may": "everything"}, {"may": ["read"]}, {"doc": "*"}, {"doc": [1]}, {"jti": None}, {"exp": "soon"}, {"exp": True},
    {"exp": math.nan}, {"exp": math.inf}, {"exp": -math.inf},
]  # fmt: skip


def test_no_forged_token_gets_in(tmp_path: Path) -> None:
    for token in forged(tmp_path):
        with pytest.raises(TokenRefused):
            Tokens(tmp_path).check(token)


def test_every_message_is_checked(tmp_path: Path) -> None:
    """Against the door itself, so that the clock can be moved."""
    clock = Clock()
    tokens = Tokens(tmp_path, clock)
    token = tokens.make("ann", "append", [document_id(D)], 60).encode()
    hello = codec.encode(Hello("t", token, FEATURES))
    here = Presence(D, (Announcement(1, 0, "{}"),))
    messages = [Open(D, "yjs"), Push(D, S, 1, (b"a",)), Fold(D), here, Barrier(1), Close(D)]
    door = NativeDoor(Limits(), "relay", tokens)
    assert isinstance(door.receive(hello), Welcome)
    assert [door.receive(codec.encode(m)) for m in messages] == messages
    clock.now += 60
    for message in messages:
        with pytest.raises(Refused) as refused:
            door.receive(codec.encode(message))
        assert refused.value.error.code == ErrorCode.TOKEN_REFUSED


def test_a_token_that_only_reads_announces_nothing(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    token = tokens.make("ann", "read", [document_id(D)]).encode()
    door = NativeDoor(Limits(), "relay", tokens)
    door.receive(codec.encode(Hello("t", token, FEATURES)))
    answer = door.receive(codec.encode(Presence(D, (Announcement(1, 0, "{}"),))))
    assert isinstance(answer, Error) and (answer.code, answer.document) == (ErrorCode.PRESENCE_REFUSED, D)


def test_a_relay_with_tokens_lets_each_do_its_own(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    reader = tokens.make("ann", "read", [document_id(D)])
    writer = tokens.make("bob", "append", [document_id(D)[:6] + "*"])
    with RelayThread(tmp_path) as relay:
        for wrong in ("", "x"):
            with connected(relay.url, wrong) as (client, answer):
                assert isinstance(answer, Error)
                assert answer.code == ErrorCode.TOKEN_REFUSED
                assert close_code(client) == 4401
        with connected(relay.url, writer) as (client, answer):
            assert isinstance(answer, Welcome)
            assert isinstance(ask(client, Open(D, "blobs")), Opened)
            assert ask(client, Push(D, S, 1, (b"a",))) == Ack(D, S, 1, 1, 1)
            refused = ask(client, Open(E, "yjs"))
            assert isinstance(refused, Error)
            assert (refused.code, refused.document) == (ErrorCode.FORBIDDEN, E)
        with connected(relay.url, reader) as (client, _):
            assert isinstance(ask(client, Open(D, "blobs")), Opened)
            assert isinstance(codec.decode(client.recv(timeout=20)), Records)  # type: ignore[arg-type]
            for message in (Push(D, S, 2, (b"b",)), Fold(D)):
                refused = ask(client, message)
                assert isinstance(refused, Error)
                assert refused.code == ErrorCode.READ_ONLY
            assert ask(client, Barrier(1)) == Reached(1)


def test_a_revoked_token_ends_its_connections_and_no_others(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    ann, bob = tokens.make("ann", "read", ["*"]), tokens.make("bob", "read", ["*"])
    with (
        RelayThread(tmp_path) as relay,
        connected(relay.url, ann) as (first, _),
        connected(relay.url, bob) as (other, _),
    ):
        tokens.revoke(tokens.list()[0][0].id)
        assert close_code(first) == 4401
        assert ask(other, Barrier(1)) == Reached(1)
        with connected(relay.url, ann) as (again, answer):
            assert isinstance(answer, Error)
            assert close_code(again) == 4401


def test_a_link_that_may_not_write_may_not_fold(tmp_path: Path) -> None:
    token = Tokens(tmp_path).make("bob", "read", ["*"])
    local = BlobDocuments(1)
    local.follow(document_id(D))
    with RelayThread(tmp_path) as relay, Link(relay.url, local, token=token) as link:
        with pytest.raises(RelayRefused):
            control_of(link).request_compaction(document_id(D)).result(20)
        link.wait_synced(20)


def test_a_log_takes_only_so_much_and_room_comes_back_with_a_fold(tmp_path: Path) -> None:
    data = bytes([1, 1, 1, 0, 4, 1, 1]) + b"t\x01" + b"a" + b"\x00"  # an update: the text "a" in the root "t"
    with RelayThread(tmp_path, limits=Limits(log=200)) as relay, connected(relay.url) as (client, _):
        ask(client, Open(D, "yjs"))
        n = 0
        while isinstance(answer := ask(client, Push(D, S, n + 1, (data,))), Ack):
            n += 1
        assert isinstance(answer, Error)
        assert (answer.code, n) == (ErrorCode.LOG_FULL, 200 // len(data))
        assert ask(client, Fold(D)) == Folded(D, FOLD_DONE)
        assert ask(client, Push(D, S, n + 1, (data,))) == Ack(D, S, n + 1, 1, n + 1)


def test_an_expired_token_ends_its_connection(tmp_path: Path) -> None:
    token = Tokens(tmp_path).make("ann", "read", ["*"], 2)
    with RelayThread(tmp_path) as relay, connected(relay.url, token) as (client, answer):
        assert isinstance(answer, Welcome)
        assert close_code(client) == 4401


def test_a_link_whose_token_is_revoked_stops_trying(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    token = tokens.make("ann", "append", ["*"])
    local = BlobDocuments(1)
    local.follow(document_id(D), "blobs")
    with RelayThread(tmp_path) as relay, Link(relay.url, local, token=token) as link:
        local.put(document_id(D), b"x")
        link.wait_synced(20)
        tokens.revoke(tokens.list()[0][0].id)
        link._loop._thread.join(20)
        assert link.state == "closed"
        for ask in (lambda: link.wait_synced(20), lambda: control_of(link).request_compaction(document_id(D))):
            with pytest.raises(RelayRefused) as refused:
                ask()
            assert refused.value.code == ErrorCode.TOKEN_REFUSED


def test_a_link_that_may_only_read_goes_on_reading(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    name = document_id(D)
    ann, bob = BlobDocuments(1), BlobDocuments(2)
    ann.follow(name, "blobs")
    bob.follow(name, "blobs")
    may_write, may_read = tokens.make("ann", "append", ["*"]), tokens.make("bob", "read", ["*"])
    with (
        RelayThread(tmp_path) as relay,
        Link(relay.url, ann, token=may_write) as writing,
        Link(relay.url, bob, token=may_read) as reading,
    ):
        reading.wait_synced(20)
        bob.put(name, b"mine")
        control_of(reading).notify(name)
        with pytest.raises(RelayRefused) as refused:
            reading.wait_synced(20)
        assert refused.value.code == ErrorCode.READ_ONLY
        ann.put(name, b"theirs")
        control_of(writing).notify(name)
        writing.wait_synced(20)
        for _ in range(400):
            if b"theirs" in bob.blobs(name):
                break
            reading._loop._thread.join(0.05)
        assert bob.blobs(name) == {b"mine", b"theirs"}
        assert [w.record.data for w in bob.outbox(name)], "it is kept for a relay that takes it"
        assert writing.state == reading.state == "online"


def test_a_subject_has_only_so_many_connections(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    token, other = tokens.make("ann", "read", ["*"]), tokens.make("bob", "read", ["*"])
    with (
        RelayThread(tmp_path, limits=Limits(subject_connections=1)) as relay,
        connected(relay.url, token) as (_, first),
        connected(relay.url, token) as (_, second),
        connected(relay.url, other) as (_, third),
    ):
        assert isinstance(first, Welcome)
        assert isinstance(second, Error)
        assert second.code == ErrorCode.TOO_MANY_CONNECTIONS
        assert isinstance(third, Welcome)


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    """In this process: what a process of its own adds is tested with the first of these."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([*map(str, arguments)])
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def process(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    words = [sys.executable, "-m", "sync_server", *map(str, arguments)]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_tokens_are_made_listed_and_revoked_from_the_command_line(tmp_path: Path) -> None:
    made = process("token", "make", "--data", tmp_path, "--subject", "ann", "--may", "read", "--expires", "30d")
    grant = Tokens(tmp_path).check(made.stdout.strip().encode())
    assert (grant.subject, grant.level, grant.patterns) == ("ann", "read", ("*",))
    assert command("token", "revoke", "--data", tmp_path, grant.id).returncode == 0
    (line,) = command("token", "list", "--data", tmp_path).stdout.splitlines()
    assert line.split("\t")[:3] == [grant.id, "revoked", "read"]
    wrong = process("token", "make", "--data", tmp_path, "--subject", "ann", "--documents", "nonsense")
    assert (wrong.returncode, wrong.stdout) == (4, "")
    assert "no document id" in wrong.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("list", "--data", "nowhere"), "There is no folder nowhere. Give the relay's --data."),
        (("keys", "--data", "nowhere"), "There is no folder nowhere. Give the relay's --data."),
        (("revoke", "--data", "nowhere", "x"), "There is no folder nowhere. Give the relay's --data."),
        (("make", "--data", "{}", "--subject", "ann\ngood"), r"'ann\ngood' is no subject. It is one line"),
        (("trust", "--data", "{}", "k", "nowhere.pem"), "nowhere.pem can't be read: No such file or directory. Give"),
        (("make", "--private", "nowhere.pem", "--kid", "k", "--subject", "a"), "nowhere.pem can't be read: No such"),
    ],
)
def test_a_wrong_word_about_tokens_is_one_line(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = command("token", *(word.format(tmp_path) for word in words))
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (4, "", 1)
    assert done.stderr.startswith(f"sync_server: {said}")
    assert not list(tmp_path.iterdir())
