"""Token ids -> KV state in the context: keep what is live, load what is stored, evaluate the rest, store what is new.

``plan`` may be asked from any thread; all else belongs to the engine's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..kvcache import Chunk, ChunkCache, ChunkKey, Tier, chunk_keys
from .context import BATCH, Aborted, Context, Purpose
from .engine import Reuse
from .materialize import Batch, Live, Steps, chunks_of, keep_live, plan_prompt, plan_settle, reusable

_Planner = Callable[[int, int, int, int, int], Steps]


@dataclass(frozen=True)
class _Look:
    """What is at hand for some token ids, at one moment."""

    steps: Steps
    keys: list[ChunkKey]
    tiers: list[Tier]  # of the chunks from steps.live on

    def reuse(self, chunk: int) -> Reuse:
        s = self.steps
        tiers = self.tiers[: (s.reused - s.live) // chunk]
        memory, disk = (chunk * tiers.count(tier) for tier in ("memory", "disk"))
        return Reuse(s.total, s.reused, s.evaluate, live=s.live, memory=memory, disk=disk)


class KVState:
    """The live sequence of ``context``, backed by ``cache``: chunks of ``chunk`` tokens, under ``fingerprint``."""

    def __init__(
        self,
        context: Context,
        cache: ChunkCache,
        fingerprint: bytes,
        chunk: int,
        sound: Callable[[], bool] = lambda: True,
    ) -> None:
        """``sound``: whether what was computed just now may be kept."""
        self._context, self._cache, self._sound = context, cache, sound
        self._fingerprint, self._chunk = fingerprint, chunk
        shape = context.shape
        # Recurrent state is exported where it stands, so evaluation stops at every boundary. Below 64 tokens a batch
        # takes other kernels than above.
        self._widest = BATCH // chunk * chunk if shape.can_cut and chunk >= 64 else chunk
        self._can_cut = shape.can_cut
        self._live = Live(can_cut=self._can_cut)
        self._refused: set[ChunkKey] = set()
        self._may_store = True
        self.counters = dict.fromkeys(
            ("stored", "unreadable", "imported_memory", "imported_disk", "rejected_memory", "rejected_disk"), 0
        )

    def plan(self, ids: Sequence[int]) -> Reuse:
        """What ``materialize`` would do with these ids now. Changes nothing."""
        return self._look(ids, plan_prompt, reusable(len(ids), self._chunk)).reuse(self._chunk)

    def adopt(self, cache: ChunkCache, fingerprint: bytes) -> None:
        """Keep chunks there from now on, under that name. What is live stays."""
        self._cache, self._fingerprint = cache, fingerprint
        self._refused = set()

    def forget(self) -> None:
        """Empty the context, its buffers included."""
        self._context.clear(data=True)
        self._live = Live(can_cut=self._can_cut)

    def materialize(
        self, ids: Sequence[int], owner: str = "", progress: Callable[[int, int], None] | None = None
    ) -> Reuse:
        """Make the state of ``ids``; the context then has the logits of the last. Returns what was really reused.

        ``progress``, between batches: how many tokens are evaluated, of how many.
        ``owner``: for whom the chunks are claimed that hold these ids. Raises Aborted or DecodeFailed; the live state
        is valid then, or empty.
        """
        self._claim(ids, owner)
        before = self._context.counters["prompt_tokens"]
        look = self._stand(ids, plan_prompt, reusable(len(ids), self._chunk))
        for batch in look.steps.batches:
            if progress is not None and look.steps.evaluate > BATCH and batch.start > look.steps.reused:
                progress(batch.start - look.steps.reused, look.steps.evaluate)
            self._evaluate(ids, batch, look.keys, "prompt", logits=batch.stop == len(ids))
        return replace(look.reuse(self._chunk), evaluate=self._context.counters["prompt_tokens"] - before)

    def append(self, token: int) -> None:
        """Evaluate one sampled token. Its state is good for the next token, and never stored or built upon."""
        self._mark(self._live.ids, extra=True)
        self._guarded([token], self._context.length, logits=True, purpose="sampled")

    def settle_step(self, ids: Sequence[int], owner: str = "") -> bool:
        """Evaluate canonically one more chunk of ``ids`` that is nowhere at hand. False once there is none."""
        self._claim(ids, owner)
        whole = self._chunk * (len(ids) // self._chunk)
        if not self._look(ids, plan_settle, whole).steps.batches:
            return False
        look = self._stand(ids, plan_settle, whole)
        if look.steps.batches:
            first = look.steps.batches[0]
            batch = Batch(first.start, first.start + self._chunk, True)
            self._evaluate(ids, batch, look.keys, "settled", logits=False)
        return True

    def _claim(self, ids: Sequence[int], owner: str) -> None:
        """Note whose words these are, before anything of them is stored; where that fails, nothing is."""
        keys = chunk_keys(self._fingerprint, ids, self._chunk) if owner else []
        self._may_store = not keys or self._cache.claim(owner, keys)

    def _look(self, ids: Sequence[int], planner: _Planner, limit: int) -> _Look:
        chunk, live = self._chunk, self._live
        kept = keep_live(live, ids, chunk, limit)
        keys = chunk_keys(self._fingerprint, ids, chunk)
        tiers = self._cache.match(keys[kept // chunk : limit // chunk])
        for i, key in enumerate(keys[kept // chunk :][: len(tiers)]):
            if key in self._refused:
                tiers = tiers[:i]
                break
        return _Look(planner(len(ids), kept, kept + chunk * len(tiers), chunk, self._widest), keys, tiers)

    def _stand(self, ids: Sequence[int], planner: _Planner, limit: int) -> _Look:
        """Bring the context to the longest prefix at hand. After a surprise it starts over, without what surprised."""
        while True:
            look = self._look(ids, planner, limit)
            reached = self._restore(ids, look)
            if reached is not None:
                self._mark(tuple(ids[:reached]), extra=False)
                steps = planner(len(ids), look.steps.live, reached, self._chunk, self._widest)
                return replace(look, steps=steps)
            self._forget()

    def _restore(self, ids: Sequence[int], look: _Look) -> int | None:
        """Cut, then load chunks. The number of tokens that stand; None if something was not as it should be."""
        steps, chunk = look.steps, self._chunk
        if not self._context.cut(steps.live):
            return None
        reached = steps.live
        wanted = range(steps.live // chunk, steps.reused // chunk)
        if self._context.shape.only_last:  # the last chunk that is really there; those before it are not needed
            for i in reversed(wanted):
                loaded = self._load(ids, i, look)
                if loaded is None:
                    return None
                if loaded:
                    return chunk * (i + 1)
            return reached
        for i in wanted:
            loaded = self._load(ids, i, look)
            if loaded is None:
                return None
            if not loaded:
                break
            reached = chunk * (i + 1)
        return reached

    def _load(self, ids: Sequence[int], i: int, look: _Look) -> bool | None:
        """Load chunk i. False if it is gone, None if it is wrong or llama.cpp didn't take it: then it is forgotten."""
        key, tier = look.keys[i], look.tiers[i - look.steps.live // self._chunk]
        start, stop = i * self._chunk, (i + 1) * self._chunk
        found = self._cache.get(key)
        if found is None:
            return False
        right = found.key == key and found.position == start and found.ids == tuple(ids[start:stop])
        if right and self._context.load(found.payload, start, stop):
            self.counters[f"imported_{tier}"] += 1
            return True
        self.counters[f"rejected_{tier}"] += 1
        self._refused.add(key)
        self._cache.discard(key)
        return None

    def _evaluate(
        self, ids: Sequence[int], batch: Batch, keys: list[ChunkKey], purpose: Purpose, *, logits: bool
    ) -> None:
        self._guarded(ids[batch.start : batch.stop], batch.start, logits=logits, purpose=purpose)
        if not batch.canonical:
            self._mark(self._live.ids, extra=True)
            return
        self._mark(tuple(ids[: batch.stop]), extra=False)
        for start, stop in chunks_of(batch, self._chunk):
            self._store(ids, start, stop, keys)

    def _store(self, ids: Sequence[int], start: int, stop: int, keys: list[ChunkKey]) -> None:
        i = start // self._chunk
        if not self._may_store or self._cache.match(keys[i : i + 1]):
            return
        payload = self._context.export(start, stop)
        if payload is None:
            self.counters["unreadable"] += 1
            return
        if not self._sound():
            return
        parent = keys[i - 1] if i else self._fingerprint
        if self._cache.put(Chunk(keys[i], parent, start, tuple(ids[start:stop]), payload)):
            self.counters["stored"] += 1
            self._refused.discard(keys[i])

    def _guarded(self, tokens: Sequence[int], start: int, *, logits: bool, purpose: Purpose) -> None:
        """Evaluate; if that fails, the live state is what it was before, or empty."""
        try:
            self._context.evaluate(tokens, logits=logits, purpose=purpose)
        except BaseException as error:
            if not (isinstance(error, Aborted) and self._can_cut and self._context.undo(start)):
                self._forget()
            raise

    def _forget(self) -> None:
        self._context.clear()
        self._live = Live(can_cut=self._can_cut)

    def _mark(self, ids: tuple[int, ...], *, extra: bool) -> None:
        self._live = Live(ids, extra, self._can_cut)
