"""Conversations, and things said at once, that are larger than a record may be."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import llmcrdt
from llmcrdt.crdt.backend import MAX_VALUE
from llmcrdt.crdt.yjs.split import RECORD, cut_update
from llmcrdt.exceptions import InvalidContent, RelayRefused
from sync_server.core.limits import Limits
from sync_server.thread import RelayThread
from tests.waiting import eventually

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


def test_what_no_relay_would_take_is_refused_before_it_is_written(tmp_path: Path) -> None:
    with llmcrdt.open(tmp_path / "a.db") as repo:
        chat = repo.create("large")
        chat.append("user", "kept")
        before = chat.transcript().hash, chat.version()
        for text in ("x" * MAX_VALUE, "€" * (MAX_VALUE // 3), '"' * (MAX_VALUE // 2)):
            with pytest.raises(InvalidContent, match="too many") as refused:
                chat.append("user", text)
            assert "Blob" in refused.value.hint
        with pytest.raises(InvalidContent, match="too many"):
            chat.append("assistant", "hidden", hidden={"provider/state": bytes(MAX_VALUE)})
        assert (chat.transcript().hash, chat.version()) == before
        chat.append("user", "x" * (MAX_VALUE - 1_000))
        assert len(chat.transcript()) == 2


def test_a_stream_ends_before_it_is_too_large_and_is_sealed_with_what_it_has(tmp_path: Path) -> None:
    with llmcrdt.open(tmp_path / "a.db") as repo:
        chat = repo.create("large")
        chat.append("user", "go on for ever")
        with pytest.raises(InvalidContent, match="may be"), chat.stream("assistant") as stream:
            for _ in range(10):
                stream.write("\n" * (MAX_VALUE // 10))  # two bytes each as JSON
        answer = chat.transcript()[-1]
        assert answer.status == "failed" and answer.text == "\n" * (MAX_VALUE // 10 * 4)
        stream = chat.stream("assistant")
        stream.write("short")
        with pytest.raises(InvalidContent):
            stream.seal(parts=[llmcrdt.Text("x" * MAX_VALUE)])
        assert stream.seal().text == "short"


def test_what_a_relay_takes_less_of_waits_alone_and_an_erase_frees_the_rest(tmp_path: Path) -> None:
    with (
        RelayThread(tmp_path / "relay", limits=Limits(record=RECORD)) as relay,
        llmcrdt.open(tmp_path / "a.db") as a,
        a.connect(relay.url) as link,
    ):
        chat, other = a.create("large"), a.create("other")
        link.wait_synced(PATIENCE)
        large = chat.append("user", "x" * (2 * RECORD))
        behind, elsewhere = chat.append("user", "behind"), other.append("user", "elsewhere")
        for n in range(20):
            a.create(f"small {n}").append("user", "small")
        with pytest.raises(RelayRefused, match="the relay takes") as refused:
            link.wait_synced(PATIENCE)
        assert "erase" in refused.value.hint
        assert other.entry(elsewhere).sync == "durable", "it is told when all else is done"
        small = [a.get(row.id) for row in a.list() if row.title.startswith("small")]
        assert [chat_.entries()[0].sync for chat_ in small] == ["durable"] * 20
        assert {chat.entry(entry).sync for entry in (large, behind)} == {"local"}
        with llmcrdt.open(tmp_path / "b.db", invite=a.invite(relay.url)) as b, b.connect() as their_link:
            their_link.wait_synced(PATIENCE)
            theirs = b.get(chat.id).append("user", "from elsewhere")
            their_link.wait_synced(PATIENCE)
        eventually(lambda: theirs.id in {entry.id for entry in chat.transcript()})
        chat.erase(large)
        link.wait_synced(PATIENCE)
        assert chat.entry(behind).sync == "durable"


def test_a_fork_copies_what_is_larger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with llmcrdt.open(tmp_path / "a.db") as repo:
        chat = repo.create("large")
        with monkeypatch.context() as patch:
            patch.setattr("llmcrdt.crdt.backend.MAX_VALUE", 2 * MAX_VALUE)
            large = chat.append("user", "x" * MAX_VALUE)
        assert repo.fork(chat, at=large).transcript()[0].text == large.text


def test_what_cannot_be_cut_stays_whole() -> None:
    assert cut_update(b"no update" * RECORD) == [b"no update" * RECORD]


@pytest.mark.parametrize("size", [10, RECORD])
def test_what_is_no_larger_is_one_record(size: int) -> None:
    assert cut_update(bytes(size)) == [bytes(size)]
