"""Forgetting on disk: no file of the folder spells a token of what was forgotten, whatever state it was left in."""

import os
import random
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given, settings
from hypothesis import strategies as st

from llmcrdt.kvcache import DiskCache, MemoryCache, TieredCache, forget_owner
from llmcrdt.kvcache.chunk_file import encode
from llmcrdt.kvcache.chunk_hash import pack_ids
from llmcrdt.kvcache.owners import FileOwners
from llmcrdt.kvcache.paths import chunk_folder
from llmcrdt.testing.chunk_cache_suite import chain, keys_of


def spelled(folder, chunks) -> list:
    """Files that hold ids, keys or payload of these chunks, as bytes or as hex."""
    traces = [t for c in chunks for t in (pack_ids(c.ids), c.key, c.payload, c.key.hex().encode())]
    names = {chunk.key.hex() for chunk in chunks}
    return [
        file.name
        for file in folder.rglob("*")
        if file.is_file() and (any(t in file.read_bytes() for t in traces) or file.stem in names)
    ]


def test_nothing_in_the_folder_spells_what_was_forgotten(tmp_path):
    """Whole chunks, bad ones (by name, by header), half-written ones, and the notes."""
    cache = DiskCache(tmp_path)
    mine, others = chain(8, seed=1), chain(8, seed=2)
    after = chain(3, seed=3, after=mine[4])  # stored by somebody who claimed nothing
    assert cache.owners.claim("me", keys_of(mine)) and cache.owners.claim("you", keys_of(others))
    for chunk in mine + others + after:
        cache.put(chunk)
    cache.discard(mine[7].key)
    (tmp_path / f"{'0' * 64}.bad").write_bytes(encode(mine[2])[:-1])
    (tmp_path / ".1-ff.tmp").write_bytes(encode(mine[3])[:-50])
    assert spelled(tmp_path, mine)
    cache.forget("me")
    assert spelled(tmp_path, mine + after) == []
    assert cache.match(keys_of(others)) == ["disk"] * 8
    assert cache.stats()["held_bytes"] == sum(chunk.size for chunk in others)


def test_a_folder_can_forget_without_its_engine(tmp_path):
    assert forget_owner(tmp_path, "me") == 0
    assert list(tmp_path.iterdir()) == []
    cache = TieredCache(MemoryCache(), DiskCache(chunk_folder(tmp_path)))
    mine = chain(5)
    cache.owners.claim("me", keys_of(mine))
    for chunk in mine:
        cache.put(chunk)
    cache.close()
    assert cache.owners.claim("me", keys_of(mine)) is False, "nothing may be put any more"
    assert forget_owner(tmp_path, "me") == 5
    assert spelled(tmp_path, mine) == []


def test_a_process_that_wrote_on_is_asked_again(tmp_path):
    """Another process forgot; this one was still storing: its own forget finds what it claimed."""
    one, other = DiskCache(tmp_path), DiskCache(tmp_path)
    mine = chain(4)
    one.owners.claim("me", keys_of(mine))
    one.put(mine[0])
    other.forget("me")
    one.put(mine[0])
    one.forget("me")
    assert spelled(tmp_path, mine) == []


def test_memory_forgets_what_only_the_disk_knows_to_be_claimed(tmp_path):
    mine = chain(5)
    with_notes = DiskCache(tmp_path)
    with_notes.owners.claim("me", keys_of(mine))
    for chunk in mine:
        with_notes.put(chunk)
    cache = TieredCache(MemoryCache(), DiskCache(tmp_path))
    for chunk in mine:
        cache.get(chunk.key)
    assert cache.match(keys_of(mine)) == ["memory"] * 5
    cache.forget("me")
    assert cache.match(keys_of(mine)) == []
    assert all(cache.get(key) is None for key in keys_of(mine))
    cache.close()


def test_where_notes_cant_be_written_nothing_may_be_put(tmp_path, monkeypatch):
    cache = DiskCache(tmp_path)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert cache.owners.claim("me", keys_of(chain(2))) is False
    assert cache.stats()["write_errors"] == 1


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_notes_survive_torn_writes(tmp_path_factory, seed):
    """With anything that a crash leaves at the file's end, every later claim is found, and nothing else is invented."""
    rng, folder = random.Random(seed), tmp_path_factory.mktemp("notes")
    said, kept = set(), set()
    for _ in range(6):
        keys = keys_of(chain(rng.randrange(1, 5), seed=rng.randrange(1 << 30)))
        FileOwners(folder).claim("me", keys)
        said |= set(keys)
        kept |= set(keys)
        file = next(folder.glob("*.own"))
        if rng.random() < 0.5:
            data = file.read_bytes()
            cut = rng.randrange(1, 65)
            file.write_bytes(data[:-cut])
            kept.discard(keys[-1])
    found = FileOwners(folder).owned("me")
    assert kept <= found <= said
    assert file.stat().st_mode & 0o777 == 0o600


def test_many_writers_lose_no_note(tmp_path):
    chains = [keys_of(chain(20, seed=seed)) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda keys: [FileOwners(tmp_path).claim("me", [key]) for key in keys], chains))
    assert FileOwners(tmp_path).owned("me") == {key for keys in chains for key in keys}


def test_notes_of_nothing_are_pruned_once_nobody_uses_them(tmp_path):
    cache = DiskCache(tmp_path)
    mine, yours = chain(3, seed=1), chain(3, seed=2)
    for owner, chunks in (("me", mine), ("you", yours), ("new", chain(1, seed=3))):
        cache.owners.claim(owner, keys_of(chunks))
        days_ago = 0 if owner == "new" else 2 * 24 * 3600
        note = max(tmp_path.glob("*.own"), key=lambda file: file.stat().st_mtime_ns)
        os.utime(note, (note.stat().st_mtime - days_ago,) * 2)
    for chunk in yours:
        cache.put(chunk)
    assert len(list(tmp_path.glob("*.own"))) == 3
    cache.prune(1 << 30)
    assert cache.owners.owned("you") == set(keys_of(yours))
    assert FileOwners(tmp_path).owned("me") == set()
    assert len(FileOwners(tmp_path).owned("new")) == 1, "its writer may be about to store"
    cache.owners.claim("you", keys_of(yours))
    cache.prune(0)
    assert FileOwners(tmp_path).owned("you") == set(keys_of(yours)), "claimed again a moment ago"


def test_a_chunk_whose_note_the_disk_refuses_stays_in_memory(tmp_path, monkeypatch):
    cache = TieredCache(MemoryCache(), DiskCache(tmp_path))
    mine, yours = chain(3, seed=1), chain(3, seed=2)

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(FileOwners, "claim", full)
        cache.owners.claim("me", keys_of(mine))
        assert cache.flush(10)
    cache.owners.claim("you", keys_of(yours))
    for chunk in mine + yours:
        assert cache.put(chunk)
    assert cache.flush(10)
    assert cache.match(keys_of(mine)) == ["memory"] * 3
    assert spelled(tmp_path, mine) == []
    assert spelled(tmp_path, yours)
    cache.forget("me")
    assert cache.match(keys_of(mine)) == []
    cache.close()
