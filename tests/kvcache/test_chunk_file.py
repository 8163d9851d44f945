"""The chunk decoder: whole chunks come back equal; anything else is refused, never misread."""

import hashlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmcrdt.kvcache import Chunk
from llmcrdt.kvcache.chunk_file import HEADER_BYTES, MAX_TOKENS, BadChunk, decode, decode_header, encode
from llmcrdt.kvcache.chunk_hash import chunk_key, chunk_keys, state_key

prints, works, payloads = st.binary(min_size=32, max_size=32), st.integers(0, 2**60), st.binary(max_size=200)
tokens = st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=20).map(tuple)
states = st.builds(
    lambda fingerprint, ids, repeat, payload, rests, work: Chunk.state(
        fingerprint, ids * repeat, payload, link=len(ids), rests=rests, work=work
    ),
    prints, tokens, st.integers(1, 3), payloads, st.booleans(), works,
)  # fmt: skip
chunks = st.builds(Chunk.after, prints, st.integers(0, 2**40), tokens, payloads, works) | states


@given(chunks)
def test_a_chunk_survives_encoding(chunk):
    data = encode(chunk)
    assert decode(data) == chunk
    assert len(data) == chunk.size
    header = decode_header(data, len(data))
    for name in ("key", "parent", "position", "ids", "size", "digest", "work", "link", "rests", "made_from", "needs"):
        assert getattr(header, name) == getattr(chunk, name)


@given(states)
def test_a_state_is_named_by_the_chain_of_chunks_it_has_read(state):
    keys = chunk_keys(state.parent, state.ids, state.link)
    assert state.key == state_key(keys[-1])
    assert state.made_from == tuple(keys)
    assert state.needs == (keys[-1] if state.rests else None)
    assert state.key not in keys


@pytest.mark.parametrize(("ids", "link"), [((), 4), ((1, 2, 3), 2), ((1, 2), 0)])
def test_a_state_amid_a_chunk_is_refused(ids, link):
    with pytest.raises(ValueError):
        Chunk.state(bytes(32), ids, b"", link=link, rests=False)


@pytest.mark.parametrize(("offset", "value"), [(16, 1), (104, 3), (104, 0), (108, 2)])
def test_a_sealed_state_that_stands_nowhere_is_refused(offset, value):
    """Somebody who can write files can hash as well: a digest that fits makes it no better."""
    data = bytearray(encode(Chunk.state(bytes(32), (1, 2, 3, 4), b"p", link=2, rests=True)))
    data[offset : offset + 4] = value.to_bytes(4, "little")
    data[112:144] = hashlib.sha256(data[:112] + data[144:]).digest()
    with pytest.raises(BadChunk):
        decode(bytes(data))


def test_a_chunk_and_a_state_are_never_taken_for_each_other():
    ids = (1, 2, 3, 4)
    chunk, state = Chunk.after(bytes(32), 0, ids, b"p"), Chunk.state(bytes(32), ids, b"p", link=4, rests=False)
    for good, other in ((chunk, state), (state, chunk)):
        data = bytearray(encode(good))
        data[:12] = encode(other)[:12]
        data[112:144] = hashlib.sha256(data[:112] + data[144:]).digest()
        with pytest.raises(BadChunk):
            decode(bytes(data))


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


@given(st.binary(max_size=400) | st.binary(max_size=300).map(lambda tail: b"LLMCRDTK\x02\0\0\0\x01\0\0\0" + tail))
@example(b"LLMCRDTK" + bytes(200))
@example(b"LLMCRDTK\x02\0\0\0\xff\xff\xff\xff" + bytes(200))
@example(b"LLMCRDTS\x01\0\0\0\x01\0\0\0" + bytes(200))
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
    mixed = forged[:112] + encode(good)[112:144] + forged[144:]
    with pytest.raises(BadChunk, match="digest"):
        decode(mixed)


def test_the_digest_is_a_plain_sha256():
    data = encode(Chunk.after(bytes(32), 0, (1, 2), b"payload"))
    assert data[112:144] == hashlib.sha256(data[:112] + data[144:]).digest()


def test_a_forged_count_reserves_no_memory():
    data = bytearray(encode(Chunk.after(bytes(32), 0, (1,), b"")))
    data[12:16] = (MAX_TOKENS + 1).to_bytes(4, "little")
    with pytest.raises(BadChunk, match="count"):
        decode(bytes(data))
