"""All that is cut in pieces is there, most pieces outlive a change, and what leans on a piece is read with it."""

from __future__ import annotations

import random
import zlib
from base64 import b85decode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcrdt.store.deflate import BLOCK, LEAST, LEVEL, MOST, Blocks, Leaning, cut, deflate, inflate, inflate_leaning


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


@given(st.lists(st.integers(0, MOST + 9), max_size=60), st.integers(0, MOST))
@settings(max_examples=60, deadline=None)
def test_a_block_ends_where_an_entry_begins_and_can_be_read_by_itself(begins: list[int], size: int) -> None:
    piece = random.Random(size).randbytes(size)
    begins = [at for at in begins if at < size]
    data = deflate(piece, begins)
    assert inflate(data) == piece
    blocks, at = list(Blocks(data)), 0
    for number in reversed(range(len(blocks))):
        assert Blocks(data).read(number) == blocks[number]
    for block in blocks[:-1]:
        assert len(block) >= BLOCK and at + len(block) == min(n for n in begins if n >= at + BLOCK)
        at += len(block)
    assert not [n for n in begins if n >= at + BLOCK]


def test_a_piece_in_blocks_takes_little_more_than_one_that_is_not() -> None:
    entries = said(random.Random(9), 500)
    for entry in entries:
        assert b"{" not in entry[1:]
    for piece in cut(b"".join(entries)):
        begins = [at for at in range(len(piece)) if piece[at : at + 1] == b"{"]
        assert len(list(Blocks(deflate(piece, begins)))) > 1
        assert len(deflate(piece, begins)) < 1.05 * len(zlib.compress(piece, LEVEL))
        break


@pytest.mark.parametrize("seed", range(20))
def test_a_piece_that_was_damaged_is_not_read(seed: int) -> None:
    rng = random.Random(seed)
    data = bytearray(deflate(b"".join(said(rng, 50)), range(0, MOST, 500)))
    data[rng.randrange(2, len(data))] ^= 1 << rng.randrange(8)
    with pytest.raises(zlib.error):
        inflate(bytes(data))


def test_pieces_and_what_leans_on_them_are_read_as_before() -> None:
    """Files hold them."""
    entries = [b'{"entry":%d,"text":"some words that are said"}' % n for n in range(200)]
    kept = b85decode(KEPT)
    assert inflate(kept) == b"".join(entries)
    assert inflate_leaning(bytes.fromhex("23b1b50400"), Blocks(kept).read(1)) == entries[150]


KEPT = (
    "0s(6Pu%z`=L6z9ON&`U{hS6IITU*RG|C753WI+oJBnv9Rd$+Rp^lx|A*_r3L?H|YedpoC>?byGL?Yup1@B8WVcE3JO$Lr-dUGDqo"
    "ae2FLKhM8$$T-Wm$hgY5$+*jS$au<l5sDF#VGv@FVi04HV-RGJWDsSLWhTpP-y>OOvdm<e$ug5=Cd*8gnJf!g7P2gMxRPZd%R-ig"
    "EDKo{vMgj-$+D7VCCh4mO0ukES;?}JWhKi>mW?bMSvIn4WZCT6Lzay!8(B88Y-HKVvXf;e%TAV^EW6!d$+DAWC(BNjgDeMG4ze6%"
    "ImmL5<*)|{Sq`!sWI4%llI0}JNtTl=Cs|Iioc6jT%So1tEEicWvRq`j$a0b8BFjaV%TfWh0*eL7YC*DGkgOLZ3kJ!GL9%3!tQjPW"
    "2FX-40huaBAgn-`fv^K%2*MJCDacw-SPTlQL18&4tOtb!p|BzpmW0BZP*@a-e^sGhmDf8812GIh!7~N@?|-qhDV8PEyATY1wtnuT"
    "rNL(Sybkej-0BdPhp;|`1tP2vVTlOqeVS^TYMN?d^G!8PHBB{5HBB{5wM?~4wM?~4weTr7)iTvG)iTvG)i%{O)i%{O)i%|}ADXGQ"
    "skW)Msg9|Rsg9|Rsg9|RsSbX;O?6ClOm$6lO?6FmO?6FmO?6Fmai22PHPtiKGu1QIGu1QIGu1QIGu6X2`5)CU"
)
