"""The end of a document is read from its bytes, and what is taken in on top of that is what the whole history would
take."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from needs_automerge import needs_automerge

from llmcrdt.crdt.automerge.chunks import EMPTY, read_update
from llmcrdt.crdt.automerge.core import Core
from llmcrdt.crdt.automerge.ends import Ends, Head, read_ends
from llmcrdt.crdt.automerge.lazy_history import LazyHistory
from llmcrdt.crdt.automerge.package import load_core
from llmcrdt.crdt.automerge.replica import AutomergeReplica

pytestmark = needs_automerge

ROOTS = ("meta", "entries", "acts")


def _write(replica: AutomergeReplica, draw: random.Random) -> bytes:
    with replica.edit() as edit:
        for _ in range(draw.randint(1, 3)):
            edit.put_node("entries", draw.randbytes(8).hex(), {"head": "h" * draw.randint(0, 20), "b": b"\0"})
    return edit.update


def _document(draw: random.Random, writers: int, rounds: int) -> list[AutomergeReplica]:
    """Replicas that wrote beside each other, and took in what others wrote now and then."""
    replicas = [AutomergeReplica(ROOTS, actor=bytes((n + 1,)) * 8) for n in range(writers)]
    for _ in range(rounds):
        writer, reader = draw.choice(replicas), draw.choice(replicas)
        _write(writer, draw)
        if draw.random() < 0.5:
            reader.apply(writer.diff(reader.version()))
    return replicas


@pytest.mark.parametrize("seed", range(12))
def test_the_ends_of_a_document_are_those_that_its_changes_tell(seed: int) -> None:
    draw = random.Random(seed)
    first, *others = _document(draw, draw.randint(1, 4), draw.randint(1, 40))
    for other in others[: draw.randint(0, len(others))]:
        first.apply(other.diff())
    core = Core(ROOTS, b"\x7f" * 8)
    whole, _ = first.snapshot()
    assert core.start_with(whole)
    changes = {change.hash: change for change in core.doc.get_changes([])}
    seqs: dict[bytes, int] = {}
    for change in changes.values():
        seqs[change.actor_id] = max(change.seq, seqs.get(change.actor_id, 0))
    heads = [Head(h, (changes[h].actor_id, changes[h].seq), changes[h].max_op) for h in sorted(core.doc.get_heads())]
    assert read_ends(whole) == Ends(heads, seqs)


def test_a_document_without_changes_has_no_ends() -> None:
    assert read_ends(EMPTY) is None


@pytest.mark.parametrize("seed", range(12))
def test_what_comes_on_top_of_a_snapshot_is_taken_as_by_a_replica_that_was_never_stored(seed: int) -> None:
    draw = random.Random(100 + seed)
    writer, *others = _document(draw, 3, 12)
    for other in others[:1]:
        writer.apply(other.diff())
    snapshot, waiting = writer.snapshot()
    assert not waiting
    late = [other.diff(writer.version()) for other in others] if draw.random() < 0.7 else []
    repeated = [writer.diff()] if draw.random() < 0.3 else []
    tail = [*late, *repeated, *(_write(writer, draw) for _ in range(5))]
    if draw.random() < 0.5:
        draw.shuffle(tail)
    if draw.random() < 0.3:
        tail.pop(draw.randrange(len(tail)))  # then what comes after it waits
    live = AutomergeReplica(ROOTS, actor=b"\x7e" * 8)
    live.apply(snapshot)
    for update in tail:
        live.apply(update)
    stored = AutomergeReplica(ROOTS, actor=b"\x7e" * 8)
    stored.load(snapshot, tail)
    _same(stored, live)
    back = others[0].diff(live.version())
    told = [replica.apply(back) for replica in (stored, live)]
    assert told[0].update == told[1].update
    mine = [_write(replica, random.Random(seed)) for replica in (stored, live)]
    assert mine[0] == mine[1]
    _same(stored, live)


def _same(one: AutomergeReplica, other: AutomergeReplica) -> None:
    assert one.version() == other.version()
    assert one.waits == other.waits
    assert sorted(one.keys("entries")) == sorted(other.keys("entries"))
    assert {change.hash for change in one.changes()} == {change.hash for change in other.changes()}


def test_a_tail_that_goes_on_needs_no_look_at_all_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(7)
    writer = AutomergeReplica(ROOTS, actor=b"\x01" * 8)
    for _ in range(5):
        _write(writer, draw)
    snapshot, _ = writer.snapshot()
    tail = [_write(writer, draw) for _ in range(5)]
    stored = AutomergeReplica(ROOTS, actor=b"\x02" * 8)
    version = writer.version()
    monkeypatch.setattr(LazyHistory, "all", lambda history: pytest.fail("all changes are told"))
    stored.load(snapshot, tail)
    assert stored.version() == version
    update = _write(stored, draw)
    monkeypatch.undo()
    assert [change.deps for change in read_update(update).structure] == [list(writer._core.history.all().heads)]
    writer.apply(update)
    assert stored.version() == writer.version()


def test_a_change_of_a_stranger_that_comes_after_nothing_and_is_there_is_no_news() -> None:
    core, draw = load_core(), random.Random(8)
    doc = core.Document(b"stranger")
    with doc.transaction() as transaction:
        transaction.put(core.ROOT, "his", core.ScalarType.Str, "x")
    change = bytes(doc.get_last_local_change().raw_bytes)
    writer = AutomergeReplica(ROOTS, actor=b"\x01" * 8)
    writer.apply(change)
    _write(writer, draw)
    stored = AutomergeReplica(ROOTS)
    stored.load(writer.snapshot()[0], [])
    assert not stored.apply(change).news
    assert stored.version() == writer.version()
