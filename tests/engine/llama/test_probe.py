"""The probe: what is exact is called exact, what isn't is not, once per model, machine and settings."""

import numpy as np
import pytest

from llmcrdt.engine.llama import probe
from llmcrdt.engine.llama.context import Context
from llmcrdt.engine.llama.engine import LlamaEngine
from llmcrdt.kvcache import MemoryCache


@pytest.fixture(autouse=True)
def _new_process(monkeypatch):
    monkeypatch.setattr(probe, "_here", {})


@pytest.mark.parametrize("arch", ["llama", "gemma3", "mamba2", "lfm2"])
@pytest.mark.parametrize("settings", [{}, {"type_k": "q8_0", "flash_attn": True}, {"chunk": 128}])
def test_models_are_exact_here(lab, arch, settings):
    if arch == "gemma3" and "chunk" in settings:
        settings = {}
    engine = lab.engine(lab.model(arch, "Q8_0"), **settings)
    assert engine.settled(60)
    assert engine.exactness == engine.stats()["exactness"] == "exact"
    assert engine.stats()["settled_tokens"] == 0, "it counts for nothing"
    (note,) = (lab.folder / "cache" / "exactness").iterdir()
    assert (note.name, note.read_text()) == (engine.fingerprint.hex(), "exact\n")
    assert note.stat().st_mode & 0o777 == 0o600


def _off(answer):
    return np.nextafter(answer, np.float32(1000))


def _break(monkeypatch, how):
    """A llama.cpp whose answers depend on what came before: ever so little."""
    real, calls = Context.logits, []

    def logits(context):
        calls.append(context)
        return _off(real(context)) if len(calls) == how else real(context)

    if isinstance(how, int):
        monkeypatch.setattr(Context, "logits", logits)
    else:
        load = getattr(Context, how)
        monkeypatch.setattr(Context, how, lambda *args: load(*args) and False)


@pytest.mark.parametrize(
    ("arch", "how"),
    [
        *(("llama", how) for how in (2, 3, 4, "load")),
        ("gemma3", 3),
        *(("mamba2", how) for how in (2, 3, "load_state")),
        *(("lfm2", how) for how in (2, 3, "load", "load_state")),
    ],
)
def test_what_differs_by_one_bit_is_approximate(lab, monkeypatch, caplog, arch, how):
    _break(monkeypatch, how)
    engine = lab.engine(lab.model(arch, "F16"))
    assert engine.settled(60)
    assert engine.exactness == "approximate"
    assert "not exact" in caplog.text


def test_it_is_tried_once(lab, monkeypatch):
    tried, real = [], probe.probe
    monkeypatch.setattr("llmcrdt.engine.llama.probe.probe", lambda *args: tried.append(1) or real(*args))

    def opened(**settings):
        engine = lab.engine(lab.model("llama", "F16"), **settings)
        assert engine.settled(60)
        assert engine.exactness == "exact"
        return len(tried)

    assert [opened(), opened(), opened(type_k="q8_0"), opened()] == [1, 1, 2, 2]
    probe._here.clear()  # as another process
    assert opened() == 2
    for note in (lab.folder / "cache" / "exactness").iterdir():
        note.write_text("nonsense")
    probe._here.clear()
    assert opened() == 3


def test_it_leaves_what_is_live_and_what_is_stored(lab):
    cache, ids = MemoryCache(), lab.tokens(300)
    engine = lab.engine(lab.model("llama", "F16"), cache)
    engine.logits(ids).result()
    assert engine.settled(60)
    assert engine.exactness == "exact"
    assert engine.plan(ids).live == 256
    assert cache.stats()["chunks"] == 4


def test_closing_ends_it(lab):
    for _ in range(5):
        probe._here.clear()
        LlamaEngine(lab.model("lfm2", "F16"), MemoryCache(), n_threads=1).close()
