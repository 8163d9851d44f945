"""The promise: logits after live, restored and cold state are the same bits. For every kind of memory and format."""

import random

import numpy as np
import pytest

from llmcrdt.kvcache import MemoryCache

WEIGHTS = ("F32", "F16", "Q8_0", "Q4_0", "Q4_K_M")
# Weights, flash attention, KV format. Values can be quantised only with flash attention, keys always.
CASES = [
    *(
        (arch, quant, flash, kv, kv if flash else "f16")
        for arch in ("llama", "gemma3", "mamba2", "lfm2")
        for quant in WEIGHTS
        for flash in (1, 0)
        for kv in ("f16", "q8_0")
    ),
    # The format of the model that the demo speaks with.
    *(("llama", "Q4_1", flash, kv, kv if flash else "f16") for flash in (1, 0) for kv in ("f16", "q8_0")),
    ("qwen2", "F16", 1, "f16", "f16"),
]  # fmt: skip


@pytest.mark.parametrize(("arch", "quant", "flash", "type_k", "type_v"), CASES)
def test_live_restored_and_cold_are_bit_equal(lab, arch, quant, flash, type_k, type_v):
    model = lab.model(arch, quant)
    settings = {"flash_attn": bool(flash), "type_k": type_k, "type_v": type_v}
    cold = lab.cold(model, **settings)
    live = lab.engine(model, **settings)
    ids = lab.tokens(150, 1)
    for turn in range(3):
        ids += lab.run(live, ids, 30).tokens + lab.tokens(40, turn)
        assert live.settled(60)
    plan = live.plan(ids)
    assert plan.live > 200 or (arch in ("mamba2", "lfm2") and plan.memory > 200)
    warm = live.logits(ids).result()
    live.close()
    restored = lab.engine(model, cache_memory=0, **settings)
    assert restored.plan(ids).disk > 200
    truth = cold.logits(ids)
    assert np.array_equal(warm, truth)
    assert np.array_equal(restored.logits(ids).result(), truth)
    assert restored.stats()["chunks_imported_disk"] > 0


@pytest.mark.parametrize("arch", ["llama", "gemma3", "mamba2", "lfm2"])
@pytest.mark.parametrize("flash", [True, False])
def test_any_order_of_work_is_exact(lab, arch, flash):
    """Forks, edits, rewinds, regenerations, evictions, settled or not: every answer equals a cold one."""
    rng = random.Random(f"{arch} {flash}")
    model = lab.model(arch, "F16")
    cold = lab.cold(model, flash_attn=flash)
    engine = lab.engine(model, MemoryCache(1_200_000), flash_attn=flash)
    pool = [lab.tokens(200, 1)]
    for step in range(20):
        base = rng.choice(pool)
        ids = (base[: rng.randrange(len(base) + 1)] + lab.tokens(rng.randrange(2, 260), step))[:800]
        pool.append(ids)
        if rng.random() < 0.4:
            pool[-1] = (ids + lab.run(engine, ids, rng.randrange(1, 20), temperature=0.9, seed=step).tokens)[:800]
        if rng.random() < 0.5:
            engine.settled()
        assert np.array_equal(engine.logits(ids).result(), cold.logits(ids)), (step, engine.plan(ids))
    assert engine.stats()["chunks_imported_memory"] > 0


@pytest.mark.parametrize("arch", ["llama", "gemma3", "mamba2", "lfm2"])
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_cache_changes_no_sampled_token(lab, arch, temperature):
    model = lab.model(arch, "F16")
    engine, cold = lab.engine(model), lab.cold(model)
    said, truth = lab.tokens(100), lab.tokens(100)
    for turn in range(4):
        options = {"temperature": temperature, "seed": turn, "repeat_penalty": 1.1}
        said += lab.run(engine, said, 25, **options).tokens + lab.tokens(20, turn)
        truth += cold.generate(truth, 25, **options).tokens + lab.tokens(20, turn)
        if turn % 2:
            engine.settled()
        assert said == truth


@pytest.mark.parametrize("arch", ["llama", "gemma3", "mamba2", "lfm2"])
def test_a_growing_context_changes_nothing(lab, arch, monkeypatch):
    """A context that grows amid a generation moves its state along; the control was large from the start."""
    monkeypatch.setattr("llmcrdt.engine.llama.opening._FIRST_CTX", 512)
    model = lab.model(arch, "F16")
    ids = lab.tokens(500)
    engine = lab.endless(lab.engine(model))
    outcome = lab.run(engine, ids, 30, temperature=0.7, seed=3)
    large = lab.endless(lab.engine(model, lab.folder / "other", n_ctx=2048))
    assert outcome.tokens == lab.run(large, ids, 30, temperature=0.7, seed=3).tokens
    assert engine._core.model.lib.llama_n_ctx(engine._core.model.context.pointer) == 1024
    longer = ids + outcome.tokens + lab.tokens(900)
    engine.settled()
    plan = engine.plan(longer)
    assert plan.live >= 512 - 64 or arch in ("mamba2", "lfm2")
    assert lab.run(engine, longer, 0).started.reuse == plan, "all of what was live came along"
    assert np.array_equal(engine.logits(longer).result(), lab.cold(model).logits(longer))


def test_prompts_around_chunk_edges(lab):
    engine, cold = lab.engine(), lab.cold()
    ids = lab.tokens(200)
    for n in (1, 2, 3, 63, 64, 65, 66, 67, 127, 128, 129, 130, 131):
        for _ in range(2):
            assert np.array_equal(engine.logits(ids[:n]).result(), cold.logits(ids[:n])), n


@pytest.mark.parametrize("window", [16, 40, 100])
def test_windows_of_other_lengths(lab, window):
    model = lab.model("gemma3", "F16", window=window)
    engine, cold = lab.engine(model), lab.cold(model)
    assert engine.chunk == {16: 16, 40: 32, 100: 64}[window]
    ids = lab.tokens(300)
    engine.logits(ids).result()
    engine.logits(lab.tokens(50, 9)).result()
    for more in (100, 20):  # the shorter one leaves a batch that is narrower than what a cold engine would take
        forked = ids[:250] + lab.tokens(more, more)
        engine.logits([5, 6]).result()
        assert engine.plan(forked).memory > 150
        assert np.array_equal(engine.logits(forked).result(), cold.logits(forked))


def test_a_window_too_narrow_for_chunks_is_not_cached(lab):
    model = lab.model("gemma3", "F16", window=4)
    engine = lab.engine(model)
    ids = lab.tokens(300)
    engine.logits(ids).result()
    engine.logits(lab.tokens(50, 9)).result()
    assert engine.plan(ids).reused == 0
    assert np.array_equal(engine.logits(ids).result(), lab.cold(model).logits(ids))


def test_the_number_of_threads_changes_nothing_stored(lab):
    from llmcrdt.engine.llama.engine import LlamaEngine

    ids = lab.tokens(300)
    with LlamaEngine(lab.model(quant="F16"), lab.folder / "cache", n_threads=2) as two:
        expected = two.logits(ids).result()
    one = lab.engine(lab.model(quant="F16"))
    assert one.plan(ids).disk == 256
    assert np.array_equal(one.logits(ids).result(), expected)
