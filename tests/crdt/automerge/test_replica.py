"""Automerge alone: the frozen root maps, changes that can't come next, and bytes that the core should not take."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from needs_automerge import needs_automerge

from llmcrdt.crdt.automerge.backend import AutomergeBackend
from llmcrdt.crdt.automerge.chunks import Change, read_chunks, read_update, write_chunk
from llmcrdt.crdt.automerge.columns import Reader
from llmcrdt.crdt.automerge.core import object_bytes
from llmcrdt.crdt.automerge.derive import derive_update, is_root_change, root_change, root_object
from llmcrdt.crdt.automerge.package import load_core
from llmcrdt.crdt.automerge.replica import AutomergeReplica
from llmcrdt.crdt.backend import NewField, NewNode
from llmcrdt.exceptions import MalformedUpdate
from llmcrdt.varint import write_uint

pytestmark = needs_automerge

ROOTS = ("meta", "entries", "acts")
VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "vectors" / "automerge.json").read_text())
CHANGES = [bytes.fromhex(change["bytes"]) for change in VECTORS["changes"]]


def replica() -> AutomergeReplica:
    return AutomergeReplica(ROOTS)


def changes(update: bytes) -> list[Change]:
    return [chunk for chunk in read_chunks(update) if isinstance(chunk, Change)]


def test_the_root_maps_are_made_by_frozen_bytes() -> None:
    assert [root_change(root).raw.hex() for root in ROOTS] == VECTORS["roots"]
    assert all(is_root_change(root_change(root)) for root in ROOTS)
    forged = derive_update([[NewNode("entries", "x", {})]], [])
    assert [is_root_change(change) for change in changes(forged)] == [True, False]


def test_the_core_would_write_derived_changes_in_the_same_bytes() -> None:
    core = load_core()
    nodes = [NewNode("entries", "a", {"b": b"\0", "head": "é😀"}), NewNode("entries", "b", {})]
    root, group = changes(derive_update([nodes], []))
    doc = core.Document(root.actor)
    with doc.transaction() as transaction:
        transaction.put_object(core.ROOT, "entries", core.ObjType.Map)
    assert doc.get_last_local_change().raw_bytes == root.raw
    doc.set_actor(group.actor)
    entries = object_bytes(root_object("entries"))
    with doc.transaction() as transaction:
        a = transaction.put_object(entries, "a", core.ObjType.Map)
        transaction.put(a, "b", core.ScalarType.Bytes, b"\0")
        transaction.put(a, "head", core.ScalarType.Str, "é😀")
        transaction.put_object(entries, "b", core.ObjType.Map)
    assert doc.get_last_local_change().raw_bytes == group.raw


def test_derived_bytes_are_frozen() -> None:
    node = NewNode("entries", "a", {"head": "h"})
    assert derive_update([[node]], [NewField(node, "more", b"x")]).hex() == VECTORS["derived"]


def test_nobody_hides_a_root_map_behind_another_of_its_name() -> None:
    core, mine = load_core(), replica()
    with mine.edit() as edit:
        edit.put_node("entries", "x", {"head": "h"})
    stranger = core.Document.load(mine.diff())
    stranger.set_actor(b"\xff" * 16)
    with stranger.transaction() as transaction:
        transaction.put_object(core.ROOT, "entries", core.ObjType.Map)
        transaction.delete(core.ROOT, "meta")
    assert mine.apply(stranger.get_last_local_change().raw_bytes).changed
    assert list(mine.keys("entries")) == ["x"]
    with mine.edit() as edit:
        edit.put("meta", "k", "v")
        edit.put_field("entries", "x", "more", "w")
    assert mine.get("meta", "k") == "v"
    assert mine.node("entries", "x") == {"head": "h", "more": "w"}


def test_a_document_of_javascript_is_taken_in() -> None:
    """Its maps are not ours, so nothing of it is shown; all of it is kept and told."""
    one, other = replica(), replica()
    for change in reversed(CHANGES):
        one.apply(change)
    other.apply(bytes.fromhex(VECTORS["save"]))
    assert one.version() == other.version()
    assert not other.apply(one.diff()).news


def test_a_large_edit_is_several_changes() -> None:
    writer, reader = replica(), replica()
    with writer.edit() as edit:
        edit.put_node("entries", "x", {f"f{n}": "x" * 100_000 for n in range(30)})
    made = changes(edit.update)
    assert len(made) > len(ROOTS) + 5
    assert all(len(change.raw) < 1 << 19 for change in made)
    reader.apply(edit.update)
    assert reader.node("entries", "x") == writer.node("entries", "x")


def renumbered(change: Change, **told: int) -> bytes:
    """The same change with other numbers."""

    reader = Reader(change.raw, 9)
    body = reader.prefixed()
    inner = Reader(body)
    inner.take(32 * inner.uint())
    inner.prefixed()
    at = inner.place
    inner.uint(), inner.uint()
    seq, start = told.get("seq", change.seq), told.get("start", change.start)
    return write_chunk(body[:at] + write_uint(seq) + write_uint(start) + body[inner.place :])


@pytest.mark.parametrize("told", [{"seq": 3}, {"seq": 1}, {"start": 1}, {"start": 1 << 31}, {"start": 1 << 50}])
def test_a_change_that_can_not_come_next_is_refused_and_harms_nothing(told: dict[str, int]) -> None:
    writer, reader = replica(), replica()
    for n in range(2):
        with writer.edit() as edit:
            edit.put("acts", f"a{n}", "v")
        last = changes(edit.update)[-1]
        if not n:
            reader.apply(edit.update)
    before = reader.version()
    with pytest.raises(MalformedUpdate):
        reader.apply(renumbered(last, **told))
    assert not reader.broken
    assert reader.version() == before
    assert reader.apply(last.raw).changed


def test_a_change_that_is_wrong_is_refused_also_where_it_waited() -> None:
    writer, reader = replica(), replica()
    made = []
    for n in range(3):
        with writer.edit() as edit:
            edit.put("acts", f"a{n}", "v")
        made.append(changes(edit.update)[-1])
        if not n:
            first = edit.update
            reader.apply(first)
    assert reader.apply(renumbered(made[2], start=1 << 31)).pending
    assert reader.apply(made[2].raw).pending
    assert reader.apply(made[1].raw).changed
    assert set(reader.keys("acts")) == {"a0", "a1", "a2"}
    again = replica()
    again.load(None, [first, renumbered(made[2], start=1 << 31), made[1].raw, made[2].raw])
    assert again.version() == reader.version()
    assert not again.waits and not reader.waits


def test_bytes_that_the_core_takes_and_saves_otherwise_are_refused() -> None:
    """Else it would save a document that nobody can load."""

    writer = replica()
    with writer.edit() as edit:
        edit.put("acts", "a", "v")
    reader = replica()
    reader.apply(edit.update)
    head, version = changes(edit.update)[-1], b"\x01z\x01"
    body = b"\x01" + head.hash + version + bytes((head.last + 1,)) + b"\x00\x00"
    unused_actor = write_chunk(body + b"\x01\x02zz" + b"\x00")
    with pytest.raises(MalformedUpdate):
        reader.apply(unused_actor)
    assert reader.broken
    loaded = replica()
    loaded.load(None, [edit.update])
    assert not loaded.apply(write_chunk(body + b"\x00\x00")).touched, "a change without operations is none of that"
    again = replica()
    again.load(*loaded.snapshot())
    assert again.version() == loaded.version()


@pytest.mark.parametrize("seed", range(3))
def test_changed_bytes_with_a_right_hash_leave_a_document_that_can_be_loaded(seed: int) -> None:

    rng, writer = random.Random(seed), replica()
    updates = []
    for n in range(4):
        with writer.edit() as edit:
            edit.put_node("entries", f"e{n}", {"head": "h" * n})
            edit.put_text("entries", f"e{n}", "live")
            edit.append_text("entries", f"e{n}", "live", "abc😀")
        updates.append(edit.update)
    for _ in range(150):
        change = changes(rng.choice(updates))[-1]
        bad = bytearray(Reader(change.raw, 9).prefixed())
        bad[rng.randrange(len(bad))] = rng.randrange(256)
        reader = replica()
        reader.load(None, updates[: rng.randrange(4)])
        try:
            reader.apply(write_chunk(bytes(bad)))
        except MalformedUpdate:
            continue
        again = replica()
        again.load(*reader.snapshot())
        assert again.version() == reader.version()


def test_a_version_is_small_and_names_no_root_maps() -> None:
    assert replica().version() == AutomergeReplica(()).version()
    writer = replica()
    before = writer.version()
    with writer.edit() as edit:
        edit.put("acts", "a", "v")
    assert not AutomergeBackend().repeats([read_update(edit.update)], before)
    assert len(writer.version()) < 64
