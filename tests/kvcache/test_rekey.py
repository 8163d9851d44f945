"""Chunks and states computed before it was known whose they are."""

from hypothesis import given
from hypothesis import strategies as st

from llmcrdt.kvcache import Chunk, MemoryCache, NullCache, chunk_keys, state_key
from llmcrdt.kvcache.rekey import rename

OLD, NEW, OTHER = b"o" * 32, b"n" * 32, b"x" * 32
branches = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), min_size=1, max_size=5)


def fill(cache, fingerprint, branch, rests):
    """Chunks of two tokens along ``branch``, and the state at its end."""
    ids = tuple(token for one in branch for token in (one, one + 1))
    keys, parent = chunk_keys(fingerprint, ids, 2), fingerprint
    for i, key in enumerate(keys):
        cache.put(Chunk(key, parent, 2 * i, ids[2 * i : 2 * i + 2], repr(ids[: 2 * i + 2]).encode(), 5))
        parent = key
    cache.put(Chunk.state(fingerprint, ids, b"state of " + repr(ids).encode(), link=2, rests=rests, work=7))
    return [*keys, state_key(keys[-1])]


@given(branches, st.booleans())
def test_all_of_one_name_moves_and_is_what_it_would_have_been(branches, rests):
    source, target, truth = MemoryCache(), MemoryCache(), MemoryCache()
    stranger = fill(source, OTHER, [0, 1], rests)
    for n, branch in enumerate(branches):
        source.owners.claim(str(n), fill(source, OLD, branch, rests))
        truth.owners.claim(str(n), fill(truth, NEW, branch, rests))
    count = rename(source, OLD, NEW, target)
    expected, _ = truth.drain()
    assert source.stats()["held_bytes"] == 0
    assert target.match(stranger[:1]) == []
    for n in range(len(branches)):
        assert target.owners.owned(str(n)) == truth.owners.owned(str(n)) or not truth.owners.owned(str(n))
    found, owners = target.drain()
    assert count == len(found)
    assert {c.key: c for c in found} == {c.key: c for c in expected}
    assert set(owners) == {str(n) for n in range(len(branches))}


def test_what_can_t_be_claimed_is_not_put():
    source, never = MemoryCache(), NullCache()
    source.owners.claim("me", fill(source, OLD, [1, 2], False))
    assert rename(source, OLD, NEW, never) == 0


def test_a_state_alone_is_still_its_owners():
    """A model without attention stores no chunks, but chunks are what is claimed."""
    source, target, ids = MemoryCache(), MemoryCache(), (1, 2, 3, 4)
    source.owners.claim("me", chunk_keys(OLD, ids, 2)[:1])
    source.put(Chunk.state(OLD, ids, b"state", link=2, rests=False))
    assert rename(source, OLD, NEW, target) == 1
    assert target.match([state_key(chunk_keys(NEW, ids, 2)[-1])])
    target.forget("me")
    assert target.drain() == ([], {})
