"""Chooses the next token: llama.cpp's chain of samplers, and how likely the choice was.

The order is: bias, penalties, grammar, top-k, top-p, min-p, temperature, a draw; or the likeliest at temperature 0.
``lib`` is the low-level llama-cpp-python module.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

from ...exceptions import EngineError
from ..base import Sampled, Sampling

_ROOT = b"root"


class Sampler:
    """One chain, for one run. Raises EngineError for a grammar that llama.cpp can't read, or a bias that is no number.

    After ``prompt``, whose last tokens count for the penalties. Not shared between threads; ``close`` it.
    """

    def __init__(
        self, lib: Any, vocab: Any, sampling: Sampling, seed: int, prompt: Sequence[int], grammar: str = ""
    ) -> None:
        self._lib, self._top = lib, sampling.top_logprobs
        self._n = int(lib.llama_vocab_n_tokens(vocab))
        self._guided = bool(grammar)
        self._chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        try:
            for link in self._links(vocab, sampling, seed, prompt, grammar):
                lib.llama_sampler_chain_add(self._chain, link)
        except BaseException:
            self.close()
            raise

    def _links(self, vocab: Any, s: Sampling, seed: int, prompt: Sequence[int], grammar: str) -> Any:
        lib = self._lib
        if s.logit_bias:
            pairs = [(token, float(bias)) for token, bias in s.logit_bias.items()]
            if any(not 0 <= token < self._n or math.isnan(bias) for token, bias in pairs):
                raise EngineError("A logit bias needs token ids of this model, and numbers.")
            biases = (lib.llama_logit_bias * len(pairs))(*(lib.llama_logit_bias(*pair) for pair in pairs))
            yield lib.llama_sampler_init_logit_bias(self._n, len(pairs), biases)
        penalties = (s.repeat_penalty, s.frequency_penalty, s.presence_penalty)
        if penalties != (1.0, 0.0, 0.0) and s.repeat_last_n > 0:
            link = lib.llama_sampler_init_penalties(self._n, s.repeat_last_n, *penalties)
            for token in prompt[-s.repeat_last_n :]:
                lib.llama_sampler_accept(link, token)
            yield link
        if grammar:
            link = lib.llama_sampler_init_grammar(vocab, grammar.encode(), _ROOT)
            if not link:
                raise EngineError("llama.cpp can't read this grammar.", hint="It is GBNF, and its first rule is root.")
            yield link
        if s.temperature <= 0:
            yield lib.llama_sampler_init_greedy()
            return
        yield lib.llama_sampler_init_top_k(s.top_k)
        yield lib.llama_sampler_init_top_p(s.top_p, 1)
        yield lib.llama_sampler_init_min_p(s.min_p, 1)
        yield lib.llama_sampler_init_temp(s.temperature)
        yield lib.llama_sampler_init_dist(seed & 0xFFFFFFFF)

    def next(self, context: Any, row: int = -1) -> Sampled | None:
        """Draw from the logits of the last evaluated token (or that of a row), and remember what was drawn. None where
        the grammar lets nothing follow, not even an end."""
        if not self._guided:
            token = int(self._lib.llama_sampler_sample(self._chain, context, row))
            return Sampled(token, *self._likelihood(context, row, token)) if self._top else Sampled(token)
        token = self._guided_choice(context, row)
        if token < 0:
            return None
        self._lib.llama_sampler_accept(self._chain, token)
        return Sampled(token, *self._likelihood(context, row, token)) if self._top else Sampled(token)

    def close(self) -> None:
        if self._chain is not None:
            self._lib.llama_sampler_free(self._chain)
            self._chain = None

    def _guided_choice(self, context: Any, row: int) -> int:
        """The token that the chain would draw, or -1. To accept a token that the grammar forbids ends the process."""
        import numpy as np

        lib = self._lib
        table = np.zeros(self._n, dtype=[("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])
        table["id"] = np.arange(self._n)
        table["logit"] = _logits(lib, context, row, self._n)
        first = ctypes.cast(table.ctypes.data, ctypes.POINTER(lib.llama_token_data))
        candidates = lib.llama_token_data_array(first, self._n, -1, False)
        lib.llama_sampler_apply(self._chain, ctypes.byref(candidates))
        if candidates.selected < 0:
            return -1
        chosen = candidates.data[candidates.selected]
        return int(chosen.id) if math.isfinite(chosen.logit) else -1

    def _likelihood(self, context: Any, row: int, token: int) -> tuple[float, tuple[tuple[int, float], ...]]:
        """Log probability of ``token``, and the likeliest ones: the model's own, before bias, grammar, temperature."""
        import numpy as np

        logits = _logits(self._lib, context, row, self._n).astype(np.float64)
        logs = logits - (logits.max() + np.log(np.exp(logits - logits.max()).sum()))
        best = np.argsort(-logs, kind="stable")[: self._top]
        return float(logs[token]), tuple((int(i), float(logs[i])) for i in best)


def _logits(lib: Any, context: Any, row: int, n: int) -> Any:
    import numpy as np

    return np.ctypeslib.as_array(lib.llama_get_logits_ith(context, row), shape=(n,))
