"""DiskCache: what is on disk is whole and private, or it is not there. Crashes, neighbours and vandals included."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcrdt.kvcache import Chunk, ChunkKey, DiskCache
from llmcrdt.kvcache.chunk_file import encode
from llmcrdt.testing.chunk_cache_suite import FINGERPRINT, chain, keys_of

WRITER = """
import sys
from llmcrdt.kvcache import DiskCache
from llmcrdt.testing.chunk_cache_suite import chain
cache = DiskCache(sys.argv[1], int(sys.argv[3]))
print("ready", flush=True)
for seed in range(40):
    for chunk in chain(10, seed=100 * int(sys.argv[2]) + seed, payload=20_000):
        cache.put(chunk)
"""


def test_a_reopened_cache_has_everything(tmp_path):
    chunks = chain(10)
    first = DiskCache(tmp_path)
    for chunk in chunks:
        first.put(chunk)
    first.close()
    again = DiskCache(tmp_path)
    assert again.match(keys_of(chunks)) == ["disk"] * 10
    assert [again.get(key) for key in keys_of(chunks)] == chunks
    assert again.stats()["held_bytes"] == sum(chunk.size for chunk in chunks)


def test_folder_and_files_are_private(tmp_path):
    cache = DiskCache(tmp_path / "kv")
    cache.put(chain(1)[0])
    assert (tmp_path / "kv").stat().st_mode & 0o777 == 0o700
    assert [file.stat().st_mode & 0o777 for file in (tmp_path / "kv").iterdir()] == [0o600]


def test_the_files_are_the_index(tmp_path):
    """There is no index to lose: the bare chunk files in another folder are the same cache, with the same order."""
    chunks = [chunk for seed in range(3) for chunk in chain(5, seed=seed)]
    first = DiskCache(tmp_path / "first")
    for chunk in chunks:
        first.put(chunk)
    (tmp_path / "again").mkdir()
    for file in (tmp_path / "first").glob("*.kv"):
        shutil.copy2(file, tmp_path / "again" / file.name)
    again = DiskCache(tmp_path / "again")
    assert [again.get(key) for key in keys_of(chunks)] == [first.get(key) for key in keys_of(chunks)] == chunks
    assert again.stats()["held_bytes"] == first.stats()["held_bytes"]
    for cache in (first, again):
        cache.prune(7 * chunks[0].size)
    assert {file.name for file in (tmp_path / "first").iterdir()} == {
        file.name for file in (tmp_path / "again").iterdir()
    }


def test_two_caches_on_one_folder_see_each_other(tmp_path):
    one, other = DiskCache(tmp_path), DiskCache(tmp_path)
    chunks = chain(4)
    for i, chunk in enumerate(chunks):
        assert (one, other)[i % 2].put(chunk)
    assert one.match(keys_of(chunks)) == other.match(keys_of(chunks)) == ["disk"] * 4
    one.discard(chunks[2].key)
    assert other.match(keys_of(chunks)) == ["disk"] * 2


def test_two_caches_together_keep_near_the_budget(tmp_path):
    size = chain(1)[0].size
    caches = [DiskCache(tmp_path, 40 * size) for _ in range(2)]
    for seed in range(60):
        caches[seed % 2].put(chain(1, seed=seed)[0])
    assert caches[0].stats()["held_bytes"] <= 40 * size * 1.1


def test_a_bad_file_is_set_aside_and_can_be_written_again(tmp_path):
    cache = DiskCache(tmp_path)
    chunk = chain(1)[0]
    cache.put(chunk)
    path = tmp_path / f"{chunk.key.hex()}.kv"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert cache.match([chunk.key]) == ["disk"], "the header is whole, and match reads no payload"
    assert cache.get(chunk.key) is None
    assert path.with_suffix(".bad").exists()
    assert not path.exists()
    assert cache.stats()["bad"] == 1
    assert cache.put(chunk)
    assert cache.get(chunk.key) == chunk


def test_a_wrong_header_is_seen_by_match(tmp_path):
    cache = DiskCache(tmp_path)
    chunk = chain(1)[0]
    cache.put(chunk)
    path = tmp_path / f"{chunk.key.hex()}.kv"
    data = bytearray(path.read_bytes())
    data[146] ^= 1
    path.write_bytes(data)
    assert cache.match([chunk.key]) == []


def test_a_chunk_under_another_name_is_not_found(tmp_path):
    cache = DiskCache(tmp_path)
    one, other = chain(2)
    (tmp_path / f"{other.key.hex()}.kv").write_bytes(encode(one))
    assert cache.match([other.key]) == []
    assert cache.get(other.key) is None


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_file_is_the_chunk_or_a_miss(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("kv")
    cache = DiskCache(folder)
    chunk = chain(1, seed=data.draw(st.integers(0, 3)))[0]
    good = encode(chunk)
    start = data.draw(st.integers(0, len(good)))
    bad = good[:start] + data.draw(st.binary(max_size=20)) + good[data.draw(st.integers(0, len(good))) :]
    (folder / f"{chunk.key.hex()}.kv").write_bytes(bad)
    matched, found = cache.match([chunk.key]), cache.get(chunk.key)
    assert found == (chunk if bad == good else None)
    assert found is None or matched


def test_few_bad_files_are_kept(tmp_path):
    cache = DiskCache(tmp_path)
    for chunk in chain(20):
        cache.put(chunk)
        cache.discard(chunk.key)
    assert len(list(tmp_path.glob("*.bad"))) == 8


def test_what_dead_writers_left_is_cleared_away(tmp_path):
    old, new = tmp_path / ".1-aa.tmp", tmp_path / ".2-bb.tmp"
    for file in (old, new):
        file.write_bytes(b"half")
    hours_ago = time.time() - 2 * 3600
    os.utime(old, (hours_ago, hours_ago))
    DiskCache(tmp_path)
    assert not old.exists()
    assert new.exists(), "its writer may be alive"


def test_a_write_that_fails_is_a_chunk_less(tmp_path, monkeypatch):
    cache = DiskCache(tmp_path)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    chunk = chain(1)[0]
    assert cache.put(chunk) is False
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert cache.put(chunk) is True
    assert cache.stats()["write_errors"] == 1


def test_links_to_elsewhere_are_read_as_what_they_are(tmp_path):
    """A chunk is what its bytes say, wherever they lie; anything else is a miss."""
    chunk = chain(1)[0]
    secret = tmp_path / "secret"
    secret.write_bytes(b"not a chunk")
    (tmp_path / "kv").mkdir()
    (tmp_path / "kv" / f"{chunk.key.hex()}.kv").symlink_to(secret)
    cache = DiskCache(tmp_path / "kv")
    assert cache.get(chunk.key) is None
    assert secret.exists()


@pytest.mark.parametrize("budget", [1 << 30, 500_000])
@pytest.mark.parametrize("seed", range(3))
def test_killed_writers_leave_no_bad_hit(tmp_path, seed, budget):
    """kill -9 at random moments, also amid eviction: each chunk is there whole, or not at all."""
    rng = random.Random(f"{seed} {budget}")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for _ in range(2):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(seed), str(budget)], stdout=subprocess.PIPE, env=env
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(rng.random() * 0.1)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        cache = DiskCache(tmp_path, budget)
        chains = [chain(10, seed=100 * seed + i, payload=20_000) for i in range(40)]
        for chunks in chains:
            present = [chunk for chunk in chunks if cache.match([chunk.key])]
            assert len(cache.match(keys_of(chunks))) == len(present), "no child without its parent"
            assert [cache.get(chunk.key) for chunk in present] == present
        assert cache.stats()["bad"] == 0


def test_keys_of_another_shape_are_harmless(tmp_path):
    cache = DiskCache(tmp_path)
    (tmp_path / "README").write_text("hello")
    (tmp_path / "zz.kv").write_text("hello")
    assert cache.get(ChunkKey(b"\0" * 32)) is None
    assert cache.put(Chunk.after(FINGERPRINT, 0, (1,), b"x"))
    assert cache.stats()["chunks"] == 1


def test_verify_reads_all_and_sets_bad_ones_aside(tmp_path):
    cache = DiskCache(tmp_path)
    chunks = chain(5)
    for chunk in chunks:
        cache.put(chunk)
    path = tmp_path / f"{chunks[3].key.hex()}.kv"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    stamps = {file.name: file.stat().st_mtime_ns for file in tmp_path.glob("*.kv") if file != path}
    found = cache.verify()
    assert found == {"chunks": 4, "held_bytes": sum(c.size for c in chunks) - chunks[3].size, "bad": 1}
    assert {file.name: file.stat().st_mtime_ns for file in tmp_path.glob("*.kv")} == stamps, "looking is not using"
    assert cache.verify()["bad"] == 0


def test_prune_keeps_what_was_used_last_and_no_child_without_its_parent(tmp_path):
    cache = DiskCache(tmp_path)
    old, used = chain(4, seed=1), chain(4, seed=2)
    for chunk in old + used:
        cache.put(chunk)
    cache.discard(old[3].key)
    size = old[0].size
    assert cache.prune(5 * size) == {"chunks": 5, "held_bytes": 5 * size, "deleted": 2, "deleted_bytes": 2 * size}
    assert len(cache.match(keys_of(used))) == 4
    assert len(cache.match(keys_of(old))) == 1
    assert list(tmp_path.glob("*.bad")) == []
    assert cache.prune(0)["chunks"] == 0
    assert cache.stats()["held_bytes"] == 0
