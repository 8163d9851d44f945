"""The benchmark of relays runs, and a run that delivers the wrong thing has no figure. Its times are for people."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pycrdt
import pytest

from benchmarks.__main__ import main
from benchmarks.relay import folding
from benchmarks.relay.connection import Connection
from benchmarks.relay.dialects import Hocuspocus, Native, WrongContent, YWebsocket, frame
from benchmarks.relay.load import check_documents
from benchmarks.relay.material import Material, entries, tokens
from benchmarks.relay.scenarios import DOORS
from benchmarks.relay.servers import KINDS, OURS, YARDSTICK, has_proc, running
from llmcrdt.crdt.registry import kinds
from llmcrdt.crdt.yjs.compact import compact_updates
from llmcrdt.sync import codec
from llmcrdt.sync.chain import START, digest, next_chain
from llmcrdt.sync.messages import Cursor, Opened, Reached, Record, Records, Snapshot, Welcome
from llmcrdt.varint import write_uint
from tests.waiting import eventually

WORDS = tokens(6)


def records(spoken: Native, first: int, *data: bytes) -> bytes:
    return codec.encode(
        Records(spoken.document, first, tuple(Record(spoken.session, first + i, d) for i, d in enumerate(data)))
    )


def test_a_small_run(tmp_path: Path) -> None:
    others = [YARDSTICK] if next(k for k in KINDS if k.name == YARDSTICK).missing() is None else []
    servers = [part for name in (OURS, *others) for part in ("--server", name)]
    path = tmp_path / "found.json"
    only = [
        part for name in ("streamed", "paced", "idle", "storm", "slow", "unload", "fold") for part in ("--only", name)
    ]
    assert main(["relay", "--quick", "--records", "300", "--json", str(path), *only, *servers]) == 0
    found = json.loads(path.read_text())
    assert "notes" not in found, found["notes"]
    figures = {figure["name"]: figure for figure in found["figures"]}
    for name in (*DOORS, *others):
        assert figures[f"10 rooms x 4, as fast as it goes: {name}"]["value"] > 0
        assert figures[f"10 rooms x 4, 1,000 updates/s, p50: {name}"]["value"] > 0
    for name in (OURS, *others):
        assert figures[f"5 clients join a document of 0.1 MB, until all have it: {name}"]["value"] > 0
    if others:
        for door in ("", ", Yjs door", ", mixed"):
            assert figures[f"  delivered/s{door} / y-websocket"]["budget"] == 4
            assert figures[f"  p99{door} / 2 x (y-websocket and a durable commit)"]["budget"] == 1
    assert "  as many others after them" in figures
    assert "10 clients that don't read, 0.6 MB, Yjs door: memory more" in figures
    assert figures["longest ack meanwhile"]["value"] > 0


def test_a_relay_that_refuses_does_not_hang_the_benchmark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(folding, "_tokens", lambda count: [b"no update"] * count)
    path = tmp_path / "found.json"
    assert main(["relay", "--quick", "--records", "1", "--json", str(path), "--only", "fold", "--server", OURS]) == 0
    (note,) = json.loads(path.read_text())["notes"]
    assert "The relay refused" in note


def test_what_is_missing_is_left_out_with_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("PATH", "")
    assert main(["relay", "--quick", "--server", YARDSTICK, "--only", "idle"]) == 0
    assert "y-websocket is left out: Node.js is not here" in capsys.readouterr().out


def test_a_native_follower_takes_records_in_any_pieces() -> None:
    spoken = Native("room", WORDS)
    u, follower = WORDS.updates, Native.follow(spoken)
    assert follower.take(records(spoken, 1, u[0]), 0) == 1
    assert follower.take(codec.encode(Reached(1)), 1) == 1
    assert follower.take(records(spoken, 2, *u[1:5]), 1) == 5
    assert follower.take(records(spoken, 6, u[5]), 5) == 6


@pytest.mark.parametrize(
    ("first", "data"),
    [
        (2, WORDS.updates[1:2]),
        (1, (WORDS.updates[1],)),
        (1, (b"x" * len(WORDS.updates[0]),)),
        (1, (*WORDS.updates, b"y")),
    ],
    ids=["a hole", "another", "other bytes", "too many"],
)
def test_a_native_follower_notices(first: int, data: tuple[bytes, ...]) -> None:
    spoken = Native("room", WORDS)
    with pytest.raises(WrongContent):
        spoken.follow().take(records(spoken, first, *data), 0)


@pytest.mark.parametrize("kind", [YWebsocket, Hocuspocus])
def test_a_yjs_follower_takes_updates_as_they_came_and_merged(kind: type[YWebsocket]) -> None:
    spoken = kind("room", WORDS)
    follower = spoken.follow()
    assert follower.take(spoken.messages[0], 0) == 1
    merged = pycrdt.merge_updates(*WORDS.updates[1:5])
    assert follower.take(spoken.before + b"\x00\x02" + write_uint(len(merged)) + merged, 1) == 5
    assert follower.take(spoken.messages[5], 5) == 6
    follower.check(6)
    assert spoken.follow().take(spoken.before + b"\x01\x00", 0) == 0, "awareness says nothing of the document"


def test_a_yjs_follower_takes_the_next_piece_of_a_text_and_no_other() -> None:
    """As one struct, which the core makes of words that come in one transaction."""
    document: pycrdt.Doc = pycrdt.Doc()
    document.apply_update(WORDS.updates[0])
    before = document.get_state()
    for update in WORDS.updates[1:5]:
        document.apply_update(update)
    piece = document.get_update(before)
    assert WORDS.goes_on(piece, 1) == 5
    assert WORDS.goes_on(piece, 2) == 2
    for at in range(len(piece)):
        other = bytearray(piece)
        other[at] ^= 1
        assert WORDS.goes_on(bytes(other), 1) == 1
    spoken = YWebsocket("room", WORDS)
    follower = spoken.follow()
    assert follower.take(spoken.messages[0], 0) == 1
    assert follower.take(b"\x00\x02" + write_uint(len(piece)) + piece, 1) == 5
    assert follower.take(spoken.messages[5], 5) == 6
    assert follower.replica is None


def test_a_yjs_follower_that_got_merged_updates_first_takes_every_later_one() -> None:
    """Its replica lacks whatever is only compared with what was written."""
    spoken = YWebsocket("room", WORDS)
    merged = pycrdt.merge_updates(*WORDS.updates[:2])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connection = Connection(listening.getsockname(), spoken, follow=True)
        server, _ = listening.accept()
        with server, connection.socket:
            connection.socket.setblocking(True)
            greeting = b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + frame(b"\x00\x01" + write_uint(2) + b"\x00\x00")
            for data in (greeting, frame(b"\x00\x02" + write_uint(len(merged)) + merged)):
                server.sendall(data)
                connection.receive(0.0)
            assert connection.have == 2
            for n in range(2, 6):
                server.sendall(frame(spoken.messages[n]))
                connection.receive(0.0)
            assert connection.have == 6
            connection.check()


def test_a_yjs_follower_notices_what_is_missing_and_what_is_wrong() -> None:
    spoken = YWebsocket("room", WORDS)
    follower = spoken.follow()
    assert follower.take(spoken.messages[1], 0) == 0, "it waits for the first"
    other = YWebsocket("room", Material(tuple(u.replace(b"000", b"999") for u in WORDS.updates), WORDS.clocks))
    follower = spoken.follow()
    have = 0
    for message in other.messages:
        have = follower.take(message, have)
    with pytest.raises(WrongContent):
        follower.check(have)


def stream(spoken: Native, *pieces: int | tuple[int, bytes, int, int]) -> list[bytes]:
    """The messages of one who joins: WELCOME, OPENED, and then, for a number, the records up to that place; for (place,
    session, first, end), bytes of the snapshot up to that place."""
    u, at, chain = spoken.material.updates, 0, [START]
    for n, data in enumerate(u, 1):
        chain.append(next_chain(chain[-1], digest(spoken.document, Record(spoken.session, n, data))))
    head = Cursor(bytes(16), len(u), chain[-1])
    out = [codec.encode(Welcome("relay", 1, 1, 1, 1)), codec.encode(Opened(spoken.document, 1, head, 0))]
    for piece in pieces:
        if isinstance(piece, int):
            out.append(records(spoken, at + 1, *u[at:piece]))
            at = piece
        else:
            at, session, first, end = piece
            (snapshot,) = compact_updates(u[:at])
            part = (1, 1, len(snapshot), first, snapshot[first:end])
            out.append(codec.encode(Snapshot(spoken.document, at, chain[at], session, *part)))
    return [*out, codec.encode(Reached(1))]


def test_who_joins_while_a_log_is_folded_has_the_same_document() -> None:
    """In other messages than who came before, or behind."""
    spoken = Native("room", WORDS)
    old, new = b"o" * 16, b"n" * 16
    ways = [
        stream(spoken, 6),
        stream(spoken, 1, 4, 6),
        stream(spoken, 2, (4, new, 0, 10), (4, new, 10, 1000), 6),
        stream(spoken, (3, old, 0, 10), (4, new, 0, 1000), 6),
        stream(spoken, (3, old, 0, 1000), 4, (5, new, 0, 1000), 6),
    ]
    check_documents(spoken, ways)


@pytest.mark.parametrize(
    "pieces",
    [
        [5],
        [2, (4, b"n" * 16, 0, 1000)],
        [(4, b"n" * 16, 0, 10), 6],
        [(4, b"n" * 16, 10, 1000), 6],
        [6, (4, b"n" * 16, 0, 1000)],
    ],
    ids=["no end", "none behind a snapshot", "records within a snapshot", "half of a snapshot", "an old snapshot"],
)
def test_who_joins_and_does_not_get_all_is_noticed(pieces: list) -> None:
    spoken = Native("room", WORDS)
    with pytest.raises(WrongContent):
        check_documents(spoken, [stream(spoken, 6), stream(spoken, *pieces)])


def test_who_joins_a_server_that_merges_is_noticed_if_anything_is_missing() -> None:
    spoken = YWebsocket("room", WORDS)
    merged = pycrdt.merge_updates(*WORDS.updates)

    def told(update: bytes) -> list[bytes]:
        return [b"\x00\x01" + write_uint(len(update)) + update]

    check_documents(spoken, [told(merged), told(WORDS.updates[0]) + spoken.messages[1:]])
    for missing in (WORDS.updates[:5], WORDS.updates[1:], (*WORDS.updates[:3], *WORDS.updates[4:])):
        with pytest.raises(WrongContent):
            check_documents(spoken, [told(merged), told(pycrdt.merge_updates(*missing))])


@pytest.mark.skipif(not has_proc(), reason="The system doesn't tell what a process uses.")
def test_what_the_relay_takes_is_told_with_its_workers() -> None:
    """They are children of its threads."""
    with running(KINDS[0]) as server:
        eventually(lambda: server.memory - server.own_memory, lambda more: more > 10_000_000)


def test_frames_are_those_of_rfc_6455() -> None:
    assert frame(b"ab") == b"\x82\x02ab"
    assert frame(b"ab", masked=True) == b"\x82\x82\0\0\0\0ab"
    assert frame(bytes(200))[:4] == b"\x82\x7e\x00\xc8"
    assert frame(bytes(70_000))[:10] == b"\x82\x7f" + (70_000).to_bytes(8, "big")


def test_material_says_how_much_of_it_a_state_holds() -> None:
    for material in (WORDS, entries(5, 40)):
        document: pycrdt.Doc = pycrdt.Doc()
        for n, update in enumerate(material.updates):
            assert material.reached(document.get_state()) == n
            document.apply_update(update)
        assert material.reached(document.get_state()) == len(material.updates)


def test_the_benchmark_of_bytes_on_the_wire_runs(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    assert main(["sync", "--turns", "2", "--documents", "20", "--json", str(path)]) == 0
    figures = {figure["name"]: figure for figure in json.loads(path.read_text())["figures"]}
    for kind in kinds():
        assert figures[f"{kind}, up to date: bytes of one round trip, both ways"]["held"]
        assert figures[f"  {kind}: sent and received for each document"]["held"]
        assert figures[f"  {kind}: the bare library's changes, one for each token / content"]["value"] > 1
