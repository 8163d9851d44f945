"""What is deflated in pieces is one zlib stream, and says what was deflated and nothing else."""

from __future__ import annotations

import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcrdt.store import deflate
from llmcrdt.store.deflate import LEAST, MOST, deflated


def said(rng: random.Random, entries: int) -> list[bytes]:
    return [b'{"e":"' + rng.randbytes(rng.randrange(100, 400)).hex().encode() + b'"}' for _ in range(entries)]


@given(st.binary(max_size=300), st.integers(1, 3_000), st.binary(max_size=50))
@settings(max_examples=60, deadline=None)
def test_it_is_one_zlib_stream_of_the_same(piece: bytes, times: int, before: bytes) -> None:
    whole = piece * times
    data = deflated(whole, before)
    assert zlib.decompress(data) == zlib.decompress(data, bufsize=len(whole) + 1) == whole
    assert deflated(whole, data) == data
    changed = whole[: len(whole) // 2] + b"{more" + whole[len(whole) // 2 :]
    assert zlib.decompress(deflated(changed, data)) == changed
    assert deflated(changed, data) == deflated(changed)


@pytest.mark.parametrize("seed", range(6))
def test_a_change_deflates_what_is_near_it(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it moves all that follows."""
    rng = random.Random(seed)
    entries = said(rng, 6_000)
    data = deflated(b"".join(entries))
    pressed: list[int] = []
    press = zlib.compressobj

    def counted(*options: int) -> object:
        pressed.append(1)
        return press(*options)

    for _ in range(10):
        at = rng.randrange(len(entries))
        entries[at : at + 1] = rng.choice([[], said(rng, 2), [entries[at], *said(rng, 1)]])
        pressed.clear()
        with monkeypatch.context() as patched:
            patched.setattr(deflate.zlib, "compressobj", counted)
            data = deflated(b"".join(entries), data)
        assert zlib.decompress(data) == b"".join(entries)
        assert 1 <= len(pressed) <= 4
    assert len(data) < 1.02 * len(zlib.compress(b"".join(entries), deflate.LEVEL))


def test_nothing_stays_of_what_was_taken_out() -> None:
    entries = said(random.Random(1), 3_000)
    secret = b"the password is Rumpelstilzchen-77"
    before = deflated(b"".join([*entries[:1500], secret, *entries[1500:]]))
    after = deflated(b"".join(entries), before)
    assert after == deflated(b"".join(entries)) and secret not in zlib.decompress(after)


@pytest.mark.parametrize("size", [0, 1, LEAST, MOST, MOST + 1, 3 * MOST])
@pytest.mark.parametrize("byte", [b"{", b"x", b"\0"])
def test_bytes_without_a_place_to_cut_are_cut_all_the_same(size: int, byte: bytes) -> None:
    assert zlib.decompress(deflated(byte * size, deflated(byte * (size + 5)))) == byte * size


@pytest.mark.parametrize("seed", range(40))
def test_other_bytes_in_the_place_of_what_was_there_change_nothing(seed: int) -> None:
    """One that older versions wrote, one that was cut off, one that is none."""
    rng = random.Random(seed)
    whole = b"".join(said(rng, 1_000))
    data = deflated(whole)
    broken = bytearray(data)
    broken[-1 - rng.randrange(40)] ^= 1 << rng.randrange(8)
    for before in (zlib.compress(whole), data[: rng.randrange(len(data))], data[rng.randrange(len(data)) :], b"x" * 40):
        assert deflated(whole, before) == data
    assert zlib.decompress(deflated(whole, bytes(broken))) == whole
