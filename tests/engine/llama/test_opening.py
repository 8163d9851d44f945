"""Opening, closing, opening again: weights hashed in the background, one cache for many engines, no chunk lost."""

import os
import shutil
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from llmcrdt.engine.llama import fingerprint
from llmcrdt.engine.llama.engine import LlamaEngine
from llmcrdt.exceptions import EngineClosed, EngineError
from llmcrdt.kvcache import NullCache, chunk_keys, state_key
from llmcrdt.kvcache.sharing import open_shared


@contextmanager
def slow_hashing(monkeypatch):
    """Hashing waits for what this yields."""
    gate, real = threading.Event(), fingerprint.HeldFile.sha256
    monkeypatch.setattr(fingerprint, "_known_here", {})
    monkeypatch.setattr(fingerprint.HeldFile, "sha256", lambda file, *on: gate.wait(60) and real(file, *on))
    yield gate
    gate.set()


def files(lab, folder="cache"):
    return sorted(path.name for path in (lab.folder / folder / "chunks").glob("*.kv"))


@pytest.mark.parametrize("arch", ["llama", "mamba2"])
def test_opening_does_not_wait_for_the_weights_and_what_was_computed_meanwhile_is_kept(lab, monkeypatch, arch):
    model, ids, more = lab.model(arch, "F16"), lab.tokens(300), lab.tokens(200, 2)
    with slow_hashing(monkeypatch) as gate, LlamaEngine(model, lab.folder / "cache", n_threads=1) as engine:
        truth = engine.logits(ids).result(60)
        engine.logits(more).result(60)
        assert engine.stats()["weights"]["state"] == "hashing"
        assert engine.plan(ids).reused == engine.plan(ids).memory == 256, "memory serves meanwhile"
        assert not engine.settled(0.01)
        assert files(lab) == []
        gate.set()
        assert engine.settled(60)
        stats = engine.stats()["weights"]
        assert (stats["state"], stats["hashed_bytes"]) == ("known", stats["total_bytes"])
        assert engine.plan(ids).memory == 256
        keys = [chunk_keys(engine.fingerprint, each, 64) for each in (ids, more)]
        stored = [key for each in keys for key in (each if arch == "llama" else [state_key(each[-1])])]
        assert files(lab) == sorted(f"{key.hex()}.kv" for key in stored)
        before = engine.stats()["prompt_tokens"]
        assert np.array_equal(engine.logits(ids).result(60), truth)
        assert engine.stats()["prompt_tokens"] - before == 300 - 256


def test_closing_waits_for_the_weights_where_chunks_wait_for_them(lab, monkeypatch):
    with slow_hashing(monkeypatch) as gate:
        engine = LlamaEngine(lab.model(), lab.folder / "cache", n_threads=1)
        engine.logits(lab.tokens(200)).result(60)
        threading.Timer(0.05, gate.set).start()
        engine.close()
    assert len(files(lab)) == 3


def test_closing_waits_for_no_weights_where_nothing_waits(lab, monkeypatch):
    held = []

    def endless(self, on_bytes):
        held.append(self)
        while True:
            on_bytes(1)

    monkeypatch.setattr(fingerprint, "_known_here", {})
    monkeypatch.setattr(fingerprint.HeldFile, "sha256", endless)
    LlamaEngine(lab.model(), lab.folder / "cache", n_threads=1).close()
    assert held and not any(file.unchanged() for file in held), "they are closed"


def test_what_is_forgotten_while_the_weights_are_hashed_is_never_written(lab, monkeypatch):
    with slow_hashing(monkeypatch) as gate, LlamaEngine(lab.model(), lab.folder / "cache", n_threads=1) as engine:
        outcome = lab.Outcome()
        ids = lab.tokens(200)
        engine.start(ids, max_tokens=1, sampling=lab.Sampling(), on_event=outcome, owner="me")
        assert outcome.done.wait(60)
        assert engine._core.model.worker.idle(60)
        assert engine.plan(ids).memory + engine.plan(ids).live == 192
        assert engine.forget("me").result(60) >= 3
        gate.set()
        assert engine.settled(60)
        assert engine.plan(ids).reused == 0
    assert files(lab) == []


def test_owners_move_along_with_their_chunks(lab, monkeypatch):
    with slow_hashing(monkeypatch) as gate, LlamaEngine(lab.model(), lab.folder / "cache", n_threads=1) as engine:
        outcome = lab.Outcome()
        engine.start(lab.tokens(200), max_tokens=1, sampling=lab.Sampling(), on_event=outcome, owner="me")
        assert outcome.done.wait(60)
        gate.set()
        assert engine.settled(60)
        assert len(files(lab)) == 3
        engine.forget("me").result(60)
    assert files(lab) == []


@pytest.mark.parametrize("when", ["while it is hashed", "later"])
def test_weights_that_are_written_to_under_an_engine_void_what_it_knew(lab, monkeypatch, when):
    """The file is mapped, so the engine computes with other weights from then on."""
    path, ids = lab.folder / "model.gguf", lab.tokens(300)
    shutil.copy(lab.model(), path)
    with slow_hashing(monkeypatch) as gate:
        if when == "later":
            gate.set()
        engine = LlamaEngine(path, lab.folder / "cache", n_threads=1)
        engine.logits(ids).result(60)
        if when == "later":
            assert engine.settled(60)
        before, known = files(lab), engine._core.model.provenance.fingerprint
        with open(path, "r+b") as file:  # the embedding of every token
            file.seek(-200_000, os.SEEK_END)
            tail = file.read()
            file.seek(-200_000, os.SEEK_END)
            file.write(tail[::-1])
        gate.set()
        engine.logits(lab.tokens(200, 3)).result(60)
        assert engine.settled(60)
        assert engine.stats()["weights"]["state"] == "changed"
        assert engine._core.model.provenance.fingerprint != known
        assert files(lab) == before, "nothing more is stored"
        assert engine.plan(ids).reused == 0
        engine.close()
    fresh = lab.engine(path)
    assert fresh.stats()["weights"]["state"] == "known"
    assert fresh.plan(ids).reused == 0, "another file under the same path"


def test_a_model_replaced_at_its_path_is_not_hashed_in_place_of_the_loaded_one(lab, monkeypatch):
    """An engine holds what it loaded; who opens the path later gets the new file, with a name of its own."""
    path, ids = lab.folder / "model.gguf", lab.tokens(300)
    shutil.copy(lab.model(), path)
    with slow_hashing(monkeypatch) as gate:
        engine = LlamaEngine(path, lab.folder / "cache", n_threads=1)
        engine.logits(ids).result(60)
        shutil.copy(lab.model(seed=1), lab.folder / "new.gguf")
        os.replace(lab.folder / "new.gguf", path)
        gate.set()
        assert engine.settled(60)
        engine.close()
    with lab.engine(path) as fresh:
        assert fresh.plan(ids).reused == 0
        assert np.array_equal(fresh.logits(ids).result(60), lab.cold(lab.model(seed=1)).logits(ids))


@pytest.mark.parametrize("arch", ["llama", "gemma3", "mamba2", "lfm2"])
def test_an_engine_is_opened_again_and_no_chunk_is_lost(lab, arch):
    engine = lab.engine(lab.model(arch, "F16"))
    ids = lab.tokens(150, 1)
    ids += lab.run(engine, ids, 30).tokens
    truth = engine.logits(ids).result()
    assert engine.settled(60)
    for _ in range(2):
        engine.close()
        with pytest.raises(EngineClosed):
            engine.plan(ids)
        engine.reopen()
        engine.reopen()
        plan = engine.plan(ids)
        assert plan.reused == plan.disk == 64 * ((len(ids) - 2) // 64)
        assert lab.run(engine, ids, 1).started.reuse == plan
        assert np.array_equal(engine.logits(ids).result(), truth)


def test_no_chunk_is_lost_by_closing_in_a_hurry(lab):
    """Not settled, not flushed: what was evaluated canonically is on disk when close returns."""
    engine = lab.engine()
    ids = lab.tokens(500)
    engine.logits(ids).result()
    engine.close()
    engine.reopen()
    assert engine.plan(ids).disk == 448


def test_a_listener_can_t_reopen_its_engine(lab):
    engine, said = lab.engine(), []
    done = threading.Event()

    def listen(event):
        engine.close()
        try:
            engine.reopen()
        except EngineError as error:
            said.append(error)
        done.set()

    engine.start(lab.tokens(10), max_tokens=1, sampling=lab.Sampling(), on_event=listen)
    assert done.wait(60)
    assert "listener" in str(said[0])
    engine.reopen()
    assert engine.plan(lab.tokens(10)).total == 10


def test_many_threads_open_close_and_ask(lab):
    """Each caller gets the right answer, or hears that the engine is closed."""
    engine = lab.engine()
    prompts = [lab.tokens(90 + 40 * n, n) for n in range(4)]
    truths = [engine.logits(ids).result() for ids in prompts]
    wrong, answers = [], []

    def ask(n):
        for _ in range(15):
            try:
                if not np.array_equal(engine.logits(prompts[n]).result(60), truths[n]):
                    wrong.append(n)
                answers.append(n)
            except EngineClosed:
                engine.reopen()

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        engine.close()
        engine.reopen()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
    assert answers
    engine.reopen()
    assert np.array_equal(engine.logits(prompts[0]).result(60), truths[0])


def test_engines_on_one_folder_share_one_cache_and_one_budget(lab):
    model = lab.model("llama", "F16")
    one, other = lab.engine(model), lab.engine(model)
    ids = lab.tokens(300)
    truth = one.logits(ids).result()
    assert other.plan(ids).memory == 256, "before anything is on disk"
    assert np.array_equal(other.logits(ids).result(), truth)
    assert one.settled(60)
    assert one.stats()["cache"] == other.stats()["cache"]
    one.close()
    assert other.plan(ids).live == 256
    other.logits(lab.tokens(50, 3)).result()
    assert other.plan(ids).memory == 256, "the first to close takes nothing along"
    other.close()
    assert lab.engine(model).plan(ids).disk == 256


def test_the_largest_budget_of_those_open_counts(lab, tmp_path):
    small, give_small = open_shared(tmp_path / "kv", 100, 1000)
    large, give_large = open_shared(tmp_path / "kv", 300, 3000)
    assert small is large
    assert (small.stats()["memory_budget_bytes"], small.stats()["disk_budget_bytes"]) == (300, 3000)
    give_large()
    assert (small.stats()["memory_budget_bytes"], small.stats()["disk_budget_bytes"]) == (100, 1000)
    give_small()
    give_small()
    again, give_again = open_shared(tmp_path / "kv", 100, 1000)
    assert again is not small
    give_again()


def test_models_that_share_a_folder_share_nothing_else(lab):
    ids = lab.tokens(300)
    engines = [lab.engine(lab.model(arch, "F16")) for arch in ("llama", "qwen2", "mamba2")]
    for engine in engines:
        assert engine.plan(ids).reused == 0
        engine.logits(ids).result()
    for engine, arch in zip(engines, ("llama", "qwen2", "mamba2"), strict=True):
        engine.logits(lab.tokens(20, 9)).result()
        assert engine.plan(ids).memory == 256
        assert np.array_equal(engine.logits(ids).result(), lab.cold(lab.model(arch, "F16")).logits(ids))


def test_prompts_are_served_in_the_order_they_came(lab):
    engine = lab.engine()
    gate, order, done = threading.Event(), [], [lab.Outcome() for _ in range(12)]
    engine._core.model.worker.submit(lambda: gate.wait(60))

    def ask(n):
        def listen(event):
            if not order or order[-1] != n:
                order.append(n)
            done[n](event)

        engine.start(lab.tokens(70, n), max_tokens=3, sampling=lab.Sampling(), on_event=listen)

    for n in range(12):  # from a thread each, one after the other
        thread = threading.Thread(target=ask, args=(n,))
        thread.start()
        thread.join()
    gate.set()
    assert all(outcome.done.wait(60) for outcome in done)
    assert order == list(range(12))


def test_a_cache_that_never_keeps_keeps_nothing_while_weights_are_hashed(lab, monkeypatch):
    with slow_hashing(monkeypatch) as gate, LlamaEngine(lab.model(), NullCache(), n_threads=1) as engine:
        ids = lab.tokens(200)
        engine.logits(ids).result(60)
        engine.logits([5, 6]).result(60)
        assert engine.plan(ids).reused == 0
        gate.set()
