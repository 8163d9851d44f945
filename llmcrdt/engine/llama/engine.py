"""Engine over llama-cpp-python, by its low-level interface.

One thread owns the context. Its results are exact: the logits that a prompt ends with are the same bits, whether
its KV state was live, restored from disk, or computed from nothing (one machine, one build, one set of settings).
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from ...exceptions import EngineError
from ...kvcache import ChunkCache, Peer
from ..base import Event, Missing, Mode, Reuse, Sampling
from .core import EngineCore
from .library import grammar
from .model import Settings
from .opening import EngineOptions
from .probe import Exactness
from .run import LlamaRun
from .tokenizer import LlamaTokenizer

_MOST_SLOTS = 64


class LlamaEngine:
    """A model file as an Engine.

    ``cache``: None for the user's cache directory, a path, or a ChunkCache (``NullCache()`` to keep nothing beyond the
    live context). ``cache_memory`` and ``cache_disk`` are budgets in bytes where the engine makes the cache.
    ``n_threads`` None leaves one core to the rest of the program: llama.cpp waits busily, and crawls where it shares.
    ``n_ctx`` is in tokens; None starts small and grows up to what the model was trained for. ``flash_attn`` None
    leaves it off where that is faster, else to llama.cpp. Rope values of 0 are the model's own. ``chunk``: tokens per
    cached chunk, a multiple of 64. ``lora``: adapter files, or pairs of file and scale. ``mode``: "exact", or "fast":
    the state of sampled tokens is kept as it is, nothing is settled or stored, and what was live shows in the bits.
    ``slots``: so many runs are served at once, each with the bits that it has alone (docs/kv.md); each takes memory for
    a context of its own once more than one is under way. ``peers``: other processes that hand over state of this model,
    which is fetched where that takes less time than evaluating (``llmcrdt.kvcache.HttpPeer``, one for each
    engine; exact mode alone).

    Engines on one cache folder in one process share its memory tier. A model file is hashed in the background the first
    time it is seen (about a second per 1.5 GB); until then chunks stay in memory (``stats()["weights"]``).

    A closed engine raises EngineClosed, but forgets, and says what it was. Dropped without ``close``, it ends once its
    runs and what they left to settle are done. The constructor has a parameter for each setting that people need.

    Raises EngineMissing, NotAModel, or EngineError for settings that llama.cpp refuses.
    """

    def __init__(
        self,
        model_path: str | os.PathLike[str],
        cache: ChunkCache | str | os.PathLike[str] | None = None,
        n_ctx: int | None = None,
        cache_memory: int = 1 << 30,
        cache_disk: int = 8 << 30,
        *,
        n_threads: int | None = None,
        n_gpu_layers: int = 0,
        offload_kqv: bool = True,
        type_k: str = "f16",
        type_v: str = "f16",
        flash_attn: bool | None = None,
        rope_freq_base: float = 0.0,
        rope_freq_scale: float = 0.0,
        chunk: int | None = None,
        lora: Sequence[str | os.PathLike[str] | tuple[str | os.PathLike[str], float]] = (),
        mode: Mode = "exact",
        slots: int = 1,
        peers: Sequence[Peer] = (),
    ) -> None:
        if slots < 1 or (slots > 1 and mode == "fast") or slots > _MOST_SLOTS:
            raise EngineError(
                f"{slots} slots can't be had{' in fast mode' if mode == 'fast' else ''}.",
                hint=f"In exact mode there are 1 to {_MOST_SLOTS}, in fast mode one: state stays in the one context.",
            )
        if mode not in ("exact", "fast"):
            raise EngineError(f"{mode!r} is not a mode.", hint='It is "exact" or "fast".')
        settings = Settings(
            n_threads or max(1, (os.cpu_count() or 2) - 1),
            n_gpu_layers, offload_kqv, type_k, type_v, flash_attn, rope_freq_base, rope_freq_scale,
            tuple((Path(item[0]), float(item[1])) if isinstance(item, tuple) else (Path(item), 1.0) for item in lora),
        )  # fmt: skip
        self._core = EngineCore(
            EngineOptions(
                Path(model_path), settings, mode, n_ctx, chunk, cache, cache_memory, cache_disk, slots, tuple(peers)
            )
        )
        self._core.engine = weakref.ref(self)

    @property
    def name(self) -> str:
        return self._core.model.name

    @property
    def tokenizer(self) -> LlamaTokenizer:
        return self._core.model.tokenizer

    @property
    def n_ctx(self) -> int:
        return self._core.model.n_ctx

    @property
    def chunk(self) -> int:
        """Tokens per cached chunk; 1 in fast mode, which reuses what is there to the token."""
        return self._core.model.chunk if self.mode == "exact" else 1

    @property
    def mode(self) -> Mode:
        return self._core.model.mode

    @property
    def cache_folder(self) -> Path | None:
        """The folder of chunks and notes, for ``llmcrdt.kvcache.forget_owner``; None if nothing is kept on disk."""
        return self._core.model.cache_folder

    @property
    def fingerprint(self) -> bytes:
        """32 bytes that differ whenever the KV state of the same tokens could. Waits until the weights are hashed."""
        if not self._core.closed:
            self._core.model.provenance.wait()
        return self._core.model.provenance.fingerprint

    @property
    def exactness(self) -> Exactness:
        """Whether state of this model that was restored, cut or evaluated in other batches was the same bits here, with
        these settings: "exact", "approximate" (it was not), or "unknown" (not tried yet; ``settled`` waits for it)."""
        return self._core.model.exactness.value

    def plan(self, ids: Sequence[int]) -> Reuse:
        planned = self._core.model.state.plan(self._core.checked(ids, room=0))
        return replace(planned, seconds=self._core.serving.speed.estimate(planned))

    def missing(self, ids: Sequence[int], owner: str = "") -> Missing:
        prompt, model = self._core.checked(ids, room=0), self._core.model
        reused = model.state.plan(prompt).reused
        if self._core.settling.is_unsettled(prompt, reused + model.chunk, owner):
            return "not exact"
        first = prompt[: model.chunk]
        return "fingerprint" if not reused and model.provenance.named_otherwise(owner, first) else "evicted"

    def start(
        self,
        ids: Sequence[int],
        *,
        max_tokens: int,
        sampling: Sampling,
        on_event: Callable[[Event], None],
        owner: str = "",
        marks: Sequence[int] = (),
    ) -> LlamaRun:
        prompt = _not_empty(self._core.checked(ids, room=1))
        run = LlamaRun(prompt, max_tokens, sampling, on_event, owner, tuple(marks))
        run.grammar = grammar(sampling)
        self._core.start(run)
        return run

    def logits(self, ids: Sequence[int]) -> Future[Any]:
        return self._core.logits(_not_empty(self._core.checked(ids, room=0)))

    def prefetch(self, ids: Sequence[int], owner: str = "", marks: Sequence[int] = ()) -> None:
        self._core.prefetch(self._core.checked(ids, room=0), owner, tuple(marks))

    warm = prefetch
    """The older name of ``prefetch``."""

    def pin(self, ids: Sequence[int], owner: str, marks: Sequence[int] = ()) -> None:
        prompt = self._core.checked(ids, room=0)
        if not self._core.pin(prompt, owner):
            raise EngineError("The cache keeps nothing.", hint="Open the engine with a cache, in a folder with room.")
        self._core.settle(prompt, owner, tuple(marks))

    def unpin(self, owner: str) -> None:
        self._core.model.provenance.cache.pins.drop(owner)

    def settled(self, timeout: float | None = None) -> bool:
        """Wait until the weights are hashed, nothing is queued or being settled, and what was stored is on disk."""
        deadline = None if timeout is None else time.monotonic() + timeout

        def left() -> float | None:
            return None if deadline is None else max(0.0, deadline - time.monotonic())

        model = self._core.model
        known = self._core.closed or model.provenance.wait(left())
        return known and model.worker.idle(left()) and model.provenance.flush(left())

    def forget(self, owner: str) -> Future[int]:
        """As the protocol says. Of a closed engine, what is on disk is forgotten all the same."""
        return self._core.forget(owner)

    def stats(self) -> dict[str, Any]:
        model = self._core.model
        kind = "chunks" if self.mode == "exact" else "sequences"
        return {
            **model.context.counters,
            "mode": self.mode,
            **{f"{kind}_{name}": value for name, value in model.state.counters.items()},
            **self._core.serving.totals,
            "exactness": self.exactness,
            "weights": model.weights.stats(),
            "cache": model.provenance.stats(),
            "peers": model.peers.stats() if model.peers is not None else {},
        }

    def close(self) -> None:
        if self._core.begin_close():
            self._core.await_end()

    def reopen(self) -> None:
        """Open it again after ``close``, with the settings it was made with; harmless where it is open.

        Counters begin anew. Raises what opening raises, and EngineError on the engine's own thread.
        """
        self._core.reopen()

    def __enter__(self) -> LlamaEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _not_empty(prompt: tuple[int, ...]) -> tuple[int, ...]:
    if not prompt:
        raise EngineError("The prompt holds no tokens.", hint="Send at least one token.")
    return prompt
