"""``forget``: nothing that was computed for an owner is left, stored or live, whatever the engine was doing."""

import pytest

from llmcrdt.engine.base import Sampling
from llmcrdt.kvcache import MemoryCache
from llmcrdt.kvcache.chunk_hash import chunk_keys, pack_ids

ARCHS = ["llama", "gemma3", "mamba2", "lfm2"]


def say(lab, engine, ids, n, owner):
    outcome = lab.Outcome()
    engine.start(ids, max_tokens=n, sampling=Sampling(temperature=0.0), on_event=outcome, owner=owner)
    assert outcome.done.wait(60)
    return outcome


def spelled(folder, ids, chunk=64) -> list:
    """Files that hold any eight ids in a row, in whatever chunk, or the key of a chunk of them."""
    packed = [pack_ids(ids[i : i + 8]) for i in range(len(ids) - 7)]
    return [f.name for f in folder.rglob("*") if f.is_file() and any(p in f.read_bytes() for p in packed)]


@pytest.mark.parametrize("arch", ARCHS)
def test_no_file_spells_what_was_forgotten_and_it_is_computed_anew(lab, arch):
    model = lab.model(arch, "F16")
    engine = lab.endless(lab.engine(model))
    head, mine, yours = lab.tokens(70, 1), lab.tokens(200, 2), lab.tokens(200, 3)
    said = say(lab, engine, head + mine, 80, "me")
    say(lab, engine, lab.tokens(200, 4), 4, "you")
    assert engine.settled(60)
    everything = head + mine + said.tokens
    assert spelled(lab.folder / "cache", everything)
    assert engine.plan(everything).reused > 192
    states = engine.stats()["cache"]["disk_states"] - (arch in ("mamba2", "lfm2"))  # the other one's is at its 192
    assert engine.forget("me").result(60) == len(everything) // 64 + states
    assert spelled(lab.folder / "cache", everything) == []
    assert not any(
        key.hex() in f.read_text()
        for key in chunk_keys(engine.fingerprint, everything, 64)
        for f in (lab.folder / "cache").rglob("*.own")
    )
    assert engine.plan(everything).reused == 0
    assert engine.plan(lab.tokens(200, 4)).reused == 192, "others keep theirs"
    assert say(lab, engine, head + mine, 80, "me").tokens == said.tokens
    assert yours


def test_another_models_chunks_go_as_well(lab):
    ids = lab.tokens(200)
    for arch in ("llama", "qwen2"):
        engine = lab.engine(lab.model(arch, "F16"))
        say(lab, engine, ids, 2, "me")
        engine.close()
    lab.engine(lab.model("llama", "F16")).forget("me").result(60)
    assert spelled(lab.folder / "cache", ids) == []


def test_what_runs_and_what_waits_to_be_settled_is_not_stored_afterwards(lab):
    engine = lab.endless(lab.engine(lab.model("llama", "F16")))
    ids = lab.tokens(200)
    outcomes = []
    for i in range(3):
        outcome = lab.Outcome()
        engine.start(ids + lab.tokens(40, i), max_tokens=150, sampling=Sampling(seed=i), on_event=outcome, owner="me")
        outcomes.append(outcome)
    future = engine.forget("me")
    for outcome in outcomes:
        assert outcome.done.wait(60)
    future.result(60)
    assert engine.settled(60)
    assert spelled(lab.folder / "cache", ids) == []
    for i, outcome in enumerate(outcomes):
        assert spelled(lab.folder / "cache", lab.tokens(40, i) + outcome.tokens) == []
    assert engine.plan(ids).reused == 0


def test_a_closed_engine_forgets_what_is_on_disk(lab):
    engine = lab.engine(lab.model("llama", "F16"))
    ids = lab.tokens(200)
    say(lab, engine, ids, 2, "me")
    engine.close()
    assert engine.cache_folder == lab.folder / "cache"
    assert engine.forget("me").result(60) == 3
    assert spelled(lab.folder / "cache", ids) == []


def test_what_cant_be_noted_is_not_stored(lab, monkeypatch):
    cache = MemoryCache()
    monkeypatch.setattr(cache.owners, "claim", lambda owner, keys: False)
    engine = lab.engine(lab.model("llama", "F16"), cache)
    ids = lab.tokens(200)
    say(lab, engine, ids, 4, "me")
    assert engine.settled(60)
    assert cache.stats()["chunks"] == 0
    say(lab, engine, lab.tokens(200, 9), 4, "")
    assert engine.settled(60)
    assert cache.stats()["chunks"] == 3, "what is nobody's needs no note"
