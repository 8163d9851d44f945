"""The codec: every message comes back as it was, nothing but MalformedFrame leaves the decoder, and the bytes stay."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmcrdt.exceptions import MalformedFrame
from llmcrdt.sync import codec
from llmcrdt.sync.chain import START, advance, digest
from llmcrdt.sync.messages import (
    MAX_AGENT,
    MAX_ATTACHMENT,
    MAX_PIECE,
    MAX_PRESENCE,
    MAX_RECORD,
    MAX_RECORDS,
    MAX_STATE,
    MAX_TEXT,
    MAX_TOKEN,
    RESET,
    Ack,
    Announcement,
    AttachmentName,
    Barrier,
    Close,
    Cursor,
    Data,
    Delete,
    Deleted,
    Discard,
    Error,
    ErrorCode,
    Fetch,
    Fold,
    Folded,
    Held,
    Hello,
    Message,
    Offer,
    Open,
    Opened,
    Presence,
    Push,
    Reached,
    Record,
    Records,
    Snapshot,
    Welcome,
)
from llmcrdt.varint import MAX_UINT

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "wire.json").read_text())

ids = st.binary(min_size=16, max_size=16)
uints = st.integers(0, MAX_UINT)
places = st.integers(1, MAX_UINT - MAX_RECORDS)
limits = st.integers(1, MAX_UINT)
counts = st.integers(1, MAX_RECORDS)
cursors = st.builds(Cursor, ids, uints, st.binary(min_size=32, max_size=32))
data = st.binary(min_size=1, max_size=300)
kinds = st.text("abz09-", min_size=1, max_size=16)
# Few sessions and small n, so that runs are met.
records = st.builds(Record, st.sampled_from([b"a" * 16, b"b" * 16]), st.integers(1, 4) | places, data)


def texts(limit: int) -> st.SearchStrategy[str]:
    return st.text(max_size=limit // 4)


def opened(document: bytes, how: int, head: Cursor, share: float) -> Opened:
    return Opened(document, how, head, 0 if how == RESET else int(head.position * share))


def part(head: Cursor, session: bytes, n: int, more: int, before: int, data: bytes, after: int) -> Snapshot:
    size = before + len(data) + after
    return Snapshot(b"d" * 16, head.position + 1, head.chain, session, n, n + more, size, before, data)


def piece(document: bytes, name: AttachmentName, before: int, data: bytes, after: int) -> Data:
    return Data(document, name, before + len(data) + after, before, data)


def held(document: bytes, name: AttachmentName, outcome: int, size: int, share: float) -> Held:
    return Held(document, name, outcome, size, int(size * share))


names = st.builds(AttachmentName, st.integers(0, 1), st.binary(min_size=32, max_size=32))
sizes = st.integers(0, MAX_ATTACHMENT - 1)
small = st.integers(0, 1 << 20)
early = cursors.filter(lambda c: c.position < MAX_UINT)
states = st.just("") | st.dictionaries(st.text(max_size=9), st.none() | st.booleans() | st.text(), max_size=3).map(
    json.dumps
)
announcements = st.builds(Announcement, uints, uints, states)
messages = st.one_of(
    st.builds(Presence, ids, st.lists(announcements, min_size=1, max_size=5).map(tuple)),
    st.builds(part, early, ids, st.integers(1, 9), small, small, data, small),
    st.builds(Fold, ids),
    st.builds(Folded, ids, st.integers(0, 2)),
    st.builds(Delete, ids),
    st.builds(Offer, ids, names, sizes),
    st.builds(piece, ids, names, small, st.binary(max_size=300), small),
    st.builds(Fetch, ids, names, sizes, st.integers(1, MAX_PIECE)),
    st.builds(Discard, ids, names),
    st.builds(held, ids, names, uints, sizes, st.floats(0, 1)),
    st.builds(Deleted, ids, st.integers(0, 1)),
    st.builds(Hello, texts(MAX_AGENT), st.binary(max_size=MAX_TOKEN), uints),
    st.builds(Welcome, texts(MAX_AGENT), st.integers(1, MAX_RECORD), limits, limits, limits, uints),
    st.builds(Open, ids, kinds, st.none() | cursors),
    st.builds(opened, ids, st.integers(0, 1), cursors, st.floats(0, 0.5)),
    st.builds(Close, ids),
    st.builds(Push, ids, ids, places, st.lists(data, min_size=1, max_size=5).map(tuple)),
    st.builds(Ack, ids, ids, places, counts, places),
    st.builds(Records, ids, places, st.lists(records, min_size=1, max_size=8).map(tuple)),
    st.builds(Barrier, uints),
    st.builds(Reached, uints),
    st.builds(Error, limits, texts(MAX_TEXT), st.none() | ids, st.none(), st.just(0), uints),
    st.builds(Error, st.sampled_from(ErrorCode), texts(MAX_TEXT), ids, ids, uints, uints),
)  # fmt: skip


@given(messages)
def test_round_trip(message: Message) -> None:
    assert codec.decode(codec.encode(message)) == message


@given(messages, st.data())
def test_every_truncation_and_every_addition_is_refused(message: Message, data: st.DataObject) -> None:
    frame = codec.encode(message)
    with pytest.raises(MalformedFrame):
        codec.decode(frame[: data.draw(st.integers(0, len(frame) - 1))])
    with pytest.raises(MalformedFrame):
        codec.decode(frame + data.draw(st.binary(min_size=1, max_size=4)))


@settings(max_examples=1000)
@given(st.binary(max_size=200))
@example(b"")
@example(b"\x06" + b"d" * 32 + b"\x01\xff\xff\xff\xff\xff\xff\xff\x0f")
@example(b"\x0f" + b"d" * 16 + b"\x01\x01\x01\x8a\x1f" + b'{"a":' + b"[" * 3980)
@example(b"\x08" + b"d" * 16 + b"\x01\x80\x20" + b"s" * 16)
def test_nothing_but_malformed_frame_leaves_the_decoder(frame: bytes) -> None:
    try:
        codec.decode(frame)
    except MalformedFrame:
        return


@settings(max_examples=1000)
@given(messages, st.data())
def test_a_flipped_byte_gives_a_message_or_malformed_frame(message: Message, data: st.DataObject) -> None:
    frame = bytearray(codec.encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = codec.decode(bytes(frame))
    except MalformedFrame:
        return
    # An accepted message is one like any other: it can be written, and means the same.
    assert codec.decode(codec.encode(found)) == found


def plain(value: object) -> object:
    """A message as JSON: bytes as hex, tuples as lists."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Cursor | Record | Announcement | AttachmentName):
        return {name: plain(v) for name, v in value._asdict().items()}
    if isinstance(value, tuple):
        return [plain(v) for v in value]
    if dataclasses.is_dataclass(value):
        fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__.upper(), **fields}
    return value


@pytest.mark.parametrize("name", sorted(VECTORS["frames"]))
def test_frozen_frames(name: str) -> None:
    vector = VECTORS["frames"][name]
    frame = bytes.fromhex(vector["hex"])
    message = codec.decode(frame)
    assert plain(message) == vector["message"]
    assert codec.encode(message) == frame


@pytest.mark.parametrize("name", sorted(VECTORS["malformed"]))
def test_frozen_malformed_frames(name: str) -> None:
    with pytest.raises(MalformedFrame):
        codec.decode(bytes.fromhex(VECTORS["malformed"][name]))


def test_every_message_has_a_frozen_frame() -> None:
    assert {int(v["hex"][:2], 16) for v in VECTORS["frames"].values()} == {*range(1, 16), *range(0x11, 0x18)}


def test_the_chain_is_what_the_document_says() -> None:
    vector = VECTORS["chain"]
    document, session = bytes.fromhex(vector["document"]), bytes.fromhex(vector["session"])
    chain, cursor = bytes(32), Cursor(bytes(16), 0, START)
    for n, text in enumerate(vector["data"], 1):
        plain = hashlib.sha256(document + session + n.to_bytes(8, "big") + text.encode()).digest()
        chain = hashlib.sha256(chain + plain).digest()
        cursor = advance(cursor, digest(document, Record(session, n, text.encode())))
    assert cursor.chain == chain == bytes.fromhex(vector["end"])
    assert cursor.position == len(vector["data"])


def test_a_record_of_the_largest_size_fits_a_frame() -> None:
    largest = bytes([7]) * MAX_RECORD
    record = Record(b"s" * 16, MAX_UINT - MAX_RECORDS, largest)
    for message in (Push(b"d" * 16, *record[:2], (largest,)), Records(b"d" * 16, 1, (record,))):
        assert codec.decode(codec.encode(message)) == message
    with pytest.raises(MalformedFrame):
        codec.decode(codec.encode(Push(b"d" * 16, b"s" * 16, 1, (largest + b"x",))))


def test_texts_are_cut_at_a_whole_character() -> None:
    message = codec.decode(codec.encode(Error(1, "é" * 300)))
    assert isinstance(message, Error)
    assert message.text == "é" * 256


@pytest.mark.parametrize("n", [-1, MAX_UINT + 1])
def test_a_number_out_of_range_is_not_written(n: int) -> None:
    with pytest.raises(ValueError):
        codec.encode(Barrier(n))


def test_the_document_lists_the_same_codes_and_messages() -> None:
    text, errors = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text().split("## 6. Errors")
    codes = {name: int(code) for code, name in re.findall(r"^\| ([1-9]\d*) \| ([A-Z_]+) \|", errors, re.M)}
    assert codes == {code.name: code.value for code in ErrorCode}
    types = {name: int(number, 16) for number, name in re.findall(r"^\| ([01][0-9a-f]) \| ([A-Z]+) \|", text, re.M)}
    assert types == {v["message"]["type"]: int(v["hex"][:2], 16) for v in VECTORS["frames"].values()}


@given(st.data())
def test_records_that_are_cut_when_asked_for_are_those_that_were_sent(data: st.DataObject) -> None:
    """More than a few are not made when a frame is read. They compare, count, and come in slices like a tuple."""
    sizes = st.sampled_from([1, 2, 126, 127, 128, 129, 300, 16_383, 16_384])
    pieces = data.draw(st.lists(sizes.map(lambda size: bytes([size & 0xFF]) * size), min_size=1, max_size=40))
    breaks = data.draw(st.sets(st.integers(1, 40)))
    records, session, n = [], b"s" * 16, 5
    for i, piece in enumerate(pieces):
        if i in breaks:
            session, n = bytes([i]) * 16, 1
        records.append(Record(session, n, piece))
        n += 1
    push = codec.decode(codec.encode(Push(b"d" * 16, b"s" * 16, 1, tuple(pieces))))
    read = codec.decode(codec.encode(Records(b"d" * 16, 1, tuple(records))))
    assert isinstance(push, Push) and isinstance(read, Records)
    for found, sent in ((push.data, tuple(pieces)), (read.records, tuple(records))):
        assert found == sent and sent == found and hash(found) == hash(sent)
        assert [*found] == [*sent] and len(found) == len(sent) and found != sent[:-1]
        for i in range(-len(sent), len(sent)):
            assert found[i] == sent[i]  # type: ignore[index]
        where = data.draw(st.slices(len(sent)))
        assert tuple(found[where]) == sent[where]
        for beyond in (len(sent), -len(sent) - 1):
            with pytest.raises(IndexError):
                found[beyond]


@given(st.lists(announcements, min_size=1, max_size=40))
def test_presence_that_is_cut_when_asked_for_is_what_was_sent(entries: list[Announcement]) -> None:
    message = codec.decode(codec.encode(Presence(b"d" * 16, tuple(entries))))
    assert isinstance(message, Presence)
    assert [*message.entries] == entries and message.entries[-1] == entries[-1]


def test_presence_has_so_many_bytes_of_states() -> None:
    state = '{"a":"' + "x" * (MAX_STATE - 8) + '"}'
    most = tuple(Announcement(n, 1, state) for n in range(MAX_PRESENCE // MAX_STATE))
    message = Presence(b"d" * 16, most)
    assert codec.decode(codec.encode(message)) == message
    with pytest.raises(MalformedFrame):
        codec.decode(codec.encode(Presence(b"d" * 16, (*most, Announcement(9, 1, "{}")))))
