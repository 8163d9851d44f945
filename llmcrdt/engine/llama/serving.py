"""Serves runs: prefill, then one token after the other. On the engine's thread, but for what says otherwise."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any, Literal

from ...exceptions import DecodeFailed, EngineClosed, EngineError
from ..base import Event, Failed, Finished, Progress, Started
from ..speed import Speed
from .context import Aborted
from .opening import OpenModel
from .run import LlamaRun
from .sampler import Sampler

_LOG = logging.getLogger("llmcrdt.engine")


class Serving:
    """Computes on an open model what somebody waits for, and counts it. ``speed`` and ``totals``: any thread."""

    def __init__(self, model: OpenModel) -> None:
        self._model = model
        self.speed = Speed()
        self.totals = {"runs": 0, "prefill_seconds": 0.0, "sampling_seconds": 0.0}

    def new_sampler(self, run: LlamaRun) -> Sampler:
        """The sampler that a run asks for; any thread. Raises EngineError where it asks for nonsense."""
        with self._model.tokenizer.vocabulary() as vocab:
            return Sampler(self._model.lib, vocab, run.sampling, run.seed, run.ids, run.grammar)

    def serve(self, run: LlamaRun) -> Event:
        """The whole life of one run. Returns its last event, which is yet to be reported."""
        began = time.perf_counter()
        self.totals["runs"] += 1
        try:
            with self._working(run):
                reason = self._generate(run, began)
            return Finished(reason, tuple(run.tokens), time.perf_counter() - began)
        except Aborted:
            return Finished("cancelled", tuple(run.tokens), time.perf_counter() - began)
        except EngineError as error:
            return Failed(error)
        except Exception as error:
            return Failed(DecodeFailed(f"The engine failed: {error!r}."))

    def logits(self, ids: tuple[int, ...]) -> Any:
        """The logits after ``ids``. Raises EngineClosed where the engine is closed before or meanwhile."""
        if self._model.worker.closing:
            raise EngineClosed("The engine was closed before it came to this.", hint="Open it again.")
        try:
            self._model.refresh()
            self._model.state.materialize(ids)
            return self._model.context.logits()
        except Aborted:
            raise EngineClosed("The engine was closed meanwhile.", hint="Open it again.") from None

    def report(self, run: LlamaRun, event: Event) -> None:
        """Tell the listener. One that fails hears no more, and its run stops: nobody waits for it."""
        if run.deaf:
            return
        try:
            run.on_event(event)
        except Exception:
            run.deaf = True
            _LOG.exception("a listener of the engine failed")

    def _generate(self, run: LlamaRun, began: float) -> Literal["end", "length", "cancelled"]:
        """Prefill and sample. Returns why it ended."""
        if run.cancelled or self._model.worker.closing:
            return "cancelled"
        self._model.refresh()
        self._model.live_owner = run.owner
        reuse = self._model.state.materialize(
            run.ids, run.owner, lambda done, total: self.report(run, Progress(done, total)), run.marks
        )
        prefilled = time.perf_counter()
        self.totals["prefill_seconds"] += prefilled - began
        self.speed.note(reuse, prefilled - began)
        self.report(run, Started(reuse, run.seed, prefilled - began))
        sampler = self.new_sampler(run)
        try:
            return self._sample(run, sampler)
        finally:
            sampler.close()
            self.totals["sampling_seconds"] += time.perf_counter() - prefilled

    def _sample(self, run: LlamaRun, sampler: Sampler) -> Literal["end", "length", "cancelled"]:
        model = self._model
        room = min(run.max_tokens, model.n_ctx - len(run.ids))
        while len(run.tokens) < room:
            if run.cancelled or run.deaf or model.worker.closing:
                return "cancelled"
            if run.tokens:
                model.state.append(run.tokens[-1])
            sampled = sampler.next(model.context.pointer)
            if sampled is None:
                return "end"
            run.tokens.append(sampled.token)
            self.report(run, sampled)
            if model.tokenizer.is_end(sampled.token):
                return "end"
        return "length"

    @contextlib.contextmanager
    def _working(self, run: LlamaRun) -> Iterator[None]:
        """Within the block, cancelling the run stops a decode."""
        run.running(self._model.abort.set)
        try:
            yield
        finally:
            run.running(None)
            if not self._model.closing:
                self._model.abort.clear()
