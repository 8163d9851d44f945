"""The Automerge door, frame by frame: what it takes, what it refuses, and with which code."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcrdt.automerge_sync import cut_chunks, make_filter, read_message
from llmcrdt.crdt.automerge.backend import AutomergeBackend
from llmcrdt.crdt.automerge.chunks import MAGIC, read_chunks, write_chunk
from llmcrdt.exceptions import MalformedFrame, MalformedUpdate
from llmcrdt.ids import document_bytes, document_id, new_document_id
from llmcrdt.sync.messages import MAX_STATE, Ack, Announcement, Error, ErrorCode, Open, Opened, Presence, Push, Record
from llmcrdt.varint import write_uint
from sync_server.auth.tokens import Tokens
from sync_server.core import writes
from sync_server.core.limits import Limits
from sync_server.core.validation import DiffRequest, DiffResponse, MergeRequest, Updates
from sync_server.doors import automerge, cbor, ephemeral, yjs
from sync_server.doors.base import Door, DoorContext, Refused, Upgrade
from sync_server.testing.door_suite import DoorSuite
from sync_server.thread import RelayThread

from ..automerge_peers import Bare, frame, needs_door, sync
from ..core.test_validation import ask, native
from ..yjs_peers import Bare as YjsBare

pytestmark = needs_door
BACKEND = AutomergeBackend()

D, S = b"d" * 16, b"s" * 16
HOSTILE = {
    "divides by zero": "42000001000301000700",
    "22 megabytes": "4200000100 07 01 0a 80 80 40 ff ff 00",
    "275 megabytes": "42000001000801 0a 80 80 80 20 ff ff 00",
    "17 gigabytes": "42000001000901 0a ff ff ff ff 0f ff ff 00",
    "entries and bits without end": "42000001000b ff ff ff ff 0f ff ff ff ff 0f 07 00",
    "heads without end": "42ffffffff0f",
    "changes without end": "42000000ffffff7f",
    "no sync message": "00",
}
ROOTS = ("meta", "entries", "acts")
_WRITTEN: list[bytes] = []


def written(count: int = 3) -> list[bytes]:
    """Updates of one replica."""
    replica = BACKEND.make_replica(ROOTS)
    made = []
    for n in range(count):
        with replica.edit() as edit:
            edit.put_node("entries", f"e{n}", {"head": "h" * (n + 1)})
        made.append(edit.update)
    return made


def changes(*updates: bytes) -> list[bytes]:
    return [chunk for update in updates for chunk in cut_chunks(update)]


class TestAutomergeDoor(DoorSuite):
    def make(self, context: DoorContext, document: bytes, token: bytes) -> Door:
        return automerge.DOOR.make(Upgrade(automerge.PATH, token), context)

    def greeting(self, document: bytes, token: bytes) -> bytes:
        return frame("join", peerMetadata={}, supportedProtocolVersions=["1"])

    def reading(self, document: bytes) -> bytes:
        return frame("request", documentId=document_id(document), data=sync())

    def writing(self, document: bytes) -> bytes:
        _WRITTEN[:] = _WRITTEN or changes(*written(1))
        return frame("sync", documentId=document_id(document), data=sync(_WRITTEN, [b"h" * 32]))

    def open(self, context: DoorContext, document: bytes = D, token: bytes = b"") -> Door:
        """Clients ask for a document before they write to it: the first frame about one is always a question."""
        door = super().open(context, document, token)
        if door.grant is None or door.grant.allows("read", document):
            door.receive(self.reading(document))
        return door


@pytest.fixture
def context(tmp_path: Path) -> DoorContext:
    return DoorContext(Limits(), Tokens(tmp_path), "relay")


@pytest.fixture
def door(context: DoorContext) -> Door:
    made = automerge.DOOR.make(Upgrade(automerge.PATH), context)
    made.begin()
    made.receive(frame("join", peerMetadata={}, supportedProtocolVersions=["1"]))
    return made


# ---------------------------------------------------------------- bytes


def test_names_and_erasures_of_a_record_reach_no_plain_client() -> None:
    """Names stand before the second change; what plain clients are given are Automerge's own chunks alone."""
    updates = written(2)
    assert updates[1][0] == 1
    assert all(chunk.startswith(MAGIC) for chunk in changes(*updates))
    erasures = b"\x02\x03abc"
    assert changes(erasures + updates[1] + erasures) == changes(updates[1])


VECTORS = Path(__file__).parents[2] / "vectors" / "automerge_repo.json"


@pytest.mark.parametrize("name", json.loads(VECTORS.read_text())["frames"] if VECTORS.exists() else [])
def test_frames_of_javascripts_client_are_read(door: Door, name: str) -> None:
    vector = json.loads(VECTORS.read_text())["frames"][name]
    data = bytes.fromhex(vector["bytes"])
    if vector["type"] == "join":
        with pytest.raises(Refused, match="once"):
            door.receive(data)
        return
    found = door.receive(data)
    expected = {"request": DiffRequest, "sync": MergeRequest if vector["changes"] else DiffRequest}
    assert isinstance(found, expected.get(vector["type"], Presence)), found
    if vector["type"] != "ephemeral":
        message = read_message(cbor.read(data, 99, 3)["data"])
        assert [head.hex() for head in message.heads] == vector["heads"]
        assert [chunk.hex() for chunk in cut_chunks(message.changes)] == vector["changes"]


def test_a_filter_is_that_of_javascript() -> None:
    vector = json.loads(VECTORS.read_text())["filter"]
    hashes = [bytes.fromhex(hash_) for hash_ in vector["hashes"]]
    found = make_filter(hashes)
    assert (found.entries, found.bits.hex()) == (len(hashes), vector["bits"])
    assert all(hash_ in found for hash_ in hashes)
    assert sum(bytes([n]) * 32 in found for n in range(200)) < 10


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=80) | st.builds(lambda rest: b"\x42" + rest, st.binary(max_size=80)))
def test_bytes_are_a_sync_message_or_malformed(data: bytes) -> None:
    try:
        message = read_message(data)
    except MalformedFrame:
        return
    assert read_message(message.question).question == message.question
    assert len(message.changes) <= len(data)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_sync_message_is_malformed_before_anything_is_made_of_it(name: str) -> None:
    with pytest.raises(MalformedFrame):
        read_message(bytes.fromhex(HOSTILE[name]))
    with pytest.raises(MalformedUpdate):
        BACKEND.reply(BACKEND.make_replica(()), bytes.fromhex(HOSTILE[name]))


@pytest.mark.parametrize(
    "data",
    [
        b"\x80" * 1_000,
        b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xbb\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\x81" * 60,
        b"\x9f" + b"\x80" * 60 + b"\xff",
        b"\xc2\x41\x01",
        b"\x98\x60" + b"\x80" * 96,
        b"\xb8\x28" + b"".join(b"\x61%c\x80" % (48 + n) for n in range(40)),
        b"\xa2\x61a\x01\x61a\x02",
        b"\xa1\x80\x01",
        b"",
        b"\x01\x02",
    ],
    ids=lambda data: data[:6].hex(),
)
def test_cbor_that_is_large_deep_or_strange_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedFrame):
        cbor.read(data, 64, 3)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40))
def test_cbor_is_read_or_malformed(data: bytes) -> None:
    try:
        found = cbor.read(data, 64, 3)
    except MalformedFrame:
        return
    assert cbor.read(cbor.write(found), 64, 3) == found or found != found or isinstance(found, (list, dict, float))


# ---------------------------------------------------------------- one door


def test_a_client_that_has_what_it_was_told_is_not_answered(door: Door) -> None:
    """Clients answer everything that they are sent."""
    document = document_id(D)
    assert isinstance(door.receive(frame("request", documentId=document, data=sync())), DiffRequest)
    replica = BACKEND.make_replica(ROOTS)
    with replica.edit() as edit:
        edit.put_node("entries", "e", {"head": "h"})
    told = read_message(BACKEND.mark(replica) + b"\0")
    acknowledged = frame("sync", documentId=document, data=sync(heads=list(told.heads)).replace(b"\1\0\0\0", b"\0\0"))
    assert isinstance(door.receive(acknowledged), DiffRequest), "it may have more than the relay"
    assert door.receive(acknowledged) is None, "it was asked a moment ago"
    other = frame("sync", documentId=document, data=sync(heads=[b"o" * 32]))
    assert isinstance(door.receive(other), DiffRequest)
    door.encode(Updates(D, (Record(S, 1, edit.update),), BACKEND.mark(replica)))
    assert door.receive(acknowledged) is None


def test_an_app_hears_that_its_document_is_to_be_loaded_anew(door: Door) -> None:
    """Of an error its client says nothing to it, and of the rest neither, for a document that is there."""
    door.receive(frame("sync", documentId=document_id(D), data=sync(heads=[b"o" * 32])))
    error, told, unavailable = (cbor.read(said, 99, 3) for said in door.encode(DiffResponse(D, b"", b"")))
    assert (error["type"], error["code"]) == ("error", ErrorCode.REPLACED)
    assert (told["type"], cbor.read(told["data"], 9, 3)) == ("ephemeral", {"type": automerge.LOAD_ANEW})
    assert unavailable["type"] == "doc-unavailable"
    assert {said["documentId"] for said in (error, told, unavailable)} == {document_id(D)}
    door.receive(frame("sync", documentId=document_id(D), data=sync(heads=[b"p" * 32])))
    again = cbor.read(door.encode(DiffResponse(D, b"", b""))[1], 99, 3)
    assert again["sessionId"] != told["sessionId"], "clients pass over what they have had"


def test_messages_that_are_for_others_are_passed_over(door: Door) -> None:
    document, heads = document_id(D), {f"s{n}": {"heads": ["h"] * 3, "timestamp": 1.5} for n in range(50)}
    for frame_ in (
        frame("leave"),
        frame("doc-unavailable", documentId=document),
        frame("remote-subscription-change", add=[f"storage {n}" for n in range(500)], remove=[]),
        frame("remote-heads-changed", documentId=document, newHeads=heads),
        frame("of a newer version", anything=None),
    ):
        assert door.receive(frame_) is None


def test_updates_tell_all_heads_and_each_chunk_by_itself(door: Door) -> None:
    updates = written(2)
    replica = BACKEND.make_replica(())
    replica.load(None, updates)
    (said,) = door.encode(Updates(D, tuple(Record(S, n, u) for n, u in enumerate(updates, 1)), BACKEND.mark(replica)))
    message = read_message(cbor.read(said, 99, 3)["data"])
    assert message.chunks == len(changes(*updates)) and [*cut_chunks(message.changes)] == changes(*updates)
    assert set(message.heads) == set(message.have[0].last_sync) == set(replica._core.history.all().heads)  # type: ignore[attr-defined]


def test_an_ephemeral_message_is_presence_and_back() -> None:
    own = ephemeral.Ephemeral()
    data = [cbor.write({"n": n, "b": b"x"}) for n in range(10)]
    for count, one in enumerate(data, 1):
        announced = own.take(D, "peer", "session", count, one)
    assert announced is not None and announced.clock == 10 and len(announced.state.encode()) <= MAX_STATE
    told = [*ephemeral.announced_messages(announced)]
    assert [(m["count"], m["data"]) for m in told] == [*enumerate(data, 1)][-8:]
    assert {(m["senderId"], m["sessionId"]) for m in told} == {("peer", "session")}
    assert own.take(D, "peer", "session", 11, b"x" * 5_000) is None


def test_presence_of_automerge_repo_is_read_by_other_doors_and_theirs_by_it() -> None:
    own = ephemeral.Ephemeral()
    own.take(D, "p", "s", 1, cbor.write({"__presence": {"type": "snapshot", "state": {"name": "Ann", "at": 1}}}))
    found = own.take(D, "p", "s", 2, cbor.write({"__presence": {"type": "update", "channel": "at", "value": 2}}))
    assert found is not None
    state = json.loads(found.state)
    assert (state["name"], state["at"]) == ("Ann", 2)
    gone = own.take(D, "p", "s", 3, cbor.write({"__presence": {"type": "goodbye"}}))
    assert gone is not None and "name" not in json.loads(gone.state)
    here, left = Announcement(7, 3, '{"name":"Bob"}'), Announcement(7, 3, "")
    (one,), (other,) = ([*ephemeral.announced_messages(entry)] for entry in (here, left))
    assert cbor.read(one["data"], 99, 9) == {"__presence": {"type": "snapshot", "state": {"name": "Bob"}}}  # type: ignore[arg-type]
    assert cbor.read(other["data"], 99, 9) == {"__presence": {"type": "goodbye"}}  # type: ignore[arg-type]
    assert one["senderId"] == other["senderId"] and int(one["count"]) < int(other["count"])  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "state",
    [
        '{"automerge":{}}',
        '{"automerge":{"peer":1,"session":2,"messages":[[1]]}}',
        '{"automerge":{"peer":"p","session":"s","messages":[[1,"!"]]}}',
        '{"automerge":{"peer":"p","session":"s","messages":[["x",""]]}}',
        '{"a":' + "[" * 2_000 + "]" * 2_000 + "}",
    ],
    ids=range(5),
)
def test_a_state_that_only_looks_like_ephemeral_messages_harms_nobody(door: Door, state: str) -> None:
    for said in door.encode(Presence(D, (Announcement(1, 1, state),))):
        assert len(cbor.read(said, 9_000, 3_000)["data"]) > 0


# ---------------------------------------------------------------- at a relay


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayThread]:
    with RelayThread(tmp_path_factory.mktemp("relay")) as running:
        yield running


def test_hostile_frames_end_their_connection_and_no_other(relay: RelayThread) -> None:
    document = new_document_id()
    with Bare(relay.url) as other:
        other.join()
        frames = [frame("sync", documentId=document, data=bytes.fromhex(text)) for text in HOSTILE.values()]
        frames += [
            b"", b"\x80", b"\x9b" + b"\xff" * 8, frame("sync"), frame("sync", documentId="nonsense", data=sync()),
            frame("join", peerMetadata={}), frame("peer"), frame("ephemeral", documentId=document, data=b"x"),
        ]  # fmt: skip
        for one in frames:
            with Bare(relay.url) as client:
                client.join().socket.send(one)
                assert client.close_code() == 4400
        with Bare(relay.url) as client:
            client.send("sync", documentId=document, data=sync())
            assert client.close_code() == 4400, "JOIN comes first"
        with Bare(relay.url) as client:
            client.send("join", peerMetadata={}, supportedProtocolVersions=["2"])
            assert client.close_code() == 4400
        other.send("request", documentId=document, data=sync())
        assert other.hear()["type"] == "doc-unavailable"


def test_changes_that_can_not_be_are_refused_and_those_that_wait_are_asked_for(relay: RelayThread) -> None:
    """A change after itself has no such hash; so the nearest to it is one after a change that nobody has."""
    updates = written(4)
    document = new_document_id()
    with Bare(relay.url) as client, Bare(relay.url, name="other") as other:
        for one in (client, other):
            one.join().send("request", documentId=document, data=sync())
            assert one.hear()["type"] == "doc-unavailable"
        client.sync(document, changes(*updates[:2]))
        assert client.hear_sync().heads == other.hear_sync().heads
        bad = bytearray(read_chunks(updates[2])[0].raw)
        bad[30] ^= 1
        client.sync(document, [bytes(bad)])
        assert client.hear_error() == ErrorCode.BAD_RECORD
        client.sync(document, changes(updates[3]))
        told = client.hear_sync()
        assert list(told.need) == [read_chunks(updates[2])[0].hash]
        client.sync(document, changes(updates[2]))
        assert list(client.hear_sync().need) == []
        for _ in range(2):
            heads = other.hear_sync().heads
        assert read_chunks(updates[3])[0].hash in heads


def test_a_deflated_change_that_bursts_is_refused(relay: RelayThread) -> None:
    """Zeros: 300 kilobytes that would be 300 megabytes."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = b"".join(deflater.compress(bytes(1 << 20)) for _ in range(300)) + deflater.flush()
    bomb = b"\x85\x6f\x4a\x83" + b"hash" + b"\x02" + write_uint(len(body)) + body
    document = new_document_id()
    with Bare(relay.url) as client:
        client.join().sync(document, [bomb])
        assert client.hear_error() == ErrorCode.BAD_RECORD
        client.sync(document, changes(*written(1)), [b"x" * 32])
        assert client.hear_sync().heads


def test_ten_thousand_heads_are_asked_for_and_answered(relay: RelayThread) -> None:
    document = new_document_id()
    with Bare(relay.url) as client:
        client.join().sync(document)
        client.hear()
        client.sync(document, changes(*written(1)))
        client.hear_sync()
        client.sync(document, heads=[n.to_bytes(32, "big") for n in range(10_000)])
        assert 0 < len(client.hear_sync().need) <= 1_024
        client.sync(document, heads=[n.to_bytes(32, "big") for n in range(20_000)])
        assert client.hear_error() == ErrorCode.RECORD_TOO_LARGE


def test_a_document_of_another_kind_is_refused_and_the_connection_goes_on(relay: RelayThread) -> None:
    other, ours = document_id(b"y" * 16), new_document_id()
    with native(relay.url) as device, Bare(relay.url) as client:
        assert isinstance(ask(device, Open(b"y" * 16, "yjs")), Opened)
        ask(device, Push(b"y" * 16, S, 1, (bytes.fromhex("01020700040101740161440700016200"),)))
        client.join()
        for chunks in ([], changes(*written(1))):
            client.sync(other, chunks, [b"x" * 32])
            assert client.hear_error() == ErrorCode.WRONG_KIND
            assert client.hear()["type"] == "doc-unavailable"
        client.sync(ours, changes(*written(1)))
        assert client.hear_sync().heads
        found = ask(device, Open(document_bytes(ours), "yjs"))
        assert isinstance(found, Error) and found.code == ErrorCode.WRONG_KIND


def test_who_asks_for_a_document_as_what_it_is_not_disturbs_nobody(relay: RelayThread) -> None:
    """Also where no worker holds it, and where nothing is there yet."""
    update = bytes.fromhex("01020700040101740161440700016200")
    for n in range(3):
        document = bytes([100 + n]) * 16
        with native(relay.url) as device, Bare(relay.url) as client, YjsBare(relay.url, document_id(document)) as page:
            client.join()
            if n:
                assert isinstance(ask(device, Open(document, "yjs")), Opened)
                ask(device, Push(document, S, 1, (update,)))
            client.sync(document_id(document), changes(*written(1)) if n == 1 else [])
            assert client.hear()["type"] == ("error" if n else "doc-unavailable")
            if not n:
                page.send(yjs.StepOne(b"\0"))
                assert page.close_code() == 4409
                client.sync(document_id(document), changes(*written(1)))
                assert client.hear_sync().heads
            else:
                assert page.sync() == update
                assert isinstance(ask(device, Push(document, S, 2, (update,))), Ack)


def test_a_reader_reads_and_writes_nothing(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    document, elsewhere = new_document_id(), new_document_id()
    read, append = (tokens.make("ann", level, [document]) for level in ("read", "append"))
    made = changes(*written(2))
    with RelayThread(tmp_path) as relay:
        for wrong in ("", "forged"):
            with Bare(relay.url, wrong) as client:
                assert client.close_code() == 4401
        with Bare(relay.url, append) as writer, Bare(relay.url, read) as reader:
            writer.join().sync(document, made[:-1])
            writer.hear_sync()
            reader.join().sync(document)
            assert reader.hear_sync().chunks > 0
            reader.sync(document, made[:-1], [b"z" * 32])  # it says nothing new
            reader.sync(document, made[-1:])
            assert reader.hear_error() == ErrorCode.READ_ONLY
            reader.send("ephemeral", documentId=document, count=1, sessionId="s", data=cbor.write({"a": 1}))
            for one in (reader, writer):
                one.sync(elsewhere)
                assert one.hear_error() == ErrorCode.FORBIDDEN
            writer.sync(document, made[-1:])
            assert reader.hear_sync().chunks == 1
            tokens.revoke(Tokens(tmp_path).check(read.encode()).id)
            assert reader.close_code() == 4401


def test_many_documents_on_one_connection_have_records_of_their_own(tmp_path: Path) -> None:
    ids = [new_document_id() for _ in range(4)]
    with RelayThread(tmp_path, limits=Limits(documents=3)) as relay, Bare(relay.url) as client:
        client.join()
        updates = written(2)
        for one in updates:
            for document in ids[:3]:
                client.sync(document, changes(one))
                client.hear_sync()
        client.sync(ids[3])
        assert client.hear_error() == ErrorCode.TOO_MANY_DOCUMENTS
        with Bare(relay.url) as late:
            late.join()
            for document in ids[:3]:
                late.sync(document)
                message = late.hear_sync()
                replica = BACKEND.make_replica(())
                replica.load(None, [message.changes])
                assert len(message.changes) and BACKEND.mark(replica) == message.data[: message.end]


def test_changes_are_refused_where_the_log_is_full_and_others_go_on(tmp_path: Path) -> None:
    with RelayThread(tmp_path, limits=Limits(log=2_000, record=2_000)) as relay, Bare(relay.url) as client:
        document, other = new_document_id(), new_document_id()
        client.join()
        for one in written(60):
            client.sync(document, changes(one))
        assert client.hear_error() in (ErrorCode.LOG_FULL, ErrorCode.BAD_RECORD)
        client.sync(other, changes(*written(1)))
        while client.hear().get("documentId") != other:
            pass


def test_a_relay_that_can_not_read_such_documents_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writes, "CHECKED_KINDS", frozenset({"yjs"}))
    with RelayThread(tmp_path) as relay, Bare(relay.url) as client:
        client.join().sync(new_document_id())
        assert client.hear_error() == ErrorCode.READ_ONLY
        assert client.hear()["type"] == "doc-unavailable"


def test_a_change_of_a_stranger_is_no_change(relay: RelayThread) -> None:
    document = new_document_id()
    with Bare(relay.url) as client:
        client.join().sync(document, [write_chunk(b"\0" * 40)])
        assert client.hear_error() == ErrorCode.BAD_RECORD
