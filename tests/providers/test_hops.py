"""Conversations that hop between APIs of three providers (``hops.py``): no signature refused, no context lost, every
drop reported."""

from __future__ import annotations

from collections import Counter

import pytest

from .conftest import Ask
from .hops import run_history
from .stand_in import StandIn

EACH = 48


@pytest.mark.parametrize("block", range(2))
def test_whatever_happens_between_no_provider_refuses_and_every_drop_is_told(block: int) -> None:
    done: Counter[str] = Counter()
    for seed in range(block * EACH, (block + 1) * EACH):
        try:
            done += run_history(seed)
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise
    assert done["sent"] > 20 and done["left"] > 20 and done["failed"] > 0, done


@pytest.mark.parametrize("seed", range(1000, 1002))
def test_the_same_over_http_through_the_real_sdks(seed: int, stand_ins: dict[str, StandIn], ask: Ask) -> None:
    run_history(seed, 20, stand_ins, lambda api, model: ask(api, model, attempts=1))
