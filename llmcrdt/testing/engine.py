"""An engine in memory, small enough to see through: the contract of ``llmcrdt.engine.base`` without a model.

Its "KV state" of some tokens is a hash chain over them, and its logits are drawn from that hash. So an answer depends
on every token before it and on nothing else, as a model's does; chunks go to a real ChunkCache and come from there.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from ..engine.base import (
    Event,
    Failed,
    Finished,
    Missing,
    Mode,
    Progress,
    Reuse,
    Sampled,
    Sampling,
    Started,
)
from ..engine.prefill_plan import Batch, Live, Steps, chunks_of, keep_live, plan_prompt, plan_settle, reusable
from ..engine.worker import Worker
from ..exceptions import ContextOverflow, DecodeFailed, EngineClosed, EngineError
from ..kvcache import Chunk, ChunkCache, ChunkKey, MemoryCache, Tier, chunk_keys
from .tokenizer import ByteTokenizer

_WIDEST = 4  # chunks in a batch
_LETTERS = range(32, 127)
_KINDNESS = 5.0  # how much likelier letters are, and ends


class MemoryEngine:
    """An Engine over ``tokenizer``, whose logits depend on ``seed`` and the token ids. It speaks in printable letters,
    most of the time, and ends its turn after some dozens.

    ``cache`` stays open. Not offered: penalties, min-p, grammars, recurrent state.
    """

    def __init__(
        self,
        tokenizer: ByteTokenizer,
        cache: ChunkCache | None = None,
        *,
        n_ctx: int = 4096,
        chunk: int = 16,
        seed: int = 0,
    ) -> None:
        self._tokenizer, self._n_ctx, self._chunk, self._seed = tokenizer, n_ctx, chunk, seed
        self._state = _ChainState(cache if cache is not None else MemoryCache(), chunk, seed, tokenizer.hash)
        self._worker = Worker("llmcrdt-memory-engine")
        self._unsettled: dict[str, tuple[int, ...]] = {}
        self._prefetching: dict[str, tuple[int, ...]] = {}
        self._forgotten: dict[str, int] = {}
        self._last_owner = ""

    @property
    def name(self) -> str:
        return f"memory {self._seed}"

    @property
    def tokenizer(self) -> ByteTokenizer:
        return self._tokenizer

    @property
    def n_ctx(self) -> int:
        return self._n_ctx

    @property
    def chunk(self) -> int:
        return self._chunk

    @property
    def mode(self) -> Mode:
        return "exact"

    @property
    def cache_folder(self) -> Path | None:
        """It knows none: a folder that its cache has is forgotten through the cache."""
        return None

    def plan(self, ids: Sequence[int]) -> Reuse:
        return self._state.plan(self._checked(ids, 0))

    def missing(self, ids: Sequence[int], owner: str = "") -> Missing:
        length = self.plan(ids).reused + self._chunk
        return "not exact" if tuple(ids[:length]) == self._unsettled.get(owner, ())[:length] else "evicted"

    def start(
        self,
        ids: Sequence[int],
        *,
        max_tokens: int,
        sampling: Sampling,
        on_event: Callable[[Event], None],
        owner: str = "",
        marks: Sequence[int] = (),
    ) -> _Run:
        if sampling.grammar or sampling.json_schema:
            raise EngineError("This engine follows no grammar.", hint="Use a model.")
        run = _Run(self._checked(ids, 1, empty=False), max_tokens, sampling, on_event, owner)
        self._worker.submit(lambda: self._serve(run))
        return run

    def logits(self, ids: Sequence[int]) -> Future[Any]:
        prompt, future = self._checked(ids, 0, empty=False), Future[Any]()

        def answer() -> None:
            if self._worker.closing:
                future.set_exception(EngineClosed("The engine was closed before it came to this."))
            else:
                self._state.materialize(prompt, "", lambda batch: None)
                future.set_result(self._logits())

        self._worker.submit(answer)
        return future

    def prefetch(self, ids: Sequence[int], owner: str = "", marks: Sequence[int] = ()) -> None:
        self._prefetching[owner] = prompt = self._checked(ids, 0)
        self._worker.background(self._prefetch(prompt, owner, self._forgotten.get(owner, 0)))

    def pin(self, ids: Sequence[int], owner: str, marks: Sequence[int] = ()) -> None:
        prompt = self._checked(ids, 0)
        if not self._state.cache.pins.set(owner, self._state.keys(prompt)):
            raise EngineError("The cache keeps nothing.", hint="Pass another one.")
        self._worker.background(self._settle(prompt, owner, self._forgotten.get(owner, 0)))

    def unpin(self, owner: str) -> None:
        self._state.cache.pins.drop(owner)

    def settled(self, timeout: float | None = None) -> bool:
        return self._worker.idle(timeout) and self._state.cache.flush(timeout)

    def forget(self, owner: str) -> Future[int]:
        self._forgotten[owner] = self._forgotten.get(owner, 0) + 1
        found, future = len(self._state.cache.forget(owner)), Future[int]()

        def again() -> None:
            self._forgotten[owner] += 1  # what ran meanwhile has left something to settle
            self._state.clear()
            future.set_result(max(found, len(self._state.cache.forget(owner))))

        try:
            self._worker.submit(again)
        except EngineClosed:
            future.set_result(found)
        return future

    def stats(self) -> dict[str, Any]:
        return {**self._state.counters, "mode": "exact", "cache": self._state.cache.stats()}

    def close(self) -> None:
        self._worker.close(self._state.clear)

    def _checked(self, ids: Sequence[int], room: int, *, empty: bool = True) -> tuple[int, ...]:
        prompt, needed = tuple(ids), len(ids) + room
        if self._worker.closing:
            raise EngineClosed("The engine is closed.", hint="Make another one.")
        if not prompt and not empty:
            raise EngineError("The prompt holds no tokens.", hint="Send at least one token.")
        if any(not 0 <= token < self._tokenizer.n_vocab for token in prompt):
            raise DecodeFailed("The prompt holds ids that are not tokens of this model.", hint="Encode it again.")
        if needed > self._n_ctx:
            text = f"The prompt takes {needed} tokens, the context holds {self._n_ctx}."
            raise ContextOverflow(text, needed=needed, available=self._n_ctx, hint="Send less.")
        return prompt

    # on the engine's thread

    def _serve(self, run: _Run) -> None:
        last: Event
        try:
            last = Finished(self._generate(run), tuple(run.tokens), time.monotonic() - run.begun)
        except Exception as error:
            last = Failed(error)
        if run.tokens:
            self._unsettled[run.owner] = whole = run.ids + tuple(run.tokens)
            self._worker.background(self._settle(whole, run.owner, self._forgotten.get(run.owner, 0)))
        run.report(last)

    def _generate(self, run: _Run) -> Any:
        def between(batch: Batch) -> None:
            if run.cancelled or self._worker.closing:
                raise _Stopped
            if 0 < batch.start < len(run.ids) - self._chunk - 1:
                run.report(Progress(batch.start, len(run.ids)))

        self._last_owner = run.owner
        try:
            reuse = self._state.materialize(run.ids, run.owner, between)
        except _Stopped:
            return "cancelled"
        rng, seed = random.Random(run.seed), run.seed
        run.report(Started(reuse, seed, time.monotonic() - run.begun))
        while len(run.tokens) < min(run.max_tokens, self._n_ctx - len(run.ids)):
            if run.cancelled or run.deaf or self._worker.closing:
                return "cancelled"
            if run.tokens:
                self._state.append(run.tokens[-1])
            sampled = _draw(self._logits(), run.sampling, rng)
            run.tokens.append(sampled.token)
            run.report(sampled)
            if self._tokenizer.is_end(sampled.token):
                return "end"
        return "length"

    def _settle(self, ids: tuple[int, ...], owner: str, forgotten: int) -> Iterator[None]:
        while self._forgotten.get(owner, 0) == forgotten and self._state.settle_step(ids, owner):
            yield
        if self._unsettled.get(owner) is ids:
            del self._unsettled[owner]

    def _prefetch(self, ids: tuple[int, ...], owner: str, forgotten: int) -> Iterator[None]:
        if self._state.cache.capacity or owner == self._last_owner:
            for _ in self._settle(ids, owner, forgotten):
                yield
                if self._prefetching.get(owner) is not ids:
                    return

    def _logits(self) -> array[float]:
        rng, ends = random.Random(self._state.digest), (256 + i for i in range(self._tokenizer.n_vocab - 256))
        logits = array("f", (rng.gauss(0.0, 1.0) for _ in range(self._tokenizer.n_vocab)))
        for token in (*_LETTERS, *filter(self._tokenizer.is_end, ends)):
            logits[token] += _KINDNESS
        return logits


class _Stopped(Exception):
    """Nobody waits for this prefill any more."""


class _Run:
    """One queued or running generation."""

    def __init__(
        self,
        ids: tuple[int, ...],
        max_tokens: int,
        sampling: Sampling,
        on_event: Callable[[Event], None],
        owner: str,
    ) -> None:
        self.ids, self.max_tokens, self.sampling, self.owner = ids, max_tokens, sampling, owner
        self.seed = sampling.seed if sampling.seed is not None else int.from_bytes(os.urandom(4), "little")
        self.tokens: list[int] = []
        self.begun = time.monotonic()
        self.cancelled = self.deaf = False
        self._on_event = on_event

    def cancel(self) -> None:
        self.cancelled = True

    def report(self, event: Event) -> None:
        """Tell the listener; one that fails hears no more."""
        try:
            if not self.deaf:
                self._on_event(event)
        except Exception:
            self.deaf = True


class _ChainState:
    """The live state, a digest over the tokens so far, and its chunks in ``cache``."""

    def __init__(self, cache: ChunkCache, chunk: int, seed: int, tokenizer: str) -> None:
        self.cache, self._chunk = cache, chunk
        self._fingerprint = hashlib.sha256(f"llmcrdt/testing/engine/1 {seed} {chunk} {tokenizer}".encode()).digest()
        self._live = Live()
        self._digests = [self._fingerprint]  # after each live token
        self._lock = threading.Lock()  # around what plan reads
        self.counters = {"prompt_tokens": 0, "settled_tokens": 0, "sampled_tokens": 0}

    @property
    def digest(self) -> bytes:
        return self._digests[-1]

    def keys(self, ids: Sequence[int]) -> list[ChunkKey]:
        return chunk_keys(self._fingerprint, ids, self._chunk)

    def plan(self, ids: Sequence[int]) -> Reuse:
        with self._lock:
            return self._reuse(*self._look(ids, plan_prompt, reusable(len(ids), self._chunk)))

    def clear(self) -> None:
        with self._lock:
            self._live, self._digests = Live(), [self._fingerprint]

    def materialize(self, ids: tuple[int, ...], owner: str, between: Callable[[Batch], None]) -> Reuse:
        """Make the state of ``ids``; ``between`` is called before each batch, and may stop it."""
        may_store = self._claim(ids, owner)
        steps, tiers = self._look(ids, plan_prompt, reusable(len(ids), self._chunk))
        self._resume(ids, steps)
        for batch in steps.batches:
            between(batch)
            self._evaluate(ids, batch, may_store)
            self.counters["prompt_tokens"] += len(batch)
        return self._reuse(steps, tiers)

    def append(self, token: int) -> None:
        with self._lock:
            self._live = Live(self._live.ids, extra=True)
            self._digests.append(_after(self.digest, [token]))
        self.counters["sampled_tokens"] += 1

    def settle_step(self, ids: tuple[int, ...], owner: str) -> bool:
        """Evaluate and store one more chunk. False once there is none."""
        may_store = self._claim(ids, owner)
        steps, _ = self._look(ids, plan_settle, len(ids))
        if not steps.batches:
            return False
        self._resume(ids, steps)
        start = steps.batches[0].start
        self._evaluate(ids, Batch(start, start + self._chunk, True), may_store)
        self.counters["settled_tokens"] += self._chunk
        return True

    def _claim(self, ids: Sequence[int], owner: str) -> bool:
        return not owner or self.cache.owners.claim(owner, self.keys(ids))

    def _look(self, ids: Sequence[int], planner: Callable[..., Steps], limit: int) -> tuple[Steps, list[Tier]]:
        kept = keep_live(self._live, ids, self._chunk, limit)
        tiers = self.cache.match(self.keys(ids)[kept // self._chunk : limit // self._chunk])
        cached = kept + self._chunk * len(tiers)
        return planner(len(ids), kept, cached, self._chunk, _WIDEST * self._chunk), tiers

    def _reuse(self, steps: Steps, tiers: Sequence[Tier]) -> Reuse:
        used = tiers[: (steps.reused - steps.live) // self._chunk]
        memory, disk = (self._chunk * used.count(tier) for tier in ("memory", "disk"))
        return Reuse(steps.total, steps.reused, steps.evaluate, live=steps.live, memory=memory, disk=disk)

    def _resume(self, ids: tuple[int, ...], steps: Steps) -> None:
        """Cut what is live, then load. A chunk that has gone meanwhile is computed; the plan stays what it was."""
        with self._lock:
            del self._digests[steps.live + 1 :]
            for key, at in zip(self.keys(ids), range(0, steps.reused, self._chunk), strict=False):
                if at >= steps.live:
                    found, piece = self.cache.get(key), ids[at : at + self._chunk]
                    end = found.payload if found is not None else _after(self.digest, piece)
                    self._digests += [b""] * (self._chunk - 1) + [end]  # only ends of chunks are resumed at
            self._live = Live(ids[: steps.reused])

    def _evaluate(self, ids: tuple[int, ...], batch: Batch, may_store: bool) -> None:
        with self._lock:
            for token in ids[batch.start : batch.stop]:
                self._digests.append(_after(self.digest, [token]))
            self._live = Live(ids[: batch.stop]) if batch.canonical else Live(self._live.ids, extra=True)
        keys = [self._fingerprint, *self.keys(ids)]
        for start, stop in chunks_of(batch, self._chunk) if may_store else ():
            self.cache.put(Chunk.after(keys[start // self._chunk], start, ids[start:stop], self._digests[stop]))


def _after(digest: bytes, tokens: Sequence[int]) -> bytes:
    for token in tokens:
        digest = hashlib.sha256(digest + token.to_bytes(4, "little")).digest()
    return digest


def _draw(logits: array[float], sampling: Sampling, rng: random.Random) -> Sampled:
    """The next token, as ``sampling`` says."""
    norm = math.log(sum(map(math.exp, logits)))
    likeliest = sorted(range(len(logits)), key=lambda token: -logits[token])
    top = tuple((token, logits[token] - norm) for token in likeliest[: sampling.top_logprobs])
    scores = {token: logits[token] + sampling.logit_bias.get(token, 0.0) for token in range(len(logits))}
    order = sorted(scores, key=lambda token: -scores[token])
    if sampling.temperature <= 0:
        token = order[0]
    else:
        best = order[: sampling.top_k or len(order)]
        weights = [math.exp((scores[each] - scores[best[0]]) / sampling.temperature) for each in best]
        token = rng.choices(best, weights)[0]
    return Sampled(token, logits[token] - norm if sampling.top_logprobs else None, top)
