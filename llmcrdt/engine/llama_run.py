"""One generation, and the chain of samplers that chooses its tokens."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

from .engine import Event, Sampling


class LlamaRun:
    """One queued or running generation. ``stop`` is called once it is running and shall end."""

    def __init__(
        self,
        ids: tuple[int, ...],
        max_tokens: int,
        sampling: Sampling,
        on_event: Callable[[Event], None],
        owner: str = "",
    ) -> None:
        self.owner = owner
        self.ids, self.max_tokens, self.sampling, self.on_event = ids, max_tokens, sampling, on_event
        self.seed = sampling.seed if sampling.seed is not None else int.from_bytes(os.urandom(4), "little")
        self.tokens: list[int] = []
        self.deaf = False  # its listener failed: nothing more is reported
        self._lock = threading.Lock()
        self._cancelled = False
        self._stop: Callable[[], None] | None = None

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def cancel(self) -> None:
        """Ask it to stop, in a prefill too. Returns at once; ``Finished("cancelled")`` follows."""
        with self._lock:
            self._cancelled = True
            if self._stop is not None:
                self._stop()

    def running(self, stop: Callable[[], None] | None) -> None:
        """The engine works on it from now on, and is told to ``stop`` by it; None: no longer."""
        with self._lock:
            self._stop = stop
            if stop is not None and self._cancelled:
                stop()


class Sampler:
    """llama.cpp's chain: penalties, top-k, top-p, min-p, temperature, a draw; or the likeliest at temperature 0."""

    def __init__(self, lib: Any, sampling: Sampling, seed: int, prompt: Sequence[int], n_vocab: int) -> None:
        self._lib = lib
        self._chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        s = sampling
        links: list[Any] = []
        if s.repeat_penalty != 1.0 and s.repeat_last_n:
            links.append(lib.llama_sampler_init_penalties(n_vocab, s.repeat_last_n, s.repeat_penalty, 0.0, 0.0))
        if s.temperature <= 0:
            links.append(lib.llama_sampler_init_greedy())
        else:
            links.append(lib.llama_sampler_init_top_k(s.top_k))
            links.append(lib.llama_sampler_init_top_p(s.top_p, 1))
            links.append(lib.llama_sampler_init_min_p(s.min_p, 1))
            links.append(lib.llama_sampler_init_temp(s.temperature))
            links.append(lib.llama_sampler_init_dist(seed & 0xFFFFFFFF))
        for link in links:
            lib.llama_sampler_chain_add(self._chain, link)
        if s.repeat_penalty != 1.0 and s.repeat_last_n > 0:
            for token in prompt[-s.repeat_last_n :]:
                lib.llama_sampler_accept(self._chain, token)

    def next(self, context: Any) -> int:
        """Draw from the logits of the last evaluated token, and remember what was drawn."""
        return int(self._lib.llama_sampler_sample(self._chain, context, -1))

    def close(self) -> None:
        if self._chain is not None:
            self._lib.llama_sampler_free(self._chain)
            self._chain = None
