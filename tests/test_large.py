"""Conversations, and things said at once, that are larger than a record may be."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import llmcrdt
from llmcrdt.crdt.yjs_split import RECORD, cut_update
from sync_server.limits import Limits
from sync_server.thread import RelayThread

PATIENCE = 120


def words(rng: random.Random, size: int) -> str:
    return "".join(rng.choices("abcdefghijklmnopqrstuvwxyzäöü𝄞 ", k=size))


def test_what_is_larger_than_a_record_is_sent_all_the_same(tmp_path: Path) -> None:
    """Written before a relay is known, refilled into one that was wiped, and after an erase."""
    rng, limits = random.Random(1), Limits(record=2 * RECORD)
    with llmcrdt.open(tmp_path / "a.db") as a:
        chat = a.create("large")
        for _ in range(8):
            chat.append("user", words(rng, RECORD // 3))
        chat.append("user", words(rng, RECORD + RECORD // 2))
        with RelayThread(tmp_path / "relay", limits=limits) as relay, a.connect(relay.url) as link:
            link.wait_synced(PATIENCE)
            assert {entry.sync for entry in chat.transcript()} == {"durable"}
        with RelayThread(tmp_path / "wiped") as relay, a.connect(relay.url) as link:
            link.wait_synced(PATIENCE)
            gone = chat.transcript()[0]
            assert gone.text
            chat.append("user", "and then")
            chat.erase(gone)
            link.wait_synced(PATIENCE)
            invite = a.invite(relay.url)
            with llmcrdt.open(tmp_path / "b.db", invite=invite) as b, b.connect() as two:
                two.wait_synced(PATIENCE)
                assert [e.text for e in b.get(chat.id).transcript()] == [e.text for e in chat.transcript()]
                assert b.get(chat.id).transcript().hash == chat.transcript().hash


def test_what_cannot_be_cut_stays_whole() -> None:
    assert cut_update(b"no update" * RECORD) == [b"no update" * RECORD]


@pytest.mark.parametrize("size", [10, RECORD])
def test_what_is_no_larger_is_one_record(size: int) -> None:
    assert cut_update(bytes(size)) == [bytes(size)]
