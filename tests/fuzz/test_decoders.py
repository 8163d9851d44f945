"""A sample of ``make fuzz``, and by name what once got through."""

from __future__ import annotations

import io
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
import guided
from decoders import DECODERS, GOOD, Decoder
from fuzz import Broken, Report, feed, fuzz
from mutate_bytes import leb128

import llmcrdt
from llmcrdt.crdt.yjs.compact import compact_updates
from llmcrdt.crdt.yjs.replica import YjsReplica
from llmcrdt.crdt.yjs.update import check_state_vector, read_state_vector, read_update
from llmcrdt.document.schema import check_schema
from llmcrdt.exceptions import MalformedFrame, MalformedUpdate, NewerDocument
from llmcrdt.ids import SessionId
from llmcrdt.repo.sync_source import SyncSource
from llmcrdt.sync import codec, messages
from llmcrdt.sync.local import Record
from sync_server.workers import framing


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: decoder.name)
def test_changed_frames_are_read_or_refused(decoder: Decoder) -> None:
    report = fuzz(decoder, 600)
    assert report.frames >= 600
    assert report.refused or not decoder.refusals


@pytest.mark.parametrize("name", guided.names())
def test_what_reached_new_code_once_is_read_or_refused(name: str) -> None:
    take = guided.target(name).take
    for frame in guided.kept(name)[:: 4 if name == "structures" else 1]:
        take(frame)


def test_a_decoder_that_breaks_a_bound_is_noticed() -> None:
    def hungry(frame: bytes) -> object:
        return bytes(1 << 20)

    def busy(frame: bytes) -> object:
        return [leb128(1) for _ in range(2000)]

    def broken(frame: bytes) -> object:
        return {}[frame]

    for decode, watch in ((hungry, True), (busy, True), (broken, False)):
        decoder = DECODERS[0]._replace(decode=decode, memory=64 << 10)
        with pytest.raises(Broken):
            feed(decoder, b"frame", Report(), clock=False, watch=watch)


# ---------------------------------------------------------------- known harm: pycrdt 0.14.13 with yrs 0.28

PANICS = {
    "A panics at once, and claims the client up to 2^32-1": "010207feffffff0f040101740161440700016200",
    "B makes the next sound update panic": "010107ffffffff0f04010174016100",
    "C, clock 2^31, makes a sound update apply twice": "0102078080808008040101740161440700016200",
    "C2, clock 2^31-1, as C": "010207ffffffff07040101740161440700016200",
    "a count of 155,205,631 takes 262 MB": "ffff804a",
    "a count of ten million takes 22 MB": "80ade204",
}
CLOCKS = {
    "bad-0": "c680808dff00",
    "bad-1": "ffedff80ff00",
    "bad-2": "ffffffffff80ff808000",
    "bad-3": "f4ffff97ff808000",
}


@pytest.mark.parametrize("name", PANICS)
def test_an_update_that_harms_the_core_does_not_reach_it(name: str) -> None:
    update = bytes.fromhex(PANICS[name])
    with pytest.raises(MalformedUpdate):
        read_update(update)
    assert compact_updates([GOOD, update]) == [*compact_updates([GOOD]), update]


@pytest.mark.parametrize("name", CLOCKS)
def test_a_sound_update_at_a_clock_that_the_core_takes_for_another_is_refused(name: str) -> None:
    with pytest.raises(MalformedUpdate):
        read_update(GOOD[:3] + bytes.fromhex(CLOCKS[name]) + GOOD[4:])


def test_a_state_vector_that_announces_155_million_clients_is_refused() -> None:
    with pytest.raises(MalformedUpdate):
        read_state_vector(bytes.fromhex("ffff804a"))


def update_below_a_text() -> bytes:
    """Two structs: a text value, and one that names the first as its parent, which no value can be."""
    value = b"\x28\x01" + b"\x04meta" + b"\x01k" + b"\x01\x77\x01v"
    child = b"\x28\x00\x07\x00" + b"\x01k" + b"\x01\x77\x01v"
    return b"\x01\x02\x07\x00" + value + child + b"\x00"


def test_an_update_that_the_core_gives_up_in_the_middle_of_is_malformed() -> None:
    """pycrdt raises RuntimeError then, and part of it may have been applied."""
    replica = YjsReplica(("meta",))
    with pytest.raises(MalformedUpdate):
        replica.apply(update_below_a_text())
    assert replica.broken


@pytest.mark.parametrize("loaded", [True, False])
def test_such_an_update_from_a_relay_is_set_aside_and_the_conversation_stays_good(
    open_repo: Callable[..., llmcrdt.Repo], loaded: bool
) -> None:
    repo = open_repo("mine")
    conv = repo.create()
    conv.append("user", "before")
    if not loaded:
        repo.close()
        repo = open_repo("mine")
    else:
        conv.transcript()
    local = SyncSource(repo._core, "ws://relay", None)
    local.received(conv.id, [Record(SessionId("s" * 22), 1, update_below_a_text())], None)
    again = repo.get(conv.id)
    again.append("user", "after")
    assert [e.text for e in again.transcript()] == ["before", "after"]
    again.close()
    repo.close()
    with open_repo("mine") as repo:
        assert [e.text for e in repo.get(conv.id).transcript()] == ["before", "after"]
        assert repo._core.store.updates.set_aside_count(conv.id) == 1


# ---------------------------------------------------------------- other harm


@pytest.mark.parametrize("size", [(1 << 40) + 1, 1 << 63, (1 << 64) - 2])
def test_a_worker_that_announces_an_impossible_piece_is_as_good_as_dead(size: int) -> None:
    for said in (size.to_bytes(8, "big"), (1).to_bytes(8, "big") + size.to_bytes(8, "big")):
        with pytest.raises(EOFError):
            list(framing.read(io.BytesIO(said + b"x")))
        with pytest.raises(EOFError):
            framing.Reader().feed(said + b"x")


def test_a_schema_version_of_five_thousand_digits_is_a_newer_one() -> None:
    with pytest.raises(NewerDocument) as caught:
        check_schema("9" * 5000)
    assert len(str(caught.value)) < 400


def test_the_largest_frames_take_memory_in_proportion() -> None:
    """Nothing is allocated that was only announced, and many small records take no more than four times their bytes
    and 4 KiB: they are cut when they are asked for."""
    decoder = DECODERS[0]
    assert decoder.memory == 4 << 10
    most = tuple(messages.Record(bytes(16), n, b"xy") for n in range(1, messages.MAX_RECORDS + 1))
    for frame in (
        codec.encode(messages.Records(bytes(16), 1, most)),
        codec.encode(messages.Records(bytes(16), 1, tuple(r._replace(session=r.n.to_bytes(16, "big")) for r in most))),
        *(codec.encode(messages.Push(bytes(16), bytes(16), 1, tuple(b"xy" for _ in range(n)))) for n in (16, 17, 4096)),
        codec.encode(messages.Push(bytes(16), bytes(16), 1, (bytes(messages.MAX_RECORD),))),
        codec.encode(messages.Push(bytes(16), bytes(16), 1, (bytes(messages.MAX_RECORD),)))[:-1],
    ):
        feed(decoder, frame, Report(), clock=False, watch=True)
    with pytest.raises(MalformedFrame):
        codec.decode(b"\x06" + bytes(32) + b"\x01\x80\x20" + bytes(100))


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, (1 << 53) - 1), st.integers(0, (1 << 32) - 1)), max_size=20),
    st.integers(0, 3),
)
def test_a_state_vector_is_read_as_it_was_written(pairs: list[tuple[int, int]], more: int) -> None:
    body = b"".join(leb128(client) + leb128(clock) for client, clock in pairs)
    assert read_state_vector(leb128(len(pairs)) + body) == dict(pairs)
    for wrong in (leb128(len(pairs) + 1 + more) + body, leb128(len(pairs)) + body + bytes(1 + more)):
        with pytest.raises(MalformedUpdate):
            check_state_vector(wrong)
    if pairs:
        for wrong in (body[:-1], leb128(1 << 53) + b"\0", b"\1" + leb128(1 << 32)):
            with pytest.raises(MalformedUpdate):
                check_state_vector(leb128(len(pairs) if wrong is body[:-1] else 1) + wrong)


def test_a_state_vector_of_any_size_is_looked_at_in_its_own_memory() -> None:
    decoder = next(d for d in DECODERS if d.name == "state vectors")
    rng = random.Random(1)
    many = b"".join(leb128(rng.getrandbits(32)) + leb128(rng.getrandbits(9)) for _ in range(140_000))
    for frame in (leb128(140_000) + many, leb128(1 << 19) + bytes(1 << 20), leb128(140_000) + many[:-1]):
        feed(decoder, frame, Report(), clock=False, watch=True)
