"""llama.cpp's traps, one test each. Every one of them is a wrong answer, or a slow one, without an error message.

1 the window's mask at save; 2 recurrent state at the boundary; 3 sequence ids inside blobs; 4 cells another branch
left; 5 a removal from all sequences; 6 rollback that a model silently lacks; 7 positions and bits that loading accepts
(bits: ``test_damage.py``); 8 the lowest position of recurrent state; 9 the last token; 10 batch shapes; 11 a decode
that holds the interpreter; 12 what names weights and build; 13 memory of a large context; 14 scans of all keys.
"""

import asyncio
import os
import struct

import numpy as np
import pytest

from llmcrdt.engine.base import Sampling
from llmcrdt.engine.llama import fingerprint
from llmcrdt.engine.llama.state_blob import holds_exactly
from llmcrdt.exceptions import EngineError
from llmcrdt.kvcache import Chunk, DiskCache, MemoryCache, chunk_keys, state_key
from llmcrdt.testing.chunk_cache_suite import chain, keys_of

KINDS = ["llama", "gemma3", "mamba2", "lfm2"]


def context_after(lab, arch, ids, **options):
    """The engine's own context, with ``ids`` evaluated, and nobody else at work."""
    engine = lab.engine(lab.model(arch, "F16"), MemoryCache(), **options)
    engine.logits(ids).result()
    engine.settled()
    return engine._core.model.context


def test_a_chunk_wider_than_the_window_is_never_exported(lab):
    """A save leaves out cells beyond the window of the sequence's own end, so such a chunk has holes."""
    context = context_after(lab, "gemma3", lab.tokens(256))
    assert context.export(0, 64) is not None
    assert context.export(0, 128) is None
    with pytest.raises(EngineError, match="128"):
        lab.engine(lab.model("gemma3", "F16"), chunk=128)


def test_a_lost_window_is_noticed_when_cutting(lab):
    """llama.cpp cuts such a state, says yes, and answers wrongly from then on."""
    context = context_after(lab, "gemma3", lab.tokens(256))
    whole = context._cells.read(0, 256)
    for length in (100, 220):  # below what the window kept, and within it: then only the lowest position tells
        context.clear()
        assert context._cells.write(whole, 0, 256)
        context._length = 256
        assert context.cut(length) is False


@pytest.mark.parametrize("arch", ["mamba2", "lfm2"])
def test_recurrent_state_is_exported_only_where_it_stands(lab, arch):
    """A range is ignored for recurrent state: at 100 tokens, "the state of 0 to 64" would be that after 100."""
    context = context_after(lab, arch, lab.tokens(100))
    state = context.export_state()
    assert holds_exactly(state, "recurrent", 0, 100, 0)
    assert not holds_exactly(state, "recurrent", 0, 64, 0)
    assert not context.load_state(state, 64)
    if context.shape.attention:
        assert holds_exactly(context.export(0, 64), "attention", 0, 64, 1), "and no recurrent state with it"
    else:
        assert context.export(0, 64) is None


def test_a_hybrid_without_its_recurrent_state_is_not_taken_for_whole(lab):
    """Attention cells alone load without a word; what is evaluated upon them would be false."""
    context = context_after(lab, "lfm2", lab.tokens(128))
    chunks, state = [context.export(at, at + 64) for at in (0, 64)], context.export_state()
    context.clear()
    assert all(context.load(chunk, 64 * i, 64 * i + 64) for i, chunk in enumerate(chunks))
    assert not context._stands_at(128)
    assert context.load_state(state, 128)
    assert context._stands_at(128)
    context.clear()
    assert context.load(chunks[0], 0, 64)
    assert not context.load_state(state, 128), "its attention cells end earlier"


@pytest.mark.parametrize("arch", ["mamba2", "lfm2"])
def test_recurrent_state_is_stored_at_ends_of_entries_and_attention_at_every_chunk(lab, arch):
    cache, ids = MemoryCache(), lab.tokens(300)
    engine = lab.engine(lab.model(arch, "F16"), cache)
    outcome = lab.Outcome()
    engine.start(ids, max_tokens=1, sampling=Sampling(), on_event=outcome, marks=[70, 140])
    assert outcome.done.wait(60) and engine.settled(60)
    keys = chunk_keys(engine.fingerprint, ids, 64)
    assert [64 * i for i, key in enumerate(keys, 1) if cache.match([state_key(key)])] == [64, 128, 256]
    assert len(cache.match(keys)) == (4 if arch == "lfm2" else 0)
    assert engine.stats()["chunks_unreadable"] == 0
    for stop in (64, 128, 256):
        state = cache.get(state_key(keys[stop // 64 - 1]))
        assert (state.parent, state.position, state.ids) == (engine.fingerprint, 0, tuple(ids[:stop]))
        assert (state.link, state.rests) == (64, arch == "lfm2")
        assert cache.stats()["states"] == 3


@pytest.mark.parametrize("arch", ["mamba2", "lfm2"])
def test_recurrent_state_is_never_rolled_back(lab, arch):
    context = context_after(lab, arch, lab.tokens(100))
    assert context.cut(64) is False
    assert context.cut(100) is True
    assert context.cut(0) is True


@pytest.mark.parametrize("arch", KINDS)
def test_equal_state_has_equal_bytes(lab, arch):
    """Blobs name the sequence they came from; with one scratch sequence the same state is the same bytes."""
    ids = lab.tokens(128)
    caches = [MemoryCache(), MemoryCache()]
    for i, cache in enumerate(caches):
        engine = lab.engine(lab.model(arch, "F16"), cache)
        if i:  # another history
            engine.logits(lab.tokens(300, 7)).result()
            lab.run(engine, lab.tokens(80, 8), 10)
        engine.logits([*ids, 300, 301]).result()
        keys = chunk_keys(engine.fingerprint, ids, 64)
    keys = [state_key(keys[-1])] if arch == "mamba2" else [*keys, state_key(keys[-1])] if arch == "lfm2" else keys
    found = [[cache.get(key) for key in keys] for cache in caches]
    assert None not in found[0]
    assert found[0] == found[1]
    assert [chunk.digest for chunk in found[0]] == [chunk.digest for chunk in found[1]]


@pytest.mark.parametrize("arch", ["llama", "gemma3"])
@pytest.mark.parametrize("flash", [None, False])
def test_cells_that_another_branch_left_are_not_evaluated_into(lab, arch, flash):
    """After any switch, position p stands in cell p: the whole live state is that of a clean context, byte for byte."""
    engine = lab.engine(lab.model(arch, "F16"), MemoryCache(), flash_attn=flash)
    clean = lab.engine(lab.model(arch, "F16"), MemoryCache(), flash_attn=flash)
    trunk = lab.tokens(200, 1)
    branches = [trunk[:cut] + lab.tokens(150, cut) for cut in (200, 130, 64, 10)]
    for ids in (*branches, *reversed(branches)):
        lab.run(engine, ids, 5)
        engine.logits(ids).result()
    clean.logits(branches[0]).result()
    engine.settled()
    n = engine._core.model.context.length
    assert n == clean._core.model.context.length == len(branches[0])
    assert engine._core.model.context._cells.read(0, n) == clean._core.model.context._cells.read(0, n)


@pytest.mark.parametrize("arch", KINDS)
def test_the_scratch_sequence_is_empty_after_every_call(lab, arch):
    context = context_after(lab, arch, lab.tokens(128))

    def scratch():
        return context._lib.llama_memory_seq_pos_max(context._cells._memory, 1)

    assert scratch() == -1
    state = context.export_state() if context.shape.recurrent else None
    if context.shape.attention:
        blob = context.export(64, 128)
        assert blob is not None
        assert scratch() == -1
        context.clear()
        context.load(blob, 64, 128)
        assert scratch() == -1
        context.clear()
        assert context._cells.write(blob[:-40], 64, 128) is False, "llama.cpp takes no shortened state"
        assert scratch() == -1
    if state is not None:
        context.clear()
        assert context._cells.write_state(state[:-40]) is False
        assert scratch() == -1


@pytest.mark.parametrize("arch", KINDS)
def test_nothing_is_ever_removed_from_all_sequences(lab, arch, monkeypatch):
    """``seq_rm(-1, ...)`` also empties the scratch sequence and every branch."""
    engine = lab.engine(lab.model(arch, "F16"), MemoryCache())
    lib, removed = engine._core.model.lib, []
    real = lib.llama_memory_seq_rm
    monkeypatch.setattr(lib, "llama_memory_seq_rm", lambda m, s, a, b: removed.append(s) or real(m, s, a, b))
    trunk = lab.tokens(200, 1)
    for ids in (trunk, trunk[:130] + lab.tokens(90, 2), trunk, lab.tokens(100, 3)):
        lab.run(engine, ids, 4)
        assert engine.settled()
    assert set(removed) <= {0, 1}
    assert (1 in removed) is (arch != "mamba2"), "else nothing was looked at; recurrent state needs no scratch"


BAD_POSITIONS = {"negative": -1, "lowest": -(2**31), "highest": 2**31 - 1, "double": 5, "next chunk": 64}


@pytest.mark.parametrize("position", BAD_POSITIONS.values(), ids=BAD_POSITIONS)
def test_impossible_positions_never_reach_llama_cpp(lab, position):
    """llama.cpp accepts them all. The chunk here is well named and well sealed: only its positions lie."""
    ids = lab.tokens(100)
    cache = MemoryCache()
    engine, cold = lab.engine(cache=cache), lab.cold()
    engine.logits(ids).result()
    key = chunk_keys(engine.fingerprint, ids, 64)[0]
    good = cache.get(key)
    payload = bytearray(good.payload)
    struct.pack_into("<i", payload, 16, position)
    cache.discard(key)
    cache.put(Chunk(key, good.parent, 0, good.ids, bytes(payload)))
    engine.logits(lab.tokens(50, 9)).result()
    assert np.array_equal(engine.logits(ids).result(), cold.logits(ids))
    assert engine.stats()["chunks_rejected_memory"] == 1
    assert engine.stats()["chunks_imported_memory"] == 0


def test_a_chunk_for_another_place_is_not_loaded(lab):
    ids = lab.tokens(100)
    cache = MemoryCache()
    engine = lab.engine(cache=cache)
    truth = engine.logits(ids).result()
    key = chunk_keys(engine.fingerprint, ids, 64)[0]
    good = cache.get(key)
    cache.discard(key)
    cache.put(Chunk(key, good.parent, 64, good.ids, good.payload))
    engine.logits(lab.tokens(50, 9)).result()
    assert np.array_equal(engine.logits(ids).result(), truth)
    assert engine.stats()["chunks_rejected_memory"] == 1


@pytest.mark.parametrize("arch", ["mamba2", "lfm2"])
def test_the_lowest_position_of_recurrent_state_is_its_highest(lab, arch):
    """So it says nothing of the attention cells; the check must not expect 0."""
    context = context_after(lab, arch, lab.tokens(100))
    assert context._lib.llama_memory_seq_pos_min(context._cells._memory, 0) == 99
    assert context._stands_at(100)
    assert not context._stands_at(99)


def test_a_wholly_cached_prompt_still_evaluates_two_tokens(lab):
    """State holds no logits, and a batch of one token takes other kernels."""
    engine = lab.engine()
    for n in (64, 65, 66, 128, 129, 130):
        ids = lab.tokens(n)
        first = engine.logits(ids).result()
        plan = engine.plan(ids)
        assert 2 <= plan.evaluate <= 65
        assert np.array_equal(engine.logits(ids).result(), first)


@pytest.mark.parametrize("arch", KINDS)
@pytest.mark.parametrize("quant", ["F16", "Q8_0", "Q4_K_M"])
@pytest.mark.parametrize("settings", [{}, {"flash_attn": False}, {"flash_attn": True, "type_k": "q8_0"}])
def test_wide_and_narrow_batches_store_the_same_bytes(lab, arch, quant, settings):
    ids = lab.tokens(700)
    stored = []
    for width in (64, 192, 512):
        cache = MemoryCache()
        engine = lab.engine(lab.model(arch, quant), cache, **settings)
        engine._core.model.state._widest = width
        engine.logits(ids).result()
        keys = chunk_keys(engine.fingerprint, ids[:640], 64)
        keys = ([] if arch == "mamba2" else keys) + ([state_key(keys[-1])] if arch in ("mamba2", "lfm2") else [])
        stored.append([cache.get(key) for key in keys])
        engine.close()
    assert None not in stored[0]
    assert stored[0] == stored[1] == stored[2]


def test_a_tail_of_one_token_more_than_a_chunk_is_not_stored(lab):
    """Its batch is wider than canonical, so its bits may differ; settling computes the chunk again."""
    cache = MemoryCache()
    engine = lab.engine(cache=cache)
    ids = lab.tokens(129)
    engine.logits(ids).result()
    assert len(cache.match(chunk_keys(engine.fingerprint, ids, 64))) == 1
    lab.run(engine, ids, 1)
    assert engine.settled()
    assert len(cache.match(chunk_keys(engine.fingerprint, ids, 64))) == 2
    assert engine.stats()["settled_tokens"] == 64


def test_decode_state_is_never_stored(lab):
    """Tokens sampled one by one have other bits. Before they are settled, no chunk with one of them is stored."""
    cache = MemoryCache()
    engine = lab.endless(lab.engine(cache=cache))
    engine._core.settling.settle = lambda *what: iter(())
    ids = lab.tokens(60)
    said = lab.run(engine, ids, 100, temperature=1.5, seed=4).tokens
    assert len(ids + said) == 160
    engine.settled()
    assert cache.stats()["chunks"] == 0


def test_a_prefill_leaves_an_event_loop_free(lab):
    """A decode in the loop's own thread lets nothing else run for seconds."""
    engine = lab.engine(lab.model("llama", "F16", n_embd=256))

    async def ticks_during_a_prefill():
        future, ticks = asyncio.wrap_future(engine.logits(lab.tokens(1500))), 0
        while not future.done():
            await asyncio.sleep(0)
            ticks += 1
        await future
        return ticks

    assert asyncio.run(ticks_during_a_prefill()) > 100


def test_finding_a_prefix_scans_no_keys(lab, tmp_path, monkeypatch):
    """llama-cpp-python's caches look at every key they have. Here a prefix of n chunks costs n look-ups, whatever else
    is stored, and no listing of the folder."""
    disk = DiskCache(tmp_path / "kv")
    for seed in range(40):
        for chunk in chain(5, seed=seed):
            disk.put(chunk)
    wanted, opened, real = keys_of(chain(5, seed=7)), [], open
    monkeypatch.setattr("builtins.open", lambda file, *more, **named: opened.append(file) or real(file, *more, **named))
    monkeypatch.setattr(os, "scandir", lambda *_: pytest.fail("the folder was listed"))
    assert disk.match(wanted) == ["disk"] * 5
    assert [disk.get(key) is not None for key in wanted] == [True] * 5
    assert len(opened) == 10


def test_a_large_context_is_not_allocated_before_it_is_needed(lab):
    model = lab.model(context=32768)
    engine = lab.engine(model)
    assert engine.n_ctx == 32768
    assert engine._core.model.lib.llama_n_ctx(engine._core.model.context.pointer) == 4096


def test_a_rope_that_depends_on_the_context_is_not_mixed(lab):
    """Some models rotate positions otherwise in a context above a length, from the first token on."""
    model, ids = lab.model(context=16384, original_context=6000), lab.tokens(300)
    short, long, grows = lab.engine(model, n_ctx=6000), lab.engine(model, n_ctx=6001), lab.engine(model)
    assert short.fingerprint != long.fingerprint == grows.fingerprint
    assert grows._core.model.lib.llama_n_ctx(grows._core.model.context.pointer) > 6000, "it is above from the start"
    short.logits(ids).result()
    short.settled()
    assert long.plan(ids).reused == 0


def test_a_model_file_is_hashed_once(lab, monkeypatch):
    hashed = []
    real = fingerprint.HeldFile.sha256
    monkeypatch.setattr(fingerprint.HeldFile, "sha256", lambda file, *on: hashed.append(file.path) or real(file, *on))
    model = lab.model("llama", "F16", seed=77)
    first = lab.engine(model)
    assert hashed == [model] or model in hashed
    fingerprint._known_here.clear()  # as another process would start
    hashed.clear()
    assert lab.engine(model).fingerprint == first.fingerprint
    assert hashed == []
