"""Updates that come before what they depend on: whatever becomes readable is told as touched, at once."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from llmcrdt.crdt.backend import Replica
from llmcrdt.crdt.yjs.replica import YjsReplica


def shown(replica: Replica) -> dict[str, dict[str, object]]:
    return {key: dict(replica.node("entries", key) or {}) for key in replica.keys("entries")}


def history(rng: random.Random) -> list[bytes]:
    """The updates of one writer: nodes, fields that come later, texts that grow, and deletes."""
    replica, updates = YjsReplica(["entries"], client_id=1), []
    for n in range(6):
        with replica.edit() as edit:
            key = f"entry {rng.randrange(n + 1)}"
            node = replica.node("entries", key)
            if node is None:
                edit.put_node("entries", key, {"head": "h"})
                edit.put_text("entries", key, "live")
            elif "live" in node and rng.random() < 0.6:
                edit.append_text("entries", key, "live", "word ")
            else:
                edit.put_field("entries", key, f"version {n}", "v")
                edit.delete_field("entries", key, "live")
        updates.append(edit.update)
    return updates


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_becomes_readable_is_told(seed: int) -> None:
    rng = random.Random(seed)
    updates = history(rng)
    late = updates + rng.choices(updates, k=3)
    rng.shuffle(late)
    replica = YjsReplica(["entries"])
    for update in late:
        before = shown(replica)
        applied = replica.apply(update)
        after = shown(replica)
        differs = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        assert differs <= applied.touched.of("entries")
        assert applied.news or not differs
