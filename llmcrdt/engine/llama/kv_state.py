"""Token ids -> KV state in the context: keep what is live, load what is stored, evaluate the rest, store what is new.

A model with attention layers has state for every token: it is stored in chunks, and any chunk's end can be resumed at.
One with recurrent layers can be resumed only where its recurrent state was stored (``boundaries``), or where it stands.

``plan`` may be asked from any thread; all else belongs to the engine's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from ...kvcache import Chunk, ChunkCache, ChunkKey, Tier, chunk_keys, state_key
from ..base import Reuse
from ..checkpoints import superseded, wanted
from ..prefill_plan import Batch, Live, Steps, chunks_of, keep_live, plan_prompt, plan_settle, reusable
from .context import BATCH, Aborted, Context, Purpose

_Planner = Callable[[int, int, int, int, int, Collection[int]], Steps]
_STATES = 8  # the states of one conversation may take the cache's capacity divided by this


@dataclass(frozen=True)
class _Look:
    """What is at hand for some token ids, at one moment."""

    steps: Steps
    keys: list[ChunkKey]
    tiers: list[Tier]  # for each chunk of tokens from steps.live on, where its state comes from

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
        work: Callable[[int, int], int],
        sound: Callable[[], bool] = lambda: True,
    ) -> None:
        """``work(start, stop)``: about how many operations it takes to evaluate these positions. ``sound``: whether
        what was computed just now may be kept."""
        self._context, self._cache, self._work, self._sound = context, cache, work, sound
        self._fingerprint, self._chunk = fingerprint, chunk
        shape = context.shape
        # Below 64 tokens a batch takes other kernels than above.
        self._widest = BATCH // chunk * chunk if chunk >= 64 else chunk
        self._can_cut = shape.can_cut
        self._live = Live(can_cut=self._can_cut)
        self._refused: set[ChunkKey] = set()  # that llama.cpp didn't take
        self._lost: set[ChunkKey] = set()  # that were gone when asked for, a moment ago
        self._may_store = True
        self._stops: frozenset[int] = frozenset()  # where recurrent state is wanted
        self._resumed = 0  # the last boundary that could be resumed at
        self._state_bytes = 1  # of one recurrent state, once one was seen
        self._chunk_bytes = 0  # of one chunk
        self.counters = dict.fromkeys(
            (
                "stored",
                "states_stored",
                "states_dropped",
                "unreadable",
                "imported_memory",
                "imported_disk",
                "rejected_memory",
                "rejected_disk",
            ),
            0,
        )

    def plan(self, ids: Sequence[int]) -> Reuse:
        """What ``materialize`` would do with these ids now. Changes nothing."""
        return self._look(ids, plan_prompt, reusable(len(ids), self._chunk)).reuse(self._chunk)

    def adopt(self, cache: ChunkCache, fingerprint: bytes) -> None:
        """Keep chunks there from now on, under that name. What is live stays."""
        self._cache, self._fingerprint = cache, fingerprint
        self._refused = set()

    def keys(self, ids: Sequence[int], fingerprint: bytes) -> list[ChunkKey]:
        """What the whole chunks of ``ids`` are resumed from: their keys, and that of the recurrent state after them."""
        keys, shape = chunk_keys(fingerprint, ids, self._chunk), self._context.shape
        states = [state_key(key) for key in keys[-1:] if shape.recurrent]
        return [*(keys if shape.attention else ()), *states]

    def forget(self) -> None:
        """Empty the context, its buffers included."""
        self._context.clear(data=True)
        self._live = Live(can_cut=self._can_cut)

    def materialize(
        self,
        ids: Sequence[int],
        owner: str = "",
        progress: Callable[[int, int], None] | None = None,
        marks: Iterable[int] = (),
    ) -> Reuse:
        """Make the state of ``ids``; the context then has the logits of the last. Returns what was really reused.

        ``marks``: after how many tokens an entry ends. ``progress``, between batches: how many tokens are evaluated, of
        how many. ``owner``: for whom the chunks are claimed that hold these ids. Raises Aborted or DecodeFailed; the
        live state is valid then, or empty.
        """
        self._claim(ids, owner)
        before = self._context.counters["prompt_tokens"]
        self._want(reusable(len(ids), self._chunk), marks)
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

    def settle_step(self, ids: Sequence[int], owner: str = "", marks: Iterable[int] = ()) -> bool:
        """Evaluate canonically one more chunk of ``ids`` that is nowhere at hand. False once there is none."""
        self._claim(ids, owner)
        whole = self._chunk * (len(ids) // self._chunk)
        self._want(whole, marks)
        if not self._look(ids, plan_settle, whole).steps.batches:
            return False
        look = self._stand(ids, plan_settle, whole)
        if look.steps.batches:
            first = look.steps.batches[0]
            batch = Batch(first.start, first.start + self._chunk, True)
            self._evaluate(ids, batch, look.keys, "settled", logits=False)
        return True

    def thin(self, ids: Sequence[int]) -> None:
        """Drop recurrent states of ``ids`` that younger ones have made less useful (``boundaries.superseded``)."""
        if not self._context.shape.recurrent:
            return
        keys = {
            self._chunk * i: state_key(key) for i, key in enumerate(chunk_keys(self._fingerprint, ids, self._chunk), 1)
        }
        places = [place for place, key in keys.items() if self._cache.match([key])]
        gone = superseded(places, places[-1], self._most_states) if places else []
        self.counters["states_dropped"] += self._cache.drop([keys[place] for place in gone])

    @property
    def _most_states(self) -> int:
        return max(2, self._cache.capacity // _STATES // self._state_bytes)

    def _want(self, end: int, marks: Iterable[int]) -> None:
        """Note where recurrent state is to be stored on the way to ``end``."""
        self._stops = (
            wanted(end, marks, self._chunk, self._most_states) if self._context.shape.recurrent else frozenset()
        )

    def _claim(self, ids: Sequence[int], owner: str) -> None:
        """Note whose words these are, before anything of them is stored; where that fails, nothing is."""
        keys = chunk_keys(self._fingerprint, ids, self._chunk) if owner else []
        self._may_store = not keys or self._cache.owners.claim(owner, keys)

    def _look(self, ids: Sequence[int], planner: _Planner, limit: int) -> _Look:
        chunk, live, shape = self._chunk, self._live, self._context.shape
        kept = keep_live(live, ids, chunk, limit)
        keys = chunk_keys(self._fingerprint, ids, chunk)
        tiers = self._at_hand(keys[kept // chunk : limit // chunk]) if shape.attention else []
        if shape.recurrent:
            reach = kept // chunk + len(tiers) if shape.attention else limit // chunk
            i, tier = self._last_state(keys, kept // chunk, reach)
            tiers = tiers[: i - kept // chunk] if shape.attention else [tier] * (i - kept // chunk)
        cached = kept + chunk * len(tiers)
        return _Look(planner(len(ids), kept, cached, chunk, self._widest, self._stops), keys, tiers)

    def _at_hand(self, keys: Sequence[ChunkKey]) -> list[Tier]:
        """Where the first of these are, as far as they are all there and worth a try."""
        bad = self._refused | self._lost
        good = next((i for i, key in enumerate(keys) if key in bad), len(keys)) if bad else len(keys)
        return self._cache.match(keys[:good])

    def _last_state(self, keys: Sequence[ChunkKey], live: int, reach: int) -> tuple[int, Tier]:
        """After how many chunks, more than ``live`` and at most ``reach``, the last recurrent state stands; and where
        it is. ``live`` where there is none."""
        for i in range(reach, live, -1):
            if found := self._at_hand([state_key(keys[i - 1])]):
                return i, found[0]
        return live, "memory"

    def _stand(self, ids: Sequence[int], planner: _Planner, limit: int) -> _Look:
        """Bring the context to the longest prefix at hand. After a surprise it starts over, without what surprised."""
        self._lost.clear()
        while True:
            look = self._look(ids, planner, limit)
            reached = self._restore(ids, look)
            if reached is not None:
                self._lost.clear()
                self._resumed = reached
                self._mark(tuple(ids[:reached]), extra=False)
                steps = planner(len(ids), look.steps.live, reached, self._chunk, self._widest, self._stops)
                return replace(look, steps=steps)
            self._forget()

    def _restore(self, ids: Sequence[int], look: _Look) -> int | None:
        """Cut, then load. The number of tokens that stand; None if something was not as it should be."""
        steps, chunk, shape = look.steps, self._chunk, self._context.shape
        if not self._context.cut(steps.live):
            return None
        if steps.reused == steps.live:
            return steps.live
        self._context.reserve(steps.reused)  # while the live sequence is whole
        for i in range(steps.live // chunk, steps.reused // chunk) if shape.attention else ():
            loaded = self._load(ids, i, look)
            if not loaded:  # only without recurrent layers can one go on from here
                return None if loaded is None or shape.recurrent else chunk * i
        if shape.recurrent and not self._load_state(ids, look):
            return None
        return steps.reused

    def _load(self, ids: Sequence[int], i: int, look: _Look) -> bool | None:
        """Load chunk i. False if it is gone, None if it is wrong or llama.cpp didn't take it: then it is forgotten."""
        start, stop = i * self._chunk, (i + 1) * self._chunk
        found = self._fetch(look.keys[i])
        if found is None:
            return False
        right = not found.link and found.position == start and found.ids == tuple(ids[start:stop])
        taken = right and self._context.load(found.payload, start, stop)
        return self._tried(found, look.tiers[i - look.steps.live // self._chunk], taken=taken)

    def _load_state(self, ids: Sequence[int], look: _Look) -> bool | None:
        """Load the recurrent state where the plan resumes; as ``_load``."""
        stop = look.steps.reused
        found = self._fetch(state_key(look.keys[stop // self._chunk - 1]))
        if found is None:
            return False
        right = found.link == self._chunk and found.ids == tuple(ids[:stop]) and found.parent == self._fingerprint
        taken = right and self._context.load_state(found.payload, stop)
        return self._tried(found, look.tiers[-1], taken=taken)

    def _fetch(self, key: ChunkKey) -> Chunk | None:
        found = self._cache.get(key)
        if found is None:
            self._lost.add(key)
        return found

    def _tried(self, found: Chunk, tier: Tier, *, taken: bool) -> bool | None:
        if taken:
            self.counters[f"imported_{tier}"] += 1
            return True
        self.counters[f"rejected_{tier}"] += 1
        self._refused.add(found.key)
        self._cache.discard(found.key)
        return None

    def _evaluate(
        self, ids: Sequence[int], batch: Batch, keys: list[ChunkKey], purpose: Purpose, *, logits: bool
    ) -> None:
        self._guarded(ids[batch.start : batch.stop], batch.start, logits=logits, purpose=purpose)
        if not batch.canonical:
            self._mark(self._live.ids, extra=True)
            return
        self._mark(tuple(ids[: batch.stop]), extra=False)
        if self._context.shape.attention:
            for start, stop in chunks_of(batch, self._chunk):
                self._store(ids, start, stop, keys)
        if batch.stop in self._stops:
            self._store_state(ids[: batch.stop], keys)

    def _store(self, ids: Sequence[int], start: int, stop: int, keys: list[ChunkKey]) -> None:
        i = start // self._chunk
        if not self._may_store or self._cache.match(keys[i : i + 1]):
            return
        payload = self._context.export(start, stop)
        if payload is None:
            self.counters["unreadable"] += 1
            return
        parent = keys[i - 1] if i else self._fingerprint
        self._chunk_bytes = len(payload)
        if self._put(Chunk(keys[i], parent, start, tuple(ids[start:stop]), payload, self._work(start, stop))):
            self.counters["stored"] += 1

    def _store_state(self, ids: Sequence[int], keys: list[ChunkKey]) -> None:
        """Store the recurrent state as it stands, after ``ids``."""
        key, before = state_key(keys[len(ids) // self._chunk - 1]), self._resumed
        self._resumed = len(ids)
        if not self._may_store or self._cache.match([key]):
            return
        payload = self._context.export_state()
        if payload is None:
            self.counters["unreadable"] += 1
            return
        rests, work = self._context.shape.attention, self._work(before, len(ids))
        if rests:  # what it saves, it saves together with the chunks since: this is its share, by bytes
            beside = self._chunk_bytes * (len(ids) - before) // self._chunk
            work = work * len(payload) // (len(payload) + beside)
        state = Chunk(key, self._fingerprint, 0, tuple(ids), payload, work, self._chunk, rests)
        self._state_bytes = state.size
        if self._put(state):
            self.counters["states_stored"] += 1

    def _put(self, chunk: Chunk) -> bool:
        kept = self._sound() and self._cache.put(chunk)
        if kept:
            self._refused.discard(chunk.key)
        return kept

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
