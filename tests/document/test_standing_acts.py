"""StandingActs: reading act by act, as they come, ends where reading all at once ends."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from llmcrdt.document import schema
from llmcrdt.document.acts import Claim, Keep, Stop, selection_key, write_act, write_selection
from llmcrdt.document.nodes import Node, Selection
from llmcrdt.document.order import Order
from llmcrdt.document.standing_acts import StandingActs
from llmcrdt.ids import EntryId, new_entry_id, new_session_id
from llmcrdt.testing.memory_backend import MemoryBackend

_RNG = random.Random(1)
ENTRIES = [EntryId(new_entry_id(_RNG.randbytes)) for _ in range(3)]
SESSIONS = [new_session_id(_RNG.randbytes) for _ in range(2)]


def texts(lamport: int, entry: EntryId, n: int) -> list[tuple[str, str]]:
    """An act of each kind, as key and text; and one that nobody can read."""
    session = SESSIONS[n]
    others = (Keep(entry, session, lamport), Stop(entry, session, lamport), Claim("call", session, lamport))
    selection = Selection(ENTRIES[0], session, lamport, entry)
    readable = [(act.key, write_act(act)) for act in others]
    return [*readable, (selection_key(selection), write_selection(selection)), (others[n].key, "nothing")]


def an_order() -> Order:
    """Three alternatives, of which a selection shows one."""
    order = Order()
    for n, entry in enumerate(ENTRIES):
        order.put(Node(entry, (), n + 1, alternative_of=ENTRIES[0] if n else None))
    return order


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(4, 9), st.sampled_from(ENTRIES), st.integers(0, 1), st.integers(0, 4))))
def test_of_what_was_written_under_a_key_the_last_counts(
    written: list[tuple[int, EntryId, int, int]],
) -> None:
    replica = MemoryBackend().make_replica([schema.ACTS])
    orders = an_order(), an_order()
    acts, anew = StandingActs(orders[0]), StandingActs(orders[1])
    for lamport, entry, session, kind in written:
        key, text = texts(lamport, entry, session)[kind]
        with replica.edit() as edit:
            edit.put(schema.ACTS, key, text)
        acts.read(replica, [key])
        assert orders[0].now()
    anew.read(replica, replica.keys(schema.ACTS))
    assert (acts.stops, acts.claims) == (anew.stops, anew.claims)
    assert orders[0].now().visible == orders[1].now().visible
