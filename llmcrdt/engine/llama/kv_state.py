"""Token ids -> KV state in the context: keep what is live, load what is stored, evaluate the rest, store what is new.

A model with attention layers has state for every token: it is stored in chunks, and any chunk's end can be resumed at.
One with recurrent layers can be resumed only where that state was stored (``checkpoints``), or where it stands.

``plan`` may be asked from any thread; all else belongs to the engine's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ...kvcache import ChunkCache, ChunkKey, state_key
from ...kvcache.base import Place
from ...kvcache.peers import Peers
from ..base import Reuse
from ..checkpoints import wanted
from ..prefill_plan import Batch, Live, Steps, chunks_of, keep_live, plan_prompt, plan_settle, reusable
from .context import BATCH, Aborted, Context, Purpose, finished
from .state_store import StateStore

_Planner = Callable[[int, int, int, int, int, Collection[int]], Steps]


@dataclass(frozen=True)
class _AtHand:
    """The state that is at hand for some token ids, at one moment."""

    steps: Steps
    keys: list[ChunkKey]
    places: list[Place]  # for each chunk of tokens from steps.live on, where its state comes from

    def reuse(self, chunk: int) -> Reuse:
        s = self.steps
        places = self.places[: (s.reused - s.live) // chunk]
        memory, disk, peer = (chunk * places.count(place) for place in ("memory", "disk", "peer"))
        return Reuse(s.total, s.reused, s.evaluate, live=s.live, memory=memory, disk=disk, peer=peer)


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
        peers: Peers | None = None,
    ) -> None:
        """``work``, ``sound``, ``peers``: as for ``StateStore``."""
        self._context, self._chunk = context, chunk
        self._store = StateStore(cache, fingerprint, chunk, context.shape, work, sound, peers)
        # Below 64 tokens a batch takes other kernels than above.
        self._widest = BATCH // chunk * chunk if chunk >= 64 else chunk
        self._can_cut = context.shape.can_cut
        self._live = Live(can_cut=self._can_cut)
        self._stops: frozenset[int] = frozenset()  # where recurrent state is wanted
        self._resumed = 0  # the last boundary that could be resumed at
        self._turn = 0  # how often somebody has begun to change what is live
        self.counters = self._store.counters

    def plan(self, ids: Sequence[int]) -> Reuse:
        """Predict what ``materialize`` would do with these ids now. Changes nothing; may ask peers."""
        limit = reusable(len(ids), self._chunk)
        self._store.seek(ids, keep_live(self._live, ids, self._chunk, limit), limit)
        return self._at_hand(ids, plan_prompt, limit, peers=True).reuse(self._chunk)

    def adopt(self, cache: ChunkCache, fingerprint: bytes) -> None:
        """Keep chunks there from now on, under that name. The live state stays."""
        self._take_turn()
        self._store.adopt(cache, fingerprint)

    def keys(self, ids: Sequence[int], fingerprint: bytes) -> list[ChunkKey]:
        """The keys that whole chunks of ``ids`` are resumed from: of chunks, and of the recurrent state after them."""
        return self._store.keys(ids, fingerprint)

    def forget(self) -> None:
        """Empty the context, its buffers included."""
        self._take_turn()
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
        return finished(self.materializing(ids, owner, progress, marks))

    def materializing(
        self,
        ids: Sequence[int],
        owner: str = "",
        progress: Callable[[int, int], None] | None = None,
        marks: Iterable[int] = (),
        widest: Callable[[], int] = lambda: BATCH,
    ) -> Generator[None, None, Reuse]:
        """As ``materialize``, a batch per step, each of at most ``widest()`` tokens or one chunk. Between two steps
        anything else may be made: then this begins again from what is stored."""
        limit, before, first = reusable(len(ids), self._chunk), 0, None
        brought: set[ChunkKey] = set()
        for key in self._bring(ids, owner, limit):
            brought.add(key)
            yield
        while True:
            turn = self._take_turn()
            self._store.claim(ids, owner)
            self._want(limit, marks)
            found = self._resume(ids, plan_prompt, limit)
            first = first or self._with_brought(found, brought).reuse(self._chunk)
            for batch in self._pieces(found.steps.batches, widest):
                if batch.start > found.steps.reused:
                    yield
                    if self._turn != turn:
                        break
                if before and progress is not None and first.evaluate > BATCH:
                    progress(before, first.evaluate)
                self._evaluate(ids, batch, found.keys, "prompt", logits=batch.stop == len(ids))
                before += len(batch)
            else:
                return replace(first, evaluate=before)

    def _pieces(self, batches: Iterable[Batch], widest: Callable[[], int]) -> Iterator[Batch]:
        """The same tokens in batches that are no wider than may be when each begins."""
        for batch in batches:
            at = batch.start
            while batch.canonical and batch.stop - at > (
                width := max(self._chunk, widest() // self._chunk * self._chunk)
            ):
                yield Batch(at, at + width, True)
                at += width
            yield replace(batch, start=at)

    def _take_turn(self) -> int:
        """Begin a new piece of work; one that was going on in steps has to begin again."""
        self._turn += 1
        return self._turn

    def append(self, token: int) -> None:
        """Evaluate one sampled token. Its state is good for the next token, and never stored or built upon."""
        self._take_turn()
        self._mark(self._live.ids, extra=True)
        self._guarded([token], self._context.length, logits=True, purpose="sampled")

    def settle_step(self, ids: Sequence[int], owner: str = "", marks: Iterable[int] = ()) -> bool:
        """Evaluate canonically one more chunk of ``ids`` that is nowhere at hand. False once there is none."""
        self._take_turn()
        self._store.claim(ids, owner)
        whole = self._chunk * (len(ids) // self._chunk)
        self._want(whole, marks)
        if next(self._bring(ids, owner, whole), None) is not None:
            return True
        if not self._at_hand(ids, plan_settle, whole).steps.batches:
            return False
        found = self._resume(ids, plan_settle, whole)
        if found.steps.batches:
            first = found.steps.batches[0]
            batch = Batch(first.start, first.start + self._chunk, True)
            self._evaluate(ids, batch, found.keys, "settled", logits=False)
        return True

    def thin(self, ids: Sequence[int]) -> None:
        """Drop recurrent states of ``ids`` that younger ones have made less useful."""
        self._store.thin(ids)

    def _want(self, end: int, marks: Iterable[int]) -> None:
        """Note where recurrent state is to be stored on the way to ``end``."""
        recurrent = self._context.shape.recurrent
        self._stops = wanted(end, marks, self._chunk, self._store.most_states) if recurrent else frozenset()

    def _bring(self, ids: Sequence[int], owner: str, limit: int) -> Iterator[ChunkKey]:
        """Have peers hand over what is worth it, a chunk per step: it is in the cache then."""
        if not self._store.asks_peers:
            return
        kept = keep_live(self._live, ids, self._chunk, limit)
        self._store.seek(ids, kept, limit)
        self._store.claim(ids, owner)
        for key in self._store.bring(ids, kept, limit):
            yield key
            self._store.claim(ids, owner)  # others may have been served since

    def _with_brought(self, found: _AtHand, brought: Collection[ChunkKey]) -> _AtHand:
        """The same, where what was fetched just now comes from a peer."""
        first, places = found.steps.live // self._chunk, found.places
        stop = found.steps.reused // self._chunk
        if not self._context.shape.attention:
            there = stop > first and state_key(found.keys[stop - 1]) in brought
            return replace(found, places=["peer"] * len(places)) if there else found
        return replace(
            found,
            places=["peer" if found.keys[first + n] in brought else place for n, place in enumerate(places)],
        )

    def _at_hand(self, ids: Sequence[int], planner: _Planner, limit: int, *, peers: bool = False) -> _AtHand:
        kept = keep_live(self._live, ids, self._chunk, limit)
        keys, places = self._store.look(ids, kept, limit, peers=peers)
        cached = kept + self._chunk * len(places)
        return _AtHand(planner(len(ids), kept, cached, self._chunk, self._widest, self._stops), keys, places)

    def _resume(self, ids: Sequence[int], planner: _Planner, limit: int) -> _AtHand:
        """Bring the context to the longest prefix at hand. After a surprise it starts over, without what surprised."""
        self._store.reset()
        while True:
            found = self._at_hand(ids, planner, limit)
            reached = self._restore(ids, found)
            if reached is not None:
                self._store.reset()
                self._resumed = reached
                self._mark(tuple(ids[:reached]), extra=False)
                steps = planner(len(ids), found.steps.live, reached, self._chunk, self._widest, self._stops)
                return replace(found, steps=steps)
            self._clear()

    def _restore(self, ids: Sequence[int], found: _AtHand) -> int | None:
        """Cut, then load. The number of tokens that stand; None if something was not as it should be."""
        steps, chunk, shape = found.steps, self._chunk, self._context.shape
        if not self._context.cut(steps.live):
            return None
        if steps.reused == steps.live:
            return steps.live
        self._context.reserve(steps.reused)  # while the live sequence is whole
        for i in range(steps.live // chunk, steps.reused // chunk) if shape.attention else ():
            loaded = self._load(ids, i, found)
            if not loaded:  # only without recurrent layers can one go on from here
                return None if loaded is None or shape.recurrent else chunk * i
        if shape.recurrent and not self._load_state(ids, found):
            return None
        return steps.reused

    def _load(self, ids: Sequence[int], i: int, found: _AtHand) -> bool | None:
        """Load chunk i. False if it is gone, None if it is wrong or llama.cpp didn't take it: then it is forgotten."""
        start, stop = i * self._chunk, (i + 1) * self._chunk
        chunk = self._store.fetch(found.keys[i])
        if chunk is None:
            return False
        right = not chunk.link and chunk.position == start and chunk.ids == tuple(ids[start:stop])
        taken = right and self._context.load(chunk.payload, start, stop)
        return self._store.note_tried(chunk, found.places[i - found.steps.live // self._chunk], taken=taken)

    def _load_state(self, ids: Sequence[int], found: _AtHand) -> bool | None:
        """Load the recurrent state where the plan resumes; as ``_load``."""
        stop = found.steps.reused
        state = self._store.fetch(state_key(found.keys[stop // self._chunk - 1]))
        if state is None:
            return False
        right = state.link == self._chunk and state.ids == tuple(ids[:stop]) and state.parent == self._store.fingerprint
        taken = right and self._context.load_state(state.payload, stop)
        return self._store.note_tried(state, found.places[-1], taken=taken)

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
                self._store.put(ids, start, stop, keys, self._context.export)
        if batch.stop in self._stops:
            resumed, self._resumed = self._resumed, batch.stop
            self._store.put_state(ids[: batch.stop], resumed, keys, self._context.export_state)

    def _guarded(self, tokens: Sequence[int], start: int, *, logits: bool, purpose: Purpose) -> None:
        """Evaluate; if that fails, the live state is what it was before, or empty."""
        try:
            self._context.evaluate(tokens, logits=logits, purpose=purpose)
        except BaseException as error:
            if not (isinstance(error, Aborted) and self._can_cut and self._context.undo(start)):
                self._clear()
            raise

    def _clear(self) -> None:
        self._context.clear()
        self._live = Live(can_cut=self._can_cut)

    def _mark(self, ids: tuple[int, ...], *, extra: bool) -> None:
        self._live = Live(ids, extra, self._can_cut)
