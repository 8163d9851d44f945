"""Fast mode: decode state is kept, branches are forked by ``seq_cp``, and nothing of it reaches an exact engine."""

import random

import numpy as np
import pytest

from llmcrdt.engine.base import Progress, Sampled
from llmcrdt.exceptions import EngineError
from llmcrdt.kvcache import MemoryCache, NullCache

ARCHS = ["llama", "gemma3", "mamba2", "lfm2"]
CUTS = {"llama", "gemma3"}


@pytest.fixture
def fast(lab):
    def make(arch="llama", **options):
        return lab.endless(lab.engine(lab.model(arch, "F16"), mode="fast", **options))

    return make


def near(said, truth) -> bool:
    """Other bits, the same state: what another prompt would say is further off by far (asserted below)."""
    return float(np.abs(said - truth).max()) < 0.05 * float(truth.std())


def ask(lab, engine, ids, n=8, **options):
    """Plan, run, compare, count; the plan and what was said."""
    engine.settled(60)
    before, plan = engine.stats()["prompt_tokens"], engine.plan(ids)
    outcome = lab.run(engine, ids, n, **options)
    assert outcome.started.reuse == plan
    assert engine.stats()["prompt_tokens"] - before == plan.evaluate == plan.total - plan.reused
    assert (plan.mode, plan.memory, plan.disk) == ("fast", 0, 0)
    return plan, outcome.tokens


@pytest.mark.parametrize("arch", ARCHS)
def test_a_turn_evaluates_what_is_new_and_one_token(lab, fast, arch):
    engine, exact = fast(arch), lab.endless(lab.engine(lab.model(arch, "F16")))
    ids = lab.tokens(150, 1)
    _, said = ask(lab, engine, ids, 40)
    for turn in range(3):
        new = lab.tokens(30, turn + 2)
        ids = ids + said + new
        plan, said = ask(lab, engine, ids, 40)
        assert plan.evaluate == len(new) + 1, "the token sampled last was not evaluated yet"
    assert engine.settled(60)
    assert engine.stats()["settled_tokens"] == 0, "and nothing is computed twice"
    longer = [*ids, *said, 300, 301]
    assert near(engine.logits(longer).result(), exact.logits(longer).result())
    assert not near(exact.logits([*longer[:-9], *longer[-8:]]).result(), exact.logits(longer).result())


@pytest.mark.parametrize("arch", ARCHS)
def test_a_fork_in_the_middle_is_right_for_every_kind_of_memory(lab, fast, arch):
    """``seq_cp`` of a range takes the whole recurrent state: such a model starts over, or at what is parked."""
    engine, cold = fast(arch), lab.cold(lab.model(arch, "F16"))
    trunk = lab.tokens(200, 1)
    _, said = ask(lab, engine, trunk, 30)
    forked = trunk[:120] + lab.tokens(50, 2)
    plan, _ = ask(lab, engine, forked, 0)
    assert plan.reused == (120 if arch in CUTS else 0)
    assert near(engine.logits(forked).result(), cold.logits(forked))
    back = [*trunk, *said, *lab.tokens(5, 3)]
    plan, _ = ask(lab, engine, back, 0)
    assert plan.reused == len(trunk) + len(said) - 1, "the old branch was parked, whole"
    assert near(engine.logits(back).result(), cold.logits(back))
    again, _ = ask(lab, engine, [*forked, 300, 301], 0)
    assert again.reused == len(forked), "and so was the new one"
    assert near(engine.logits([*forked, 300, 301]).result(), cold.logits([*forked, 300, 301]))
    assert engine.stats()["sequences_resumed"] >= 2


@pytest.mark.parametrize("arch", ARCHS)
def test_any_order_of_work_is_near_and_planned_to_the_token(lab, fast, arch):
    """Forks, rewinds, edits, answers; more branches than there are sequences to park."""
    rng = random.Random(arch)
    engine, cold = fast(arch), lab.cold(lab.model(arch, "F16"))
    pool = [lab.tokens(200, 1)]
    for step in range(18):
        base = rng.choice(pool)
        whole = rng.random() < 0.4
        ids = (base[: len(base) if whole else rng.randrange(len(base))] + lab.tokens(rng.randrange(2, 120), step))[:600]
        _, said = ask(lab, engine, ids, rng.randrange(0, 12), temperature=0.9, seed=step)
        pool.append((ids + said)[:600])
        if step % 3 == 0:
            assert near(engine.logits(pool[-1]).result(), cold.logits(pool[-1])), step
    stats = engine.stats()
    assert stats["sequences_parked"] > 4
    assert stats["sequences_given_up"] > 0


@pytest.mark.parametrize("arch", ["llama", "lfm2"])
def test_what_is_parked_makes_room(lab, fast, arch):
    """Four branches do not fit into the cells of one context."""
    engine, cold = fast(arch, n_ctx=1024), lab.cold(lab.model(arch, "F16"), n_ctx=1024)
    branches = [lab.tokens(400, n) for n in range(4)]
    for n in (0, 1, 2, 3, 2, 1, 0, 0):
        ask(lab, engine, branches[n], 30)
        assert near(engine.logits([*branches[n], 300]).result(), cold.logits([*branches[n], 300]))
    assert engine.stats()["sequences_given_up"] > 0
    assert ask(lab, engine, lab.tokens(1000, 9), 20)[0].reused == 0


@pytest.mark.parametrize("arch", ARCHS)
def test_growing_keeps_what_is_live(lab, fast, arch, monkeypatch):
    monkeypatch.setattr("llmcrdt.engine.llama.opening._FIRST_CTX", 512)
    engine, cold = fast(arch), lab.cold(lab.model(arch, "F16"))
    other, ids = lab.tokens(100, 5), lab.tokens(480, 1)
    ask(lab, engine, other, 4)
    _, said = ask(lab, engine, ids, 60, temperature=0.5, seed=1)
    longer = [*ids, *said, *lab.tokens(400, 2)]
    assert ask(lab, engine, longer, 0)[0].reused == 480 + 60 - 1
    assert near(engine.logits(longer).result(), cold.logits(longer))
    assert engine.plan(other).reused == 0, "what was parked went with the old context"


def test_nothing_of_it_is_stored_and_no_key_is_shared(lab, fast):
    """In either direction: not in a folder, not in a cache that both were handed."""
    model, ids, shared = lab.model("llama", "F16"), lab.tokens(300), MemoryCache()
    engine = fast()
    ask(lab, engine, ids, 100)
    assert engine.settled(60)
    assert not list((lab.folder / "cache").rglob("*.kv"))
    exact = lab.engine(model)
    assert exact.fingerprint != engine.fingerprint
    assert exact.plan(ids).reused == 0
    truth = exact.logits(ids).result()
    assert np.array_equal(truth, lab.engine(model, NullCache()).logits(ids).result())
    assert exact.settled(60)
    engine.close()
    engine.reopen()
    assert engine.plan(ids).reused == 0
    ask(lab, lab.endless(lab.engine(model, shared, mode="fast")), ids, 100)
    assert shared.stats()["chunks"] == shared.stats()["puts"] == 0


def test_what_is_forgotten_is_gone_from_every_sequence(lab, fast):
    engine = fast()
    for n in range(3):
        ask(lab, engine, lab.tokens(200, n), 5)
    engine.forget("me").result(60)
    for n in range(3):
        assert engine.plan(lab.tokens(200, n)).reused == 0
    ask(lab, engine, lab.tokens(200, 1), 5)


@pytest.mark.parametrize("arch", ARCHS)
def test_a_cancelled_run_leaves_right_state(lab, fast, arch):
    engine, cold = fast(arch), lab.cold(lab.model(arch, "F16"))
    ids, runs, outcome = lab.tokens(1500, 1), [], lab.Outcome()

    def listen(event):
        outcome(event)
        if isinstance(event, Progress):
            runs[0].cancel()

    runs.append(engine.start(ids, max_tokens=5, sampling=lab.Sampling(), on_event=listen))
    assert outcome.done.wait(60)
    assert outcome.last.reason == "cancelled"
    assert not any(isinstance(event, Sampled) for event in outcome.events)
    assert near(engine.logits(ids[:900]).result(), cold.logits(ids[:900]))


def test_prefetching_and_the_names_of_things(lab, fast):
    engine, ids = fast(), lab.tokens(300)
    assert (engine.mode, engine.chunk, engine.stats()["mode"]) == ("fast", 1, "fast")
    assert (lab.engine().mode, lab.engine().stats()["mode"]) == ("exact", "exact")
    ask(lab, engine, lab.tokens(200, 2), 5)
    engine.prefetch(ids, "me")
    assert engine.settled(60)
    assert engine.stats()["settled_tokens"] == 299
    assert engine.plan(ids).evaluate == 1
    assert engine.plan(lab.tokens(200, 2)).evaluate == 1, "who was live before still is at hand"
    with pytest.raises(EngineError, match="mode"):
        lab.engine(mode="quick")
