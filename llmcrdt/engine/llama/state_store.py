"""The stored side of KV state: what the cache has of a prompt, and what is handed to it.

``look`` may be asked from any thread; all else belongs to the engine's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile

from ...kvcache import Chunk, ChunkCache, ChunkKey, Tier, chunk_keys, state_key
from ...kvcache.base import Place
from ...kvcache.peers import Peers
from ..checkpoints import superseded
from .context import Shape

_STATES = 8  # the states of one conversation may take the cache's capacity divided by this


class StateStore:
    """Chunks of ``chunk`` tokens in ``cache``, under ``fingerprint``, of a model of this ``shape``.

    ``work(start, stop)``: about how many operations it takes to evaluate these positions. ``sound``: whether what was
    computed just now may be kept. ``peers``: who else has state, once it is known what this model is called.
    """

    def __init__(
        self,
        cache: ChunkCache,
        fingerprint: bytes,
        chunk: int,
        shape: Shape,
        work: Callable[[int, int], int],
        sound: Callable[[], bool],
        peers: Peers | None = None,
    ) -> None:
        self._cache, self.fingerprint, self._chunk, self._shape = cache, fingerprint, chunk, shape
        self._work, self._sound, self._peers = work, sound, peers
        self._refused: set[ChunkKey] = set()  # that llama.cpp didn't take
        self._lost: set[ChunkKey] = set()  # that were gone when asked for, a moment ago
        self._may_store = True
        self._state_bytes = 1  # of one recurrent state, once one was seen
        self._chunk_bytes = 0  # of one chunk
        self.counters = dict.fromkeys(
            (
                "stored",
                "states_stored",
                "states_dropped",
                "unreadable",
                "fetched",
                "fetched_bytes",
                "imported_memory",
                "imported_disk",
                "rejected_memory",
                "rejected_disk",
            ),
            0,
        )

    def adopt(self, cache: ChunkCache, fingerprint: bytes) -> None:
        """Keep chunks there from now on, under that name."""
        self._cache, self.fingerprint = cache, fingerprint
        self._refused = set()

    def keys(self, ids: Sequence[int], fingerprint: bytes) -> list[ChunkKey]:
        """The keys that whole chunks of ``ids`` are resumed from: of chunks, and of the recurrent state after them."""
        keys = chunk_keys(fingerprint, ids, self._chunk)
        states = [state_key(key) for key in keys[-1:] if self._shape.recurrent]
        return [*(keys if self._shape.attention else ()), *states]

    def claim(self, ids: Sequence[int], owner: str) -> None:
        """Note whose words these are, before anything of them is stored; where that fails, nothing is."""
        keys = chunk_keys(self.fingerprint, ids, self._chunk) if owner else []
        self._may_store = not keys or self._cache.owners.claim(owner, keys)

    def look(
        self, ids: Sequence[int], live: int, limit: int, *, peers: bool = False
    ) -> tuple[list[ChunkKey], list[Place]]:
        """The keys of all whole chunks of ``ids``; and from ``live`` tokens on, as far as the prompt can be resumed
        from the cache, at most up to ``limit``, where the state of each chunk of tokens comes from. ``peers``: also
        from what peers have said that they have, where fetching that is worth it."""
        chunk, shape = self._chunk, self._shape
        keys = chunk_keys(self.fingerprint, ids, chunk)
        places = self._places(keys[live // chunk : limit // chunk], chunk, peers) if shape.attention else []
        if shape.recurrent:
            reach = live // chunk + len(places) if shape.attention else limit // chunk
            i, place = self._last_state(keys, live // chunk, reach, peers)
            places = places[: i - live // chunk] if shape.attention else [place] * (i - live // chunk)
        return keys, places

    @property
    def asks_peers(self) -> bool:
        """Whether there is anybody to ask, and anywhere to keep what they hand over."""
        return self._peers is not None and self._cache.capacity > 0

    def seek(self, ids: Sequence[int], live: int, limit: int) -> None:
        """Ask peers for what of this isn't here (``Peers.seek``)."""
        if self._peers is None or not self.asks_peers:
            return
        keys, places = self.look(ids, live, limit)
        chunk, here = self._chunk, live // self._chunk + len(places)
        missing = range(here, limit // chunk)
        wanted = [keys[i] for i in missing] if self._shape.attention else []
        if self._shape.recurrent:
            wanted += [state_key(keys[i]) for i in missing]
        self._peers.seek(wanted, chunk * len(missing))

    def bring(self, ids: Sequence[int], live: int, limit: int) -> Iterator[ChunkKey]:
        """Fetch what peers hand over of what ``look`` has found there, one by one, and keep it as if it had been
        evaluated here: claimed before. Ends where one doesn't come, or can't be kept."""
        if self._peers is None or not self._may_store:
            return
        keys, places = self.look(ids, live, limit, peers=True)
        chunk, first = self._chunk, live // self._chunk
        wanted = [(keys[first + n], chunk) for n, place in enumerate(places) if place == "peer"]
        if self._shape.recurrent and places:
            state = (state_key(keys[first + len(places) - 1]), chunk * len(places))
            wanted = [*(wanted if self._shape.attention else ()), *([] if self._is_here(state[0]) else [state])]
        for key, tokens in wanted:
            found = self._peers.fetch(key, tokens)
            if found is None or not self._put(found):
                return
            self.counters["fetched"] += 1
            self.counters["fetched_bytes"] += found.size
            yield key

    def fetch(self, key: ChunkKey) -> Chunk | None:
        """A chunk or state; one that is gone is not counted on until ``reset``."""
        found = self._cache.get(key)
        if found is None:
            self._lost.add(key)
        return found

    def reset(self) -> None:
        """Count on everything again that was gone a moment ago."""
        self._lost.clear()

    def note_tried(self, found: Chunk, tier: Place, *, taken: bool) -> bool | None:
        """Count a chunk that was tried. One that is wrong, or that llama.cpp did not take, is discarded and never tried
        again. True where it was taken, else None."""
        if taken:
            self.counters[f"imported_{tier}"] += 1
            return True
        self.counters[f"rejected_{tier}"] += 1
        self._refused.add(found.key)
        self._cache.discard(found.key)
        if self._peers is not None:
            self._peers.distrust(found.key)
        return None

    def put(
        self,
        ids: Sequence[int],
        start: int,
        stop: int,
        keys: Sequence[ChunkKey],
        export: Callable[[int, int], bytes | None],
    ) -> None:
        """Store the attention state of these positions, unless it is there, or may not be stored."""
        i = start // self._chunk
        if not self._may_store or self._is_here(keys[i]):
            return
        payload = export(start, stop)
        if payload is None:
            self.counters["unreadable"] += 1
            return
        parent = keys[i - 1] if i else self.fingerprint
        self._chunk_bytes = len(payload)
        if self._put(Chunk(keys[i], parent, start, tuple(ids[start:stop]), payload, self._work(start, stop))):
            self.counters["stored"] += 1

    def put_state(
        self, ids: Sequence[int], resumed: int, keys: Sequence[ChunkKey], export: Callable[[], bytes | None]
    ) -> None:
        """Store the recurrent state after ``ids``, likewise. ``resumed``: the last place before that one can be resumed
        at."""
        key = state_key(keys[len(ids) // self._chunk - 1])
        if not self._may_store or self._is_here(key):
            return
        payload = export()
        if payload is None:
            self.counters["unreadable"] += 1
            return
        rests, work = self._shape.attention, self._work(resumed, len(ids))
        if rests:  # what it saves, it saves together with the chunks since: this is its share, by bytes
            beside = self._chunk_bytes * (len(ids) - resumed) // self._chunk
            work = work * len(payload) // (len(payload) + beside)
        state = Chunk(key, self.fingerprint, 0, tuple(ids), payload, work, self._chunk, rests)
        self._state_bytes = state.size
        if self._put(state):
            self.counters["states_stored"] += 1

    @property
    def most_states(self) -> int:
        """How many recurrent states one conversation may have."""
        return max(2, self._cache.capacity // _STATES // self._state_bytes)

    def thin(self, ids: Sequence[int]) -> None:
        """Drop recurrent states of ``ids`` that younger ones have made less useful (``checkpoints.superseded``)."""
        if not self._shape.recurrent:
            return
        keys = {
            self._chunk * i: state_key(key) for i, key in enumerate(chunk_keys(self.fingerprint, ids, self._chunk), 1)
        }
        places = [place for place, key in keys.items() if self._is_here(key)]
        gone = superseded(places, places[-1], self.most_states) if places else []
        self.counters["states_dropped"] += self._cache.drop([keys[place] for place in gone])

    def _at_hand(self, keys: Sequence[ChunkKey]) -> list[Tier]:
        """The tiers of the first of these, as far as they are all there and worth a try."""
        bad = self._refused | self._lost
        good = next((i for i, key in enumerate(keys) if key in bad), len(keys)) if bad else len(keys)
        return self._cache.match(keys[:good])

    def _is_here(self, key: ChunkKey) -> bool:
        return bool(self._cache.match([key]))

    def _places(self, keys: Sequence[ChunkKey], tokens: int, peers: bool) -> list[Place]:
        """As ``_at_hand``, and where that ends, what peers have of it, and so on. Each saves evaluating ``tokens``."""
        places: list[Place] = [*self._at_hand(keys)]
        while peers and self._peers is not None and len(places) < len(keys):
            rest = keys[len(places) :]
            there = self._peers.offered([*takewhile(lambda key: key not in self._refused, rest)], tokens)
            if not there:
                break
            places += ["peer"] * there
            places += self._at_hand(keys[len(places) :])
        return places

    def _last_state(self, keys: Sequence[ChunkKey], live: int, reach: int, peers: bool) -> tuple[int, Place]:
        """After how many chunks, more than ``live`` and at most ``reach``, the last recurrent state stands; and where
        it is. ``live`` where there is none."""
        for i in range(reach, live, -1):
            if found := self._places([state_key(keys[i - 1])], self._chunk * (i - live), peers):
                return i, found[0]
        return live, "memory"

    def _put(self, chunk: Chunk) -> bool:
        kept = self._sound() and self._cache.put(chunk)
        if kept:
            self._refused.discard(chunk.key)
        return kept
