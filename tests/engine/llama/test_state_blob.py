"""The reader of state blobs: says yes to exactly the positions asked for, and falls over nothing."""

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from llmcrdt.engine.llama.state_blob import holds_exactly

KINDS = ("attention", "window", "recurrent")


def cells(positions, extra=0, owner=1):
    table = b"".join(struct.pack("<iI", at, 1) + bytes(extra) + struct.pack("<i", owner) for at in positions)
    return struct.pack("<II", 1, len(positions)) + table


def rows(n, layers=2, transposed=False, values=True, row=6):
    data = struct.pack("<II", transposed, layers)
    data += layers * (struct.pack("<iQ", 1, row) + b"k" * row * n)
    if values and transposed:
        data += layers * (struct.pack("<iII", 1, 2, 3) + b"v" * 6 * n)
    elif values:
        data += layers * (struct.pack("<iQ", 1, row) + b"v" * row * n)
    return data


def recurrent(stop, layers=3):
    table = struct.pack("<IiI", 1, stop - 1, 0) + struct.pack("<II", 0, layers)
    return table + 2 * layers * (struct.pack("<iQ", 0, 5) + b"state")


def blob(kind, start, stop, **shape):
    extra, owner = shape.pop("extra", 0), shape.pop("owner", 1)
    positions = range(start, stop)
    attention = cells(positions, extra, owner) + rows(stop - start, **shape)
    body = {
        "attention": attention,
        "window": attention + attention,
        "recurrent": recurrent(stop),
    }[kind]
    return struct.pack("<Ii", 0xAF143CD8, 1) + body


shapes = st.fixed_dictionaries(
    {
        "extra": st.sampled_from([0, 12]),
        "layers": st.integers(1, 4),
        "transposed": st.booleans(),
        "values": st.booleans(),
        "row": st.integers(1, 40),
    }
)
kinds = st.sampled_from(KINDS)


@given(kinds, st.integers(0, 500), st.integers(1, 70), shapes)
def test_the_right_positions_are_seen(kind, start, n, shape):
    data = blob(kind, start, start + n, **shape)
    assert holds_exactly(data, kind, start, start + n, 1)
    assert not holds_exactly(data, kind, start + 1, start + n + 1, 1)
    assert not holds_exactly(data, kind, start, start + n + 1, 1)
    assert not holds_exactly(data, kind, start, start + n, 2)
    assert not holds_exactly(data + b"\0", kind, start, start + n, 1)
    assert not holds_exactly(data[:-1], kind, start, start + n, 1)


@given(kinds, st.integers(1, 40), shapes.filter(lambda shape: shape["values"]))
def test_a_whole_hybrid_is_neither_part_of_it(kind, n, shape):
    """Its parts are stored apart; one that comes with the other is refused."""
    both = blob("attention", 0, n, **shape) + recurrent(n)
    assert not holds_exactly(both, kind, 0, n, 1)


@given(kinds, st.integers(1, 40), shapes, st.data())
@settings(max_examples=300)
def test_a_changed_frame_is_refused(kind, n, shape, data):
    """Every bit before the rows counts, except in the twelve bytes some models add, which hold no position in time."""
    good = blob(kind, 0, n, **shape)
    frame = 8 + (16 if kind == "recurrent" else 8 + n * 12)
    if shape["extra"] and kind != "recurrent":
        frame = 8 + 8
    bit = data.draw(st.integers(0, frame * 8 - 1))
    bad = bytearray(good)
    bad[bit // 8] ^= 1 << bit % 8
    assert not holds_exactly(bytes(bad), kind, 0, n, 1)


@given(kinds, st.binary(max_size=300), st.booleans())
@settings(max_examples=500)
def test_noise_is_refused(kind, noise, with_head):
    head = struct.pack("<Ii", 0xAF143CD8, 1) if with_head else b""
    assert not holds_exactly(head + noise, kind, 0, 64, 1)


@given(kinds, st.data())
@settings(max_examples=300)
def test_damage_anywhere_is_no_crash(kind, data):
    bad = bytearray(blob(kind, 0, 8))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(bad)))
        bad[at : at + 8] = data.draw(st.binary(max_size=8) | st.sampled_from([b"\xff" * 4, b"\xff" * 8, b"\0" * 4]))
    assert holds_exactly(bytes(bad), kind, 0, 8, 1) in (True, False)
