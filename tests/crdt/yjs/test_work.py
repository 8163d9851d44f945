"""How long an update takes is told before it is applied."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pycrdt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcrdt.crdt.yjs.work import MOST, STRUCT, estimate_work
from llmcrdt.varint import write_uint as u

from ...hostile.updates import all_between_two, far_apart, text

LETTERS = 3_000


def item(client: int, left: int | None, right: int | None) -> bytes:
    """A letter between two letters of the text."""
    places = ((0x80, left), (0x40, right))
    info = 4 | sum(bit for bit, place in places if place is not None)
    neighbours = b"".join(u(1) + u(place) for _, place in places if place is not None)
    return bytes([info]) + neighbours + (b"" if info & 0xC0 else b"\x01\x01t") + b"\x01x"


def one_client(*items: bytes) -> bytes:
    return b"\x01" + u(len(items)) + u(100_000) + u(0) + b"".join(items) + b"\x00"


def many_clients(*items: bytes) -> bytes:
    each = (b"\x01" + u(100_000 + n) + u(0) + one for n, one in enumerate(items))
    return u(len(items)) + b"".join(each) + b"\x00"


SLOW: dict[str, bytes] = {
    "no left neighbour": one_client(*(item(1, None, n) for n in range(1, LETTERS))),
    "the first letter as left neighbour": far_apart(LETTERS),
    "many clients": many_clients(*(item(1, None, n) for n in range(LETTERS - 1, 0, -1))),
    "no right neighbour": one_client(*(item(1, n, None) for n in range(LETTERS - 2, -1, -1))),
}


@pytest.mark.parametrize("name", SLOW)
def test_what_takes_the_core_long_is_told(name: str) -> None:
    """At least as long as it takes; a busy machine takes longer, so it is asked for processor time."""
    doc = pycrdt.Doc()
    doc.apply_update(text(LETTERS))
    began = time.process_time()
    doc.apply_update(SLOW[name])
    took = time.process_time() - began
    assert took > 0.2, "else it proves nothing"
    assert estimate_work(SLOW[name], 1).seconds > took / 3


QUICK: dict[str, Callable[[], bytes]] = {
    "letters between neighbours": lambda: one_client(*(item(1, n - 1, n) for n in range(1, LETTERS))),
    "letters at one place": lambda: all_between_two(300, 100_000),
    "deletes": lambda: b"\x00\x01" + u(1) + u(LETTERS) + b"".join(u(2 * n) + u(1) for n in range(LETTERS)),
    "text": lambda: text(1 << 20),
}


@pytest.mark.parametrize("name", QUICK)
def test_what_does_not_is_told_as_well(name: str) -> None:
    assert estimate_work(QUICK[name](), 10_000).seconds < 0.05


def test_a_conversation_is_no_work_however_long_it_is() -> None:
    """Entries with their fields and texts, and words that are appended."""
    made, doc = list[bytes](), pycrdt.Doc()
    doc.observe(lambda event: made.append(event.update))
    root = doc.get("entries", type=pycrdt.Map)
    blocks = 0
    for n in range(300):
        root[f"e{n}"] = pycrdt.Map({"role": "user", "text": pycrdt.Text("hello")})
        grown = root[f"e{n}"]["text"]
        for _ in range(5):
            grown += " word"
    for one in made:
        work = estimate_work(one, blocks)
        assert work.seconds < 0.001
        blocks += work.blocks
    assert blocks <= 2 * 300, "what is appended is joined"


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 1 << 30))
def test_whatever_comes_it_says_something(seed: int) -> None:
    """Bytes that are no update cost what was read of them; it never fails."""
    rng = random.Random(seed)
    data = bytearray(rng.choice([far_apart(30), text(30), many_clients(item(1, 1, None), item(1, None, None)), b""]))
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(data) + 1)
        data[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(4))
    work = estimate_work(bytes(data), rng.randrange(1000))
    assert work.seconds >= 0 and work.blocks >= 0


def test_a_long_update_is_not_read_to_its_end() -> None:
    whole = b"\x00\x01" + u(1) + u(10 * MOST) + b"\x05\x01" * (10 * MOST)
    work = estimate_work(whole, 0)
    assert work.seconds == pytest.approx(10 * MOST * STRUCT, rel=0.1)
    assert work.blocks == pytest.approx(10 * MOST * 2, rel=0.1)
