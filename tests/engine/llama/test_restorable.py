"""Places where a prompt can be resumed: attention at every chunk, recurrent state where entries end; bit for bit."""

import random
from dataclasses import replace

import numpy as np
import pytest

from llmcrdt.engine.base import Sampling
from llmcrdt.exceptions import EngineError
from llmcrdt.kvcache import MemoryCache, NullCache, chunk_keys, state_key

RECURRENT = ["mamba2", "lfm2"]
KV = [("F16", {}), ("Q8_0", {"type_k": "q8_0", "type_v": "q8_0", "flash_attn": True}), ("Q4_K_M", {"flash_attn": True})]


def ask(lab, engine, ids, n, marks, **sampling):
    outcome = lab.Outcome()
    options = Sampling(**{"temperature": 0.9, "seed": 1, **sampling})
    engine.start(ids, max_tokens=n, sampling=options, on_event=outcome, marks=marks, owner="me")
    assert outcome.done.wait(60) and engine.settled(60)
    return outcome


def places(engine, cache, ids) -> list:
    """The places where recurrent state of ``ids`` is stored."""
    keys = chunk_keys(engine.fingerprint, ids, 64)
    return [64 * i for i, key in enumerate(keys, 1) if cache.match([state_key(key)])]


def conversation(lab, engine, turns, seed=0, asked=150, said=60):
    """A conversation with an engine: all ids, and where entries end."""
    ids, marks = [], []
    for turn in range(turns):
        ids += lab.tokens(asked, 1000 * seed + turn)
        marks.append(len(ids))
        ids += ask(lab, engine, ids, said, marks).tokens
        marks.append(len(ids))
    return ids, marks


@pytest.mark.parametrize("arch", RECURRENT)
@pytest.mark.parametrize(("quant", "settings"), KV)
def test_plan_counts_from_the_nearest_place_before_and_the_answer_is_exact(lab, arch, quant, settings):
    if arch == "mamba2":
        settings = {key: value for key, value in settings.items() if key == "type_k"}
    cache = MemoryCache()
    engine = lab.endless(lab.engine(lab.model(arch, quant), cache, **settings))
    cold = lab.cold(lab.model(arch, quant), **settings)
    ids, marks = conversation(lab, engine, 4)
    there = places(engine, cache, ids)
    assert {m // 64 * 64 for m in marks[-4:]} <= set(there)
    for cut in (30, 200, 333, 500, 640, len(ids)):
        edited = ids[:cut] + lab.tokens(90, cut)
        same = 64 * min(cut // 64, (len(edited) - 2) // 64)
        plan = engine.plan(edited)
        assert plan.reused == max([place for place in there if place <= same], default=0)
        assert ask(lab, engine, edited, 1, [cut]).started.reuse == plan
        assert np.array_equal(engine.logits(edited).result(), cold.logits(edited))


@pytest.mark.parametrize("arch", RECURRENT)
def test_any_order_of_work_with_marks_is_exact_and_as_planned(lab, arch):
    """Forks, edits, rewinds and evictions, with ends of entries anywhere: every answer equals a cold one."""
    rng = random.Random(arch)
    model = lab.model(arch, "F16")
    cold = lab.cold(model, flash_attn=True)
    engine = lab.endless(
        lab.engine(model, lab.folder / "kv", cache_memory=400_000, cache_disk=1_000_000, flash_attn=True)
    )
    pool = [lab.tokens(200, 1)]
    for step in range(12):
        base = rng.choice(pool)
        ids = (base[: rng.randrange(len(base) + 1)] + lab.tokens(rng.randrange(2, 500), step))[:900]
        plan = engine.plan(ids)
        outcome = ask(lab, engine, ids, rng.randrange(1, 60), sorted(rng.choices(range(len(ids) + 1), k=3)), seed=step)
        assert outcome.started.reuse == plan
        assert np.array_equal(engine.logits(ids).result(), cold.logits(ids)), step
        pool.append((ids + outcome.tokens)[:900])
    stats = engine.stats()
    assert stats["chunks_states_stored"] > 12 and stats["chunks_imported_disk"] + stats["chunks_imported_memory"] > 4
    assert stats["cache"]["disk_held_bytes"] <= 1_000_000


@pytest.mark.parametrize("arch", RECURRENT)
def test_a_long_conversation_keeps_few_states_and_the_newest(lab, arch):
    cache = MemoryCache()
    engine = lab.endless(lab.engine(lab.model(arch, "F16", context=8192), cache, n_ctx=8192))
    ids, marks = conversation(lab, engine, 12)
    there, stats = places(engine, cache, ids), engine.stats()
    assert len(there) <= 4 + 2 * (len(ids) // 64).bit_length()
    assert {mark // 64 * 64 for mark in marks[-3:]} <= set(there)
    assert there[0] <= 128, "the beginning, which other conversations may share"
    assert stats["cache"]["states"] == len(there) == stats["chunks_states_stored"] - stats["chunks_states_dropped"]
    assert stats["chunks_states_stored"] <= 3 * 12, "not one per chunk"
    held = sum(cache.get(state_key(chunk_keys(engine.fingerprint, ids[:place], 64)[-1])).size for place in there)
    assert held == stats["cache"]["state_bytes"]


@pytest.mark.parametrize("arch", RECURRENT)
def test_states_take_an_eighth_of_a_small_budget(lab, arch):
    """Or two of them, if that is more."""
    model = lab.model(arch, "F16")
    probe = lab.endless(lab.engine(model, MemoryCache()))
    conversation(lab, probe, 1)
    size = probe.stats()["cache"]["state_bytes"] // probe.stats()["cache"]["states"]
    cache = MemoryCache(8 * 4 * (size + 4 * 1024) + (1 << 20 if arch == "lfm2" else 0))
    engine = lab.endless(lab.engine(model, cache))
    ids, _ = conversation(lab, engine, 6)
    most = max(2, cache.capacity // 8 // (size + 4 * 100))
    assert 2 <= len(places(engine, cache, ids)) <= most < 60
    assert engine.plan([*ids, 300, 301]).reused == 64 * (len(ids) // 64)


def test_a_state_whose_chunks_are_gone_is_no_use_and_no_trap(lab):
    """Of a hybrid: each chunk, and the state, lost between plan and run, or before the plan."""
    cache = MemoryCache()
    engine, cold = lab.engine(lab.model("lfm2", "F16"), cache), lab.cold(lab.model("lfm2", "F16"))
    ids = lab.tokens(300)
    ask(lab, engine, ids, 1, [130])
    keys = chunk_keys(engine.fingerprint, ids, 64)
    truth, get = cold.logits(ids), cache.get
    for lost, left in ((keys[0], 0), (keys[1], 0), (keys[2], 128), (keys[3], 128), (state_key(keys[3]), 128)):
        engine.logits([5, 6]).result()
        assert engine.plan(ids).reused == 256
        cache.get = lambda key, lost=lost: None if key == lost else get(key)
        before = engine.stats()["prompt_tokens"]
        assert np.array_equal(engine.logits(ids).result(), truth)
        assert engine.stats()["prompt_tokens"] - before == 300 - left
        cache.get = get
        cache.discard(lost)
        engine.logits([5, 6]).result()
        assert engine.plan(ids).reused == left
        assert np.array_equal(engine.logits(ids).result(), truth), "and it is stored again"
        assert engine.stats()["chunks_rejected_memory"] == 0


@pytest.mark.parametrize("arch", RECURRENT)
def test_a_state_of_other_ids_is_refused(lab, arch):
    """Its name, seal and frame are right, only the ids it carries, or its chain, are others."""
    cache, ids, other = MemoryCache(), lab.tokens(300), lab.tokens(300, 2)
    engine = lab.engine(lab.model(arch, "F16"), cache)
    truth = engine.logits(ids).result()
    engine.logits(other).result()
    mine, theirs = (cache._chunks[state_key(chunk_keys(engine.fingerprint, each, 64)[3])] for each in (ids, other))
    for n, forged in enumerate(
        (replace(mine, ids=theirs.ids), replace(mine, link=32), replace(mine, parent=bytes(32)), replace(mine, link=0)),
        1,
    ):
        cache.discard(mine.key)
        cache.put(forged)
        assert np.array_equal(engine.logits(ids).result(), truth)
        assert engine.stats()["chunks_rejected_memory"] == n
        engine.logits(other).result()


@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_models_without_recurrent_layers_store_no_states(lab, arch):
    cache = MemoryCache()
    engine = lab.engine(lab.model(arch, "F16"), cache)
    ask(lab, engine, lab.tokens(300), 4, [100, 200])
    assert cache.stats()["states"] == engine.stats()["chunks_states_stored"] == 0
    assert cache.stats()["chunks"] == 4


@pytest.mark.parametrize("arch", ["llama", "gemma3", *RECURRENT])
@pytest.mark.parametrize("settings", [{}, {"type_k": "q8_0"}])
def test_a_growing_context_gives_the_logits_of_a_large_one(lab, arch, settings, monkeypatch):
    """Also where it grows amid a generation: everything that is live moves, bit for bit."""
    model, ids = lab.model(arch, "F16", context=4096), lab.tokens(490)
    large = lab.endless(lab.engine(model, MemoryCache(), n_ctx=4096, **settings))
    monkeypatch.setattr("llmcrdt.engine.llama.opening._FIRST_CTX", 512)
    small = lab.endless(lab.engine(model, MemoryCache(), **settings))

    def size():
        return small._core.model.lib.llama_n_ctx(small._core.model.context.pointer)

    assert size() == 512
    a, b = (ask(lab, engine, ids, 40, [200], top_logprobs=3) for engine in (small, large))
    assert size() == 1024, "it grew while it sampled"
    assert a.events[1:-1] == b.events[1:-1], "tokens and log probabilities, before and after"
    for n in (0, 500, 600):
        more = ids + a.tokens + lab.tokens(n, n + 1)
        assert np.array_equal(small.logits(more).result(), large.logits(more).result())
    assert size() == 2048


@pytest.mark.parametrize("arch", ["llama", *RECURRENT])
def test_what_is_pinned_stays_and_is_resumed(lab, arch):
    """With anything else asked meanwhile, in memory, on disk, and by another process; then no longer."""
    model, ids = lab.model(arch, "F16"), lab.tokens(200)
    budgets = {"cache_memory": 700_000, "cache_disk": 700_000}
    engine = lab.engine(model, **budgets)

    def others(engine, seed):
        for n in range(12):
            engine.logits(lab.tokens(300, 100 * seed + n)).result()
            assert engine.settled(60)

    engine.pin(ids, "me")
    assert engine.settled(60)
    assert engine.stats()["settled_tokens"] == 192
    others(engine, 1)
    assert engine.plan(ids).memory == 192
    engine.close()
    engine = lab.engine(model, **budgets)
    others(engine, 2)
    assert engine.plan(ids).reused == 192
    assert np.array_equal(engine.logits(ids).result(), lab.cold(model).logits(ids))
    engine.unpin("me")
    others(engine, 3)
    assert engine.plan(ids).reused < 192
    assert engine.stats()["cache"]["disk_held_bytes"] <= 700_000


def test_a_pin_that_nobody_keeps_is_refused(lab):
    with pytest.raises(EngineError, match="keeps nothing"):
        lab.engine(cache=NullCache()).pin(lab.tokens(100), "me")
    with pytest.raises(EngineError, match="keeps nothing"):
        lab.engine(mode="fast").pin(lab.tokens(100), "me")


def test_forgetting_ends_a_pin(lab):
    engine = lab.engine(lab.model("lfm2", "F16"))
    engine.pin(lab.tokens(200), "me")
    assert engine.settled(60)
    assert engine.stats()["cache"]["disk_pinned"] == 4
    engine.forget("me").result(60)
    assert engine.settled(60)
    assert engine.stats()["cache"]["disk_pinned"] == 0
    assert engine.plan(lab.tokens(200)).reused == 0
