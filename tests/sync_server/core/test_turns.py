"""Time is shared out equally among those who want some."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from sync_server.core.turns import Source, Turns


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 1 << 30))
def test_who_always_waits_has_as_much_time_as_any_other(seed: int) -> None:
    """However long a turn takes, and however many things and sources there are: within one turn of the longest."""
    rng = random.Random(seed)
    turns, used = Turns[int](), Counter[Source]()
    costs = {source: rng.choice((0.001, 0.01, 1.0)) for source in range(1, rng.randint(2, 6))}
    for source in costs:
        for thing in range(rng.choice((1, 3, 50))):
            turns.enter(source, thing)
    for _ in range(500):
        turn = turns.next()
        assert turn is not None
        source, thing = turn
        turns.served(source, thing)
        cost = costs[source] * rng.random()
        turns.charge(source, cost)
        used[source] += cost  # type: ignore[assignment]
        assert used[source] <= min(used[s] for s in costs) + max(costs.values())


def test_things_of_one_source_take_turns() -> None:
    turns = Turns[str]()
    for thing in "abc":
        turns.enter(1, thing)
    got = []
    for _ in range(7):
        turn = turns.next()
        assert turn
        turns.served(*turn)
        turns.charge(1, 1.0)
        got.append(turn[1])
    assert "".join(got) == "abcabca"


def test_nobody_saves_up_time_and_nobody_gets_rid_of_a_debt_by_going_away() -> None:
    turns = Turns[str]()
    turns.enter("steady", "x")
    turns.enter("greedy", "y")
    turns.charge("greedy", 10.0)
    turns.leave("greedy", "y")
    for _ in range(5):
        assert turns.next() == ("steady", "x")
        turns.charge("steady", 1.0)
    turns.enter("greedy", "y")
    turns.enter("new", "z")
    assert next(turns.order()) == "new", "who comes anew has used as much as the one who is served now"
    turns.charge("new", 1.5)
    assert [*turns.order()] == ["steady", "new", "greedy"]
    for _ in range(4):
        source = next(turns.order())
        assert source != "greedy"
        turns.charge(source, 1.0)


def test_what_left_has_no_turn_and_what_is_known_of_it_does_not_stay() -> None:
    turns = Turns[str]()
    turns.enter(0, "stays")
    for source in range(1, 1_000):
        turns.enter(source, "a")
        turns.charge(source, 0.0)
        turns.leave(source, "a")
    turns.leave(5, "never there")
    turns.charge(0, 1.0)
    assert [*turns.order()] == [0] and turns.sources == 1
    assert len(turns._used) < 40
