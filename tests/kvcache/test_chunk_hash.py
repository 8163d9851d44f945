"""Properties of the chain of chunk keys."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcrdt.kvcache import chunk_key, chunk_keys
from llmcrdt.kvcache.chunk_hash import pack_ids, unpack_ids

ids = st.lists(st.integers(-(2**31), 2**31 - 1), max_size=40)
fingerprints = st.binary(min_size=32, max_size=32)


@given(fingerprints, ids, ids, st.integers(1, 8))
def test_keys_agree_exactly_as_far_as_whole_chunks_do(fingerprint, a, b, chunk):
    same = 0
    while (same + 1) * chunk <= min(len(a), len(b)) and a[: (same + 1) * chunk] == b[: (same + 1) * chunk]:
        same += 1
    left, right = chunk_keys(fingerprint, a, chunk), chunk_keys(fingerprint, b, chunk)
    assert (len(left), len(right)) == (len(a) // chunk, len(b) // chunk)
    assert left[:same] == right[:same]
    assert not set(left[same:]) & set(right[same:])


@given(fingerprints, fingerprints, ids.filter(bool))
def test_another_fingerprint_shares_no_key(one, other, tokens):
    assert (chunk_keys(one, tokens, 1) == chunk_keys(other, tokens, 1)) is (one == other)


@given(ids)
def test_ids_survive_packing(tokens):
    assert unpack_ids(pack_ids(tokens)) == tuple(tokens)


def test_the_key_is_a_plain_sha256():
    parent, packed = bytes(range(32)), bytes([1, 0, 0, 0, 255, 255, 255, 255])
    assert chunk_key(parent, [1, -1]) == hashlib.sha256(b"llmcrdt/chunk/1\0" + parent + packed).digest()


@pytest.mark.parametrize(("parent", "tokens"), [(b"", [1]), (bytes(31), [1]), (bytes(32), []), (bytes(32), [2**31])])
def test_misshapen_input_is_refused(parent, tokens):
    with pytest.raises(ValueError):
        chunk_key(parent, tokens)
