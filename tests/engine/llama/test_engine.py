"""LlamaEngine as its users see it: events, cancelling, errors, closing, sampling."""

import gc
import os
import re
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest

from llmcrdt.engine.base import Engine, Failed, Finished, Progress, Sampled, Sampling, Started
from llmcrdt.engine.llama.engine import LlamaEngine
from llmcrdt.exceptions import ContextOverflow, DecodeFailed, EngineClosed, EngineError, NotAModel
from llmcrdt.kvcache import MemoryCache, NullCache, chunk_keys


def until(condition):
    """Wait for something another thread does."""
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("it never happened")


def big(lab):
    """A model slow enough that a prefill of 4000 tokens can be stopped on its way."""
    return lab.model("llama", "F16", n_embd=512, n_layer=6, context=4096)


def test_it_is_an_engine(lab):
    engine: Engine = lab.engine()
    assert engine.name == "tiny llama F32"
    assert engine.n_ctx == 2048


def test_it_shows_documented_names_only(lab):
    page = (Path(__file__).parents[3] / "docs" / "kv.md").read_text(encoding="utf-8")
    section = page.partition("## An engine's names")[2].partition("\n## ")[0]
    documented = set(re.findall(r"`(\w+)(?:\([^`]*\))?`", section))
    shown = {name for name in dir(lab.engine()) if not name.startswith("_")}
    assert shown <= documented
    assert {name for name in vars(Engine) if not name.startswith("_")} <= shown


def test_events_come_in_order_and_tell_all(lab):
    engine = lab.engine()
    ids = lab.tokens(70)
    outcome = lab.run(engine, ids, 12, temperature=1.0, seed=5)
    started, *sampled, finished = outcome.events
    assert isinstance(started, Started)
    assert started.seed == 5
    assert [event.token for event in sampled] == outcome.tokens
    assert all(isinstance(event, Sampled) for event in sampled)
    assert isinstance(finished, Finished)
    assert finished.reason == ("end" if engine.tokenizer.is_end(outcome.tokens[-1]) else "length")
    assert not any(map(engine.tokenizer.is_end, outcome.tokens[:-1]))


def test_an_end_token_is_reported_then_the_run_ends(lab):
    engine = lab.engine()
    reasons = set()
    for seed in range(12):
        outcome = lab.run(engine, lab.tokens(20, seed), 80, temperature=1.0, seed=seed)
        reasons.add(outcome.last.reason)
        ended = engine.tokenizer.is_end(outcome.tokens[-1])
        assert (outcome.last.reason == "end") is ended
        assert ended or len(outcome.tokens) == 80
    assert "end" in reasons


def test_no_tokens_wanted_means_none_sampled(lab):
    outcome = lab.run(lab.engine(), lab.tokens(10), 0)
    assert [type(event) for event in outcome.events] == [Started, Finished]
    assert outcome.last.reason == "length"


def test_a_seed_repeats_and_none_draws_one(lab):
    engine = lab.engine()
    ids = lab.tokens(40)
    first, other = (lab.run(engine, ids, 20, temperature=1.5, min_p=0.0, seed=seed) for seed in (1, 2))
    assert lab.run(engine, ids, 20, temperature=1.5, min_p=0.0, seed=1).tokens == first.tokens
    assert first.tokens != other.tokens
    drawn = [lab.run(engine, ids, 20, temperature=1.5, min_p=0.0).started.seed for _ in range(2)]
    assert drawn[0] != drawn[1]
    again = lab.run(engine, ids, 20, temperature=1.5, min_p=0.0, seed=drawn[0])
    assert again.started.seed == drawn[0]


def test_greedy_takes_the_likeliest(lab):
    engine = lab.engine()
    ids = lab.tokens(40)
    assert lab.run(engine, ids, 1).tokens == [int(engine.logits(ids).result().argmax())]


def test_a_repeat_penalty_counts_the_prompt(lab):
    engine = lab.engine()
    ids = lab.tokens(40)
    likeliest = int(engine.logits(ids).result().argmax())
    ids = [likeliest, *ids]
    logits = engine.logits(ids).result()
    top = int(logits.argmax())
    ids_with_top = [*ids[:20], top, *ids[20:]]
    plain = lab.run(engine, ids_with_top, 30).tokens
    assert lab.run(engine, ids_with_top, 30, repeat_penalty=1000.0).tokens != plain
    punished = lab.run(engine, ids_with_top, 30, repeat_penalty=1000.0).tokens
    assert len(set(punished)) == len(punished), "no token comes twice"
    assert not set(punished) & set(ids_with_top)


def test_many_conversations_first_come_first_served(lab):
    engine = lab.engine()
    order, outcomes = [], []

    def listener(name):
        outcome = lab.Outcome()
        outcomes.append(outcome)

        def listen(event):
            if isinstance(event, Started):
                order.append(name)
            outcome(event)

        return listen

    prompts = [lab.tokens(80, seed) for seed in range(6)]
    for i, ids in enumerate(prompts):
        engine.start(ids, max_tokens=10, sampling=Sampling(temperature=0.0), on_event=listener(i))
    assert all(outcome.done.wait(60) for outcome in outcomes)
    assert order == list(range(6))
    cold = lab.cold()
    assert [outcome.tokens for outcome in outcomes] == [cold.generate(ids, 10).tokens for ids in prompts]


def test_cancel_while_sampling(lab):
    engine = lab.endless(lab.engine(cache=MemoryCache()))
    outcome, runs = lab.Outcome(), []

    def listen(event):
        outcome(event)
        if isinstance(event, Sampled) and len(outcome.events) == 6:
            runs[0].cancel()

    ready = threading.Event()
    engine._core.model.worker.submit(ready.wait)  # so that the run is known before it begins
    ids = lab.tokens(100)
    sampling = Sampling(temperature=2.0, top_k=0, min_p=0.0, seed=1)
    runs.append(engine.start(ids, max_tokens=1000, sampling=sampling, on_event=listen))
    ready.set()
    assert outcome.done.wait(60)
    assert outcome.last.reason == "cancelled"
    assert len(outcome.tokens) == 5
    assert engine.settled(60)
    assert np.array_equal(engine.logits(ids).result(), lab.cold().logits(ids)), "what is live is still right"


def test_cancel_before_it_began(lab):
    engine = lab.engine()
    ready, outcome = threading.Event(), lab.Outcome()
    engine._core.model.worker.submit(ready.wait)
    run = engine.start(lab.tokens(100), max_tokens=5, sampling=Sampling(), on_event=outcome)
    run.cancel()
    ready.set()
    assert outcome.done.wait(60)
    assert [event.reason for event in outcome.events] == ["cancelled"]
    assert engine.stats()["prompt_tokens"] == 0


def test_cancel_in_a_prefill_stops_amid_a_batch(lab):
    engine = lab.engine(big(lab), MemoryCache())
    ids, outcome = lab.tokens(4000), lab.Outcome()
    run = engine.start(ids, max_tokens=5, sampling=Sampling(), on_event=outcome)
    until(lambda: engine.stats()["decode_calls"] >= 2)
    run.cancel()
    assert outcome.done.wait(60)
    *before, last = outcome.events
    assert last.reason == "cancelled"
    assert all(isinstance(event, Progress) for event in before), "the prompt was never whole"
    stats = engine.stats()
    assert stats["prompt_tokens"] < 512 * stats["decode_calls"], "the last batch was not finished"
    engine.settled()
    short = ids[:600]
    assert engine.plan(short).reused > 0, "what was finished is kept"
    assert np.array_equal(engine.logits(short).result(), lab.cold(big(lab)).logits(short))


def test_a_late_cancel_hurts_no_other_run(lab):
    engine = lab.engine()
    first = lab.Outcome()
    run = engine.start(lab.tokens(30), max_tokens=3, sampling=Sampling(), on_event=first)
    assert first.done.wait(60)
    run.cancel()
    assert lab.run(engine, lab.tokens(30), 3, seed=1).last.reason != "cancelled"


def test_what_a_cancelled_run_said_is_settled(lab):
    cache = MemoryCache()
    engine = lab.endless(lab.engine(cache=cache))
    outcome, runs = lab.Outcome(), []

    def listen(event):
        outcome(event)
        if isinstance(event, Sampled) and len(outcome.events) == 40:
            runs[0].cancel()

    gate = threading.Event()
    engine._core.model.worker.submit(gate.wait)
    ids = lab.tokens(50)
    sampling = Sampling(temperature=2.0, top_k=0, min_p=0.0, seed=2)
    runs.append(engine.start(ids, max_tokens=500, sampling=sampling, on_event=listen))
    gate.set()
    assert outcome.done.wait(60)
    assert outcome.last.reason == "cancelled"
    assert engine.settled(60)
    assert len(cache.match(chunk_keys(engine.fingerprint, ids + outcome.tokens, 64))) == 1


def test_settling_gives_way_and_is_taken_up_again(lab):
    engine = lab.endless(lab.engine(lab.model("llama", "F16"), MemoryCache()))
    steps, real = [], engine._core.model.state.settle_step
    gate, entered = threading.Event(), threading.Event()

    def step(ids, *more):
        steps.append(ids)
        if len(steps) == 1:
            entered.set()
            gate.wait()
        return real(ids, *more)

    engine._core.model.state.settle_step = step
    ids, outcome, settled = lab.tokens(60), lab.Outcome(), []

    def listen(event):
        settled.append(engine.stats()["settled_tokens"])
        outcome(event)

    said = lab.run(engine, ids, 300, temperature=2.0, top_k=0, min_p=0.0, seed=9).tokens
    entered.wait()
    engine.start(lab.tokens(90, 5), max_tokens=1, sampling=Sampling(), on_event=listen)
    gate.set()
    assert outcome.done.wait(60)
    assert settled == [64, 64, 64], "one chunk was finished before the other prompt had its turn"
    assert engine.settled(60)
    assert engine.stats()["settled_tokens"] >= 64 * ((60 + len(said)) // 64)
    assert engine.plan(ids + said + [300, 301]).reused == 64 * ((60 + len(said)) // 64)


def test_overflow_names_both_counts_and_a_way_out(lab):
    engine = lab.endless(lab.engine(n_ctx=256))
    with pytest.raises(ContextOverflow, match="summarize") as caught:
        engine.start(lab.tokens(256), max_tokens=1, sampling=Sampling(), on_event=print)
    assert (caught.value.needed, caught.value.available) == (257, 256)
    with pytest.raises(ContextOverflow):
        engine.logits(lab.tokens(257))
    with pytest.raises(ContextOverflow):
        engine.plan(lab.tokens(257))
    outcome = lab.run(engine, lab.tokens(250), 100, temperature=2.0, top_k=0, min_p=0.0, seed=1)
    assert outcome.last.reason == "length"
    assert len(outcome.tokens) == 6, "the context is full"
    assert engine.logits(lab.tokens(256)).result().shape == (engine.tokenizer.n_vocab,)


@pytest.mark.parametrize("ids", [[-1], [1 << 40], [10**6], [2**31 - 1]])
def test_ids_of_no_token_are_refused(lab, ids):
    engine = lab.engine()
    for ask in (engine.plan, engine.logits):
        with pytest.raises(DecodeFailed):
            ask([5, *ids])


def test_an_empty_prompt_is_refused(lab):
    engine = lab.engine()
    assert engine.plan([]).total == 0
    with pytest.raises(EngineError, match="no tokens"):
        engine.logits([])
    with pytest.raises(EngineError, match="no tokens"):
        engine.start([], max_tokens=1, sampling=Sampling(), on_event=print)


def test_a_decode_that_fails_is_reported_and_the_next_one_works(lab):
    engine = lab.engine()
    real = engine._core.model.context._decode

    def refuse(tokens, logits):
        raise DecodeFailed("llama_decode returned -3")

    engine._core.model.context._decode = refuse
    outcome = lab.run(engine, lab.tokens(100), 5)
    assert isinstance(outcome.last, Failed)
    assert isinstance(outcome.last.error, DecodeFailed)
    with pytest.raises(DecodeFailed):
        engine.logits(lab.tokens(100)).result()
    engine._core.model.context._decode = real
    assert np.array_equal(engine.logits(lab.tokens(100)).result(), lab.cold().logits(lab.tokens(100)))


def test_a_listener_that_fails_ends_its_run_alone(lab, caplog):
    engine = lab.engine()
    heard = []

    def listen(event):
        heard.append(event)
        raise ValueError("not my day")

    engine.start(lab.tokens(20), max_tokens=500, sampling=Sampling(), on_event=listen)
    assert engine.settled(60)
    assert len(heard) == 1
    assert "not my day" in caplog.text
    assert isinstance(lab.run(engine, lab.tokens(20), 3).last, Finished)


def test_close_cancels_what_runs_and_what_waits(lab):
    engine = lab.engine(big(lab), NullCache())
    running, waiting = lab.Outcome(), lab.Outcome()
    engine.start(lab.tokens(4000), max_tokens=5, sampling=Sampling(), on_event=running)
    engine.start(lab.tokens(4000), max_tokens=5, sampling=Sampling(), on_event=waiting)
    future = engine.logits(lab.tokens(10))
    until(lambda: engine.stats()["decode_calls"] >= 1)
    engine.close()
    assert running.last.reason == waiting.last.reason == "cancelled"
    assert isinstance(future.exception(), EngineClosed)


def test_closed_is_closed(lab):
    engine = lab.engine()
    tokenizer = engine.tokenizer
    engine.close()
    engine.close()
    for ask in (engine.plan, engine.logits):
        with pytest.raises(EngineClosed):
            ask([5, 6])
    with pytest.raises(EngineClosed):
        engine.start([5, 6], max_tokens=1, sampling=Sampling(), on_event=print)
    with pytest.raises(EngineClosed):
        tokenizer.encode("hello", special=False)


def test_a_listener_may_close_the_engine(lab):
    engine = lab.engine()
    ended = threading.Event()

    def listen(event):
        engine.close()
        if isinstance(event, Finished):
            ended.set()

    engine.start(lab.tokens(10), max_tokens=50, sampling=Sampling(), on_event=listen)
    assert ended.wait(60)
    until(lambda: not engine._core.model.worker._thread.is_alive())


def test_a_forgotten_engine_goes_away(lab):
    engine = LlamaEngine(lab.model(), NullCache(), n_threads=1)
    lab.run(engine, lab.tokens(100), 30, temperature=2.0, seed=1)
    engine.settled()
    thread = engine._core.model.worker._thread
    del engine
    gc.collect()
    until(lambda: not thread.is_alive())


def test_a_forgotten_engine_is_there_until_what_it_said_is_settled(lab):
    """An erase must reach what it stores meanwhile."""
    for work in (
        lambda engine: engine.start(lab.tokens(100), max_tokens=3, sampling=Sampling(), on_event=lambda event: None),
        lambda engine: engine.logits(lab.tokens(100)),
        lambda engine: engine.prefetch(lab.tokens(100)),
        lambda engine: engine.forget("me"),
    ):
        engine, gate = LlamaEngine(lab.model(), NullCache(), n_threads=1), threading.Event()
        assert engine.settled(60)
        engine._core.model.worker.submit(gate.wait)
        work(engine)
        there = weakref.ref(engine)
        del engine
        gc.collect()
        assert there() is not None
        gate.set()
        until(lambda there=there: there() is None)


def test_a_cache_that_was_handed_in_stays_open(lab):
    cache = MemoryCache()
    engine = lab.engine(cache=cache)
    ids = lab.tokens(200)
    engine.logits(ids).result()
    engine.close()
    assert len(cache.match(chunk_keys(engine.fingerprint, ids, 64))) == 3


def test_what_is_not_a_model(lab, tmp_path, capfd):
    good = lab.model().read_bytes()
    files = {"text": b"hello", "empty": b"", "magic only": b"GGUF", "half": good[: len(good) // 2], "head": good[:3000]}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(NotAModel) as caught:
            LlamaEngine(tmp_path / name, NullCache())
        assert caught.value.hint, name
    for path in (tmp_path / "nowhere.gguf", tmp_path):
        with pytest.raises(NotAModel):
            LlamaEngine(path, NullCache())
    assert capfd.readouterr() == ("", ""), "llama.cpp's own log is silent"


def test_what_llama_cpp_says_is_passed_on(lab, tmp_path):
    good = lab.model().read_bytes()
    (tmp_path / "half.gguf").write_bytes(good[: len(good) // 2])
    with pytest.raises(NotAModel, match=r"llama\.cpp said: .*tensor"):
        LlamaEngine(tmp_path / "half.gguf", NullCache())


def test_settings_that_llama_cpp_refuses(lab):
    for n_ctx in (-5, 0, 1):
        with pytest.raises(EngineError, match="holds no prompt"):
            lab.engine(n_ctx=n_ctx)
    with pytest.raises(EngineError, match="KV type"):
        lab.engine(type_k="f17")
    with pytest.raises(EngineError, match="context"):
        lab.engine(type_v="q8_0", flash_attn=False)


def test_the_users_cache_folder_is_the_default(lab, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    with LlamaEngine(lab.model(), n_threads=1) as engine:
        engine.logits(lab.tokens(100)).result()
    assert len(list((tmp_path / "xdg" / "llmcrdt" / "kv" / "chunks").glob("*.kv"))) == 1


def test_without_a_place_for_the_cache_memory_serves(lab, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with LlamaEngine(lab.model(), n_threads=1) as engine:
        engine.logits(lab.tokens(100)).result()
        engine.logits(lab.tokens(100, 2)).result()
        assert engine.plan(lab.tokens(100)).memory == 64
    with pytest.raises(EngineError, match="cache folder"):
        LlamaEngine(lab.model(), tmp_path / "file")


def test_a_forgotten_engine_in_a_cycle_is_collected_with_its_files(lab):
    """Its files are collected with it, in any order, and none of them complains."""
    engine = LlamaEngine(lab.model(), NullCache(), n_threads=1)
    engine.settled()
    thread = engine._core.model.worker._thread
    files = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    engine.itself = engine
    del engine
    gc.collect()
    until(lambda: not thread.is_alive())
    if files:
        until(lambda: len(os.listdir("/proc/self/fd")) < files)
