"""Everything that decodes bytes or texts of others: how a valid frame is made, and how it is decoded.

A decoder returns or raises what it says it raises; anything else is a defect.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import jwt
import pycrdt
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "sync"))
from mutate_bytes import leb128
from test_codec import messages

from llmcrdt.automerge_sync import Have, make_filter, read_message, write_message
from llmcrdt.crdt.automerge import chunks
from llmcrdt.crdt.automerge.backend import AutomergeBackend
from llmcrdt.crdt.automerge.columns import Reader
from llmcrdt.crdt.automerge.version import parse_version, write_version
from llmcrdt.crdt.backend import Replica
from llmcrdt.crdt.registry import kinds
from llmcrdt.crdt.yjs.compact import compact_updates
from llmcrdt.crdt.yjs.replica import YjsReplica
from llmcrdt.crdt.yjs.update import check_state_vector, read_state_vector, read_update
from llmcrdt.document import schema
from llmcrdt.document.acts import read_selection
from llmcrdt.document.canonical import parse_json
from llmcrdt.document.encryption import NOWHERE, read_encrypted
from llmcrdt.document.entry import content_hash
from llmcrdt.document.entry_fields import read_hidden, read_version
from llmcrdt.document.head import read_head
from llmcrdt.engine.llama import gguf_header
from llmcrdt.exceptions import (
    FormatError,
    InvalidContent,
    InvalidInvite,
    MalformedFrame,
    MalformedUpdate,
    NewerDocument,
)
from llmcrdt.ids import document_bytes, new_document_id
from llmcrdt.interop import openai_chat
from llmcrdt.interop.format import Outline
from llmcrdt.interop.registry import format_of, names
from llmcrdt.kvcache import chunk_file
from llmcrdt.prompt.generation_log import TokenLog
from llmcrdt.repo import invite
from llmcrdt.repo.invite import Invite, read_invite, write_invite
from llmcrdt.store.keyring import Keyring
from llmcrdt.sync import codec, protocol
from llmcrdt.sync.messages import (
    MAX_PRESENT,
    MAX_RECORDS,
    MAX_STATE,
    RESET,
    Announcement,
    Cursor,
    Hello,
    Opened,
    Presence,
    Push,
    Record,
    Records,
    Welcome,
)
from sync_server.admin import settings
from sync_server.auth.tokens import TokenRefused, Tokens
from sync_server.core.limits import Limits
from sync_server.doors import automerge, cbor, yjs
from sync_server.doors.base import DoorContext, Refused, Upgrade
from sync_server.doors.native import NativeDoor
from sync_server.workers import framing

VECTORS = Path(__file__).parents[1] / "vectors"


class Decoder(NamedTuple):
    """``frames``: valid ones. ``refusals``: all that it may raise. ``per_byte``: calls of functions for each byte of a
    frame, at most, beside ``calls``: a bound on its work that no busy machine changes. ``memory``: bytes beside four
    times the frame."""

    name: str
    frames: st.SearchStrategy[bytes]
    decode: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]
    calls: int = 400
    per_byte: float = 12
    memory: int = 256 << 10


def _vectors(name: str) -> object:
    return json.loads((VECTORS / f"{name}.json").read_text("utf-8"))


# ---------------------------------------------------------------- wire

_many = codec.encode(Records(b"d" * 16, 1, tuple(Record(b"s" * 16, n, b"x") for n in range(1, MAX_RECORDS + 1))))
_runs = codec.encode(Records(b"d" * 16, 1, tuple(Record(bytes([n % 2]) * 16, n, b"x") for n in range(1, 400))))
_large = codec.encode(Push(b"d" * 16, b"s" * 16, 1, tuple(bytes(70_000) for _ in range(3))))
_pushed = codec.encode(Push(b"d" * 16, b"s" * 16, 1, tuple(b"xy" for _ in range(MAX_RECORDS))))
# As many entries as there may be, and states that say the most to Python in the fewest bytes.
_crowd = tuple(Announcement(n, n, "{}" * (n % 2)) for n in range(1000, 1000 + MAX_PRESENT))
_SHAPES = ["[],", "[[]],", "[[0]],", '{"":{}},', '"ab",', "1.5e3,", '"é😀",']
_full = ['{"a":[' + shape * ((MAX_STATE - 9) // len(shape.encode())) + "0]}" for shape in _SHAPES]
_full.append('{"a":' + "[" * 2000 + "]" * 2000 + "}")
_states = [tuple(Announcement(n, 1, state) for n in range(4)) for state in _full]
_present = [codec.encode(Presence(b"d" * 16, entries)) for entries in (_crowd, *_states)]
# More than one message may have: what is too much is not looked at.
_present.append(codec.encode(Presence(b"d" * 16, tuple(Announcement(n, 1, _full[1]) for n in range(1024)))))
_LARGEST = [_many, _runs, _large, _pushed, *_present]
frames = st.one_of(messages.map(codec.encode), messages.map(codec.encode), st.sampled_from(_LARGEST))
# Objects that are made to read a frame, whatever its size.
_SMALL = 4 << 10
# A record is an object of Python, whatever its size: 4,096 of one byte, the most that a frame holds, take this much
# where they are taken one by one.
_RECORDS = 1 << 20


def _as_relay(frame: bytes) -> None:
    door = NativeDoor(Limits(), "relay")
    door.receive(codec.encode(Hello()))
    door.receive(frame)


def _as_client(frame: bytes) -> None:
    connection = protocol.Connection()
    connection.receive(codec.encode(Welcome()))
    connection.open(b"d" * 16, "yjs", None)
    connection.receive(codec.encode(Opened(b"d" * 16, RESET, Cursor(b"l" * 16, 5, b"c" * 32), 0)))
    connection.push(b"d" * 16, [Record(b"s" * 16, 1, b"data")])
    connection.receive(frame)


@cache
def yjs_frames() -> Sequence[bytes]:
    """A frame of every message of the y-websocket protocol, and what its vectors hold."""
    present = tuple(Announcement(n, n * 1000, '{"user":{"name":"é"},"at":[1,2]}' * (n % 3 > 0)) for n in range(40))
    messages: list[yjs.YjsMessage] = [
        *map(yjs.Awareness, (present[:1], present, _crowd, *_states, ())), yjs.QueryAwareness(), yjs.Denied("no"),
        *(yjs.StepOne(state) for state in states()), *(yjs.Update(update) for update in updates()),
        *(yjs.StepTwo(update) for update in updates()),
    ]  # fmt: skip
    return [yjs.encode(message) for message in messages]


@cache
def _page() -> yjs.YjsDoor:
    """Of one who may write."""
    tokens, token = _tokens()
    door = yjs.YjsDoor(f"{yjs.PATH}{_LIBRARY}", token, tokens)
    door.begin()
    return door


def _as_page(frame: bytes) -> None:
    _page().receive(frame)


def _automerge_frames() -> Sequence[bytes]:
    """The frames of JavaScript's client, and one for each sync message."""
    made = [bytes.fromhex(frame["bytes"]) for frame in _vectors("automerge_repo")["frames"].values()]  # type: ignore[index]
    fields = {"senderId": "peer", "targetId": "relay", "documentId": _LIBRARY}
    made += [cbor.write({"type": "sync", **fields, "data": data}) for data in _sync_messages()]
    said = {"__presence": {"type": "snapshot", "state": {"name": "é", "at": [1, None, 2.5]}}}
    return [*made, cbor.write({"type": "ephemeral", **fields, "count": 1, "sessionId": "s", "data": cbor.write(said)})]


@cache
def _sync_messages() -> Sequence[bytes]:
    """Messages of JavaScript's client, and larger ones."""
    made = [
        cbor.read(bytes.fromhex(frame["bytes"]), 128, 3)["data"]
        for frame in _vectors("automerge_repo")["frames"].values()  # type: ignore[index]
        if frame["type"] in ("sync", "request")
    ]
    hashes = [bytes([n % 256]) * 32 for n in range(600)]
    haves = [Have(hashes[:n], make_filter(hashes[n:])) for n in (0, 300, 590)]
    return [*made, write_message(hashes, hashes[:20], haves, [b"c" * 12] * 600), write_message([], [], [], [])]


def _as_automerge_client(frame: bytes) -> None:
    tokens, token = _tokens()
    door = automerge.DOOR.make(Upgrade(automerge.PATH, token), DoorContext(Limits(), tokens, "relay"))
    door.begin()
    door.receive(cbor.write({"type": "join", "senderId": "peer"}))
    door.receive(frame)


@cache
def _automerge_document() -> tuple[AutomergeBackend, Replica]:
    crdt = AutomergeBackend()
    replica = crdt.make_replica(())
    replica.load(None, _automerge_updates()[:3])
    return crdt, replica


def _as_automerge_question(data: bytes) -> None:
    crdt, replica = _automerge_document()
    crdt.reply(replica, data)


def _paths() -> Sequence[bytes]:
    token = _tokens()[1].decode()
    return [f"{_LIBRARY}?token={token}".encode(), f"{_LIBRARY}?a=%20&token={token}&b=1".encode(), b"%2e%2e/relay.db"]


def _begin_at(path: bytes) -> None:
    """A stranger's request: a path with parameters, before anything else is known of him."""
    yjs.YjsDoor(yjs.PATH + path.decode("latin-1"), b"", _tokens()[0]).begin()


# ---------------------------------------------------------------- updates


# A sound update, which the known panics of pycrdt 0.14.13 are made from.
GOOD = bytes.fromhex(
    "01120700070101610128000700026964017701302700070001630204000702036865790401017402783081070001000584070702783187070801"
    "28000710026964017701322700071001630204000712036865798407" "0f02783287071001280007180269640177013327000718016302"
    "0400071a036865798407170278330107010806"
)  # fmt: skip


@cache
def updates() -> Sequence[bytes]:
    """Updates and whole documents, of entries and of everything else that Yjs has."""
    rng, found = random.Random(1), [GOOD, b"\0\0"]
    for client in range(1, 6):
        doc = pycrdt.Doc(client_id=client * 10**9)
        heard: list[bytes] = []
        doc.observe(lambda event, heard=heard: heard.append(event.update))  # type: ignore[misc]
        entries, array = doc.get("entries", type=pycrdt.Map), doc.get("a", type=pycrdt.Array)
        text = doc.get("t", type=pycrdt.Text)
        for n in range(6):
            entries[f"e{n}"] = pycrdt.Map(
                {"head": "é" * n, "hidden:x": rng.randbytes(n * 30), "live": pycrdt.Text("a")}
            )
            array.append({"a": [1, 2.5, None, True, "x", {"b": 2**40}]})
            text += "words "
            text.format(0, 3, {"bold": True})
            if n % 3 == 2:
                del array[0]
                del entries[f"e{n - 1}"]
        found += [*heard, doc.get_update(), pycrdt.merge_updates(*heard[1::2])]
    everybody = [pycrdt.Doc(client_id=client) for client in range(1, 101)]
    for doc in everybody:
        doc.get("meta", type=pycrdt.Map)["k"] = 1
    return [*found, pycrdt.merge_updates(*(doc.get_update() for doc in everybody))]


@cache
def states() -> Sequence[bytes]:
    many = b"".join(
        leb128(client) + leb128(clock) for client, clock in zip(range(1, 501), range(500, 0, -1), strict=True)
    )
    return [*(pycrdt.get_state(update) for update in updates() if update != b"\0\0"), leb128(500) + many]


@cache
def _automerge_updates() -> Sequence[bytes]:
    made = json.loads((VECTORS / "automerge.json").read_text())
    return [bytes.fromhex(data) for data in (made["save"], made["derived"], *(c["bytes"] for c in made["changes"]))]


@cache
def _automerge_bodies() -> Sequence[bytes]:
    """The kind of a chunk, and what stands in it."""
    every = [chunk.raw for update in _automerge_updates() for chunk in chunks.read_chunks(update)]
    return [raw[8:9] + Reader(raw, 9).prefixed() for raw in every]


def _read_body(frame: bytes) -> object:
    """The content of a chunk is looked at after a right hash only."""
    kind, body = frame[:1] or b"\0", frame[1:]
    hashed = b"\1" if kind == b"\2" else kind
    digest = hashlib.sha256(hashed + leb128(len(body)) + body).digest()
    whole = b"".join((chunks.MAGIC, digest[:4], kind, leb128(len(body)), body))
    return [list(chunk.operations()) for chunk in chunks.read_chunks(whole)]


@cache
def _automerge_versions() -> Sequence[bytes]:
    return [write_version([bytes(32)], {b"a" * 8: 1, b"b" * 16: 300}), write_version([], {})]


@cache
def _large_states() -> Sequence[bytes]:
    """Of as many as the relay takes, with numbers of all lengths."""
    rng, pairs = random.Random(2), list[bytes]()
    while sum(map(len, pairs[-1000:])) * len(pairs) // 1000 < 60_000:
        pairs.append(leb128(rng.getrandbits(rng.randint(1, 53))) + leb128(rng.getrandbits(rng.randint(1, 32))))
    return [leb128(len(pairs)) + b"".join(pairs), leb128(50_000) + bytes(100_000)]


def _as_question(version: bytes) -> None:
    replica = YjsReplica(())
    replica.apply(GOOD)
    replica.diff(version)


def _apply(update: bytes) -> None:
    replica = YjsReplica(("entries", "meta", "acts"))
    replica.apply(GOOD)
    replica.apply(update)


# ---------------------------------------------------------------- texts


def _text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: read(data.decode("utf-8", "surrogateescape"))


@cache
def _tokens() -> tuple[Tokens, bytes]:
    folder = tempfile.mkdtemp()
    tokens = Tokens(folder)
    token = tokens.make("somebody", "append", ["*"], 10**9).encode()
    return Tokens(folder), token


@cache
def _keyring() -> tuple[Keyring, bytes]:
    folder = Path(tempfile.mkdtemp())
    mine = Keyring(folder / "mine.keys")
    conversation = new_document_id()
    mine.newest(conversation)
    return Keyring(folder / "other.keys"), mine.export(conversation).encode()


def _settings(data: bytes) -> None:
    file = Path(tempfile.gettempdir()) / f"llmcrdt-fuzz-{random.getrandbits(64):x}.toml"
    file.write_bytes(data)
    try:
        found = settings.defaults(file, {})
        settings.checked(found["limits"])
    finally:
        file.unlink()


def _hash(data: bytes) -> None:
    try:
        gguf_header._hash_fields(data)
    except (gguf_header._Short, gguf_header._Damaged) as error:
        raise FormatError(str(error)) from None


_HEADS = (
    b'{"author":"a","created_at":1800000000000,"lamport":3,"parents":["AAAAAAAAAAAAAAAA"],"role":"user",'
    b'"session":"AAAAAAAAAAAAAAAAAAAAAA","after":[],"model":{"name":"x"}}',
    b'{"answers":["AAAAAAAAAAAAAAAA","call"],"author":"","created_at":0,"frame":{"appended":[["AAAAAAAAAAAAAAAA",'
    b'"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]],"base":null,"hash":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","renderer":"r",'
    b'"sent":null},"lamport":1,"parents":[],"role":"tool","session":"AAAAAAAAAAAAAAAAAAAAAA"}',
)
_CHAT = (
    b'{"messages":[{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"t"},'
    b'{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]},{"role":"assistant","content":null,'
    b'"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]},'
    b'{"role":"tool","tool_call_id":"1","content":"r"}],"tools":[],"model":"m"}'
)
_FORMATS = Path(__file__).parents[1] / "vectors" / "interop"


def _files_of(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((_FORMATS / name).glob("*.json"))]


def _read_format(name: str, text: str) -> object:
    return format_of(name).read(openai_chat.parse(text))


def _streams_of(name: str) -> list[bytes]:
    """The recorded streams of a format."""
    folder = _FORMATS / name / "streams"
    return [path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix != ".json"]


def _read_stream(name: str, body: bytes) -> object:
    """A streamed answer, in two pieces; and what it is, if it is one."""
    form = format_of(name)
    stream = form.stream()
    stream.feed(body[: len(body) // 2])
    stream.feed(body[len(body) // 2 :])
    stream.close()
    response = stream.response()
    said = form.answer(response or {})
    reader = form.reader(Outline(None, form.provider))
    drafts = [draft for path, item in said.items for draft in reader.read(item, path)]
    return response, [*drafts, *reader.end()]


_SETTINGS = (
    b'host = "127.0.0.1"\nport = 8765\nallow_origin = ["a"]\nlog_level = "info"\n'
    b"[limits]\nrecord = 100\nhandshake = 2.5\n"
)
# The head of a token is read before its signature is checked.
_NESTED = base64.urlsafe_b64encode(b'{"alg":"HS256","a":' + b"[" * 3000).rstrip(b"=") + b".e30.AAAA"
_LIBRARY = new_document_id(random.Random(1).randbytes)
_INVITE = write_invite(Invite("ws://127.0.0.1:8765", _LIBRARY, "token", ((_LIBRARY, 1_800_000_000_000, b"k" * 32),)))


def _summed(body: bytes) -> None:
    """An invite whose checksum fits, whatever it says."""
    code = base64.urlsafe_b64encode(body + invite._checksum(body)).rstrip(b"=").decode()
    read_invite(invite._NAME + f"{invite._VERSION}-{code}")


def _signed(claims: bytes) -> None:
    """A token that this relay's key has signed, whatever it says."""
    tokens, _ = _tokens()
    assert tokens._key is not None
    tokens.check(jwt.api_jws.encode(claims, tokens._key, "HS256").encode())


_CODE = _INVITE.removeprefix(f"{invite._NAME}{invite._VERSION}-")
_BODY = base64.urlsafe_b64decode(_CODE + "=" * (-len(_CODE) % 4))[: -invite._CHECKSUM]
_CLAIMS = b'{"jti":"0011223344556677","sub":"ann","may":"append","doc":["*","a*"],"exp":1999999999.5}'
_CHUNK = chunk_file.encode(chunk_file.Chunk.after(b"p" * 32, 64, tuple(range(64)), b"payload" * 40))
_GGUF = b"".join(
    (b"GGUF", (3).to_bytes(4, "little"), (0).to_bytes(8, "little"), (2).to_bytes(8, "little"),
     (7).to_bytes(8, "little"), b"general", (4).to_bytes(4, "little"), (1).to_bytes(4, "little"),
     (16).to_bytes(8, "little"), b"tokenizer.tokens", (9).to_bytes(4, "little"), (8).to_bytes(4, "little"),
     (2).to_bytes(8, "little"), (1).to_bytes(8, "little"), b"a", (1).to_bytes(8, "little"), b"b")
)  # fmt: skip
_PIECES = io.BytesIO()
framing.write(_PIECES, [b"one", b"", b"three" * 100])


def _just(*data: bytes) -> st.SearchStrategy[bytes]:
    return st.sampled_from(data)


# Their frames are CBOR, and their questions are answered by the package automerge.
_AUTOMERGE_CLIENTS = (
    Decoder("Automerge's sync messages", st.deferred(lambda: _just(*_sync_messages())), read_message,
            (MalformedFrame,)),
    Decoder("questions of Automerge clients", st.deferred(lambda: _just(*_sync_messages())), _as_automerge_question,
            (MalformedUpdate,), calls=4000, per_byte=60),
    Decoder("the relay's Automerge door", st.deferred(lambda: _just(*_automerge_frames())), _as_automerge_client,
            (Refused,), calls=1600, per_byte=20),
    Decoder("CBOR", st.deferred(lambda: _just(*_automerge_frames())), lambda data: cbor.read(data, 2048, 5),
            (MalformedFrame,)),
) if cbor.installed() and "automerge" in kinds() else ()  # fmt: skip

DECODERS = (
    Decoder("wire", frames, codec.decode, (MalformedFrame,), memory=_SMALL),
    Decoder("the relay's native door", frames, _as_relay, (Refused,), memory=2 * _SMALL),
    Decoder("the client's connection", frames, _as_client, (MalformedFrame,), calls=800, per_byte=20,
            memory=2 * _RECORDS),
    Decoder("the Yjs door's frames", st.deferred(lambda: _just(*yjs_frames())), yjs.decode, (MalformedFrame,),
            calls=800, memory=_SMALL),
    Decoder("the relay's Yjs door", st.deferred(lambda: _just(*yjs_frames())), _as_page, (Refused,), calls=1600,
            memory=2 * _SMALL),
    Decoder("the Yjs door's paths", st.deferred(lambda: _just(*_paths())), _begin_at, (Refused,)),
    Decoder("updates", st.deferred(lambda: _just(*updates())), read_update, (MalformedUpdate,)),
    Decoder("Automerge updates", st.deferred(lambda: _just(*_automerge_updates())), chunks.read_update,
            (MalformedUpdate,)),
    Decoder("Automerge changes and documents, each with its hash", st.deferred(lambda: _just(*_automerge_bodies())),
            _read_body, (MalformedUpdate,), calls=4000, per_byte=60),
    *_AUTOMERGE_CLIENTS,
    Decoder("versions of Automerge documents", st.deferred(lambda: _just(*_automerge_versions())), parse_version,
            (MalformedUpdate,)),
    Decoder("state vectors", st.deferred(lambda: _just(*states(), *_large_states())), check_state_vector,
            (MalformedUpdate,), calls=40, per_byte=0, memory=_SMALL),
    Decoder("state vectors that are read", st.deferred(lambda: _just(*states())), read_state_vector,
            (MalformedUpdate,)),
    Decoder("questions of Yjs clients", st.deferred(lambda: _just(*states())), _as_question, (MalformedUpdate,),
            calls=4000, per_byte=60),
    Decoder("the document's replica", st.deferred(lambda: _just(*updates())), _apply, (MalformedUpdate,), calls=4000,
            per_byte=60),
    Decoder("compaction", st.deferred(lambda: _just(*updates())), lambda data: compact_updates([GOOD, data]), (),
            calls=4000, per_byte=60),
    Decoder("pieces", _just(_PIECES.getvalue()), lambda data: list(framing.read(io.BytesIO(data))), (EOFError,),
            memory=_SMALL),
    Decoder("tokens", st.deferred(lambda: _just(_tokens()[1], _NESTED)), lambda data: _tokens()[0].check(data),
            (TokenRefused,)),
    Decoder("claims of tokens", _just(_CLAIMS), _signed, (TokenRefused,), calls=1600),
    Decoder("keys handed over", st.deferred(lambda: _just(_keyring()[1])), _text(lambda t: _keyring()[0].add(t)),
            (InvalidContent,), calls=4000, per_byte=40),
    Decoder("settings", _just(_SETTINGS), _settings, (ValueError,), calls=4000, per_byte=60, memory=1 << 20),
    Decoder("limits", _just(b"record=100,rate=5,handshake=0.5"),
            _text(lambda t: settings.checked(settings.limits(t.split(",")))), (ValueError,)),
    Decoder("invites", _just(_INVITE.encode()), _text(read_invite), (InvalidInvite,)),
    Decoder("what invites say", _just(_BODY), _summed, (InvalidInvite,), calls=800),
    Decoder("document ids", _just(_LIBRARY.encode()), _text(document_bytes), (ValueError,)),
    Decoder("chunk files", _just(_CHUNK), chunk_file.decode, (chunk_file.BadChunk,)),
    Decoder("GGUF heads", _just(_GGUF), _hash, (FormatError,)),
    Decoder("token logs", _just(TokenLog(None, (1, 2, 3), (4, 5)).pack()), TokenLog.unpack, (InvalidContent,)),
    Decoder("JSON", _just(*_HEADS, _CHAT), _text(parse_json), (InvalidContent,)),
    Decoder("heads of entries", _just(*_HEADS), _text(read_head), (InvalidContent,)),
    Decoder("versions of entries", _just(b'{"by":"AAAAAAAAAAAAAAAAAAAAAA","lamport":1,"nonce":"AAAAAAAAAAAAAAAA",'
            b'"parts":[{"text":"t","type":"text"},{"type":"other"}]}'),
            _text(lambda t: read_version("user", content_hash("user", t), t)),
            (InvalidContent, UnicodeEncodeError)),
    Decoder("hidden fields", _just(b'{"tokenizer":"x"}\0data', b"\1" + bytes(80) + b'{"a":1}\0' + bytes(40)),
            read_hidden, (InvalidContent,)),
    Decoder("sealed fields", _just(b"\1" + bytes(80) + b'{"a":1}\0' + bytes(40)), lambda d: read_encrypted(d, NOWHERE),
            (InvalidContent,)),
    Decoder("selections", _just(b'{"after":[],"entry":"AAAAAAAAAAAAAAAA","lamport":3}'),
            _text(lambda t: read_selection("select:g:AAAAAAAAAAAAAAAAAAAAAA", t)), ()),
    Decoder("schema versions", _just(b"1.0", b"2.0"), _text(schema.check_schema), (NewerDocument,)),
    *(
        Decoder(f"{name} files", _just(*_files_of(name)), _text(partial(_read_format, name)), (FormatError,), calls=400,
                per_byte=400, memory=1 << 20)
        for name in names()
    ),
    *(
        Decoder(f"{name} streams", _just(*_streams_of(name)), partial(_read_stream, name), (FormatError,), calls=1000,
                per_byte=40, memory=1 << 20)
        for name in names()
    ),
    Decoder("OpenAI chats", _just(_CHAT), _text(openai_chat.read_text), (FormatError,), calls=4000, per_byte=40,
            memory=256 << 10),
)  # fmt: skip
