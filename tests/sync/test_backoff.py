"""Pauses between tries, from a seed and without a clock."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from llmcrdt.sync.backoff import Backoff


@given(st.integers(0, 1 << 32), st.integers(1, 200))
def test_a_pause_is_below_its_bound(seed: int, tries: int) -> None:
    backoff = Backoff(random.Random(seed).random)
    for k in range(tries):
        assert 0 <= backoff.next() <= min(30, 0.1 * 2**k)


def test_full_jitter_uses_the_whole_range() -> None:
    assert [Backoff(lambda: 0.0).next(), Backoff(lambda: 1.0).next()] == [0, 0.1]
    backoff = Backoff(lambda: 1.0)
    assert [backoff.next() for _ in range(10)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30]
    backoff.reset()
    assert backoff.next() == 0.1


@given(st.floats(0, 100), st.integers(0, 1000))
def test_what_the_relay_asked_for_is_a_lower_bound(retry_after: float, seed: int) -> None:
    pause = Backoff(random.Random(seed).random).next(retry_after)
    assert retry_after <= pause <= max(0.1, 2 * retry_after)


def test_the_same_seed_gives_the_same_pauses() -> None:
    def pauses(seed: int) -> list[float]:
        backoff = Backoff(random.Random(seed).random)
        return [backoff.next() for _ in range(20)]

    assert pauses(1) == pauses(1) != pauses(2)
