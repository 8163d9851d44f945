"""Tokens that others sign, and the whole matrix: every message, every level, every way a token can be bad."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import jwt
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from llmcrdt.ids import document_id
from llmcrdt.sync import codec
from llmcrdt.sync.messages import (
    DELETE_REFUSED,
    FEATURES,
    PATH,
    PLAIN,
    SUBPROTOCOL,
    Announcement,
    AttachmentName,
    Barrier,
    Close,
    Data,
    Delete,
    Deleted,
    Discard,
    Error,
    ErrorCode,
    Fetch,
    Fold,
    Hello,
    Message,
    Offer,
    Open,
    Presence,
    Push,
    Reached,
    Welcome,
)
from sync_server.__main__ import main
from sync_server.auth.public_keys import KEYS, AccessError, PublicKeys
from sync_server.auth.tokens import KEY, LEVELS, TokenRefused, Tokens, sign
from sync_server.core.limits import Limits
from sync_server.doors.base import Refused
from sync_server.doors.native import NativeDoor
from sync_server.thread import RelayThread

pytest.importorskip("cryptography")

D, E, S = b"d" * 16, b"e" * 16, b"s" * 16
CLAIMS = {"jti": "x", "sub": "ann", "may": "admin", "doc": ["*"]}


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def pair(kind: str = "ed25519") -> tuple[bytes, bytes]:
    """A private key and its public half, as an app's backend makes them with OpenSSL."""
    private = subprocess.run(["openssl", "genpkey", "-algorithm", kind], capture_output=True, check=True).stdout
    public = subprocess.run(["openssl", "pkey", "-pubout"], input=private, capture_output=True, check=True).stdout
    return private, public


PRIVATE, PUBLIC = pair()
OTHER, OTHER_PUBLIC = pair()


@pytest.fixture
def trusting(tmp_path: Path) -> Path:
    """A folder with one public key, and no secret at all."""
    PublicKeys(tmp_path).add("app", PUBLIC)
    return tmp_path


def signed(level: str = "append", patterns: tuple[str, ...] = ("*",), expires: int | None = None) -> bytes:
    return sign(PRIVATE, "app", "ann", level, patterns, expires).encode()


def test_a_relay_with_public_keys_holds_nothing_that_makes_tokens(trusting: Path) -> None:
    grant = Tokens(trusting).check(signed("read", (document_id(D),), 2_000_000_000))
    assert (grant.subject, grant.level, grant.key) == ("ann", "read", "app")
    assert (grant.patterns, grant.expires) == ((document_id(D),), 2_000_000_000)
    assert [path.name for path in trusting.iterdir()] == [KEYS]
    (jwk,) = json.loads((trusting / KEYS).read_text())["keys"]
    assert set(jwk) == {"kty", "crv", "x", "kid", "use", "alg"}


def test_keys_are_rotated_and_removed(trusting: Path) -> None:
    tokens, keys = Tokens(trusting), PublicKeys(trusting)
    old, new = signed(), sign(OTHER, "app-2", "ann", "append", ["*"], None).encode()
    with pytest.raises(TokenRefused):
        tokens.check(new)
    keys.add("app-2", OTHER_PUBLIC)
    tokens.refresh()
    grant = tokens.check(old)
    assert tokens.check(new).key == "app-2"
    keys.remove("app")
    tokens.refresh()
    with pytest.raises(TokenRefused, match="removed"):
        tokens.confirm(grant)
    with pytest.raises(TokenRefused):
        tokens.check(old)
    keys.remove("app-2")
    tokens.refresh()
    assert tokens.on and Tokens(trusting).on, "without a key nobody gets in, not everybody"
    with pytest.raises(TokenRefused):
        Tokens(trusting).check(new)


def test_a_relays_own_tokens_go_on_beside_public_keys(tmp_path: Path) -> None:
    own = Tokens(tmp_path).make("bob", "read", ["*"]).encode()
    PublicKeys(tmp_path).add("app", PUBLIC)
    tokens = Tokens(tmp_path)
    assert (tokens.check(own).subject, tokens.check(signed()).subject) == ("bob", "ann")
    tokens.revoke("made-elsewhere")


def raw(header: dict[str, object], claims: dict[str, object], signature: bytes = b"") -> bytes:
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)


def hmac_of(key: bytes, header: dict[str, object]) -> bytes:
    """HS256 by hand: PyJWT refuses to sign with what looks like a public key."""
    import hashlib
    import hmac

    head = raw(header, dict(CLAIMS)).rsplit(b".", 1)[0]
    return head + b"." + base64.urlsafe_b64encode(hmac.new(key, head, hashlib.sha256).digest()).rstrip(b"=")


def attacks(folder: Path) -> dict[str, bytes]:
    good = signed("admin")
    head, body, signature = good.split(b".")
    x = json.loads((folder / KEYS).read_text())["keys"][0]["x"]
    own = Tokens(folder).make("bob", "read", ["*"])
    secret = (folder / KEY).read_bytes()
    found = {
        "another key under the name of this one": sign(OTHER, "app", "ann", "admin", ["*"], None).encode(),
        "a name that is not known": sign(PRIVATE, "other", "ann", "admin", ["*"], None).encode(),
        "no name": jwt.encode(CLAIMS, PRIVATE, algorithm="EdDSA").encode(),
        "an empty name": jwt.encode(CLAIMS, PRIVATE, algorithm="EdDSA", headers={"kid": ""}).encode(),
        "a path as a name": jwt.encode(CLAIMS, PRIVATE, algorithm="EdDSA", headers={"kid": f"../{KEY}"}).encode(),
        "a name that is no text": raw({"alg": "EdDSA", "kid": ["app"]}, dict(CLAIMS), b"x" * 64),
        "none": raw({"alg": "none"}, dict(CLAIMS)),
        "none, with the key's name": raw({"alg": "none", "kid": "app"}, dict(CLAIMS)),
        "NonE": raw({"alg": "NonE", "kid": "app"}, dict(CLAIMS)),
        "no algorithm": raw({"kid": "app"}, dict(CLAIMS), b"x" * 64),
        "the secret, under the public key's name": jwt.encode(
            CLAIMS, secret, algorithm="HS256", headers={"kid": "app"}
        ).encode(),
        "without its signature": head + b"." + body + b".",
        "with claims of another": b".".join((head, raw({}, {**CLAIMS, "sub": "root"}).split(b".")[1], signature)),
        "the signature of another": own.encode().rsplit(b".", 1)[0] + b"." + signature,
        "for somebody else": jwt.encode(
            {**CLAIMS, "aud": "another service"}, PRIVATE, algorithm="EdDSA", headers={"kid": "app"}
        ).encode(),
        "a level that is none": jwt.encode(
            {**CLAIMS, "may": "root"}, PRIVATE, algorithm="EdDSA", headers={"kid": "app"}
        ).encode(),
        "its own key in the header": jwt.encode(
            CLAIMS, OTHER, algorithm="EdDSA", headers={"jwk": {"kty": "OKP", "crv": "Ed25519", "x": x}}
        ).encode(),
        "nothing": b"",
        "noise": b"\xff" * 64,
    }  # fmt: skip
    for name, key in {
        "PEM": PUBLIC,
        "PEM without its end": PUBLIC.strip(),
        "raw": base64.urlsafe_b64decode(x + "=="),
    }.items():
        for kid in ({}, {"kid": "app"}):
            found[f"HS256 with the public key ({name}) as the secret, {kid}"] = hmac_of(key, {"alg": "HS256", **kid})
    return found


def test_no_forged_token_gets_in(trusting: Path) -> None:
    found = attacks(trusting)
    tokens = Tokens(trusting)
    assert tokens.check(signed("admin"))
    assert tokens.check(hmac_of((trusting / KEY).read_bytes(), {"alg": "HS256"})).subject == "ann", (
        "made as it should be"
    )
    let_in = []
    for name, token in found.items():
        try:
            tokens.check(token)
            let_in.append(name)
        except TokenRefused:
            pass
    assert let_in == []


NAME = AttachmentName(PLAIN, b"n" * 32)
MESSAGES: list[Message] = [
    Open(D, "yjs"), Close(D), Push(D, S, 1, (b"a",)), Barrier(1), Fold(D), Delete(D),
    Presence(D, (Announcement(1, 1, "{}"),)),
    Offer(D, NAME, 1), Data(D, NAME, 1, 0, b"a"), Fetch(D, NAME, 0, 1), Discard(D, NAME),
]  # fmt: skip
NEEDS = {Open: "read", Close: None, Barrier: None, Push: "append", Fold: "append",
         Delete: "append", Presence: "append",
         Offer: "append", Data: "append", Fetch: "read", Discard: "append"}  # fmt: skip
REFUSALS = {Open: ErrorCode.FORBIDDEN, Push: ErrorCode.READ_ONLY, Fold: ErrorCode.READ_ONLY,
            Presence: ErrorCode.PRESENCE_REFUSED, Offer: ErrorCode.READ_ONLY, Data: ErrorCode.READ_ONLY,
            Fetch: ErrorCode.FORBIDDEN, Discard: ErrorCode.READ_ONLY}  # fmt: skip


def test_the_matrix_names_every_message_of_a_client() -> None:
    from typing import get_args

    from sync_server.doors.native import ClientMessage

    assert {type(m) for m in MESSAGES} == set(get_args(ClientMessage)) == set(NEEDS)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("meant", [True, False])
@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_every_message_by_every_level(tmp_path: Path, own: bool, level: str, meant: bool, message: Message) -> None:
    """The token is for this document or for another one; signed by the relay or by an app."""
    clock, name = Clock(), document_id(D if meant else E)
    PublicKeys(tmp_path).add("app", PUBLIC)
    tokens = Tokens(tmp_path, clock)
    text = tokens.make("ann", level, [name], 60).encode() if own else signed(level, (name,), 1_000_060)
    needs = NEEDS[type(message)]  # type: ignore[index]
    allowed = needs is None or (meant and LEVELS.index(level) >= LEVELS.index(needs))

    def door() -> NativeDoor:
        made = NativeDoor(Limits(), "relay", tokens)
        assert isinstance(made.receive(codec.encode(Hello("t", text, FEATURES))), Welcome)
        return made

    answer = door().receive(codec.encode(message))
    if allowed:
        assert answer == message
    elif isinstance(message, Delete):
        assert answer == Deleted(D, DELETE_REFUSED)
    else:
        assert isinstance(answer, Error)
        assert (answer.code, answer.document) == (REFUSALS[type(message)], D)  # type: ignore[index]

    def no_more(end: Callable[[], None]) -> None:
        greeted = door()
        end()
        with pytest.raises(Refused) as refused:
            greeted.receive(codec.encode(message))
        assert refused.value.error.code == ErrorCode.TOKEN_REFUSED
        with pytest.raises(Refused) as refused:
            NativeDoor(Limits(), "relay", tokens).receive(codec.encode(Hello("t", text)))
        assert refused.value.error.code == ErrorCode.TOKEN_REFUSED

    def expire() -> None:
        clock.now += 60

    def revoke() -> None:
        tokens.revoke(tokens.check(text).id)
        tokens.refresh()

    no_more(expire)
    clock.now -= 60
    no_more(revoke)


def talk(client: ClientConnection, token: bytes) -> Message:
    client.send(codec.encode(Hello("test", token)))
    frame = client.recv(timeout=30)
    assert isinstance(frame, bytes)
    return codec.decode(frame)


def test_a_key_that_is_removed_ends_its_connections(trusting: Path) -> None:
    PublicKeys(trusting).add("other", OTHER_PUBLIC)
    options = {"subprotocols": [Subprotocol(SUBPROTOCOL)], "proxy": None}
    with (
        RelayThread(trusting) as relay,
        connect(relay.url + PATH, **options) as client,  # type: ignore[arg-type]
        connect(relay.url + PATH, **options) as other,  # type: ignore[arg-type]
    ):
        assert isinstance(talk(client, signed()), Welcome)
        assert isinstance(talk(other, sign(OTHER, "other", "bob", "read", ["*"], None).encode()), Welcome)
        PublicKeys(trusting).remove("app")
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                client.recv(timeout=30)
        assert closed.value.rcvd and closed.value.rcvd.code == 4401
        other.send(codec.encode(Barrier(1)))
        assert other.recv(timeout=30) == codec.encode(Reached(1))


def test_what_is_no_public_key_is_refused(tmp_path: Path) -> None:
    keys = PublicKeys(tmp_path)
    for kid, pem, words in (
        ("a b", PUBLIC, "no key id"), ("app", PRIVATE, "private"), ("app", b"nonsense", "no public key"),
        ("app", pair("ed448")[1], "Ed25519"),
    ):  # fmt: skip
        with pytest.raises(AccessError, match=words):
            keys.add(kid, pem)
    assert not keys.on
    keys.add("app", PUBLIC)
    for text in ("{", "[]", '{"keys": [{"kid": "a", "kty": "oct", "k": "AAAA"}]}', '{"keys": [{"kty": "OKP"}]}'):
        (tmp_path / KEYS).write_text(text)
        with pytest.raises(AccessError):
            Tokens(tmp_path)


def test_a_token_needs_a_subject_whoever_signed_it(trusting: Path) -> None:
    with pytest.raises(AccessError, match="needs a subject"):
        Tokens(trusting).make("", "append", ["*"])
    with pytest.raises(AccessError, match="needs a subject"):
        sign(PRIVATE, "app", "", "append", ["*"], None)
    claims = {"jti": "a", "sub": "", "may": "append", "doc": ["*"]}
    with pytest.raises(TokenRefused):
        Tokens(trusting).check(jwt.encode(claims, PRIVATE, algorithm="EdDSA", headers={"kid": "app"}).encode())
    named = jwt.encode({**claims, "sub": "ann"}, PRIVATE, algorithm="EdDSA", headers={"kid": "app"})
    assert Tokens(trusting).check(named.encode()).subject == "ann"


def test_a_public_key_in_the_place_of_a_private_one_is_said_so() -> None:
    with pytest.raises(AccessError, match="no private key: it is a public key"):
        sign(PUBLIC, "app", "ann", "append", ["*"], None)


def test_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    (tmp_path / "private.pem").write_bytes(PRIVATE)
    (tmp_path / "public.pem").write_bytes(PUBLIC)
    assert main(["token", "trust", "--data", str(data), "app", str(tmp_path / "public.pem")]) == 0
    assert "Tokens are on now" in capsys.readouterr().err
    words = ["token", "make", "--private", str(tmp_path / "private.pem"), "--kid", "app", "--subject", "ann", "--json"]
    assert main([*words, "--expires", "1h"]) == 0
    token = json.loads(capsys.readouterr().out)["token"]
    assert Tokens(data).check(token.encode()).subject == "ann"
    assert main(["token", "keys", "--data", str(data), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"kid": "app"}
    assert main(["token", "make", "--data", str(data), "--subject", "bob", "--may", "read"]) == 0
    capsys.readouterr()
    assert main(["token", "list", "--data", str(data), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {k: v for k, v in shown.items() if k != "id"} == {
        "state": "good", "may": "read", "expires": None, "subject": "bob", "documents": ["*"],
    }  # fmt: skip
    assert main(["token", "distrust", "--data", str(data), "app"]) == 0
    for wrong in (words[:4], ["token", "make", "--subject", "x"], ["token", "distrust", "--data", str(data), "app"]):
        code = main([*wrong, *(["--subject", "x"] if wrong == words[:4] else [])])
        assert code == 4, wrong
    with pytest.raises(TokenRefused):
        Tokens(data).check(token.encode())
