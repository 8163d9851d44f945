"""Tiny models, made once, and short ways to use an engine."""

import random
import threading
from pathlib import Path

import pytest

from llmcrdt.engine.base import Failed, Finished, Sampling, Started
from llmcrdt.engine.llama.engine import LlamaEngine
from llmcrdt.kvcache import NullCache
from llmcrdt.testing.models import write_model


class Lab:
    """Makes models and engines (one thread each: llama.cpp waits busily), and closes what it made."""

    def __init__(self, folder: Path, models: dict):
        self.folder, self._models, self._engines = folder, models, []

    def model(self, arch="llama", quant="F32", **options) -> Path:
        name = "-".join(map(str, (arch, quant, *options.items()))).replace("'", "")
        if name not in self._models:
            path = self._models["folder"] / f"{len(self._models)}.gguf"
            self._models[name] = write_model(path, arch, quant=quant, **options)
        return self._models[name]

    def engine(self, model: Path | None = None, cache=None, **options) -> LlamaEngine:
        cache = cache if cache is not None else self.folder / "cache"
        engine = LlamaEngine(model or self.model(), cache, n_threads=1, **options)
        self._engines.append(engine)
        assert engine.settled(60), "the weights are hashed"
        return engine

    def endless(self, engine: LlamaEngine) -> LlamaEngine:
        """An engine whose model never ends its turn."""
        engine.tokenizer.is_end = lambda token: False
        return engine

    def cold(self, model: Path | None = None, **options) -> "Cold":
        return Cold(self.engine(model, NullCache(), **options))

    def close(self) -> None:
        for engine in self._engines:
            engine.close()


class Cold:
    """The words of an engine that keeps nothing: before each question its context is emptied by another prompt."""

    def __init__(self, engine: LlamaEngine):
        self._engine = engine

    def logits(self, ids):
        self._forget()
        return self._engine.logits(ids).result()

    def generate(self, ids, n, **options):
        self._forget()
        return run(self._engine, ids, n, **options)

    def _forget(self):
        self._engine.settled()
        self._engine.logits([0, 0]).result()
        assert self._engine.plan([5] * 100).reused == 0


class Outcome:
    """The events of one run."""

    def __init__(self):
        self.events, self.done = [], threading.Event()

    def __call__(self, event):
        self.events.append(event)
        if isinstance(event, (Finished, Failed)):
            self.done.set()

    @property
    def started(self) -> Started:
        return next(event for event in self.events if isinstance(event, Started))

    @property
    def last(self):
        return self.events[-1]

    @property
    def tokens(self) -> list:
        return list(self.last.tokens)


def run(engine, ids, n, **sampling) -> Outcome:
    """Generate and wait. Greedy unless told otherwise."""
    outcome = Outcome()
    engine.start(ids, max_tokens=n, sampling=Sampling(**{"temperature": 0.0, **sampling}), on_event=outcome)
    assert outcome.done.wait(60), "the engine does not answer"
    return outcome


def tokens(n, seed=0) -> list:
    """Token ids that no model samples an end from."""
    rng = random.Random(seed)
    return [rng.randrange(261, 780) for _ in range(n)]


@pytest.fixture(scope="session")
def _models(tmp_path_factory):
    return {"folder": tmp_path_factory.mktemp("models")}


@pytest.fixture
def lab(tmp_path, _models):
    lab = Lab(tmp_path, _models)
    lab.run, lab.tokens, lab.Outcome, lab.Sampling = run, tokens, Outcome, Sampling
    yield lab
    lab.close()
