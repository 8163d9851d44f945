"""Folding: one update says what many said, except for what was deleted."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcrdt.crdt.yjs import split
from llmcrdt.crdt.yjs import update as yjs_update
from llmcrdt.crdt.yjs.compact import begin, catch_up_updates, compact_updates
from llmcrdt.crdt.yjs.redact import redact_updates
from llmcrdt.crdt.yjs.replica import YjsReplica
from llmcrdt.crdt.yjs.split import cut_update
from llmcrdt.crdt.yjs.update import read_state_vector
from llmcrdt.exceptions import MalformedUpdate
from llmcrdt.varint import write_uint

ROOTS = ("one", "two")


def updates_of(seed: int, count: int) -> list[bytes]:
    """Updates of two writers who see each other's now and then."""
    rng = random.Random(seed)
    writers = [YjsReplica(ROOTS, client_id=n) for n in (1, 2)]
    made: list[bytes] = []
    for i in range(count):
        writer = rng.choice(writers)
        root, known = rng.choice(ROOTS), [k for r in ROOTS for k in writer.keys(r) if r == "one"]
        with writer.edit() as edit:
            if root == "one" and known and rng.random() < 0.5:
                edit.append_text("one", rng.choice(known), "t", f"words-{i} ")
            elif root == "one":
                edit.put_node("one", f"k{i}", {"f": f"field-{i}"})
                edit.put_text("one", f"k{i}", "t")
            else:
                edit.put("two", f"s{i}", f"scalar-{i}")
        made.append(edit.update)
        if rng.random() < 0.3:
            for other in writers:
                for update in made:
                    other.apply(update)
    return [update for update in made if update]


def content(updates: list[bytes]) -> list[object]:
    replica = YjsReplica(ROOTS)
    for update in updates:
        replica.apply(update)
    return [
        (root, key, replica.get(root, key), replica.node(root, key))
        for root in ROOTS
        for key in sorted(replica.keys(root))
    ]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 20), st.data())
def test_a_fold_says_the_same_in_any_order(seed: int, count: int, data: st.DataObject) -> None:
    updates = updates_of(seed, count)
    order = data.draw(st.permutations(updates))
    folded = compact_updates(order)
    assert content(folded) == content(updates)
    assert len(folded) <= 1
    assert content(compact_updates([*folded, *updates])) == content(updates)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 20), st.data())
def test_what_still_waits_is_kept_until_the_rest_comes(seed: int, count: int, data: st.DataObject) -> None:
    updates = updates_of(seed, count)
    first = data.draw(st.sets(st.integers(0, len(updates) - 1)))
    some = [u for i, u in enumerate(updates) if i in first]
    rest = [u for i, u in enumerate(updates) if i not in first]
    assert content(compact_updates([*compact_updates(some), *rest])) == content(updates)


def test_a_document_of_more_clients_than_one_update_may_have_stays_one_that_everybody_can_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each of them wrote a small record after what another one had written."""
    monkeypatch.setattr(yjs_update, "CLIENTS", 60)
    monkeypatch.setattr(split, "_MOST", split.Most(clients=60))
    count = 500
    letters = [b"\x01\x01\x01\x00\x04\x01\x01t\x01a\x00"]
    letters += [_append(client, client - 1) for client in range(2, count)]
    compacted = compact_updates(letters)
    new = YjsReplica(ROOTS)
    for part in compacted:
        new.apply(part)
    assert new.snapshot()[1] == [] and len(read_state_vector(new.version())) == count - 1
    with new.edit() as edit:
        edit.put_node("one", "k", {"secret": "SECRET"})
        edit.put_text("one", "k", "t")
    said = edit.update
    with new.edit() as edit:
        edit.delete_field("one", "k", "secret")
    whole = new.diff()
    assert b"SECRET" not in b"".join(redact_updates(whole, [said]) or [said]), "an erase can still be carried out"
    assert not new.adds(said) and new.adds(_append(count, count - 1))
    begun = begin(compacted[0])
    begun.load(None, [*compacted[1:], catch_up_updates(compacted, [], [said, edit.update])])
    assert read_state_vector(begun.version()) == read_state_vector(new.version())
    with pytest.raises(MalformedUpdate):
        YjsReplica(ROOTS).apply(whole)
    assert len(cut_update(whole)) > 1, "and a device can put it back to a relay that lost it"


def _append(client: int, after: int) -> bytes:
    return b"\x01\x01" + write_uint(client) + b"\x00\x84" + write_uint(after) + b"\x00\x01a\x00"


def erased(write: Callable[[YjsReplica, list[bytes]], None]) -> bytes:
    replica, made = YjsReplica(ROOTS), list[bytes]()
    with replica.edit() as edit:
        edit.put_node("one", "k", {"secret": "SECRET-FIELD", "open": "open-field"})
        edit.put_text("one", "k", "t")
    made.append(edit.update)
    with replica.edit() as edit:
        edit.append_text("one", "k", "t", "SECRET-TEXT")
    made.append(edit.update)
    write(replica, made)
    return b"".join(compact_updates(made))


def test_what_was_deleted_is_not_in_the_fold() -> None:
    def delete(replica: YjsReplica, made: list[bytes]) -> None:
        with replica.edit() as edit:
            edit.delete_field("one", "k", "secret")
            edit.delete_field("one", "k", "t")
        made.append(edit.update)

    assert b"SECRET-FIELD" in erased(lambda *_: None)
    folded = erased(delete)
    assert b"SECRET" not in folded
    assert b"open-field" in folded


def test_bytes_that_are_no_update_stay_as_they_are() -> None:
    updates = updates_of(1, 5)
    for bad in (b"\xff\xff", b"", b"\x01\x01\x01"):
        folded = compact_updates([updates[0], bad, *updates[1:]])
        assert folded[1:] == [bad]
        assert content(folded[:1]) == content(updates)
    assert compact_updates([]) == []
