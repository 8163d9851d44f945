"""Structures near the limits against the real core: a sample of structures.py, and by name what once got through."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pycrdt
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from structures import YJS, Broken, Report, in_a_process, take

import llmcrdt
from llmcrdt.crdt.yjs.split import RECORD, cut_update
from llmcrdt.crdt.yjs.update import read_structs, read_update
from llmcrdt.exceptions import MalformedUpdate
from llmcrdt.ids import SessionId
from llmcrdt.repo.sync_source import SyncSource
from llmcrdt.sync.local import Record
from llmcrdt.varint import write_uint


def _text(text: str) -> bytes:
    return write_uint(len(text.encode())) + text.encode()


def _update(*structs: bytes, client: int = 7, clock: int = 0, deletes: bytes = b"\0") -> bytes:
    return b"\x01" + write_uint(len(structs)) + write_uint(client) + write_uint(clock) + b"".join(structs) + deletes


def _in_root(kind: int, content: bytes, flags: int = 0) -> bytes:
    return bytes((kind | flags,)) + b"\x01" + _text("meta") + content


def test_whatever_the_check_passes_the_core_takes_within_the_bound() -> None:
    assert "updates taken" in in_a_process(1, 150)


def test_a_process_that_dies_or_takes_too_long_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("structures.SECONDS", 0.0)
    with pytest.raises(Broken, match="estimated"):
        take([_update(_in_root(4, _text("words"))) for _ in range(20)], Report())
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(Broken, match="ended with 1"):
        in_a_process(1, 1)


@pytest.mark.parametrize(
    "struct",
    [
        # The core reads no name here: structs that nobody checked could stand in it.
        _in_root(7, b"\x05" + _text("name")),
        # The core reads one text more than there is.
        _in_root(2, b"\x01" + _text("1")),
        b"\x20\x03",
        b"\x8a\x03",
        _in_root(7, b"\x81\x00"),
    ],
    ids=["an XML hook", "texts of JSON", "GC with flags", "Skip with flags", "a type as a long number"],
)
def test_what_the_core_reads_in_another_way_is_refused(struct: bytes) -> None:
    with pytest.raises(MalformedUpdate):
        read_update(_update(struct, _in_root(4, _text("after"))))


@pytest.mark.parametrize("content", ["", "{", "nothing", "[" * 200])
def test_an_update_that_waits_and_that_nobody_could_read_is_refused(
    open_repo: Callable[..., llmcrdt.Repo], content: str
) -> None:
    """A document that holds it could not be encoded any more."""
    waits = _update(_in_root(5, _text(content)), clock=5)
    replica = YJS.make_replica(("meta",))
    with pytest.raises(MalformedUpdate):
        replica.apply(waits)
    assert not replica.broken and replica.diff() == YJS.empty
    with open_repo("mine") as repo:
        conv = repo.create()
        conv.append("user", "before")
        SyncSource(repo._core, "ws://relay", None).received(conv.id, [Record(SessionId("s" * 22), 1, waits)], None)
        assert [entry.text for entry in conv.transcript()] == ["before"] and conv.diff()
        assert repo._core.store.updates.set_aside_count(conv.id) == 1


def test_a_document_in_which_half_a_letter_was_deleted_can_be_read_compacted_and_redacted() -> None:
    """The core alone leaves an empty text there when it encodes the document, as older snapshots have it."""
    half = _update(_in_root(4, _text("a😀b")), deletes=b"\x01\x07\x01\x02\x01")
    core: Any = pycrdt.Doc()
    core.apply_update(half)
    old = core.get_update()
    assert any(struct.clock == struct.end for struct in read_structs(old)[0]), "it does"
    (new,) = YJS.compact([half])
    assert not any(struct.clock == struct.end for struct in read_structs(new)[0]), "and ours don't"
    for whole in (old, new):
        fresh = YJS.make_replica(("meta",))
        fresh.apply(whole)
        assert fresh.diff()
        assert YJS.redact(whole, [half])


def test_a_text_behind_the_longest_names_is_cut_or_left_whole() -> None:
    for name in (RECORD - 200, RECORD - 40, RECORD + 10):
        long = _update(b"\x04\x01" + _text("r" * name) + _text("x" * 2000))
        pieces = cut_update(long)
        replica = YJS.make_replica(("meta",))
        for piece in pieces:
            replica.apply(piece)
        assert replica.version() == b"\x01\x07" + write_uint(2000)
