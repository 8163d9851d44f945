"""The acceptance suite for Engine: subclass it in a test file and say how to make one.

    class TestMine(EngineSuite):
        def make(self, cache): return MyEngine(cache)

Every invariant of the contract (``llmcrdt.engine.base``) is tested, for an engine in exact mode. Random choices are
seeded, so a failure repeats.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from llmcrdt.engine.base import Engine, Event, Failed, Finished, Sampled, Sampling, Started
from llmcrdt.exceptions import ContextOverflow, EngineClosed, EngineError
from llmcrdt.kvcache import ChunkCache, MemoryCache, NullCache

_PATIENCE = 60.0
_GREEDY = Sampling(temperature=0.0)


class Listener:
    """Keeps the reports of a run."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._over = threading.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Finished | Failed):
            self._over.set()

    def finished(self) -> Finished:
        """Wait for the end of a run that must not fail."""
        assert self._over.wait(_PATIENCE), "the engine does not answer"
        last = self.events[-1]
        assert isinstance(last, Finished), last
        return last

    @property
    def started(self) -> Started:
        return next(event for event in self.events if isinstance(event, Started))


def say(engine: Engine, ids: list[int], n: int, sampling: Sampling = _GREEDY, owner: str = "") -> Listener:
    """Generate at most ``n`` tokens, and wait."""
    listener = Listener()
    engine.start(ids, max_tokens=n, sampling=sampling, on_event=listener, owner=owner)
    listener.finished()
    return listener


class EngineSuite:
    """``make`` gives an engine in exact mode that speaks at least a few tokens; the suite closes it. ``at_once``: how
    many runs it serves at once."""

    at_once = 1

    def make(self, cache: ChunkCache) -> Engine:
        raise NotImplementedError

    @contextmanager
    def open(self, cache: ChunkCache | None = None) -> Iterator[Engine]:
        with closing(self.make(cache if cache is not None else MemoryCache())) as engine:
            assert engine.settled(_PATIENCE)
            yield engine

    def ids(self, engine: Engine, length: int, seed: int = 0) -> list[int]:
        """So many token ids of a text that means nothing."""
        rng = random.Random(seed)
        text = "".join(rng.choice("abcdefghij klmnop qrstuv wxyz") for _ in range(6 * length))
        return engine.tokenizer.encode(text, special=False)[:length]

    def cold(self, ids: list[int]) -> bytes:
        """The logits that an engine computes from nothing."""
        with self.open(NullCache()) as engine:
            return bytes(engine.logits(ids).result(_PATIENCE).tobytes())

    def test_runs_are_served_in_the_order_they_came(self) -> None:
        with self.open() as engine:
            order: list[int] = []
            listeners = [Listener() for _ in range(5)]
            for n, listener in enumerate(listeners):

                def listen(event: Event, n: int = n, listener: Listener = listener) -> None:
                    if not order or order[-1] != n:
                        order.append(n)
                    listener(event)

                engine.start(self.ids(engine, 40, n), max_tokens=3, sampling=_GREEDY, on_event=listen)
            for listener in listeners:
                listener.finished()
            assert list(dict.fromkeys(order)) == [0, 1, 2, 3, 4]
            assert self.at_once > 1 or order == [0, 1, 2, 3, 4]

    def test_events_come_in_order_and_tell_all(self) -> None:
        with self.open() as engine:
            for seed in range(6):
                sampling = Sampling(temperature=1.5, seed=seed)
                listener = say(engine, self.ids(engine, 50, seed), 12, sampling)
                started, *sampled, finished = listener.events
                assert isinstance(started, Started) and isinstance(finished, Finished)
                assert started.seed == seed
                assert all(isinstance(event, Sampled) for event in sampled)
                tokens = tuple(event.token for event in sampled if isinstance(event, Sampled))
                assert tokens == finished.tokens
                ended = engine.tokenizer.is_end(tokens[-1])
                assert finished.reason == ("end" if ended else "length")
                assert ended or len(tokens) == 12
                assert not any(map(engine.tokenizer.is_end, tokens[:-1]))

    def test_a_listener_that_fails_ends_its_run_and_no_other(self) -> None:
        with self.open() as engine:
            heard: list[Event] = []

            def fail(event: Event) -> None:
                heard.append(event)
                raise RuntimeError("a listener of a test")

            engine.start(self.ids(engine, 30), max_tokens=500, sampling=_GREEDY, on_event=fail)
            assert say(engine, self.ids(engine, 30, 2), 2).finished().tokens
            assert len(heard) == 1

    def test_a_cache_changes_no_answer(self) -> None:
        cache = MemoryCache()
        with self.open(cache) as engine:
            trunk = self.ids(engine, 5 * engine.chunk + 7, 1)
            branch = trunk[: 3 * engine.chunk + 3] + self.ids(engine, 2 * engine.chunk, 2)
            truth = {len(ids): self.cold(ids) for ids in (trunk, branch)}
            for ids in (trunk, branch, trunk, trunk, branch):
                assert engine.logits(ids).result(_PATIENCE).tobytes() == truth[len(ids)]
                say(engine, ids, 3)
        with self.open(cache) as engine:
            assert engine.plan(trunk).memory >= 4 * engine.chunk, "another engine finds what one has stored"
            for ids in (trunk, branch):
                assert engine.logits(ids).result(_PATIENCE).tobytes() == truth[len(ids)]

    def test_greedy_takes_the_likeliest(self) -> None:
        with self.open() as engine:
            ids = self.ids(engine, 40)
            logits = list(engine.logits(ids).result(_PATIENCE))
            assert say(engine, ids, 1).finished().tokens == (logits.index(max(logits)),)

    def test_a_seed_repeats_an_answer_and_one_that_was_drawn_is_told(self) -> None:
        with self.open() as engine:
            ids = self.ids(engine, 40)

            def hot(seed: int | None) -> Listener:
                return say(engine, ids, 12, Sampling(temperature=3.0, min_p=0.0, seed=seed))

            one, other = (hot(seed).finished().tokens for seed in (1, 2))
            assert one == hot(1).finished().tokens != other
            drawn = [hot(None), hot(None)]
            assert drawn[0].started.seed != drawn[1].started.seed
            assert hot(drawn[0].started.seed).finished().tokens == drawn[0].finished().tokens

    def test_what_is_planned_is_done(self) -> None:
        with self.open() as engine:
            rng, trunk = random.Random(3), self.ids(engine, 6 * engine.chunk)
            for seed in range(12):
                ids = trunk[: rng.randrange(1, len(trunk))] + self.ids(engine, rng.randrange(2, 40), seed)
                assert engine.settled(_PATIENCE)
                plan, before = engine.plan(ids), engine.stats()["prompt_tokens"]
                assert engine.plan(ids) == plan, "planning changes nothing"
                assert plan.total == len(ids) == plan.reused + plan.evaluate
                assert plan.reused == plan.live + plan.memory + plan.disk
                assert plan.reused % engine.chunk == 0 and plan.reused <= max(0, len(ids) - 2)
                assert say(engine, ids, 2).started.reuse == plan
                assert engine.stats()["prompt_tokens"] - before == plan.evaluate

    def test_what_was_said_is_settled(self) -> None:
        with self.open() as engine:
            ids = self.ids(engine, 2 * engine.chunk - 2)
            said = [*say(engine, ids, 4, owner="me").finished().tokens]
            assert engine.settled(_PATIENCE)
            whole = [*ids, *said, *self.ids(engine, 3, 5)]
            known = engine.chunk * ((len(ids) + len(said)) // engine.chunk)
            assert engine.plan(whole).reused == min(known, engine.chunk * ((len(whole) - 2) // engine.chunk))
            assert engine.missing(self.ids(engine, 100, 9), "me") == "evicted"

    def test_no_tokens_wanted_means_none_sampled(self) -> None:
        with self.open() as engine:
            listener = say(engine, self.ids(engine, 20), 0)
            assert [type(event) for event in listener.events] == [Started, Finished]
            assert listener.finished().reason == "length"

    def test_what_is_cancelled_ends_and_says_so(self) -> None:
        with self.open() as engine:
            gate, first, second = threading.Event(), Listener(), Listener()

            def wait_then_listen(event: Event) -> None:
                gate.wait(_PATIENCE)
                first(event)

            running = engine.start(self.ids(engine, 30), max_tokens=1000, sampling=_GREEDY, on_event=wait_then_listen)
            queued = engine.start(self.ids(engine, 30, 2), max_tokens=1000, sampling=_GREEDY, on_event=second)
            queued.cancel()
            running.cancel()
            gate.set()
            assert first.finished().reason == second.finished().reason == "cancelled"
            assert second.finished().tokens == ()
            assert say(engine, self.ids(engine, 30), 1).finished().tokens, "and it goes on"

    def test_a_prompt_must_fit_and_hold_tokens(self) -> None:
        with self.open() as engine:
            ids = self.ids(engine, 10)
            long = (ids * (engine.n_ctx // len(ids) + 1))[: engine.n_ctx]
            with pytest.raises(ContextOverflow) as caught:
                engine.start(long, max_tokens=1, sampling=_GREEDY, on_event=print)
            assert (caught.value.needed, caught.value.available) == (engine.n_ctx + 1, engine.n_ctx)
            for ask in (engine.plan, engine.logits, engine.prefetch):
                with pytest.raises(ContextOverflow):
                    ask([*long, ids[0]])
            with pytest.raises(EngineError):
                engine.start([], max_tokens=1, sampling=_GREEDY, on_event=print)
            with pytest.raises(EngineError):
                engine.plan([-1])

    def test_what_is_prefetched_need_not_be_evaluated(self) -> None:
        with self.open() as engine:
            old, new = self.ids(engine, 4 * engine.chunk, 1), self.ids(engine, 4 * engine.chunk, 2)
            engine.prefetch(new, "me")
            assert engine.settled(_PATIENCE)
            assert engine.plan([*new, *old[:2]]).reused == len(new)
            assert engine.stats()["prompt_tokens"] == 0

    def test_what_is_pinned_is_kept_and_what_can_not_be_is_refused(self) -> None:
        with self.open(NullCache()) as engine, pytest.raises(EngineError):
            engine.pin(self.ids(engine, 50), "me")
        cache = MemoryCache()
        with self.open(cache) as engine:
            ids = self.ids(engine, 3 * engine.chunk + 2)
            engine.pin(ids, "me")
            assert engine.settled(_PATIENCE)
            assert engine.plan(ids).reused == 3 * engine.chunk
            assert len(frozenset().union(*cache.pins.all().values())) == 3
            cache.resize(cache.stats()["held_bytes"])
            say(engine, self.ids(engine, 5 * engine.chunk, 7), 1)
            assert engine.settled(_PATIENCE)
            assert engine.plan(ids).memory == 3 * engine.chunk
            engine.unpin("me")
            assert cache.pins.all() == {}

    def test_what_is_forgotten_is_nowhere(self) -> None:
        cache = MemoryCache()
        with self.open(cache) as engine:
            mine, yours = self.ids(engine, 3 * engine.chunk + 5, 1), self.ids(engine, 3 * engine.chunk + 5, 2)
            for ids, owner in ((mine, "me"), (yours, "you")):
                say(engine, ids, 2, owner=owner)
            assert engine.settled(_PATIENCE)
            assert engine.forget("me").result(_PATIENCE) >= 3
            assert engine.settled(_PATIENCE)
            assert engine.plan(mine).reused == 0
            assert engine.plan(yours).memory == 3 * engine.chunk
            assert engine.forget("nobody").result(_PATIENCE) == 0

    def test_closing_ends_what_runs_and_what_waits(self) -> None:
        listeners, started = [Listener(), Listener()], threading.Event()
        engine = self.make(MemoryCache())
        try:
            assert engine.settled(_PATIENCE)
            closed = threading.Event()

            def first(event: Event) -> None:
                started.set()
                closed.wait(0.05)  # so that it is closed before the run is over
                listeners[0](event)

            bias = {token: -100.0 for token in range(1000) if _is_end(engine, token)}
            endless = Sampling(temperature=0.0, logit_bias=bias)
            engine.start(self.ids(engine, 30), max_tokens=1000, sampling=endless, on_event=first)
            engine.start(self.ids(engine, 30, 2), max_tokens=9, sampling=_GREEDY, on_event=listeners[1])
            assert started.wait(_PATIENCE)
        finally:
            engine.close()
        engine.close()
        closed.set()
        assert [listener.finished().reason for listener in listeners] == ["cancelled"] * 2
        for ask in (engine.plan, engine.logits, engine.prefetch):
            with pytest.raises(EngineClosed):
                ask([1, 2, 3])
        with pytest.raises(EngineClosed):
            engine.start([1, 2, 3], max_tokens=1, sampling=_GREEDY, on_event=print)
        assert engine.settled(_PATIENCE)
        assert engine.forget("me").result(_PATIENCE) == 0
        engine.unpin("me")
        assert engine.stats()["prompt_tokens"] > 0
        assert engine.n_ctx > 0 and engine.chunk > 0 and engine.name and engine.mode == "exact"
        assert engine.cache_folder is None, "the cache that it was given is its maker's"

    def test_what_the_protocol_declares_as_a_property_is_one(self) -> None:
        """Some type checkers take nothing else for one, a cached_property included."""
        with self.open() as engine:
            names = [name for name, member in vars(Engine).items() if isinstance(member, property)]
            assert [name for name in names if not isinstance(vars(type(engine)).get(name), property)] == []


def _is_end(engine: Engine, token: int) -> bool:
    try:
        return engine.tokenizer.is_end(token)
    except EngineError:  # there is no such token
        return False
