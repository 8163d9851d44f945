"""All that is cut in pieces is there, most pieces outlive a change, and what leans on a piece is read with it."""

from __future__ import annotations

import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcrdt.store.deflate import LEAST, LEVEL, MOST, Leaning, cut, deflate, inflate, inflate_leaning


def said(rng: random.Random, entries: int) -> list[bytes]:
    return [b'{"e":"' + rng.randbytes(rng.randrange(100, 400)).hex().encode() + b'"}' for _ in range(entries)]


@given(st.binary(max_size=300), st.integers(1, 3_000))
@settings(max_examples=60, deadline=None)
def test_pieces_are_all_of_it(piece: bytes, times: int) -> None:
    for whole in (piece * times, piece * times + b"{more" + piece * times):
        pieces = list(cut(whole))
        assert b"".join(pieces) == whole
        assert all(LEAST <= len(each) <= MOST for each in pieces[:-1]) and all(0 < len(each) <= MOST for each in pieces)
        assert [inflate(deflate(each)) for each in pieces] == pieces
        assert list(cut(whole)) == pieces, "the content alone says where"


@pytest.mark.parametrize("seed", range(6))
def test_a_change_makes_new_pieces_only_near_it(seed: int) -> None:
    """Also where it moves all that follows."""
    rng = random.Random(seed)
    entries = said(rng, 6_000)
    before = list(cut(b"".join(entries)))
    for _ in range(20):
        at = rng.randrange(len(entries))
        entries[at : at + 1] = rng.choice([[], said(rng, 2), [entries[at], *said(rng, 1)]])
        now = list(cut(b"".join(entries)))
        assert b"".join(now) == b"".join(entries)
        assert 1 <= len(set(now) - set(before)) <= 5, "at most 160 KB to deflate"
        before = now
    deflated = sum(len(deflate(piece)) for piece in before)
    assert deflated < 1.022 * len(zlib.compress(b"".join(entries), LEVEL))


@pytest.mark.parametrize("size", [0, 1, LEAST, MOST, MOST + 1, 3 * MOST])
@pytest.mark.parametrize("byte", [b"{", b"x", b"\0"])
def test_bytes_without_a_place_to_cut_are_cut_all_the_same(size: int, byte: bytes) -> None:
    assert b"".join(cut(byte * size)) == byte * size


@given(st.binary(max_size=2_000), st.lists(st.binary(max_size=500)))
@settings(max_examples=100, deadline=None)
def test_what_leans_on_a_piece_is_read_with_it(piece: bytes, texts: list[bytes]) -> None:
    leaning = Leaning(piece)
    for text in (*texts, piece, piece[::-1], piece[5:50] + piece[:40]):
        assert inflate_leaning(leaning.deflate(text), piece) == text


def test_what_stands_in_a_piece_takes_a_few_bytes_wherever_it_stands_there() -> None:
    entries = said(random.Random(7), 300)
    for piece in cut(b"".join(entries)):
        leaning = Leaning(piece)
        assert all(len(leaning.deflate(each)) < 30 for each in entries if each in piece)
        assert all(len(leaning.deflate(each)) > len(each) / 3 for each in entries if each not in piece)
        break


@pytest.mark.parametrize("seed", range(20))
def test_a_piece_that_was_damaged_is_not_read(seed: int) -> None:
    rng = random.Random(seed)
    data = bytearray(deflate(b"".join(said(rng, 50))))
    data[rng.randrange(2, len(data))] ^= 1 << rng.randrange(8)
    with pytest.raises(zlib.error):
        inflate(bytes(data))
