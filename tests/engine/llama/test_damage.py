"""Damaged and foreign chunks: the answer never changes, and nothing falls over."""

import sys
from pathlib import Path

import numpy as np
import pytest

from llmcrdt.engine.llama.engine import LlamaEngine
from llmcrdt.kvcache import Chunk, MemoryCache, NullCache, chunk_keys
from llmcrdt.kvcache.chunk_file import decode, encode

sys.path.insert(0, str(Path(__file__).parent))
from damage_soak import KINDS, soak


@pytest.mark.parametrize("arch", KINDS)
def test_harmed_chunks_change_no_answer(arch):
    """500 damaged files and 280 forged ones over four kinds of memory; ``make kvsoak`` harms 10,000."""
    count = soak(arch, 210, seed=1)
    assert count["damaged, noticed"] == count["damaged"] > 120
    assert count["forged frames, noticed"] == count["forged frames"] > 60


def test_a_chunk_that_llama_cpp_refuses_is_forgotten(lab):
    """Its frame is right, but it is of a model of another shape; the key can't be, so this is a forgery."""
    ids = lab.tokens(150)
    cache, foreign = MemoryCache(), MemoryCache()
    engine = lab.engine(cache=cache)
    truth = engine.logits(ids).result()
    other = lab.engine(lab.model(n_embd=64), foreign)
    other.logits(ids).result()
    key = chunk_keys(engine.fingerprint, ids, 64)[0]
    good, alien = cache.get(key), foreign.get(chunk_keys(other.fingerprint, ids, 64)[0])
    cache.discard(key)
    cache.put(Chunk(key, good.parent, 0, good.ids, alien.payload))
    engine.logits([5, 6]).result()
    assert np.array_equal(engine.logits(ids).result(), truth)
    assert engine.stats()["chunks_rejected_memory"] == 1
    assert cache.get(key) == good, "evaluated and stored again"


def test_a_cache_that_insists_on_a_bad_chunk_is_no_endless_loop(lab):
    class Stubborn(MemoryCache):
        def discard(self, key):
            pass

    ids = lab.tokens(150)
    cache = Stubborn()
    engine = lab.engine(cache=cache)
    truth = engine.logits(ids).result()
    key = chunk_keys(engine.fingerprint, ids, 64)[0]
    good = cache._chunks[key]
    cache._chunks[key] = Chunk(key, good.parent, 0, good.ids, b"nonsense")
    engine.logits([5, 6]).result()
    assert np.array_equal(engine.logits(ids).result(), truth)


def test_what_is_stored_is_what_docs_say(lab):
    with LlamaEngine(lab.model(), lab.folder / "kv", n_threads=1) as engine:
        ids = lab.tokens(100)
        engine.logits(ids).result()
    (file,) = (lab.folder / "kv" / "chunks").iterdir()
    chunk = decode(file.read_bytes())
    assert chunk == Chunk.after(engine.fingerprint, 0, tuple(ids[:64]), chunk.payload, chunk.work)
    assert file.name == f"{chunk.key.hex()}.kv"
    assert encode(chunk) == file.read_bytes()
    assert (lab.folder / "kv" / "files.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("kv", "number"), [("f16", 2), ("q8_0", 34 / 32)])
def test_sizes_are_those_of_the_docs(lab, kv, number):
    """Bytes per token: 12, and keys and values of every layer; per chunk: header, ids, and the frame of the payload."""
    layers, heads, width = 4, 2, 32
    with lab.engine(lab.model(), lab.folder / "kv", type_k=kv, type_v=kv, flash_attn=True) as engine:
        engine.logits(lab.tokens(100)).result()
    (file,) = (lab.folder / "kv" / "chunks").glob("*.kv")
    per_token = 12 + layers * heads * 2 * width * number
    assert file.stat().st_size == 144 + 4 * 64 + 24 + 24 * layers + 64 * per_token


def test_never_cache_writes_nothing(lab, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(lab.folder / "xdg"))
    lab.run(lab.engine(cache=NullCache()), lab.tokens(200), 10)
    assert not (lab.folder / "xdg").exists()
