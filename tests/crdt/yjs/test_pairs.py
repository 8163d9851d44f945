"""Letters of two UTF-16 units that somebody writes into, or deletes half of."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

import pycrdt
import pytest

from llmcrdt.crdt.backend import Replica
from llmcrdt.crdt.registry import backend
from llmcrdt.crdt.yjs.pairs import merge_whole, replace_pairs
from llmcrdt.crdt.yjs.update import read_state_vector, read_update
from llmcrdt.exceptions import MalformedUpdate

from ...sync_server.yjs_peers import NODE, PEERS, needs_node
from .letters import NAME, Delete, Insert, Letters, write

YJS = backend("yjs")
ANN, BOB = 7, 9


def _new() -> Replica:
    return YJS.make_replica(("meta",))


def _text(update: bytes) -> str:
    doc: Any = pycrdt.Doc()
    text = doc.get(NAME, type=pycrdt.Text)
    doc.apply_update(update)
    return str(text)


def _one_by_one(rng: random.Random, updates: Sequence[bytes]) -> Replica:
    replica = _new()
    for update in updates:
        replica.apply(update)
    return replica


def _loaded(rng: random.Random, updates: Sequence[bytes]) -> Replica:
    replica = _new()
    replica.load(None, updates)
    return replica


def _in_batches(rng: random.Random, updates: Sequence[bytes]) -> Replica:
    replica, at = _new(), 0
    while at < len(updates):
        size = rng.randint(1, 5)
        act: Callable[[Any], object] = rng.choice((replica.apply_together, replica.merge))
        act([YJS.read(update) for update in updates[at : at + size]])
        at += size
    return replica


def _reopened(rng: random.Random, updates: Sequence[bytes]) -> Replica:
    replica = _new()
    for update in updates:
        replica.apply(update)
        if rng.random() < 0.3:
            whole, waiting = replica.snapshot()
            replica = _new()
            replica.load(whole, waiting)
    return replica


def _compacted(rng: random.Random, updates: Sequence[bytes]) -> Replica:
    cut = rng.randint(0, len(updates))
    return _loaded(rng, [*YJS.compact(updates[:cut]), *updates[cut:]])


def _caught_up(rng: random.Random, updates: Sequence[bytes]) -> Replica:
    """Of a device that had the beginning, and gets a difference from one that has all."""
    cut = rng.randint(0, len(updates))
    replica, other = _one_by_one(rng, updates[:cut]), _loaded(rng, updates)
    replica.apply(other.diff(replica.version()))
    return replica


_WAYS = (_one_by_one, _loaded, _in_batches, _reopened, _compacted, _caught_up)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_splits_a_letter_all_replicas_have_what_yjs_has(seed: int) -> None:
    for each in range(25):
        rng = random.Random(seed * 1000 + each)
        done, letters = write(rng, rng.randint(1, 3), rng.randint(2, 14))
        for way in _WAYS:
            updates = [operation.update for operation in done]
            if rng.random() < 0.5:
                rng.shuffle(updates)
            updates += rng.sample(updates, rng.randint(0, 2))
            replica = way(rng, updates)
            _check(replica, letters, f"{way.__name__} {seed * 1000 + each}")


def _check(replica: Replica, letters: Letters, what: str) -> None:
    whole = replica.diff()
    assert not replica.snapshot()[1], what
    assert _text(whole) == letters.text, what
    assert read_state_vector(replica.version()) == letters.ends, what
    assert read_update(whole).written == letters.ends, what


SMILE = Insert((ANN, 0), None, None, "a😀b")
BETWEEN = Insert((BOB, 0), (ANN, 1), (ANN, 2), "x")
ON = Insert((ANN, 4), (ANN, 3), None, "c")


def test_what_is_written_after_somebody_wrote_into_a_letter_comes_in() -> None:
    replica = _new()
    for operation in (SMILE, BETWEEN, ON):
        assert not replica.apply(operation.update).pending
    assert _text(replica.diff()) == "a�x�bc"
    assert read_state_vector(replica.version()) == {ANN: 5, BOB: 1}


def test_a_letter_that_nobody_splits_stays() -> None:
    replica = _new()
    for operation in (SMILE, Insert((BOB, 0), (ANN, 2), (ANN, 3), "x"), Delete({ANN: [(1, 3)]}), ON):
        replica.apply(operation.update)
    assert _text(replica.diff()) == "axbc"


def test_a_delete_that_came_before_its_letter_splits_it() -> None:
    for rest in ([SMILE, ON], [ON, SMILE]):
        replica = _new()
        for operation in (Delete({ANN: [(2, 4)]}), *rest):
            replica.apply(operation.update)
        assert _text(replica.diff()) == "a�c" and not replica.snapshot()[1]


def test_half_a_letter_is_told_from_its_beginning() -> None:
    """A client that wrote the halves one after the other has told the first alone."""
    first = Insert((ANN, 0), None, None, "\ufffd")
    whole = Insert((ANN, 0), None, None, "😀")
    replica, other = _new(), _new()
    replica.apply(whole.update)
    other.apply(first.update)
    other.apply(replica.diff(other.version()))
    other.apply(Insert((ANN, 2), (ANN, 1), None, "!").update)
    assert _text(other.diff()) == "\ufffd\ufffd!" and read_state_vector(other.version()) == {ANN: 3}
    merged = merge_whole([first.update, whole.update], pycrdt.merge_updates)
    assert read_update(merged).written == {ANN: 2}


def test_observers_hear_of_a_document_in_which_a_letter_was_replaced() -> None:
    """The core goes on as another document, with the same writer, who is told of the same things."""
    replica = _new()
    with replica.edit() as edit:
        edit.put_node("meta", "k", {})
        edit.put_text("meta", "k", "live")
        edit.append_text("meta", "k", "live", "a😀b")
    ((client, end),) = read_state_vector(replica.version()).items()
    applied = replica.apply(Delete({client: [(end - 2, end - 1)]}).update)
    assert applied.touched.of("meta") == {"k"} and applied.changed
    with replica.edit() as edit:
        edit.append_text("meta", "k", "live", "c")
    assert str((replica.node("meta", "k") or {})["live"]) == "a�bc"
    assert read_state_vector(replica.version()) == {client: end + 1}


def test_only_the_letters_asked_for_are_replaced() -> None:
    update = Insert((ANN, 0), None, None, "😀é😁").update
    assert _text(replace_pairs(update, {ANN: [4]})) == "😀é��"
    assert replace_pairs(update, {ANN: [2, 3]}) == update


@pytest.mark.parametrize("gone", [b"\x01\x07\x02\x02\x01\x00\x01", b"\x02\x07\x01\x00\x01\x07\x01\x02\x01"])
def test_deletes_that_the_core_would_forget_are_refused(gone: bytes) -> None:
    """Out of order, or a client in two places: no client writes either."""
    replica = _new()
    replica.apply(SMILE.update)
    with pytest.raises(MalformedUpdate):
        replica.apply(b"\x00" + gone)
    assert not replica.broken and _text(replica.diff()) == "a😀b"


@needs_node
def test_yjs_in_javascript_has_the_same_text() -> None:
    schedules = [write(random.Random(seed), 3, 14) for seed in range(200)]
    lines = [[operation.update.hex() for operation in done] for done, _ in schedules]
    assert NODE
    run = subprocess.run(
        [NODE, "texts.mjs", NAME], cwd=PEERS, capture_output=True, text=True, check=True,
        input="".join(json.dumps(line) + "\n" for line in lines),
    )  # fmt: skip
    assert [json.loads(line) for line in run.stdout.splitlines()] == [letters.text for _, letters in schedules]
