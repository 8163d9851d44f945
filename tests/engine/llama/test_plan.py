"""``plan`` says beforehand exactly what is evaluated, counted where llama.cpp decodes."""

import random
from dataclasses import replace

import pytest

from llmcrdt.kvcache import MemoryCache, NullCache

ARCHS = ["llama", "gemma3", "mamba2", "lfm2"]


def check(lab, engine, ids, n=8, **options):
    """Plan, run, compare; returns the plan and what was said."""
    assert engine.settled(60)
    before = engine.stats()["prompt_tokens"]
    plan = engine.plan(ids)
    assert engine.plan(ids) == plan, "asking changes nothing"
    outcome = lab.run(engine, ids, n, **options)
    assert outcome.started.reuse == plan
    assert engine.stats()["prompt_tokens"] - before == plan.evaluate
    assert plan.total == len(ids) == plan.reused + plan.evaluate
    assert plan.live + plan.memory + plan.disk == plan.reused
    assert plan.reused % engine.chunk == 0
    return plan, outcome.tokens


@pytest.mark.parametrize("arch", ARCHS)
def test_plan_is_what_happens(lab, arch):
    """Append, regenerate, edit in the middle, fork, switch back, restart: by the numbers."""
    model = lab.model(arch, "F16")
    engine = lab.engine(model)
    trunk = lab.tokens(210, 1)
    cold, said = check(lab, engine, trunk)
    assert cold.reused == 0
    again, _ = check(lab, engine, trunk)
    assert again.reused == 192
    longer = trunk + said + lab.tokens(90, 2)
    appended, more = check(lab, engine, longer)
    assert appended.reused == 64 * ((len(trunk) + len(said)) // 64)
    edited = longer[:230] + lab.tokens(120, 3)  # a recurrent model was resumed at 192 and at the end, at no other place
    assert check(lab, engine, edited)[0].reused == 192
    earlier = longer[:100] + lab.tokens(120, 3)
    assert check(lab, engine, earlier)[0].reused == (0 if arch in ("mamba2", "lfm2") else 64)
    forked = longer + more + lab.tokens(30, 4)
    assert check(lab, engine, forked)[0].reused == 64 * (len(longer + more) // 64)
    assert check(lab, engine, longer)[0].reused == 64 * ((len(longer) - 2) // 64)
    engine.settled()
    engine.close()
    plan, _ = check(lab, lab.engine(model), forked)
    assert plan.reused == plan.disk == 64 * ((len(forked) - 2) // 64)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("kind", ["never", "small", "tiered"])
def test_plan_holds_in_any_order_of_work(lab, arch, kind):
    cache = {"never": NullCache(), "small": MemoryCache(500_000), "tiered": lab.folder / "kv"}[kind]
    engine = lab.engine(lab.model(arch, "F16"), cache, cache_memory=300_000, cache_disk=900_000)
    rng = random.Random(f"{arch} {kind}")
    pool = [lab.tokens(150, 1)]
    for step in range(15):
        base = rng.choice(pool)
        ids = base[: rng.randrange(len(base) + 1)] + lab.tokens(rng.randrange(1, 150), step)
        _, said = check(lab, engine, ids[:600], rng.randrange(1, 12), temperature=0.9, seed=step)
        pool.append((ids + said)[:600])


def test_while_something_is_settled_plan_answers_for_now(lab):
    """Asked at any time, it is a plan: the parts add up, and the run that follows reuses no less."""
    engine = lab.engine(lab.model("llama", "F16"), MemoryCache())
    ids = lab.tokens(100)
    for turn in range(6):
        outcome = lab.run(engine, ids, 40, temperature=1.2, seed=turn)
        ids = ids + outcome.tokens + lab.tokens(5, turn)
        plan = engine.plan(ids)
        assert plan.live + plan.memory + plan.disk == plan.reused
        reuse = lab.run(engine, ids, 1).started.reuse
        assert reuse.reused >= plan.reused


def test_a_chunk_lost_between_plan_and_run_is_evaluated_and_counted(lab):
    cache = MemoryCache()
    engine = lab.engine(cache=cache)
    ids = lab.tokens(300)
    engine.logits(ids).result()
    engine.logits(lab.tokens(10, 5)).result()
    plan = engine.plan(ids)
    assert plan.memory == 256
    get, calls = cache.get, []
    cache.get = lambda key: None if len(calls) == 2 else calls.append(key) or get(key)
    assert lab.run(engine, ids, 1).started.reuse == replace(plan, reused=128, memory=128, evaluate=172)


def test_settling_is_counted_apart(lab):
    engine = lab.endless(lab.engine())
    ids = lab.tokens(100)
    said = lab.run(engine, ids, 100, temperature=2.0, seed=3, top_k=0, min_p=0.0).tokens
    engine.settled()
    stats = engine.stats()
    assert stats["prompt_tokens"] == 100
    assert stats["sampled_tokens"] == len(said) - 1
    assert stats["settled_tokens"] == 64 * ((100 + len(said)) // 64) - 64
