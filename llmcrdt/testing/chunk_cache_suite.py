"""The acceptance suite for ChunkCache: subclass it in a test file and say how to make one.

    class TestMine(ChunkCacheSuite):
        def make(self, budget): return MyCache(budget)

Every rule of the contract (``llmcrdt.kvcache.base``) is tested, in the order of its invariants. Random choices are
seeded, so a failure repeats.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import closing

from llmcrdt.kvcache import Chunk, ChunkCache, ChunkKey, chunk_keys

FINGERPRINT = bytes(range(32))
_PLENTY = 1 << 30


def chain(
    length: int, *, seed: int = 0, payload: int = 100, after: Chunk | None = None, tokens: int = 4
) -> list[Chunk]:
    """Chunks that follow each other, with random ids and payloads; ``after`` makes them a branch."""
    rng = random.Random(seed)
    chunks: list[Chunk] = []
    for _ in range(length):
        before = chunks[-1] if chunks else after
        parent, start = (before.key, before.position + len(before.ids)) if before else (FINGERPRINT, 0)
        ids = tuple(rng.randrange(1 << 31) for _ in range(tokens))
        chunks.append(Chunk.after(parent, start, ids, rng.randbytes(payload)))
    return chunks


def keys_of(chunks: list[Chunk]) -> list[ChunkKey]:
    return [chunk.key for chunk in chunks]


class ChunkCacheSuite:
    """``keeps``: False for a cache that never keeps anything. ``exact``: its budget is counted to the byte."""

    keeps = True
    exact = True

    def make(self, budget: int) -> ChunkCache:
        raise NotImplementedError

    def held(self, cache: ChunkCache) -> int:
        """Bytes in the tier that the budget is for, once everything is written."""
        cache.flush()
        return cache.stats()["held_bytes"]

    def test_what_was_put_is_found_and_equal(self) -> None:
        with closing(self.make(_PLENTY)) as cache:
            chunks = chain(5)
            for chunk in chunks:
                assert cache.put(chunk) is self.keeps
                assert cache.get(chunk.key) == (chunk if self.keeps else None)
            assert len(cache.match(keys_of(chunks))) == (5 if self.keeps else 0)
            cache.flush()
            assert [cache.get(key) for key in keys_of(chunks)] == (chunks if self.keeps else [None] * 5)

    def test_a_header_says_all_but_the_payload_and_changes_nothing(self) -> None:
        with closing(self.make(_PLENTY)) as cache:
            chunks = chain(3)
            for chunk in chunks:
                cache.put(chunk)
            cache.flush()
            before = cache.stats()
            for chunk in chunks:
                found = cache.header(chunk.key)
                assert (found is not None) is self.keeps
                if found is not None:
                    assert (found.key, found.parent, found.ids) == (chunk.key, chunk.parent, chunk.ids)
                    assert (found.position, found.size, found.work) == (chunk.position, chunk.size, chunk.work)
            assert cache.header(chain(1, seed=9)[0].key) is None
            assert cache.stats() == before

    def test_unknown_keys_are_misses(self) -> None:
        with closing(self.make(_PLENTY)) as cache:
            stranger = chain(1, seed=9)[0]
            assert cache.get(stranger.key) is None
            assert cache.match([stranger.key]) == []
            cache.discard(stranger.key)

    def test_match_is_the_longest_run_from_the_first_key(self) -> None:
        rng = random.Random(1)
        for seed in range(20):
            with closing(self.make(_PLENTY)) as cache:
                chunks = chain(8, seed=seed)
                present = [rng.random() < 0.7 for _ in chunks]
                for chunk, put in zip(chunks, present, strict=True):
                    if put:
                        cache.put(chunk)
                run = present.index(False) if False in present else 8
                assert len(cache.match(keys_of(chunks))) == (run if self.keeps else 0)

    def test_match_changes_nothing(self) -> None:
        for budget in (_PLENTY, 1000):
            with closing(self.make(budget)) as cache:
                first, second = chain(2, seed=1), chain(2, seed=2)
                for chunk in first + second:
                    cache.put(chunk)
                cache.flush()
                before = cache.stats()
                for _ in range(3):
                    cache.match(keys_of(first))
                assert cache.stats() == before

    def test_discarded_is_gone_until_put_again(self) -> None:
        with closing(self.make(_PLENTY)) as cache:
            chunks = chain(3)
            for chunk in chunks:
                cache.put(chunk)
            cache.discard(chunks[1].key)
            assert cache.get(chunks[1].key) is None
            assert len(cache.match(keys_of(chunks))) == (1 if self.keeps else 0)
            assert cache.put(chunks[1]) is self.keeps
            assert len(cache.match(keys_of(chunks))) == (3 if self.keeps else 0)

    def test_what_an_owner_claimed_is_forgotten_with_all_that_follows(self) -> None:
        if not self.keeps:
            return
        for seed in range(20):
            rng = random.Random(seed)
            with closing(self.make(_PLENTY)) as cache:
                chunks = list(self._tree(rng))
                parents = {chunk.key: chunk.parent for chunk in chunks}
                claimed = {chunk.key for chunk in chunks if rng.random() < 0.15}
                assert cache.owners.claim("mine", sorted(claimed))
                assert cache.owners.claim("other", keys_of(chunks[:5]))
                for chunk in chunks:
                    cache.put(chunk)
                gone = set(claimed)
                for chunk in chunks:  # a parent comes before its children
                    if parents[chunk.key] in gone:
                        gone.add(chunk.key)
                assert cache.owners.owned("mine") >= claimed
                assert cache.forget("mine") >= gone
                for chunk in chunks:
                    assert (cache.get(chunk.key) is None) is (chunk.key in gone)
                    assert bool(cache.match([chunk.key])) is (chunk.key not in gone)
                kept = sum(chunk.size for chunk in chunks if chunk.key not in gone)
                assert self.held(cache) == kept
                cache.forget("other")
                assert all(cache.get(chunk.key) is None for chunk in chunks[:5])

    def test_a_claim_stands_until_it_is_forgotten(self) -> None:
        with closing(self.make(_PLENTY)) as cache:
            keys = keys_of(chain(4))
            assert cache.owners.claim("mine", keys[:2]) is self.keeps
            assert cache.owners.claim("mine", keys[1:3]) is self.keeps
            assert cache.owners.claim("other", keys[3:]) is self.keeps
            cache.flush()
            assert cache.owners.owned("mine") == ({*keys[:3]} if self.keeps else set())
            assert cache.forget("mine", keys[:1]) == ({*keys[:3]} if self.keeps else {keys[0]})
            assert cache.owners.owned("other") == ({keys[3]} if self.keeps else set())

    def test_nobody_has_nothing_to_forget(self) -> None:
        with closing(self.make(_PLENTY)) as cache:
            chunks = chain(3)
            for chunk in chunks:
                cache.put(chunk)
            cache.forget("nobody")
            assert len(cache.match(keys_of(chunks))) == (3 if self.keeps else 0)

    def test_putting_twice_keeps_one(self) -> None:
        with closing(self.make(_PLENTY)) as cache:
            chunk = chain(1)[0]
            assert [cache.put(chunk) for _ in range(3)] == [self.keeps] * 3
            if self.keeps:
                assert self.held(cache) == chunk.size

    def test_the_budget_holds_and_counts_every_byte(self) -> None:
        if not self.keeps:
            return
        for seed in range(10):
            rng = random.Random(seed)
            budget = rng.randrange(300, 6000)
            with closing(self.make(budget)) as cache:
                everything: list[Chunk] = []
                for chunk in self._tree(rng):
                    everything.append(chunk)
                    cache.put(chunk)
                    assert self.held(cache) <= budget
                if self.exact:
                    present = [chunk for chunk in everything if cache.match([chunk.key])]
                    assert sum(chunk.size for chunk in present) == self.held(cache)

    def test_no_parent_goes_before_its_child(self) -> None:
        if not self.keeps:
            return
        for seed in range(20):
            rng = random.Random(seed)
            with closing(self.make(rng.randrange(500, 5000))) as cache:
                parents: dict[ChunkKey, bytes] = {}
                for chunk in self._tree(rng):
                    if chunk.parent != FINGERPRINT and not cache.match([ChunkKey(chunk.parent)]):
                        continue  # as an engine does: it stores after what it stands on
                    if cache.put(chunk):
                        parents[chunk.key] = chunk.parent
                    if parents and rng.random() < 0.3:
                        cache.get(rng.choice(list(parents)))
                    for key, parent in parents.items():
                        if cache.match([key]) and parent != FINGERPRINT:
                            assert cache.match([ChunkKey(parent)]), "a child is left without its parent"

    def test_the_least_recently_used_goes_first(self) -> None:
        if not self.keeps:
            return
        old, used = chain(3, seed=1), chain(3, seed=2)
        size = old[0].size
        with closing(self.make(6 * size)) as cache:
            for chunk in old + used:
                cache.put(chunk)
                cache.flush()
            for chunk in old:  # the older chain is used again, so the other one has to go
                assert cache.get(chunk.key) is not None
            cache.put(chain(1, seed=3)[0])
            cache.flush()
            assert len(cache.match(keys_of(old))) == 3
            assert len(cache.match(keys_of(used))) < 3

    def test_what_is_pinned_stays_until_it_is_unpinned(self) -> None:
        kept, others = chain(3, seed=1), [chain(1, seed=seed)[0] for seed in range(2, 22)]
        with closing(self.make(6 * kept[0].size)) as cache:
            assert cache.pins.set("me", keys_of(others)) is self.keeps
            assert cache.pins.set("me", keys_of(kept)) is self.keeps, "in place of the earlier pins"
            assert cache.pins.set("you", keys_of(kept[:1])) is self.keeps
            assert {*cache.pins.all().values()} == (
                {frozenset(keys_of(c)) for c in (kept, kept[:1])} if self.keeps else set()
            )
            for owner, left in (("", 3), ("me", 1), ("you", 0)):
                cache.pins.drop(owner)
                for chunk in kept if not owner else ():
                    cache.put(chunk)
                    cache.flush()
                for chunk in others * 2:
                    cache.put(chunk)
                    cache.flush()
                assert len(cache.match(keys_of(kept))) == (left if self.keeps else 0)
            assert cache.pins.all() == {}

    def test_dropping_leaves_what_is_pinned_or_needed(self) -> None:
        with closing(self.make(_PLENTY)) as cache:
            chunks = chain(4)
            for chunk in chunks:
                cache.put(chunk)
            cache.flush()
            cache.pins.set("me", keys_of(chunks[-1:]))
            assert cache.drop(keys_of(chunks)) == 0
            assert len(cache.match(keys_of(chunks))) == (4 if self.keeps else 0)
            cache.pins.drop("me")
            assert cache.drop([chunks[-1].key, chunks[0].key, chain(1, seed=9)[0].key]) == (1 if self.keeps else 0)
            assert len(cache.match(keys_of(chunks))) == (3 if self.keeps else 0)

    def test_too_large_is_refused(self) -> None:
        with closing(self.make(500)) as cache:
            small, large = chain(1, payload=10)[0], chain(1, seed=2, payload=600)[0]
            cache.put(small)
            cache.put(large)
            cache.flush()
            assert cache.get(large.key) is None
            assert (cache.get(small.key) is not None) is self.keeps

    def test_a_chunk_without_its_parent_evicts_nothing(self) -> None:
        if not self.keeps:
            return
        chunks = chain(5)
        with closing(self.make(3 * chunks[0].size)) as cache:
            for chunk in chunks:  # the fourth has no room; nor has the fifth, whose parent is not here
                cache.put(chunk)
                cache.flush()
            assert len(cache.match(keys_of(chunks))) == 3

    def test_threads_never_see_a_wrong_chunk(self) -> None:
        chunks = [chunk for seed in range(6) for chunk in chain(6, seed=seed)]
        wrong: list[object] = []

        def work(seed: int) -> None:
            rng = random.Random(seed)
            try:
                for _ in range(150):
                    chunk = rng.choice(chunks)
                    if rng.random() < 0.5:
                        cache.put(chunk)
                    elif rng.random() < 0.1:
                        cache.discard(chunk.key)
                    else:
                        found = cache.get(chunk.key)
                        if found is not None and found != chunk:
                            wrong.append(found)
            except Exception as error:
                wrong.append(error)

        with closing(self.make(4000)) as cache:
            threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert wrong == []

    def test_closed_is_empty_and_closing_twice_is_harmless(self) -> None:
        cache = self.make(_PLENTY)
        chunk = chain(1)[0]
        cache.put(chunk)
        cache.close()
        cache.close()
        assert cache.get(chunk.key) is None
        assert cache.header(chunk.key) is None
        assert cache.match([chunk.key]) == []
        assert cache.put(chunk) is False
        cache.discard(chunk.key)
        cache.drop([chunk.key])
        cache.pins.drop("me")
        assert cache.flush() is True

    def test_keys_are_those_of_the_token_ids(self) -> None:
        with closing(self.make(_PLENTY)) as cache:
            chunks = chain(4)
            for chunk in chunks:
                cache.put(chunk)
            ids = [token for chunk in chunks for token in chunk.ids]
            keys = chunk_keys(FINGERPRINT, [*ids, 1, 2], 4)
            assert keys == keys_of(chunks)
            assert len(cache.match(keys)) == (4 if self.keeps else 0)

    @staticmethod
    def _tree(rng: random.Random) -> Iterator[Chunk]:
        """Conversations that fork: each new chunk follows any earlier one, or none."""
        made: list[Chunk] = []
        for _ in range(40):
            after = rng.choice(made) if made and rng.random() < 0.85 else None
            made += chain(1, seed=rng.randrange(1 << 30), payload=rng.randrange(1, 400), after=after)
            yield made[-1]
