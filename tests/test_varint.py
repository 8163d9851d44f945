"""Numbers of variable length: every spelling is read as its number, the shortest is written, nothing is read past the
end; and the loops that formats have of their own read the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcrdt.crdt.yjs.update import read_state_vector
from llmcrdt.prompt.generation_log import TokenLog
from llmcrdt.sync import codec
from llmcrdt.sync.messages import Barrier
from llmcrdt.varint import MAX_UINT, read_uint, write_uint

# Of each length as many as of any other.
numbers = st.integers(0, 53).flatmap(lambda bits: st.integers(0, (1 << bits) - 1))


@given(numbers, st.binary(max_size=9), st.binary(max_size=9))
def test_what_is_written_is_read_wherever_it_stands(n: int, before: bytes, after: bytes) -> None:
    data = write_uint(n)
    assert read_uint(before + data + after, len(before), 8) == (n, len(before) + len(data))


@given(numbers)
def test_the_shortest_spelling_is_written(n: int) -> None:
    data = write_uint(n)
    assert len(data) == max(1, (n.bit_length() + 6) // 7)
    assert all(byte & 0x80 for byte in data[:-1]) and data[-1] < 0x80


@given(numbers, st.integers(1, 3))
def test_a_longer_spelling_is_the_same_number(n: int, zeros: int) -> None:
    *head, last = write_uint(n)
    longer = bytes((*head, last | 0x80, *[0x80] * (zeros - 1), 0))
    assert read_uint(longer, 0, 11) == (n, len(longer))


@given(numbers.filter(lambda n: n > 0x7F))
def test_a_number_that_is_cut_or_too_long_is_told(n: int) -> None:
    data = write_uint(n)
    with pytest.raises(IndexError):
        read_uint(data[:-1], 0, 8)
    with pytest.raises(ValueError, match="more than"):
        read_uint(data, 0, len(data) - 1)


@pytest.mark.parametrize("n", [-1, MAX_UINT + 1])
def test_a_number_out_of_range_is_not_written(n: int) -> None:
    with pytest.raises(ValueError, match=r"2\^53"):
        write_uint(n)


@given(numbers)
def test_every_format_reads_what_is_written(n: int) -> None:
    assert codec.decode(b"\x09" + write_uint(n)) == Barrier(n)
    assert read_state_vector(b"\x01" + write_uint(n) + write_uint(n & 0xFFFFFFFF)) == {n: n & 0xFFFFFFFF}
    token = n & 0x7FFFFFFF
    assert TokenLog.unpack(b"\x01\x00\x01" + write_uint(token) + b"\x00") == TokenLog(None, (token,), ())
