"""Pieces come out as they went in, in whatever cuts the stream brings them."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator

import pytest

from sync_server.workers import framing


@pytest.mark.parametrize("seed", range(40))
def test_pieces_come_out_as_they_went_in(seed: int) -> None:
    rng = random.Random(seed)
    reader = framing.Reader()
    for _ in range(4):
        sizes = rng.choices((0, 1, 7, 200, 30_000, 70_000), weights=(2, 9, 9, 9, 1, 1), k=rng.choice((0, 1, 9, 3_000)))
        pieces = [rng.randbytes(size) for size in sizes]
        stream = io.BytesIO()
        framing.write(stream, iter(pieces))
        for data in (stream.getvalue(), framing.joined(pieces)):
            assert list(framing.read(io.BytesIO(data))) == pieces
            at = 0
            while at < len(data):
                end = at + rng.choice((1, 8, 60, 5_000, 1 << 20))
                found = reader.feed(data[at:end])
                assert (found is None) is (end < len(data))
                at = end
            assert found == pieces


@pytest.mark.parametrize("cut", [0, 3, 8, 11, 16, 24, 30, 36])
def test_a_stream_that_ends_early_says_so(cut: int) -> None:
    data = framing.joined([b"one", b"two", b"three"])
    assert len(data) == 8 + 24 + 11 + 8
    with pytest.raises(EOFError):
        list(framing.read(io.BytesIO(data[:cut])))


def test_what_is_made_piece_by_piece_is_written_piece_by_piece() -> None:
    """A log is longer than what a process should hold of it."""
    stream, seen = io.BytesIO(), list[int]()

    def log() -> Iterator[bytes]:
        for _ in range(20):
            seen.append(stream.tell())
            yield bytes(30_000)

    framing.write(stream, log())
    assert max(at - tell for at, tell in zip(range(0, 600_000, 30_000), seen, strict=True)) < 130_000
