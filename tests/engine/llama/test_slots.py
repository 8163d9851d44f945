"""Several runs at once: each gets what it gets alone, bit for bit, and nobody waits for a long prompt."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcrdt.engine.base import Failed, Finished, Progress, Sampled, Started
from llmcrdt.engine.llama import widths
from llmcrdt.engine.llama.rows import Rows, neighbours
from llmcrdt.kvcache import MemoryCache, NullCache, chunk_keys

KINDS = [
    ("llama", "F16"),
    ("llama", "Q8_0"),
    ("llama", "Q4_K_M"),
    ("gemma3", "F16"),
    ("mamba2", "F16"),
    ("lfm2", "F16"),
]
GREEDY = {"temperature": 0.0}


def start(lab, engine, ids, n, **sampling):
    outcome = lab.Outcome()
    outcome.run = engine.start(
        ids, max_tokens=n, sampling=lab.Sampling(**{**GREEDY, **sampling}), on_event=outcome, owner=str(len(ids))
    )
    return outcome


def all_of(outcomes):
    for outcome in outcomes:
        assert outcome.done.wait(120), "the engine does not answer"
    return outcomes


def stored(engine, cache, ids):
    found = [cache.get(key) for key in chunk_keys(engine.fingerprint, ids, engine.chunk)]
    return [chunk.payload if chunk else None for chunk in found]


@pytest.mark.parametrize(("arch", "quant"), KINDS)
def test_in_company_each_gets_what_it_gets_alone_and_the_same_is_stored(lab, arch, quant):
    model = lab.model(arch, quant)
    caches = MemoryCache(), MemoryCache()
    one, many = (lab.endless(lab.engine(model, cache, slots=n)) for cache, n in zip(caches, (1, 3), strict=True))
    prompts = [lab.tokens(length, seed) for seed, length in enumerate((30, 700, 131, 5, 257))]
    alone = [lab.run(one, ids, 12) for ids in prompts]
    together = all_of([start(lab, many, ids, 12) for ids in prompts])
    assert [outcome.tokens for outcome in together] == [outcome.tokens for outcome in alone]
    assert many._core.model.widths.value >= {1}, "this kind can be served in company"
    assert one.settled(60)
    assert many.settled(60)
    for ids, outcome in zip(prompts, together, strict=True):
        whole = [*ids, *outcome.tokens]
        assert stored(one, caches[0], whole) == stored(many, caches[1], whole)
        assert outcome.started.reuse.evaluate == len(ids)


def test_rows_that_are_alike_are_evaluated_together(lab):
    engine = lab.endless(lab.engine(lab.model("llama", "Q8_0"), slots=4))
    if engine._core.model.widths.value != {1, 2, 3, 4}:
        pytest.skip("not on this processor")
    before = engine.stats()["decode_calls"]
    all_of([start(lab, engine, lab.tokens(20, seed), 40) for seed in range(4)])
    assert engine.stats()["sampled_together"] > 100
    assert engine.stats()["decode_calls"] - before < 4 * 40 * 0.5
    assert engine.stats()["sampled_tokens"] == 4 * 39


def test_a_short_prompt_goes_before_a_long_one_and_words_go_on_meanwhile(lab):
    engine = lab.endless(lab.engine(slots=3))
    order = []

    def listening(name, outcome):
        def listen(event):
            order.append((name, event))
            outcome(event)

        return listen

    outcomes = {name: lab.Outcome() for name in ("speaks", "long", "short")}
    sampling = lab.Sampling(**GREEDY)

    def begin(name, ids, n):
        engine.start(ids, max_tokens=n, sampling=sampling, on_event=listening(name, outcomes[name]))

    def first_word(event):
        order.append(("speaks", event))
        if isinstance(event, Started):  # on the engine's thread: the others come while this one speaks
            begin("long", lab.tokens(1500, 2), 3)
            begin("short", lab.tokens(40, 3), 3)
        outcomes["speaks"](event)

    engine.start(lab.tokens(30), max_tokens=200, sampling=sampling, on_event=first_word)
    all_of(outcomes.values())
    started = [name for name, event in order if isinstance(event, Started)]
    assert started == ["speaks", "short", "long"], "the prompt that is due first is evaluated first"
    at = [i for i, (name, event) in enumerate(order) if name == "long" and isinstance(event, Progress)]
    words = [i for i, (name, event) in enumerate(order) if name == "speaks" and isinstance(event, Sampled)]
    assert len(at) > 10, "in narrow batches"
    assert all(any(low < word < high for word in words) for low, high in itertools.pairwise(at))


def test_none_waits_for_ever_behind_short_ones(lab):
    engine = lab.endless(lab.engine(slots=2))
    ended, outcomes = [], []

    def begin(name, ids):
        outcome = lab.Outcome()

        def listen(event):
            if isinstance(event, Finished):
                ended.append(name)
            outcome(event)

        engine.start(ids, max_tokens=1, sampling=lab.Sampling(**GREEDY), on_event=listen)
        outcomes.append(outcome)

    begin("long", lab.tokens(900, 1))
    for seed in range(40):
        begin("short", lab.tokens(60, seed + 5))
    all_of(outcomes)
    assert 5 < ended.index("long") < 20, "it was due once as many tokens of others were evaluated as it has itself"


@pytest.mark.parametrize("seed", range(3))
def test_one_that_is_cancelled_at_any_token_changes_nothing_for_others(lab, seed):
    engine = lab.endless(lab.engine(lab.model("llama", "Q8_0"), MemoryCache(), slots=4))
    rng = random.Random(seed)
    prompts = [lab.tokens(rng.randrange(2, 300), 10 * seed + i) for i in range(6)]
    alone = [lab.run(engine, ids, 25).tokens for ids in prompts]
    doomed = {i: rng.randrange(25) for i in rng.sample(range(6), 3)}
    outcomes = [lab.Outcome() for _ in prompts]
    runs = {}

    def listening(i):
        def listen(event):
            outcomes[i](event)
            sampled = sum(isinstance(each, Sampled) for each in outcomes[i].events)
            if i in doomed and sampled >= doomed[i] and i in runs:
                runs[i].cancel()

        return listen

    for i, ids in enumerate(prompts):
        runs[i] = engine.start(ids, max_tokens=25, sampling=lab.Sampling(**GREEDY), on_event=listening(i))
    all_of(outcomes)
    for i, outcome in enumerate(outcomes):
        assert outcome.tokens == alone[i][: len(outcome.tokens)]
        assert outcome.last.reason == ("cancelled" if i in doomed and len(outcome.tokens) < 25 else "length")


def test_a_listener_that_fails_and_a_grammar_that_ends_harm_no_other(lab):
    engine = lab.endless(lab.engine(slots=4))
    ids = lab.tokens(60)
    alone = lab.run(engine, ids, 20).tokens

    def fail(event):
        if isinstance(event, Sampled):
            raise RuntimeError("a listener of a test")

    good = start(lab, engine, ids, 20)
    engine.start(lab.tokens(50, 1), max_tokens=500, sampling=lab.Sampling(**GREEDY), on_event=fail)
    guided = start(lab, engine, lab.tokens(50, 2), 6, grammar='root ::= "ab"')
    all_of([good, guided])
    assert good.tokens == alone
    assert isinstance(guided.last, Finished)
    assert engine.tokenizer.decode(guided.tokens).startswith(b"ab")


def test_a_batch_that_fails_ends_those_that_are_in_it_and_the_engine_goes_on(lab, monkeypatch):
    engine = lab.endless(lab.engine(lab.model("llama", "Q8_0"), slots=2))
    ids = lab.tokens(60)
    alone = lab.run(engine, ids, 5).tokens
    step, calls = Rows.step, []

    def broken(self, rows):
        calls.append(rows)
        if len(calls) == 3:
            raise RuntimeError("a batch of a test")
        step(self, rows)

    monkeypatch.setattr(Rows, "step", broken)
    all_of(first := [start(lab, engine, lab.tokens(30, seed), 30) for seed in (1, 2)])
    assert any(isinstance(outcome.last, Failed) for outcome in first)
    assert lab.run(engine, ids, 5).tokens == alone
    assert [outcome.tokens for outcome in all_of([start(lab, engine, ids, 5) for _ in range(2)])] == [alone, alone]


def test_a_stream_grows_and_goes_on_with_the_same_bits(lab):
    prompts = [lab.tokens(1015, 1), lab.tokens(1000, 2), lab.tokens(20, 3)]
    one, many = (lab.endless(lab.engine(lab.model("llama", "Q8_0"), slots=n)) for n in (1, 3))
    alone = [lab.run(one, ids, 40).tokens for ids in prompts]
    assert [each.tokens for each in all_of([start(lab, many, ids, 40) for ids in prompts])] == alone


def test_where_nothing_is_kept_no_prompt_is_left_in_the_middle(lab):
    engine = lab.endless(lab.engine(cache=NullCache(), slots=3))
    prompts = [lab.tokens(600, 1), lab.tokens(30, 2), lab.tokens(90, 3)]
    outcomes = all_of([start(lab, engine, ids, 6) for ids in prompts])
    assert engine.stats()["prompt_tokens"] == sum(map(len, prompts)), "none was evaluated twice"
    assert [each.tokens for each in outcomes] == [lab.run(engine, ids, 6).tokens for ids in prompts]


def test_a_run_that_can_not_leave_is_served_to_its_end_first(lab, monkeypatch):
    engine = lab.endless(lab.engine(slots=3))
    prompts = [lab.tokens(60, seed) for seed in range(4)]
    alone = [lab.run(engine, ids, 9).tokens for ids in prompts]
    monkeypatch.setattr(Rows, "take", lambda self, blob, length: None)
    outcomes = all_of([start(lab, engine, ids, 9) for ids in prompts])
    assert [each.tokens for each in outcomes] == alone


def test_a_model_that_is_alike_in_no_company_is_served_one_at_a_time(lab, monkeypatch):
    widths._here.clear()
    monkeypatch.setattr(widths, "try_widths", lambda *_: iter([frozenset()]))
    engine = lab.endless(lab.engine(slots=3))
    assert engine._core.model.widths.value == frozenset()
    all_of([start(lab, engine, lab.tokens(30, seed), 9) for seed in range(3)])
    assert engine._core.model.rows.pointer is None, "no memory was taken"
    widths._here.clear()


def test_what_was_found_is_remembered_for_other_processes(lab):
    engine = lab.engine(lab.model("llama", "Q4_0"), slots=2)
    found = engine._core.model.widths.value
    [note] = (engine.cache_folder / "exactness").glob("*.widths")
    assert frozenset(map(int, note.read_text().split())) == found >= {1}
    widths._here.clear()
    note.write_text("1\n")
    assert lab.engine(lab.model("llama", "Q4_0"), slots=2)._core.model.widths.value == {1}
    widths._here.clear()


def test_what_is_forgotten_meanwhile_waits_for_what_runs_and_leaves_nothing(lab):
    cache = MemoryCache()
    engine = lab.endless(lab.engine(cache=cache, slots=3))
    ids = lab.tokens(200)
    outcomes = [start(lab, engine, ids, 30), start(lab, engine, lab.tokens(150, 4), 30)]
    gone = engine.forget(str(len(ids)))
    later = start(lab, engine, lab.tokens(100, 5), 3)
    all_of([*outcomes, later])
    gone.result(60)
    assert engine.settled(60)
    assert stored(engine, cache, ids) == [None, None, None]
    assert None not in stored(engine, cache, lab.tokens(150, 4))


@given(st.sets(st.integers(0, 30)), st.sets(st.integers(1, 9)))
@settings(max_examples=60)
def test_neighbours_follow_each_other_and_are_as_many_as_may_be(streams, alike):
    groups = neighbours(sorted(streams, reverse=True), alike | {1})
    assert sorted(stream for group in groups for stream in group) == sorted(streams)
    for group in groups:
        assert group == list(range(group[0], group[0] + len(group)))
        assert len(group) in alike | {1}
