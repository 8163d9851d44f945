"""Which goes first, against a brute-force oracle that knows the definition alone: no heap, no clock."""

import math
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcrdt.kvcache import Chunk, DiskCache, MemoryCache, TieredCache
from llmcrdt.kvcache.chunk_hash import chunk_keys
from llmcrdt.kvcache.eviction import SHARE, EvictionOrder
from llmcrdt.kvcache.owners import owner_name
from llmcrdt.testing.chunk_cache_suite import FINGERPRINT, chain, keys_of


class Oracle:
    """All that is here, in the order of its last use; every question is answered by looking at all of it."""

    def __init__(self, budget: int):
        self.halflife = budget / SHARE
        self.here: dict = {}  # key -> (needs, size, work)
        self.uses: list = []  # (key, bytes), every use there ever was
        self.pinned: set = set()
        self.used: dict = {}  # times, where nothing else is known
        self.age: dict = {}

    def freeze_ages(self):
        """Half of all bytes came since the first moment since which at least half came."""
        total, newest = sum(size for _, size, _ in self.here.values()), max(self.used.values())
        for moment in sorted(set(self.used.values()) - {newest}, reverse=True):
            if 2 * sum(self.here[key][1] for key, used in self.used.items() if used >= moment) >= total:
                break
        else:
            moment = newest - 10**15
        for key, used in self.used.items():
            self.age[key] = total / 2 * (newest - used) / (newest - moment)

    def use(self, key):
        self.uses.append((key, self.here[key][1]))

    def score(self, key) -> float:
        _, size, work = self.here[key]
        if self.age:
            return math.log2(max(work, 1) / size) - self.age[key] / self.halflife
        last = max(i for i, (used, _) in enumerate(self.uses) if used == key)
        age = sum(size for _, size in self.uses[last + 1 :])
        return math.log2(max(work, 1) / size) - age / self.halflife  # itself is 0 long before it is

    def may_go(self) -> set:
        needed = {needs for needs, _, _ in self.here.values()}
        return {key for key in self.here if key not in needed and key not in self.pinned}


OPERATIONS = st.lists(
    st.tuples(st.sampled_from("aaatrp"), st.integers(0, 50), st.integers(1, 400), st.integers(0, 10**6)), max_size=60
)


@settings(max_examples=200)
@given(st.integers(1, 3000), OPERATIONS)
def test_the_lowest_score_goes_first(budget, operations):
    order, oracle, named = EvictionOrder(budget), Oracle(budget), []
    for what, pick, size, work in operations:
        present = sorted(oracle.here)
        if what == "a":
            key = len(named).to_bytes(32, "big")
            needs = named[pick % len(named)] if named and pick % 3 else None
            named.append(key)
            order.add(key, needs, size, work)
            oracle.here[key] = (needs, size, work)
            oracle.use(key)
        elif what == "p":
            oracle.pinned = {key for i, key in enumerate(named) if (i + pick) % 5 == 0}
            order.pin(frozenset(oracle.pinned))
        elif present and what == "t":
            order.touch(present[pick % len(present)])
            oracle.use(present[pick % len(present)])
        elif present and what == "r":
            order.remove(present[pick % len(present)])
            del oracle.here[present[pick % len(present)]]
        spare = named[pick % len(named)] if named and pick % 2 else None
        candidates = oracle.may_go() - {spare}
        victim = order.next(spare)
        assert (victim is None) is (not candidates)
        if victim is not None:
            assert victim in candidates
            assert oracle.score(victim) <= min(map(oracle.score, candidates)) + 1e-6
        assert len(order) == len(oracle.here)


def stored_things(seeds) -> list:
    """Chains, forks, and states of both kinds, with all sorts of worth."""
    things: list[Chunk] = []
    for i, (pick, payload, work) in enumerate(seeds):
        chunks = [thing for thing in things if not thing.link]
        if pick % 4 == 0 and chunks:
            ids = _prefix(chunks[pick % len(chunks)], chunks)
            things.append(
                Chunk.state(FINGERPRINT, ids, bytes(payload), link=4, rests=bool(pick % 8), work=work)
            )  # fmt: skip
            continue
        after = chunks[pick % len(chunks)] if chunks and pick % 5 else None
        (made,) = chain(1, seed=1000 + i, payload=payload, after=after)
        things.append(Chunk.after(made.parent, made.position, made.ids, made.payload, work))
    return list({thing.key: thing for thing in things}.values())


def _prefix(chunk: Chunk, chunks) -> tuple:
    by_key = {other.key: other for other in chunks}
    ids: tuple = ()
    at: Chunk | None = chunk
    while at is not None:
        ids, at = at.ids + ids, by_key.get(at.parent)
    return ids


SEEDS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 400), st.integers(1, 10**6)), min_size=1, max_size=25)


@settings(max_examples=100, deadline=None)
@given(SEEDS, st.integers(400, 4000), st.lists(st.integers(0, 24), max_size=8), st.data())
def test_memory_evicts_as_the_oracle_says(seeds, budget, pins, data):
    things = stored_things(seeds)
    cache, oracle = MemoryCache(budget), Oracle(budget)
    oracle.pinned = {things[i % len(things)].key for i in pins}
    cache.pins.set("me", oracle.pinned)
    for thing in things:
        held = sum(size for _, size, _ in oracle.here.values())
        orphan = thing.needs is not None and thing.needs not in oracle.here
        if thing.size <= budget - (held if orphan else 0):
            oracle.here[thing.key] = (thing.needs, thing.size, thing.work)
            oracle.use(thing.key)
            while sum(size for _, size, _ in oracle.here.values()) > budget and (can := oracle.may_go() - {thing.key}):
                del oracle.here[min(can, key=oracle.score)]
            if sum(size for _, size, _ in oracle.here.values()) > budget:
                del oracle.here[thing.key]  # all others are pinned, or needed
        assert cache.put(thing) is (thing.key in oracle.here)
        assert {other.key for other in things if cache.match([other.key])} == set(oracle.here)
        assert cache.stats()["held_bytes"] == sum(size for _, size, _ in oracle.here.values()) <= budget
        if oracle.here and data.draw(st.booleans()):
            used = data.draw(st.sampled_from(sorted(oracle.here)))
            cache.get(used)
            oracle.use(used)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(400, 4000), st.lists(st.integers(0, 24), max_size=8))
def test_the_disk_evicts_as_the_oracle_says(tmp_path_factory, seeds, budget, pins):
    """A put leaves what the oracle leaves, which is told the files by their times of last use."""
    things, folder = stored_things(seeds), tmp_path_factory.mktemp("kv")
    cache = DiskCache(folder, budget)
    pinned = {things[i % len(things)].key for i in pins}
    cache.pins.set("me", pinned)
    for thing in things:
        before = sorted((path.stat().st_mtime_ns, path) for path in folder.glob("*.kv"))
        oracle = Oracle(budget)
        oracle.pinned = pinned
        by_key = {other.key.hex(): other for other in things}
        for used, path in before:
            other = by_key[path.stem]
            oracle.here[other.key] = (other.needs, other.size, other.work)
            oracle.used[other.key] = used
        held = sum(size for _, size, _ in oracle.here.values())
        kept = cache.put(thing)
        left = {other.key for other in things if cache.match([other.key])}
        if held + thing.size <= budget:
            assert kept and left == set(oracle.here) | {thing.key}
        elif thing.size > budget or (thing.needs is not None and thing.needs not in oracle.here):
            assert not kept and left == set(oracle.here)
        else:
            oracle.freeze_ages()
            oracle.here[thing.key] = (thing.needs, thing.size, thing.work)
            oracle.age[thing.key] = 0.0
            while sum(size for _, size, _ in oracle.here.values()) > budget - budget // 20 and (
                can := oracle.may_go() - {thing.key}
            ):
                victim = min(can, key=lambda key: (round(oracle.score(key), 9), key))  # of equals the lower key
                del oracle.here[victim]
            fits = sum(size for _, size, _ in oracle.here.values()) <= budget
            assert kept is fits
            assert left == set(oracle.here) - (set() if fits else {thing.key})
        assert cache.stats()["held_bytes"] == sum(by_key[key.hex()].size for key in left) <= budget


@pytest.mark.parametrize("make", [lambda folder, n: MemoryCache(n), DiskCache])
def test_what_saves_more_per_byte_stays_longer_and_not_for_ever(tmp_path, make):
    """A state worth a thousand chunks outlives chunks that came after it, and goes once it was unused for long."""
    state = Chunk.state(FINGERPRINT, tuple(range(64)), bytes(300), link=4, rests=False, work=64_000)
    cache = make(tmp_path, 20 * chain(1)[0].size)
    cache.put(state)
    lived = 0
    for seed in range(400):
        cache.put(chain(1, seed=seed)[0])
        lived += bool(cache.match([state.key]))
    assert 25 < lived < 200


@pytest.mark.parametrize("make", [lambda folder, n: MemoryCache(n), DiskCache])
def test_what_comes_in_is_taken_in_also_by_a_cache_of_what_is_worth_more(tmp_path, make):
    """Else a new conversation could wait for ever: nothing grows older where nothing new is kept."""
    size = chain(1)[0].size
    cache = make(tmp_path, 20 * size)
    for seed in range(40):
        (old,) = chain(1, seed=seed)
        cache.put(Chunk.after(old.parent, 0, old.ids, old.payload, work=10**12))
    chunks = chain(6, seed=99)
    assert all(cache.put(chunk) for chunk in chunks)
    assert len(cache.match(keys_of(chunks))) == 6


@pytest.mark.parametrize("kind", ["memory", "disk", "tiered"])
def test_pins_hold_in_every_tier(tmp_path, kind):
    chunks, size = chain(4), chain(1)[0].size

    def make():
        memory, disk = MemoryCache(10 * size), DiskCache(tmp_path, 10 * size)
        return {"memory": memory, "disk": disk, "tiered": TieredCache(memory, disk)}[kind]

    with closing(make()) as cache:
        assert cache.pins.set("me", keys_of(chunks))
        for chunk in chunks + [thing for seed in range(1, 30) for thing in chain(3, seed=seed)]:
            cache.put(chunk)
        cache.flush()
        assert len(cache.match(keys_of(chunks))) == 4
        if kind == "tiered":
            assert cache.match(keys_of(chunks)) == ["memory"] * 4
            assert cache.stats()["memory_pinned"] == cache.stats()["disk_pinned"] == 4
        assert cache.pins.all() == {owner_name("me"): frozenset(keys_of(chunks))}
        assert cache.drop(keys_of(chunks)) == 0
    if kind != "memory":
        with closing(make()) as cache:  # another process sees them
            for seed in range(30, 60):
                cache.put(chain(1, seed=seed)[0])
            cache.flush()
            assert len(cache.match(keys_of(chunks))) == 4
            cache.pins.drop("me")
            assert cache.pins.all() == {}
            for seed in range(60, 90):
                cache.put(chain(1, seed=seed)[0])
            cache.flush()
            assert len(cache.match(keys_of(chunks))) < 4
            assert list(tmp_path.glob("*.pin")) == []


def test_pins_as_large_as_the_budget_leave_room_for_nothing_else(tmp_path):
    chunks = chain(5)
    for cache in (MemoryCache(5 * chunks[0].size), DiskCache(tmp_path, 5 * chunks[0].size)):
        cache.pins.set("me", keys_of(chunks))
        for chunk in chunks:
            assert cache.put(chunk)
        assert cache.put(chain(1, seed=2)[0]) is False
        assert len(cache.match(keys_of(chunks))) == 5


def test_forgetting_ends_the_pin(tmp_path):
    for cache in (MemoryCache(), DiskCache(tmp_path / "d"), TieredCache(MemoryCache(), DiskCache(tmp_path / "t"))):
        chunks = chain(3)
        cache.owners.claim("me", keys_of(chunks))
        cache.pins.set("me", keys_of(chunks))
        for chunk in chunks:
            cache.put(chunk)
        cache.forget("me")
        assert cache.pins.all() == {}
        assert cache.match(keys_of(chunks)) == []
        cache.close()
    assert list(tmp_path.rglob("*.pin")) == []


def test_only_what_nothing_needs_is_dropped(tmp_path):
    for cache in (MemoryCache(), DiskCache(tmp_path / "d"), TieredCache(MemoryCache(), DiskCache(tmp_path / "t"))):
        chunks = chain(3)
        ids = tuple(token for chunk in chunks for token in chunk.ids)
        state = Chunk.state(FINGERPRINT, ids, b"state", link=4, rests=True)
        for thing in (*chunks, state):
            cache.put(thing)
        cache.flush()
        assert cache.drop([chunks[2].key]) == 0, "the state rests on it"
        assert cache.drop([state.key, chunks[0].key, b"unknown".ljust(32)]) == 1
        assert cache.match([state.key]) == []
        assert len(cache.match(keys_of(chunks))) == 3
        cache.close()


@pytest.mark.parametrize("rests", [True, False])
def test_a_state_is_forgotten_with_any_chunk_it_has_read(tmp_path, rests):
    """Also where none of those chunks is stored (a recurrent model stores none)."""
    ids = tuple(range(1, 21))
    keys = chunk_keys(FINGERPRINT, ids, 4)
    for i, cache in enumerate((MemoryCache(), DiskCache(tmp_path / "d"), DiskCache(tmp_path / "bad"))):
        state = Chunk.state(FINGERPRINT, ids, b"x" * 40, link=4, rests=rests)
        cache.owners.claim("me", [keys[1]])
        cache.put(state)
        if i == 2:
            cache.discard(state.key)
        cache.forget("me")
        assert cache.match([state.key]) == []
    assert list(tmp_path.rglob("*.kv")) == list(tmp_path.rglob("*.bad")) == []


def test_the_heap_stays_small():
    """Touching a leaf a million times must not grow it without end."""
    order = EvictionOrder(1 << 20)
    chunks = chain(2)
    for chunk in chunks:
        order.add(chunk.key, chunk.needs, chunk.size, chunk.work)
    for _ in range(5000):
        order.touch(chunks[1].key)
    assert len(order._heap) <= 64 + 4 * len(order) + 1
    assert order.next() == chunks[1].key
