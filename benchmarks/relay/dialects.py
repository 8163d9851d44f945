"""The protocols that the load generator speaks, as bytes: lean, for a load generator must cost less than a server.

A *pushed* frame is one that the writer sends; what a follower gets is compared with what was written, byte for byte
where the server sends updates on as they came, through a replica where it merges them.

Sources: y-protocols (PROTOCOL.md and sync.js) for y-websocket; @hocuspocus/common for Hocuspocus, whose frames are
those with the document's name before them; automerge-repo-network-websocket for automerge-repo; docs/protocol.md for
ours.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Sequence
from copy import copy
from functools import cache, cached_property
from itertools import accumulate
from typing import NamedTuple

from llmcrdt.automerge_sync import NOTHING, Have, SyncMessage, cut_chunks, read_message, write_message
from llmcrdt.exceptions import MalformedFrame
from llmcrdt.ids import document_id
from llmcrdt.sync import codec, events, protocol
from llmcrdt.sync.messages import PATH, SUBPROTOCOL, Barrier, Hello, Open, Push
from llmcrdt.varint import read_uint, write_uint
from sync_server.doors import cbor

from .material import Material, Replica

EMPTY = b"\x00\x00"
"""A Yjs update that says nothing."""


class WrongContent(Exception):
    """A follower got something else than was written."""


class Frames(NamedTuple):
    """Frames in one piece, and where each of them ends (0 first)."""

    blob: bytes
    ends: tuple[int, ...]


def frame(payload: bytes, masked: bool = False) -> bytes:
    """A binary WebSocket frame (RFC 6455). A client's mask is all zero: the server unmasks, we need not mask."""
    size, bit = len(payload), 0x80 if masked else 0
    if size < 126:
        head = bytes((0x82, bit | size))
    elif size < 1 << 16:
        head = bytes((0x82, bit | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x82, bit | 127)) + size.to_bytes(8, "big")
    return head + bytes(4 * masked) + payload


class YWebsocket:
    """The y-websocket protocol: a connection for each document, its name in the path. ``extensions``: as browsers, and
    the package ``ws``, offer them."""

    subprotocol: str | None = None
    extensions = "permessage-deflate; client_max_window_bits"

    def __init__(self, room: str, material: Material, folder: str = "/") -> None:
        self.path = folder + room
        self.material = material
        self.before = b""

    @property
    def hello(self) -> list[bytes]:
        """The first message of a client: sync step 1 of an empty document."""
        return [self.before + b"\x00\x00\x01\x00"]

    @property
    def messages(self) -> list[bytes]:
        """The message of a writer, and of a server that sends on without merging."""
        return _messages(self.material, self.before)

    @property
    def pushed(self) -> Frames:
        return _frames(self.material, self.before, True)

    @property
    def echoed(self) -> Frames:
        return _frames(self.material, self.before, False)

    def whole(self, payload: bytes) -> bool:
        """Whether this is the answer to step 1: with it all is here that the server has."""
        at = len(self.before)
        return payload[at : at + 2] in (b"\x00\x01", b"\x04\x01")

    def updates(self, payload: bytes) -> list[bytes]:
        """The updates in a message; none where it is about something else."""
        at = len(self.before)
        if payload[at : at + 2] not in (b"\x00\x01", b"\x00\x02", b"\x04\x01"):
            return []
        size, at = read_uint(payload, at + 2, 8)
        return [payload[at : at + size]]

    def counts(self, payload: bytes) -> bool:
        """Whether a message is one of those that ``contents`` needs; greetings may come in any order."""
        return any(update != EMPTY for update in self.updates(payload))

    def contents(self, payloads: Sequence[bytes]) -> list[bytes]:
        """The updates in many messages."""
        return [update for payload in payloads for update in self.updates(payload)]

    def another(self) -> YWebsocket:
        """The same for another client."""
        return self

    def follow(self) -> YFollower:
        return YFollower(self)


class Hocuspocus(YWebsocket):
    """Hocuspocus: the document's name before each message, and a token (any will do) before the first."""

    def __init__(self, room: str, material: Material) -> None:
        super().__init__(room, material)
        self.path = "/"
        self.before = write_uint(len(room)) + room.encode()

    @property
    def hello(self) -> list[bytes]:
        return [self.before + b"\x02\x00" + write_uint(4) + b"none", *super().hello]


class YFollower:
    """How far a follower has come. A server that sends on what came is checked by comparing bytes; as soon as a message
    differs, a replica takes over."""

    reply = b""

    def __init__(self, dialect: YWebsocket) -> None:
        self.dialect = dialect
        self.expected = dialect.messages
        self.replica: Replica | None = None

    @property
    def word_for_word(self) -> bool:
        """Whether what comes may be compared with ``echoed`` instead of being taken: a replica needs every update."""
        return self.replica is None

    def take(self, payload: bytes, have: int) -> int:
        """How many updates are here after this message."""
        if self.replica is None:
            if have < len(self.expected) and payload == self.expected[have]:
                return have + 1
            updates = self.dialect.updates(payload)
            if all(update == EMPTY for update in updates):
                return have
            if len(updates) == 1 and (now := self.dialect.material.goes_on(updates[0], have)) > have:
                return now
            self.replica = Replica(self.dialect.material.updates[:have])
        for update in self.dialect.updates(payload):
            self.replica.apply(update)
        return self.dialect.material.reached(self.replica.state)

    def check(self, have: int) -> None:
        """Raises WrongContent where a merged document is not what was written."""
        if self.replica is None:
            return
        if not self.replica.equals(Replica(self.dialect.material.updates[:have])):
            raise WrongContent("A follower's document is not what was written.")


class Native:
    """The relay's own protocol, one document on each connection, one record in each PUSH."""

    subprotocol: str | None = SUBPROTOCOL
    extensions = ""
    path = PATH

    def __init__(self, room: str, material: Material) -> None:
        self.document = native_id(room)
        self.session = os.urandom(16)
        self.material = material
        pieces = [write_uint(len(u)) + u for u in material.updates]
        self.blob = b"".join(pieces)
        self.ends = (0, *accumulate(map(len, pieces)))

    @property
    def hello(self) -> list[bytes]:
        return [codec.encode(m) for m in (Hello("benchmark"), Open(self.document, "yjs"), Barrier(1))]

    @cached_property
    def pushed(self) -> Frames:
        pushes = (Push(self.document, self.session, n, (u,)) for n, u in enumerate(self.material.updates, 1))
        return _joined([frame(codec.encode(push), masked=True) for push in pushes])

    @property
    def echoed(self) -> Frames:
        """Followers get RECORDS, as many in one as the relay likes: there is nothing to expect word for word."""
        return Frames(b"", (0,))

    def whole(self, payload: bytes) -> bool:
        """Whether all is here that the relay had when it was asked."""
        if payload[0] == 0x0B:
            raise WrongContent(str(codec.decode(payload)))
        return payload[0] == 0x0A

    def counts(self, payload: bytes) -> bool:
        """Whether a message is one of those that ``contents`` needs."""
        return True

    def contents(self, payloads: Sequence[bytes]) -> list[bytes]:
        """The records in many messages, as the library's client takes them: snapshots put together from their parts,
        and the chain compared. Raises WrongContent where it would drop the connection."""
        client, records = protocol.Connection(), list[bytes]()
        client.open(self.document, "yjs", None)
        try:
            for event in (event for payload in payloads for event in client.receive(payload)):
                if isinstance(event, events.Arrived):
                    records += (record.data for record in event.records)
        except MalformedFrame as e:
            raise WrongContent(e.message) from e
        return records

    def another(self) -> Native:
        """The same for another client."""
        return self

    def follow(self) -> NativeFollower:
        return NativeFollower(self)


class NativeFollower:
    """How far a follower has come. The records of a message stand there as they were pushed, one after the other, so
    that comparing them with what was written is one comparison."""

    word_for_word = False
    reply = b""

    def __init__(self, dialect: Native) -> None:
        self.dialect = dialect

    def take(self, payload: bytes, have: int) -> int:
        if payload[0] == 0x0B:
            raise WrongContent(str(codec.decode(payload)))
        if payload[0] != 0x08:
            return have
        _, at = read_uint(payload, 17, 8)
        runs, at = read_uint(payload, at, 8)
        for _ in range(runs):
            n, at = read_uint(payload, at + 16, 8)
            count, at = read_uint(payload, at, 8)
            ends = self.dialect.ends
            if n != have + 1 or have + count >= len(ends):
                raise WrongContent(f"A follower got record {n} after record {have}.")
            start, end = ends[have], ends[have + count]
            if payload[at : at + end - start] != self.dialect.blob[start:end]:
                raise WrongContent("A follower got other bytes than were written.")
            at += end - start
            have += count
        return have

    def check(self, have: int) -> None:
        """All was compared when it came."""


class AutomergeRepo:
    """automerge-repo's protocol, one document on each connection, one change in each sync message."""

    subprotocol: str | None = None
    extensions = "permessage-deflate; client_max_window_bits"

    def __init__(self, room: str, material: Material, path: str, reads: bool) -> None:
        self.path, self.material, self.reads = path, material, reads
        # Of others that server says that they are no ids.
        self.document = document_id(uuid.UUID(bytes=native_id(room), version=4).bytes)
        self.sender = os.urandom(8).hex()
        self.hashes = [hashlib.sha256(change[8:]).digest() for change in material.updates]
        self.places = {hash_: n for n, hash_ in enumerate(self.hashes, 1)}

    @property
    def hello(self) -> list[bytes]:
        """A writer begins the document, a reader asks for it."""
        chunks = [] if self.reads else [*cut_chunks(self.material.base)]
        heads = [hashlib.sha256(chunk[8:]).digest() for chunk in chunks[-1:]]
        join = {"type": "join", "senderId": self.sender, "peerMetadata": {}, "supportedProtocolVersions": ["1"]}
        return [cbor.write(join), self.message(heads, [], chunks)]

    def another(self) -> AutomergeRepo:
        """The same for another client."""
        other = copy(self)
        other.sender = os.urandom(8).hex()
        return other

    def message(self, heads: list[bytes], last_sync: list[bytes], chunks: list[bytes]) -> bytes:
        data = write_message(heads, [], [Have(last_sync, NOTHING)], chunks)
        names = {"senderId": self.sender, "targetId": "server", "documentId": self.document}
        return cbor.write({"type": "sync", **names, "data": data})

    @cached_property
    def pushed(self) -> Frames:
        before = [hashlib.sha256([*cut_chunks(self.material.base)][-1][8:]).digest()]
        frames = []
        for hash_, change in zip(self.hashes, self.material.updates, strict=True):
            frames.append(frame(self.message([hash_], before, [change]), masked=True))
            before = [hash_]
        return _joined(frames)

    @property
    def echoed(self) -> Frames:
        """As many changes come in one message as the server likes."""
        return Frames(b"", (0,))

    def whole(self, payload: bytes) -> bool:
        """Whether the document's beginning is there."""
        return (said := self.sync(payload)) is not None and bool(said.heads)

    def sync(self, payload: bytes) -> SyncMessage | None:
        message = cbor.read(payload, 128, 3)
        if message["type"] == "error":
            raise WrongContent(str(message))
        return read_message(message["data"]) if message["type"] == "sync" else None

    def counts(self, payload: bytes) -> bool:
        """Whether a message is one of those that ``contents`` needs."""
        return self.whole(payload)

    def contents(self, payloads: Sequence[bytes]) -> list[bytes]:
        """The chunks in many messages."""
        return [said.changes for payload in payloads if (said := self.sync(payload)) is not None and said.chunks]

    def follow(self) -> AutomergeFollower:
        return AutomergeFollower(self)


class AutomergeFollower:
    """How far a follower has come: heads name all that is before them by hashes. Changes that come one by one are
    compared. As clients do, it answers each message with its own heads."""

    word_for_word = False

    def __init__(self, dialect: AutomergeRepo) -> None:
        self.dialect, self.reply = dialect, b""

    def take(self, payload: bytes, have: int) -> int:
        self.reply = b""
        said = self.dialect.sync(payload)
        if said is None or not said.heads:
            return have
        place = self.dialect.places.get(said.heads[0], 0)
        if len(said.heads) != 1 or place < have:
            return have
        for chunk in cut_chunks(said.changes):
            hash_ = hashlib.sha256(chunk[8:]).digest()
            if chunk[8] == 1 and hash_ not in self.dialect.places and chunk not in self.dialect.material.base:
                raise WrongContent("A follower got a change that nobody wrote.")
        self.reply = self.dialect.message([said.heads[0]], [said.heads[0]], [])
        return place

    def check(self, have: int) -> None:
        """All was compared when it came."""


Dialect = YWebsocket | Native | AutomergeRepo


def dialect(name: str, room: str, material: Material, *, reads: bool = False) -> Dialect:
    """``yjs-door`` is the relay's door for Yjs clients, where a room's name is a document's id; ``mixed``: there reads
    who reads, and writes the relay's own protocol who writes."""
    match name:
        case "mixed":
            return dialect("yjs-door" if reads else "native", room, material)
        case "native":
            return Native(room, material)
        case "automerge-repo" | "automerge-door":
            return AutomergeRepo(room, material, "/" if name == "automerge-repo" else "/automerge", reads)
        case "hocuspocus":
            return Hocuspocus(room, material)
        case "yjs-door":
            return YWebsocket(document_id(native_id(room)), material, "/yjs/")
    return YWebsocket(room, material)


def native_id(room: str) -> bytes:
    return hashlib.sha256(room.encode()).digest()[:16]


# The rooms of one run say the same, and mostly in the same words.
@cache
def _messages(material: Material, before: bytes) -> list[bytes]:
    return [before + b"\x00\x02" + write_uint(len(u)) + u for u in material.updates]


@cache
def _frames(material: Material, before: bytes, masked: bool) -> Frames:
    return _joined([frame(m, masked) for m in _messages(material, before)])


def _joined(frames: Sequence[bytes]) -> Frames:
    return Frames(b"".join(frames), (0, *accumulate(map(len, frames))))
