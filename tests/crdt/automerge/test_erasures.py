"""Names and erasures, which stand between Automerge's chunks: their bytes, and what is refused of them."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from needs_automerge import needs_automerge

import llmcrdt
from llmcrdt.crdt.automerge.chunks import Change, read_chunks, read_update, write_names
from llmcrdt.crdt.automerge.erasures import Erasures, erasures_of
from llmcrdt.crdt.automerge.replica import AutomergeReplica
from llmcrdt.crdt.automerge.rewrite import after
from llmcrdt.exceptions import MalformedUpdate

ROOTS = ("meta", "entries", "acts")


def test_their_bytes_are_frozen() -> None:
    assert write_names([None, (b"me", 6), (b"you", 3)], b"me", 7).hex() == "0107000104796f7503"
    assert write_names([None], b"me", 7) == b""
    erasures = Erasures({(b"ab", 5): frozenset({"live:", "x"}), (b"ab", 9): frozenset()})
    assert erasures.write([(b"me", 7)]).hex() == ("021b21c3fb2901026d65070261620502056c6976653a01780261620900")
    [piece] = read_update(erasures.write([(b"me", 7)])).structure.erased
    assert piece.after == ((b"me", 7),) and not erasures_of([piece]).without(erasures)
    assert erasures.covers((b"ab", 5), "live:0:text") and erasures.covers((b"ab", 5), "x")
    assert not erasures.covers((b"ab", 5), "xy") and erasures.covers((b"ab", 9), None)


def test_damaged_ones_are_refused() -> None:
    told = Erasures({(b"ab", 5): frozenset({"live:"})}).write()
    for at in range(len(told)):
        with pytest.raises(MalformedUpdate):
            read_update(told[:at])
        with pytest.raises(MalformedUpdate):
            read_update(told[:at] + bytes((told[at] ^ 0x40,)) + told[at + 1 :])
    for wrong in (b"\x01\x01\x01", b"\x01\x01\x01" + told, b"\x01\xff\xff\xff\x7f", b"\x02\xff\xff\xff\x7f"):
        with pytest.raises(MalformedUpdate):
            read_update(wrong)


@needs_automerge
def test_an_update_that_is_torn_or_damaged_changes_nothing() -> None:
    writer, reader = AutomergeReplica(ROOTS), AutomergeReplica(ROOTS)
    with writer.edit() as edit:
        edit.put_node("entries", "x", {"head": "h", "version:1": "secret"})
    reader.apply(edit.update)
    with writer.edit() as edit:
        edit.erase_fields("entries", "x", ["version:"])
    before = reader.diff()
    for at in range(len(edit.update)):
        if at in (edit.update.index(b"\x85\x6f"), _end_of_changes(edit.update)):
            continue
        with pytest.raises(MalformedUpdate):
            reader.apply(edit.update[:at])
    assert reader.diff() == before and not reader.broken
    assert reader.apply(edit.update).changed
    assert reader.node("entries", "x") == {"head": "h"} and reader.version() == writer.version()


def _end_of_changes(update: bytes) -> int:
    return update.index(read_chunks(update)[-1].raw) + len(read_chunks(update)[-1].raw)


@needs_automerge
def test_another_change_under_the_name_of_one_that_is_here_is_refused() -> None:
    """Whether something was erased of it or not: only values that one of the two lacks may differ."""
    one, other = (AutomergeReplica(ROOTS, actor=b"same one") for _ in range(2))
    for replica, words in ((one, "mine"), (other, "yours")):
        with replica.edit() as edit:
            edit.put_node("entries", "x", {"head": words})
    before = one.diff()
    [*_, theirs] = [chunk for chunk in read_chunks(edit.update) if isinstance(chunk, Change)]
    with pytest.raises(MalformedUpdate, match="next one of its actor"):
        one.apply(theirs.raw)
    assert one.diff() == before and not one.broken


@needs_automerge
def test_a_damaged_row_is_set_aside_and_the_rest_is_shown(tmp_path: Path) -> None:
    with llmcrdt.open(tmp_path / "a.db") as repo:
        conversation = repo.create("Trip", crdt="automerge")
        for n in range(4):
            conversation.append("user", f"said {n}")
        id_ = conversation.id
    with sqlite3.connect(tmp_path / "a.db") as db:
        last = db.execute("SELECT max(place) FROM updates WHERE document = ?", [id_]).fetchone()[0]
        [data] = db.execute("SELECT data FROM updates WHERE place = ?", [last]).fetchone()
        db.execute("UPDATE updates SET data = ? WHERE place = ?", [data[:-3], last])
        db.execute("DELETE FROM tables WHERE document = ?", [id_])
    with llmcrdt.open(tmp_path / "a.db") as repo:
        assert [entry.text for entry in repo.get(id_).transcript()] == ["said 0", "said 1", "said 2"]
        assert repo._core.store.updates.set_aside_count(id_) == 1
        repo.get(id_).append("user", "and on")


@pytest.mark.parametrize("together", [True, False])
def test_a_change_that_is_here_waits_no_more_under_another_hash(together: bool) -> None:
    """Under that hash it came after one that nobody has any more, and didn't say which."""
    writer, other = AutomergeReplica(ROOTS), AutomergeReplica(ROOTS)
    with writer.edit() as edit:
        edit.put_node("entries", "e", {"head": "h"})
    first = edit.update
    other.apply(first)
    with other.edit() as edit:
        edit.put_node("entries", "f", {"head": "h"})
    change = read_update(edit.update).structure[-1]
    assert isinstance(change, Change)
    before = after(change, [b"\x01" * 32]).raw
    reader = AutomergeReplica(ROOTS)
    if together:
        reader.apply(before + first + edit.update)
    else:
        reader.apply(before)
        assert reader.waits
        reader.apply(first + edit.update)
    assert not reader.waits
    assert reader.version() == other.version()
