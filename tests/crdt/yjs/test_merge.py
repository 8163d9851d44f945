"""Updates that are merged in one transaction: what is kept of them is less, and makes the same document."""

from __future__ import annotations

import random
from typing import Any

import pycrdt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcrdt.crdt.yjs.replica import YjsReplica
from llmcrdt.crdt.yjs.update import parse_update
from llmcrdt.exceptions import MalformedUpdate


def histories(rng: random.Random) -> list[bytes]:
    """The updates of three writers, who hear of each other now and then: letters, values, and deletes of both."""
    docs: list[Any] = [pycrdt.Doc(client_id=client) for client in (1, 2, 3)]
    updates: list[bytes] = []
    for _ in range(40):
        doc = rng.choice(docs)
        before = doc.get_state()
        text, map_, array = (
            doc.get(name, type=kind) for name, kind in (("t", pycrdt.Text), ("m", pycrdt.Map), ("a", pycrdt.Array))
        )
        gone = False
        match rng.randrange(6):
            case 0 | 1:
                text.insert(rng.randrange(len(str(text)) + 1), "word ")
            case 2:
                map_[f"k{rng.randrange(3)}"] = rng.randrange(9)
            case 3:
                array.insert(rng.randrange(len(array) + 1), "v")
            case 4 if len(str(text)) > 3:
                del text[1:3]
                gone = True
            case _ if len(array):
                del array[rng.randrange(len(array))]
                gone = True
        made = doc.get_update(before)
        if gone or made != b"\x00\x00":
            updates.append(made)
        if rng.random() < 0.3:
            rng.choice(docs).apply_update(doc.get_update())
    return updates


def shown(*updates: bytes) -> tuple[object, ...]:
    """The document that they make at a device: yrs itself goes wrong over some that come before what they need."""
    replica = YjsReplica(())
    replica.load(None, updates)
    return shown_by_the_core(replica.diff())


def shown_by_the_core(*updates: bytes) -> tuple[object, ...]:
    doc: Any = pycrdt.Doc()
    for update in updates:
        doc.apply_update(update)
    text, map_, array = (
        doc.get(name, type=kind) for name, kind in (("t", pycrdt.Text), ("m", pycrdt.Map), ("a", pycrdt.Array))
    )
    return str(text), map_.to_py(), array.to_py()


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_merged_or_one_by_one_the_document_is_the_same(seed: int, in_order: bool) -> None:
    rng = random.Random(seed)
    updates = histories(rng)
    if not in_order:
        for _ in range(rng.randrange(20)):
            updates.insert(rng.randrange(len(updates)), updates.pop(rng.randrange(len(updates))))
    merged, one = YjsReplica(()), YjsReplica(())
    kept, single = list[bytes](), list[bytes]()
    at = 0
    while at < len(updates):
        count = rng.choice((1, 2, 5, 50))
        kept += merged.merge([parse_update(update) for update in updates[at : at + count]])
        at += count
    for update in updates:
        if (applied := one.apply(update)).news:
            single.append(applied.update)
    assert not merged.broken and not one.broken
    assert merged.version() == one.version()
    assert not merged.adds(one.diff()) and not one.adds(merged.diff())
    assert shown(*kept) == shown(*single) == shown(merged.diff()) == shown(one.diff())
    if in_order:
        assert shown_by_the_core(*kept) == shown_by_the_core(*single) == shown(*kept)
    late = YjsReplica(())
    late.load(None, kept)
    assert late.version() == one.version() and not late.adds(one.diff())
    assert not late.snapshot()[1], "nothing waits"
    assert not merged.merge([parse_update(update) for update in updates]), "nothing is new any more"


def words(count: int) -> list[bytes]:
    doc: pycrdt.Doc[pycrdt.Text] = pycrdt.Doc(client_id=7)
    text, updates = doc.get("t", type=pycrdt.Text), list[bytes]()
    doc.observe(lambda event: updates.append(event.update))
    for n in range(count):
        text += f"{n:04} "
    return updates


def test_the_words_of_a_stream_are_kept_as_one_struct() -> None:
    updates, replica = words(101), YjsReplica(())
    assert replica.merge([parse_update(updates[0])]) == updates[:1]
    (kept,) = replica.merge([parse_update(update) for update in updates[1:]])
    assert len(kept) < 500 + 20
    assert shown(updates[0], kept) == shown(*updates)


def test_what_waits_is_kept_as_it_came_and_what_follows_by_itself() -> None:
    first, second, third = words(3)
    other: pycrdt.Doc[pycrdt.Map[str]] = pycrdt.Doc(client_id=8)
    other.get("m", type=pycrdt.Map)["k"] = "v"
    free = other.get_update()
    replica = YjsReplica(())
    kept = replica.merge([parse_update(update) for update in (free, second, third)])
    assert kept == [free, second, third]
    assert replica.merge([parse_update(first)]) == [first]
    assert shown(replica.diff()) == shown(first, second, third, free)


def test_a_core_that_breaks_over_several_leaves_a_replica_that_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    updates, replica = words(3), YjsReplica(())

    def give(update: bytes, span: object, real: Any = replica._intake.give) -> bool:
        if update == updates[2]:
            raise RuntimeError("over this one")
        return bool(real(update, span))

    monkeypatch.setattr(replica._intake, "give", give)
    with pytest.raises(MalformedUpdate):
        replica.merge([parse_update(update) for update in updates])
    assert replica.broken
