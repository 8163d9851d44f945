"""Arrangement: the head of another generation shares what it can with the one before."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from llmcrdt.document.arrangement import Arrangement
from llmcrdt.document.frame import EMPTY_FRAME, Frame, Pin, extend_frame_hash
from llmcrdt.document.nodes import Node, frame_list
from llmcrdt.ids import ContentHash, EntryId


def generations(rng: random.Random, count: int) -> dict[EntryId, Node]:
    """A tree of generations: each on an older one, or on none, with up to two entries appended."""
    found: dict[EntryId, Node] = {}
    lamport = 0
    for _ in range(count):
        base = rng.choice([None, *found.values()]) if found else None
        lists = frame_list(base.frame, found)[0] if base else []
        appended: list[Pin] = []
        for n in range(rng.randrange(3)):
            lamport += 1
            appended.append((EntryId(f"{lamport:03d}"), ContentHash(f"version {n}")))
        lamport += 1
        pin = (base.id, ContentHash(f"version {rng.randrange(2)}")) if base else None
        before = base.frame.hash if base and base.frame else EMPTY_FRAME
        assert base is None or base.id not in lists
        hash_ = extend_frame_hash(before, [*([pin] if pin else []), *appended])
        node = Node(EntryId(f"{lamport:03d}g"), (), lamport, frame=Frame(pin, tuple(appended), hash_))
        found[node.id] = node
    return found


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 12))
def test_the_head_is_the_frame_of_the_latest_generation_and_itself(seed: int, count: int) -> None:
    rng = random.Random(seed)
    sound = generations(rng, count)
    now = Arrangement()
    for latest in rng.sample([None, *sound], count):
        head, pins, same = now.head_at(latest, sound)
        ids, wanted = frame_list(sound[latest].frame, sound) if latest else ([], {})
        assert head == ([*ids, latest] if latest else [])
        assert pins == wanted
        assert head[:same] == now.head[:same]
        assert [pins.get(i) for i in head[: same - 1]] == [now.pins.get(i) for i in head[: same - 1]] or not same
        now = Arrangement(head=head, pins=pins, generation=latest)
