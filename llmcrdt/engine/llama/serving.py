"""Serves runs: prefill, then one token after the other, several runs at once where the engine has slots for them.

A step is one batch of the prompt that is due first, then one token for each run that is past its prompt. So a long
prompt holds up nobody's words for longer than a batch, and a short prompt goes before a long one: a prompt is due at
the number of tokens that were evaluated when it came plus those that it needs, so that none waits for ever.

A run alone goes on in the engine's own context. Beside others it goes on in a stream of ``rows``, since
prompts need that context; as many sequences are evaluated together as changes no bit (``widths.py``).

On the engine's thread, but for what says otherwise.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ...exceptions import DecodeFailed, EngineClosed, EngineError
from ..base import Event, Failed, Finished, Progress, Reuse, Started
from .context import BATCH, Aborted
from .opening import OpenModel
from .rows import neighbours
from .run import LlamaRun
from .sampler import Sampler

_LOG = logging.getLogger("llmcrdt.engine")
_NARROW = 64  # tokens of a prompt's batch while others are waiting for their next word

Reason = Literal["end", "length", "cancelled"]


@dataclass(eq=False)
class _Turn:
    """One run under way. ``sampler``: once its prompt is evaluated. ``stream``: where it goes on; None: in the engine's
    own context. ``due``: see above. ``last``: its last event, once it is over."""

    run: LlamaRun
    began: float
    room: int
    prompt: Generator[None, None, Reuse]
    due: int
    prompting: float = 0.0
    started: bool = False
    sampler: Sampler | None = None
    stream: int | None = None
    last: Event | None = None

    def over(self, reason: Reason) -> None:
        self.last = Finished(reason, tuple(self.run.tokens), time.perf_counter() - self.began)


class Serving:
    """Computes on an open model what somebody waits for, and counts it. ``speed`` and ``totals``: any thread."""

    def __init__(self, model: OpenModel) -> None:
        self._model = model
        self._turns: list[_Turn] = []
        self._confined = False  # a run could not leave the engine's own context
        self.speed = model.speed
        self.totals = {"runs": 0, "sampled_together": 0, "prefill_seconds": 0.0, "sampling_seconds": 0.0}

    def new_sampler(self, run: LlamaRun) -> Sampler:
        """The sampler that a run asks for; any thread. Raises EngineError where it asks for nonsense."""
        with self._model.tokenizer.vocabulary() as vocab:
            return Sampler(self._model.lib, vocab, run.sampling, run.seed, run.ids, run.grammar)

    def serve(
        self, first: LlamaRun, more: Callable[[], LlamaRun | None], ended: Callable[[LlamaRun, Event], None]
    ) -> None:
        """The whole life of one run, and of those that ``more`` gives meanwhile. ``ended``: the last event of each,
        which is yet to be reported."""
        self._admit(first)
        while self._turns:
            while len(self._turns) < self._model.slots and self._shares and (run := more()) is not None:
                self._admit(run)
            self._step()
            for turn in [turn for turn in self._turns if turn.last is not None]:
                self._turns.remove(turn)
                self._release(turn)
                assert turn.last is not None
                ended(turn.run, turn.last)

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

    @property
    def _shares(self) -> bool:
        """Whether runs may be served beside each other."""
        return self._model.slots > 1 and bool(self._model.widths.value) and not self._confined

    def _admit(self, run: LlamaRun) -> None:
        self.totals["runs"] += 1
        model = self._model
        prompt = model.state.materializing(
            run.ids,
            run.owner,
            lambda done, total: self.report(run, Progress(done, total)),
            run.marks,
            lambda: _NARROW if any(turn.sampler for turn in self._turns) else BATCH,
        )
        turn = _Turn(run, time.perf_counter(), min(run.max_tokens, model.n_ctx - len(run.ids)), prompt, 0)
        with self._guarded([turn]):
            if not self._turns:
                model.refresh()
            if not model.worker.closing:
                turn.due = model.context.counters["prompt_tokens"] + model.state.plan(run.ids).evaluate
        self._turns.append(turn)

    def _step(self) -> None:
        """One batch of a prompt, then a token for each run that is past its own."""
        self._end_cancelled()
        prompt = self._due()
        live = next((turn for turn in self._going() if turn.stream is None), None)
        if live is not None and len(self._turns) > 1:
            self._move_out(live)
        if prompt is not None and (live is None or live.stream is not None or live.last is not None):
            self._evaluate_prompt(prompt)
            self._end_cancelled()
        self._go_on()

    def _going(self) -> list[_Turn]:
        return [turn for turn in self._turns if turn.sampler is not None and turn.last is None]

    def _due(self) -> _Turn | None:
        """The prompt to go on with. One that was begun is left for another only if what is done of it is kept."""
        waiting = [turn for turn in self._turns if turn.sampler is None and turn.last is None]
        model = self._model
        if not model.provenance.cache.capacity or model.context.shape.recurrent:
            waiting = [turn for turn in waiting if turn.started] or waiting
        return min(waiting, key=lambda turn: turn.due, default=None)

    def _end_cancelled(self) -> None:
        for turn in self._turns:
            if turn.last is None and (turn.run.cancelled or turn.run.deaf or self._model.worker.closing):
                turn.over("cancelled")

    def _evaluate_prompt(self, turn: _Turn) -> None:
        began = time.perf_counter()
        if not turn.started:
            turn.started = True
            self._model.live_owner = turn.run.owner
        with self._guarded([turn]), self._working(turn.run):
            try:
                next(turn.prompt)
            except StopIteration as end:
                self._note_prompt(turn, end.value, time.perf_counter() - began)
            finally:
                turn.prompting += time.perf_counter() - began

    def _note_prompt(self, turn: _Turn, reuse: Reuse, seconds: float) -> None:
        """It is evaluated, and the context has its logits."""
        seconds += turn.prompting
        self.totals["prefill_seconds"] += seconds
        self.speed.note(reuse, seconds)
        self.report(turn.run, Started(reuse, turn.run.seed, time.perf_counter() - turn.began))
        if not turn.room:
            turn.over("length")
            return
        turn.sampler = self.new_sampler(turn.run)
        if turn.run.cancelled or turn.run.deaf or self._model.worker.closing:
            turn.over("cancelled")
        else:
            self._sample(turn, self._model.context.pointer, -1)

    def _sample(self, turn: _Turn, context: Any, row: int) -> None:
        """The next token, from the logits of a row."""
        run = turn.run
        assert turn.sampler is not None
        sampled = turn.sampler.next(context, row)
        if sampled is None:
            turn.over("end")
            return
        run.tokens.append(sampled.token)
        self.report(run, sampled)
        if self._model.tokenizer.is_end(sampled.token):
            turn.over("end")
        elif len(run.tokens) >= turn.room:
            turn.over("length")

    def _move_out(self, turn: _Turn) -> None:
        """Have a run go on in a stream, so that prompts can have the engine's own context. If that can't be, it is
        served to its end first."""
        model = self._model
        with self._guarded([turn]):
            try:
                blob = model.context.export_sequence(model.slots)
                turn.stream = model.rows.take(blob, model.context.length) if blob is not None else None
            except EngineError as error:  # no memory for so many
                _LOG.warning("%s serves one at a time: %s", model.name, error)
            self._confined = turn.stream is None

    def _go_on(self) -> None:
        """One token for each run that is past its prompt."""
        began = time.perf_counter()
        going = self._going()
        for turn in going:
            if turn.stream is None and len(turn.run.tokens) and (len(self._turns) == 1 or self._confined):
                with self._guarded([turn]), self._working(turn.run):
                    self._model.state.append(turn.run.tokens[-1])
                    self._sample(turn, self._model.context.pointer, -1)
        streams = {turn.stream: turn for turn in going if turn.stream is not None}
        for group in neighbours(list(streams), self._model.widths.value):
            self._go_on_together([streams[stream] for stream in group])
        if going:
            self.totals["sampling_seconds"] += time.perf_counter() - began

    def _go_on_together(self, turns: Sequence[_Turn]) -> None:
        model = self._model
        with self._guarded(turns):
            model.rows.step([(turn.stream or 0, turn.run.tokens[-1]) for turn in turns])
            model.context.counters["decode_calls"] += 1
            model.context.counters["sampled_tokens"] += len(turns)
            self.totals["sampled_together"] += len(turns) if len(turns) > 1 else 0
        for row, turn in enumerate(turns):
            if turn.last is None:
                with self._guarded([turn]):
                    self._sample(turn, model.rows.pointer, row)

    def _release(self, turn: _Turn) -> None:
        turn.prompt.close()
        if turn.sampler is not None:
            turn.sampler.close()
        if turn.stream is not None:
            self._model.rows.drop(turn.stream)
        else:
            self._confined = False

    @contextlib.contextmanager
    def _guarded(self, turns: Iterable[_Turn]) -> Iterator[None]:
        """Within the block, an error ends these runs, and no other."""
        try:
            yield
        except Aborted:
            for turn in turns:
                turn.over("cancelled")
        except EngineError as error:
            for turn in turns:
                turn.last = Failed(error)
        except Exception as error:
            for turn in turns:
                turn.last = Failed(DecodeFailed(f"The engine failed: {error!r}."))

    @contextlib.contextmanager
    def _working(self, run: LlamaRun) -> Iterator[None]:
        """Within the block, cancelling the run stops a decode: of this one alone."""
        run.running(self._model.abort.set)
        try:
            yield
        finally:
            run.running(None)
            if not self._model.closing:
                self._model.abort.clear()
