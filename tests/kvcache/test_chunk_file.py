"""The chunk decoder: whole chunks come back equal; anything else is refused, never misread."""

import hashlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmcrdt.kvcache import Chunk
from llmcrdt.kvcache.chunk_file import HEADER_BYTES, MAX_TOKENS, BadChunk, decode, decode_header, encode
from llmcrdt.kvcache.chunk_hash import chunk_key

chunks = st.builds(
    Chunk.after,
    st.binary(min_size=32, max_size=32),
    st.integers(0, 2**40),
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=20).map(tuple),
    st.binary(max_size=200),
)


@given(chunks)
def test_a_chunk_survives_encoding(chunk):
    data = encode(chunk)
    assert decode(data) == chunk
    assert len(data) == chunk.size
    header = decode_header(data, len(data))
    assert (header.key, header.ids, header.size) == (chunk.key, chunk.ids, chunk.size)


@given(chunks, st.data())
@settings(max_examples=500)
def test_every_changed_bit_is_noticed(chunk, data):
    good = encode(chunk)
    at = data.draw(st.integers(0, len(good) * 8 - 1))
    bad = bytearray(good)
    bad[at // 8] ^= 1 << at % 8
    with pytest.raises(BadChunk):
        decode(bytes(bad))


@given(chunks, st.data())
def test_cut_or_lengthened_files_are_refused(chunk, data):
    good = encode(chunk)
    with pytest.raises(BadChunk):
        decode(good[: data.draw(st.integers(0, len(good) - 1))])
    with pytest.raises(BadChunk):
        decode(good + data.draw(st.binary(min_size=1, max_size=9)))


@given(st.binary(max_size=400) | st.binary(max_size=300).map(lambda tail: b"LLMCRDTK\x01\0\0\0\x01\0\0\0" + tail))
@example(b"LLMCRDTK" + bytes(200))
@example(b"LLMCRDTK\x01\0\0\0\xff\xff\xff\xff" + bytes(200))
@settings(max_examples=500)
def test_noise_is_refused(noise):
    with pytest.raises(BadChunk):
        decode(noise)


def test_the_header_alone_binds_key_parent_and_ids():
    data = bytearray(encode(Chunk.after(bytes(32), 0, (1, 2), b"payload")))
    data[HEADER_BYTES] ^= 1
    with pytest.raises(BadChunk, match="key"):
        decode_header(bytes(data), len(data))


def test_a_forged_file_with_a_right_key_still_needs_its_digest():
    """Somebody who can write files can also hash; but a key alone proves nothing about the payload."""
    good = Chunk.after(bytes(32), 0, (1, 2), b"payload")
    forged = encode(Chunk(chunk_key(bytes(32), (1, 2)), bytes(32), 64, (1, 2), b"other!!"))
    mixed = forged[:96] + encode(good)[96:128] + forged[128:]
    with pytest.raises(BadChunk, match="digest"):
        decode(mixed)


def test_the_digest_is_a_plain_sha256():
    data = encode(Chunk.after(bytes(32), 0, (1, 2), b"payload"))
    assert data[96:128] == hashlib.sha256(data[:96] + data[128:]).digest()


def test_a_forged_count_reserves_no_memory():
    data = bytearray(encode(Chunk.after(bytes(32), 0, (1,), b"")))
    data[12:16] = (MAX_TOKENS + 1).to_bytes(4, "little")
    with pytest.raises(BadChunk, match="count"):
        decode(bytes(data))
