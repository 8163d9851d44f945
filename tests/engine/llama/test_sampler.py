"""The settings that steer the choice of tokens, and what they leave alone: the prompt's state."""

import itertools
import json
import math

import pytest

from llmcrdt.engine.base import Progress, Sampled, Sampling
from llmcrdt.engine.llama.model import Settings, load_model, without_flash
from llmcrdt.exceptions import EngineError, NotAModel
from llmcrdt.kvcache import NullCache
from llmcrdt.testing.models import write_adapter

SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["walk", "swim"]}, "far": {"type": "boolean"}},
    "required": ["kind", "far"],
    "additionalProperties": False,
}


def text(engine, outcome) -> str:
    return engine.tokenizer.decode(outcome.tokens).decode()


@pytest.mark.parametrize("temperature", [0.0, 1.5])
@pytest.mark.parametrize("seed", range(3))
def test_an_answer_follows_its_json_schema(lab, temperature, seed):
    engine = lab.engine(lab.model("llama", "F16"), NullCache())
    outcome = lab.run(
        engine, lab.tokens(20, seed), 300, temperature=temperature, seed=seed, json_schema=json.dumps(SCHEMA)
    )
    said = json.loads(text(engine, outcome))
    assert outcome.last.reason == "end"
    assert set(said) == {"kind", "far"}
    assert said["kind"] in ("walk", "swim") and isinstance(said["far"], bool)


def test_an_answer_follows_its_grammar_and_ends_with_it(lab):
    engine = lab.engine(lab.model("llama", "F16"), NullCache())
    outcome = lab.run(engine, lab.tokens(20), 300, temperature=2.0, seed=1, grammar='root ::= "<" [a-c]{5} ">"')
    said = text(engine, outcome)
    assert len(said) == 7 and said[0] == "<" and said[-1] == ">" and set(said[1:-1]) <= set("abc")
    assert engine.tokenizer.is_end(outcome.tokens[-1])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"grammar": "root ::= ("}, "grammar"),
        ({"grammar": "tree ::= [a]"}, "grammar"),
        ({"json_schema": "{"}, "schema"),
        ({"json_schema": '{"$ref": "https://example.org/other.json"}'}, "schema"),
        ({"json_schema": "{}", "grammar": 'root ::= "a"'}, "not both"),
        ({"logit_bias": {-1: 1.0}}, "bias"),
        ({"logit_bias": {10**9: 1.0}}, "bias"),
        ({"logit_bias": {3: math.nan}}, "bias"),
    ],
)
def test_wrong_settings_are_refused_at_once(lab, wrong, said):
    engine = lab.engine(lab.model("llama", "F16"), NullCache())
    with pytest.raises(EngineError, match=said):
        engine.start([300, 301], max_tokens=4, sampling=Sampling(**wrong), on_event=print)
    assert lab.run(engine, [300, 301], 2).tokens, "and the engine goes on"


def test_a_bias_chooses_and_bans(lab):
    engine = lab.endless(lab.engine(lab.model("llama", "F16"), NullCache()))
    ids = lab.tokens(20)
    free = lab.run(engine, ids, 10).tokens
    assert set(lab.run(engine, ids, 10, logit_bias={400: 1000.0}).tokens) == {400}
    assert free[0] not in lab.run(engine, ids, 10, logit_bias={free[0]: -1000.0}).tokens
    assert lab.run(engine, ids, 10, logit_bias={400: 0.0}).tokens == free


@pytest.mark.parametrize("name", ["repeat_penalty", "presence_penalty", "frequency_penalty"])
def test_penalties_keep_tokens_from_coming_back(lab, name):
    """Every token that stands in the prompt or was said is as good as banned."""
    engine = lab.endless(lab.engine(lab.model("llama", "F16"), NullCache()))
    ids = lab.tokens(20)
    biased = dict.fromkeys(range(400, 420), 500.0)  # the model would say these, and repeat itself
    plain = lab.run(engine, ids, 15, logit_bias=biased).tokens
    assert len(set(plain)) < 15
    strength = 1e6 if name == "repeat_penalty" else 400.0
    said = lab.run(engine, [*ids, plain[0]], 15, logit_bias=biased, **{name: strength}).tokens
    assert len(set(said)) == 15
    assert plain[0] not in said


def test_log_probabilities_are_those_of_the_logits(lab):
    np = pytest.importorskip("numpy")
    engine = lab.endless(lab.engine(lab.model("llama", "F16"), NullCache()))
    ids = lab.tokens(70)
    logits = engine.logits(ids).result().astype(np.float64)
    expected = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
    for more in ({}, {"grammar": "root ::= [a-z]+"}, {"logit_bias": {300: 100.0}}, {"temperature": 3.0, "seed": 1}):
        outcome = lab.run(engine, ids, 5, top_logprobs=4, **more)
        sampled = [event for event in outcome.events if isinstance(event, Sampled)]
        first = sampled[0]
        assert [token for token, _ in first.top] == list(np.argsort(-expected)[:4])
        assert first.logprob == pytest.approx(expected[first.token], abs=1e-9)
        assert all(a >= b for a, b in itertools.pairwise(p for _, p in first.top))
        assert len(sampled) == len(outcome.tokens)
    assert all(e.logprob is None for e in lab.run(engine, ids, 3).events if isinstance(e, Sampled))


def test_a_long_prefill_says_how_far_it_is(lab):
    engine = lab.engine(lab.model("llama", "F16"))
    ids = lab.tokens(1500)
    outcome = lab.run(engine, ids, 2)
    steps = [(event.done, event.total) for event in outcome.events if isinstance(event, Progress)]
    assert steps == [(512, 1500), (1024, 1500), (1472, 1500)]
    assert [e for e in lab.run(engine, ids, 2).events if isinstance(e, Progress)] == [], "nothing to wait for"


def test_flash_attention_is_off_where_that_is_faster(lab):
    """By default on a processor; not where values are quantised, or its scratch space would be large without it."""
    model = lab.model("llama", "F16")
    usual, off, on = (lab.engine(model, flash_attn=flash).fingerprint for flash in (None, False, True))
    assert usual == off != on
    one, other = (lab.engine(model, type_v="q8_0", type_k="q8_0", flash_attn=f).fingerprint for f in (None, True))
    assert one != other
    lib, settings = lab.engine(model)._core.model.lib, Settings(1, 0, True, "f16", "f16", None, 0.0, 0.0)
    loaded = load_model(lib, model, settings)
    assert without_flash(lib, loaded, settings, 1 << 16).flash_attn is False
    assert without_flash(lib, loaded, settings, 1 << 17).flash_attn is None
    lib.llama_model_free(loaded)


def test_adapters_change_answers_and_never_share_state(lab, monkeypatch):
    """One, the other, one at half its strength, both: each has its fingerprint and its logits; growing keeps them."""
    monkeypatch.setattr("llmcrdt.engine.llama.opening._FIRST_CTX", 512)
    model, ids = lab.model("llama", "F32"), lab.tokens(150)
    one, two = (write_adapter(lab.folder / f"{i}.gguf", seed=i) for i in range(2))
    ways = [(), (one,), ((one, 0.5),), (two,), (one, two)]
    logits, prints = [], []
    for lora in ways:
        engine = lab.engine(model, lora=lora)
        assert engine.plan(ids).reused == 0
        logits.append(engine.logits(ids).result())
        prints.append(engine.fingerprint)
        grown = lab.engine(model, NullCache(), lora=lora)
        small = grown._core.model.context.pointer
        grown.logits(lab.tokens(1900, 3)).result()
        assert grown._core.model.context.pointer != small
        assert (grown.logits(ids).result() == logits[-1]).all()
        engine.settled()
    assert len(set(prints)) == len(ways)
    assert all((a != b).any() for a, b in itertools.combinations(logits, 2))
    warm = lab.engine(model, lora=(one,))
    assert warm.plan(ids).reused == 128
    assert (warm.logits(ids).result() == logits[1]).all()


def test_a_file_that_is_no_adapter_is_refused(lab):
    model = lab.model("llama", "F32")
    with pytest.raises(NotAModel):
        lab.engine(model, lora=(lab.model("mamba2", "F16"),))
    with pytest.raises(NotAModel):
        lab.engine(model, lora=(lab.folder / "none.gguf",))


HOT = {"temperature": 5.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}, {"temperature": 1e-4}], ids=str)
def test_each_cut_alone_leaves_the_likeliest(lab, narrow):
    """However hot: what is cut away is never drawn. Without the cut, other tokens are."""
    engine, ids = lab.endless(lab.engine()), lab.tokens(50)
    greedy = lab.run(engine, ids, 20).tokens
    assert lab.run(engine, ids, 20, seed=1, **HOT).tokens != greedy
    assert lab.run(engine, ids, 20, seed=1, **(HOT | narrow)).tokens == greedy


@pytest.mark.parametrize("cut", [{"top_k": 3}, {"min_p": 0.5}, {"top_p": 0.6}], ids=str)
def test_what_is_drawn_is_within_the_cut(lab, cut):
    """By the model's own probabilities, reported beside each token."""
    engine, ids = lab.endless(lab.engine()), lab.tokens(50)
    outcome = lab.run(engine, ids, 60, seed=2, top_logprobs=40, **(HOT | {"temperature": 1.0} | cut))
    drawn = [event for event in outcome.events if isinstance(event, Sampled)]
    ranks = [[token for token, _ in event.top].index(event.token) for event in drawn]
    assert any(ranks), "not only the likeliest is drawn"
    for event, rank in zip(drawn, ranks, strict=True):
        likely = [math.exp(p) for _, p in event.top]
        if "top_k" in cut:
            assert rank < 3
        elif "min_p" in cut:
            assert likely[rank] >= 0.5 * likely[0] * 0.999
        else:
            assert sum(likely[:rank]) < 0.6 * 1.001


def test_gpu_layers_and_offload_reach_llama_cpp(lab, monkeypatch):
    seen = {}
    lib = lab.engine()._core.model.lib
    load, make = lib.llama_model_load_from_file, lib.llama_init_from_model
    monkeypatch.setattr(
        lib, "llama_model_load_from_file", lambda path, p: seen.update(layers=p.n_gpu_layers) or load(path, p)
    )
    monkeypatch.setattr(lib, "llama_init_from_model", lambda m, p: seen.update(kv=p.offload_kqv) or make(m, p))
    lab.engine(n_gpu_layers=7, offload_kqv=False)
    assert seen == {"layers": 7, "kv": False}
