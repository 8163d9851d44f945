"""Automerge's bytes, read without Automerge: against vectors of JavaScript's, and with what it never wrote.

``tests/vectors/automerge.json`` is written by ``tests/peers/automerge_vectors.mjs`` with @automerge/automerge 3.5.0;
``deflated`` is one of those changes as the package automerge 0.2.0.dev4 tells it (``Change.bytes``); ``roots`` and
``derived`` are our own bytes, which never change.
"""

from __future__ import annotations

import hashlib
import json
import random
import zlib
from pathlib import Path
from typing import Any

import pytest

from llmcrdt.crdt.automerge import chunks, columns
from llmcrdt.crdt.automerge.backend import AutomergeBackend
from llmcrdt.crdt.automerge.chunks import CHANGE, DEFLATED, DOCUMENT, MAGIC, Change, Whole, read_chunks, read_update
from llmcrdt.crdt.automerge.columns import Reader
from llmcrdt.exceptions import MalformedUpdate
from llmcrdt.varint import write_uint

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "vectors" / "automerge.json").read_text())
CHANGES = [bytes.fromhex(change["bytes"]) for change in VECTORS["changes"]]
SAVE = bytes.fromhex(VECTORS["save"])


def chunk(kind: int, body: bytes, hashed_as: int | None = None) -> bytes:
    """A chunk that tells its own hash."""
    digest = hashlib.sha256(bytes((kind if hashed_as is None else hashed_as,)) + write_uint(len(body)) + body).digest()
    return b"".join((MAGIC, digest[:4], bytes((kind,)), write_uint(len(body)), body))


def body_of(whole: bytes) -> bytes:
    reader = Reader(whole, 9)
    return reader.prefixed()


def test_changes_are_read_as_javascript_reads_them() -> None:
    for told, data in zip(VECTORS["changes"], CHANGES, strict=True):
        [change] = read_chunks(data)
        assert isinstance(change, Change)
        assert (change.hash.hex(), change.actor.hex(), change.seq) == (told["hash"], told["actor"], told["seq"])
        assert (change.start, change.count) == (told["start"], told["operations"])
        assert [dep.hex() for dep in change.deps] == told["deps"]
        assert len(list(change.operations())) == change.count


def test_a_deflated_change_is_the_same_change() -> None:
    told = VECTORS["deflated"]
    data = bytes.fromhex(told["bytes"])
    assert data[8] == DEFLATED
    [change] = read_chunks(data)
    assert isinstance(change, Change)
    assert change.hash.hex() == told["hash"]
    [plain] = [data for data, each in zip(CHANGES, VECTORS["changes"], strict=True) if each["hash"] == told["hash"]]
    assert change.raw == plain


def test_a_whole_document_tells_its_changes_and_what_they_write() -> None:
    [whole] = read_chunks(SAVE)
    assert isinstance(whole, Whole)
    told = [(bytes.fromhex(change["actor"]), change["seq"]) for change in VECTORS["changes"]]
    assert sorted(whole.changes) == sorted(told)
    entries = bytes.fromhex(VECTORS["changes"][0]["actor"]), 1
    assert {operation.key for operation in whole.operations() if operation.object == entries} == {"e", "f", "g"}
    assert whole.holds(b"head") and not whole.holds(b"nobody wrote this")


def test_chunks_stand_one_after_another() -> None:
    assert [chunk.raw for chunk in read_chunks(SAVE + CHANGES[0])] == [SAVE, CHANGES[0]]
    for cut in range(1, len(SAVE)):
        with pytest.raises(MalformedUpdate):
            read_update(SAVE[:cut])


def test_the_empty_update_is_a_document_without_changes() -> None:
    assert AutomergeBackend().empty.hex() == VECTORS["empty"]


def test_a_counter_is_refused_before_the_core_gets_it() -> None:
    """The package can't read one, and after it has tried no call works any more."""
    with pytest.raises(MalformedUpdate, match="Counters"):
        read_update(bytes.fromhex(VECTORS["counter"]))


@pytest.mark.parametrize("seed", range(4))
def test_changed_bytes_with_a_right_hash_are_read_or_refused(seed: int) -> None:
    rng = random.Random(seed)
    bodies = [(CHANGE, body_of(c.raw)) for data in CHANGES for c in read_chunks(data)] + [(DOCUMENT, body_of(SAVE))]
    read = 0
    for _ in range(1_500):
        kind, body = rng.choice(bodies)
        bad = bytearray(body)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(bad))
            bad[at : at + rng.randrange(2)] = rng.choice((b"", b"\xff\xff\xff\x7f", rng.randbytes(1), rng.randbytes(2)))
        try:
            for each in read_chunks(chunk(kind, bytes(bad))):
                assert len(list(each.operations())) == each.count
                read += 1
        except MalformedUpdate:
            continue
    assert read, "some are good"


def columned(specs: dict[int, bytes], size: int = 0) -> bytes:
    """A change of an actor's with these columns, and as many bytes behind them."""
    head = b"\x00\x01a\x01\x01\x00\x00\x00"
    told = b"".join(write_uint(spec) + write_uint(len(column)) for spec, column in specs.items())
    return chunk(CHANGE, head + write_uint(len(specs)) + told + b"".join(specs.values()) + bytes(size))


MANY = columns.write_sint(1 << 40)


@pytest.mark.parametrize(
    "specs",
    [
        {0x42: MANY + b"\x01"},
        {0x42: b"\x00" + write_uint(1 << 40)},
        {0x15: MANY + b"\x01a", 0x42: b"\x01\x01"},
        {0x34: write_uint(1 << 40), 0x42: b"\x01\x01"},
        {0x42: b"\x01\x01", 0x70: b"\x01" + write_uint(1 << 40)},
        {0x42: b"\x01\x01", 0x70: b"\x01\x01", 0x71: MANY + b"\x00"},
        {0x42: b"\x01\x01", 0x56: b"\x01" + write_uint(1 << 40)},
        {0x13: columns.write_sint(-(1 << 40)) + b"\x01", 0x42: b"\x01\x01"},
        {0x01: b"\x01\x07", 0x42: b"\x01\x01"},
        {0x42: b"\x01\x05"},
        {0x42: b"\x01\x01", 0x15: b"\x01\x01a"},
        {0x42: b"\x01\x63"},
    ],
)
def test_a_run_that_says_much_in_few_bytes_costs_nothing(specs: dict[int, bytes]) -> None:
    with pytest.raises(MalformedUpdate):
        read_update(columned(specs))


def test_what_deflates_to_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "MOST_INFLATED", 1 << 16)
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = deflater.compress(bytes(1 << 20)) + deflater.flush()
    with pytest.raises(MalformedUpdate, match="too large"):
        read_update(chunk(DEFLATED, packed))
    with pytest.raises(MalformedUpdate, match="ends too early"):
        read_update(chunk(DEFLATED, packed[:-2]))
    with pytest.raises(MalformedUpdate, match="damaged"):
        read_update(chunk(DEFLATED, b"\xff" * 20))


def test_columns_are_read_as_they_were_written() -> None:
    rng = random.Random(1)
    for _ in range(200):
        values = [rng.choice((None, 0, 1, 1, 300, 1 << 40)) for _ in range(rng.randrange(20))]
        column = columns.write_column(None if value is None else write_uint(value) for value in values)
        read = list(columns.spread(columns.read_uints(column)))
        assert read == (values if any(value is not None for value in values) else [])
        bools = [rng.random() < 0.5 for _ in range(rng.randrange(20))]
        runs = columns.read_bools(columns.write_bools(bools))
        assert [value for count, value in runs for _ in range(count)] == bools
    for number in (0, 1, -1, 63, 64, -64, -65, 1 << 40, -(1 << 40)):
        assert Reader(columns.write_sint(number)).sint() == number
