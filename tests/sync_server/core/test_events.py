"""Pushes that follow one another are one event."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from llmcrdt.sync.messages import Barrier, Push
from sync_server.core.events import Event, join_pushes
from sync_server.core.validation import Received

from .rooms_relay import D, E, S


@given(
    st.lists(st.tuples(st.sampled_from("12"), st.sampled_from([D, E]), st.integers(1, 3), st.booleans()), max_size=30)
)
def test_pushes_that_follow_one_another_are_one_and_keep_their_place(plan: list) -> None:
    events: list[Event] = []
    following = {}
    for peer, document, count, gap in plan:
        n = following.get((peer, document), 1) + gap
        following[peer, document] = n + count
        events.append(Received(int(peer), Push(document, S, n, (b"x",) * count), count))
        if gap:
            events.append(Received(int(peer), Barrier(n)))
    one = join_pushes(events)

    def names(events: list[Event]) -> list:
        out: list = []
        for event in events:
            assert isinstance(event, Received)
            push = event.message
            if isinstance(push, Push):
                out += [(event.peer, push.document, n) for n, _ in enumerate(push.data, push.n)]
            else:
                out.append(event)
        return out

    assert names(one) == names(events)
    assert sum(e.size for e in one) == sum(e.size for e in events)  # type: ignore[union-attr]
    for a, b in pairwise(one):
        if isinstance(a.message, Push) and isinstance(b.message, Push):  # type: ignore[union-attr]
            end = a.message.n + len(a.message.data)  # type: ignore[union-attr]
            assert (a.peer, a.message.document, end) != (b.peer, b.message.document, b.message.n)  # type: ignore[union-attr]
