"""An engine's inside, from open to close and again: what is asked from any thread becomes jobs of its own thread.

Jobs and background work hold the core and the engine that it is inside of. So an engine that nobody uses any more is
there, for an erase to reach, until they are done; then it is closed.

========  ======================================  ===========================================================
state     is left by                              meanwhile
========  ======================================  ===========================================================
closed    ``reopen``                              everything raises EngineClosed but ``forget`` and properties
open      ``begin_close``; a fork, in the child   jobs first come first served (runs, several at once), then
                                                  background work
closing   the thread's last job                   queued jobs end at once, as cancelled or with EngineClosed
========  ======================================  ===========================================================
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from ...at_exit import end_at_exit
from ...exceptions import ContextOverflow, DecodeFailed, EngineClosed, EngineError
from ..base import Event
from ..worker import Job
from .kv_state import KVState
from .opening import EngineOptions, OpenModel, open_model
from .run import LlamaRun
from .serving import Serving
from .settling import Settling

_PATIENCE = 10.0  # seconds that closing waits for the weights to be hashed, where chunks wait for it


class EngineCore:
    """Any thread. Opened when it is made; raises what ``open_model`` raises."""

    model: OpenModel
    """The model that is open, or was last."""
    serving: Serving
    settling: Settling

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self.engine: Callable[[], object] = lambda: None
        """A weak reference to the engine; its constructor sets it."""
        self._lifecycle = threading.Lock()
        with self._lifecycle:
            self._open()

    @property
    def closed(self) -> bool:
        return not hasattr(self, "model") or self.model.closing  # __del__ may come any time

    def checked(self, ids: Sequence[int], *, room: int) -> tuple[int, ...]:
        """A prompt with ``room`` for so many more tokens. Raises EngineClosed, DecodeFailed or ContextOverflow."""
        if self.closed:
            raise EngineClosed("The engine is closed.", hint="Open it again.")
        prompt, n_vocab, n_ctx = tuple(ids), self.model.tokenizer.n_vocab, self.model.n_ctx
        if any(not 0 <= token < n_vocab for token in prompt):
            raise DecodeFailed("The prompt holds ids that are not tokens of this model.", hint="Encode it again.")
        if len(prompt) + room > n_ctx:
            raise ContextOverflow(
                f"The prompt takes {len(prompt) + room} tokens, the context holds {n_ctx}.",
                needed=len(prompt) + room,
                available=n_ctx,
                hint="Let a summary stand for older entries (conv.summarize), or open the engine with a larger n_ctx.",
            )
        return prompt

    def start(self, run: LlamaRun) -> None:
        """Queue a run. Raises EngineError at once for a sampler that can't be made."""
        self.serving.new_sampler(run).close()
        self.model.worker.submit(_Generate(run, self, self.engine()))

    def logits(self, ids: tuple[int, ...]) -> Future[Any]:
        future: Future[Any] = Future()
        self._submit(lambda: self._answer(ids, future))
        return future

    def settle(self, ids: tuple[int, ...], owner: str, marks: tuple[int, ...]) -> None:
        """Evaluate in the background what is not stored of ``ids``."""
        self._in_background(self.settling.settle(ids, owner, marks))

    def prefetch(self, ids: tuple[int, ...], owner: str, marks: tuple[int, ...]) -> None:
        """As ``settle``, until newer ids come for ``owner``."""
        self._in_background(self.settling.prefetch(ids, owner, marks))

    def pin(self, ids: tuple[int, ...], owner: str) -> bool:
        """Pin the state of ``ids``, once it is known what it is called. False where that can't be kept."""
        self.model.provenance.wait()
        state, known = self.model.state, self.model.provenance
        return isinstance(state, KVState) and known.cache.pins.set(owner, state.keys(ids, known.fingerprint))

    def forget(self, owner: str) -> Future[int]:
        """Delete what was stored for ``owner``, now and, once what runs is over, again; then the live state too."""
        self.settling.forget(owner)
        found = self.model.provenance.forget(owner)
        future: Future[int] = Future()
        try:
            self._submit(lambda: self._forget_again(owner, found, future))
        except EngineClosed:
            future.set_result(found)
        return future

    def begin_close(self) -> bool:
        """Stop what runs, and let the engine's thread free everything. False where that was begun already."""
        with self._lifecycle:
            if self.closed:
                return False
            self.model.closing = True
            self.model.abort.set()
            if self.model.peers is not None:
                self.model.peers.close()
            self.model.worker.end(self._last_job(self.model))
            return True

    def await_end(self, timeout: float | None = None) -> None:
        """After ``begin_close``, from whatever thread but the engine's own: wait until everything is freed."""
        if hasattr(self, "model"):
            self.model.worker.join(timeout)

    def reopen(self) -> None:
        """Open it again after ``close``; harmless where it is open. Raises what opening raises, and EngineError on the
        engine's own thread."""
        while self.closed:
            worker = self.model.worker
            if not worker.join():  # without the lock: a last listener may call close
                raise EngineError("A listener can't reopen the engine that calls it.", hint="Use another thread.")
            with self._lifecycle:
                if self.closed and self.model.worker is worker:
                    self._open()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the interpreter may be half gone
            if self.begin_close():
                self.await_end()

    def _open(self) -> None:
        """With the lifecycle's lock: who ends the engine waits until it stands."""
        model = open_model(self._options, self._end_before_cache)
        self.serving, self.settling = Serving(model), Settling(model)
        self.model = model
        model.find_exactness()
        model.weights.hash(_weights_known(weakref.ref(self)))

    def _end_before_cache(self) -> None:
        if not end_at_exit(
            self, stop=EngineCore.begin_close, finish=EngineCore.await_end, forked=EngineCore._lose
        ):  # fmt: skip
            raise EngineClosed("An engine can't be opened while the program exits.", hint="Open it before.")

    def _lose(self) -> None:
        """In a forked child, which has no thread of the engine: it is closed there, and nothing of it is touched."""
        self._lifecycle = threading.Lock()
        if hasattr(self, "model"):
            self.model.closing = True

    def _submit(self, job: Job) -> None:
        self.model.worker.submit(partial(_run, job, self.engine()))

    def _in_background(self, work: Iterator[None]) -> None:
        self.model.worker.background(_holding(work, self, self.engine()))

    @staticmethod
    def _last_job(model: OpenModel) -> Callable[[], None]:
        def last() -> None:
            """Keep what waits for the weights to be known, then free everything."""
            if model.provenance.waiting:
                model.weights.wait(_PATIENCE)
            model.provenance.update()
            model.free()

        return last

    def generate(self, run: LlamaRun) -> None:
        """On the engine's thread, as all below: serve a run, and beside it those that are next and may be."""
        self.serving.serve(run, self._next_run, self._ended)

    def _next_run(self) -> LlamaRun | None:
        job = self.model.worker.next_if(lambda job: isinstance(job, _Generate))
        return job.run if isinstance(job, _Generate) else None

    def _ended(self, run: LlamaRun, last: Event) -> None:
        if run.tokens and self.model.mode == "exact":
            whole = run.ids + tuple(run.tokens)
            self.settling.note_sampled(whole, run.owner)
            self.settle(whole, run.owner, (*run.marks, len(run.ids)))
        self.serving.report(run, last)

    def _answer(self, ids: tuple[int, ...], future: Future[Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(self.serving.logits(ids))
        except Exception as error:
            future.set_exception(error)

    def _forget_again(self, owner: str, found: int, future: Future[int]) -> None:
        """After what ran meanwhile: the live state, and what that stored."""
        self.settling.forget(owner)  # what ran meanwhile has left something to settle
        if not self.model.worker.closing:
            self.model.state.forget()
        try:
            future.set_result(max(found, self.model.provenance.forget(owner)))
        except OSError as error:
            future.set_exception(error)


@dataclass(frozen=True)
class _Generate:
    """The job of a run. ``held``: what has to live until it is over."""

    run: LlamaRun
    core: EngineCore
    held: object

    def __call__(self) -> None:
        self.core.generate(self.run)


def _run(job: Job, held: object) -> None:
    job()


def _holding(work: Iterator[None], *held: object) -> Iterator[None]:
    yield from work


def _weights_known(core: weakref.ref[EngineCore]) -> Callable[[], None]:
    """The call that ends the hashing thread. It keeps no engine alive that nobody uses."""

    def known() -> None:
        if (there := core()) is not None:
            there.model.worker.submit(lambda: there.model.refresh())

    return known
