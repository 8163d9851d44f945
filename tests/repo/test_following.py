"""A connection follows the library and all in it; how far it has come; and where each entry is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import llmcrdt
from llmcrdt.exceptions import ConversationNotFound
from llmcrdt.ids import document_bytes
from llmcrdt.repo.sync_source import SyncSource
from llmcrdt.sync import codec
from llmcrdt.sync.chain import START
from llmcrdt.sync.messages import (
    FEATURES,
    RESET,
    Ack,
    Cursor,
    Error,
    ErrorCode,
    Message,
    Open,
    Opened,
    Presence,
    Push,
    Welcome,
)
from llmcrdt.sync.synchronizer import Synchronizer
from sync_server.thread import RelayThread

from ..waiting import eventually

PATIENCE = 120
URL = "ws://relay"


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[RelayThread]:
    with RelayThread(tmp_path / "relay") as relay:
        yield relay


def ids(repo: llmcrdt.Repo) -> set[str]:
    return {row.id for row in repo.list(limit=10_000)}


def texts(repo: llmcrdt.Repo, id: str) -> list[str]:
    try:
        return [entry.text for entry in repo.get(id).entries()]
    except ConversationNotFound:
        return []


def test_conversations_that_come_and_go_elsewhere_are_followed(tmp_path: Path, relay: RelayThread) -> None:
    with llmcrdt.open(tmp_path / "a.db") as a, a.connect(relay.url) as one:
        one.wait_synced(PATIENCE)
        invite = a.invite(relay.url)
        with llmcrdt.open(tmp_path / "b.db", invite=invite) as b, b.connect() as two:
            two.wait_synced(PATIENCE)
            for n in range(5):  # both are connected: nobody asks for anything
                chat = a.create(f"chat {n}")
                chat.append("user", f"hello {n}")
                eventually(lambda chat=chat, n=n: texts(b, chat.id) == [f"hello {n}"])  # type: ignore[misc]
            b.get(chat.id).append("assistant", "back", frame=b.get(chat.id).transcript())
            eventually(lambda: texts(a, chat.id)[-1:] == ["back"])
            b.delete(chat.id)
            eventually(lambda: chat.id not in ids(a))
            with pytest.raises(llmcrdt.LLMCRDTError):
                chat.append("user", "too late")
            two.wait_synced(PATIENCE)
            assert two.progress.of_documents == 5, "the library, and four conversations"
            assert one.last_error is two.last_error is None


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder where fsync costs nothing, if the system has one: no power fails here."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        yield Path(folder)


def test_a_thousand_conversations_on_one_connection(memory: Path) -> None:
    with RelayThread(memory / "relay") as relay:
        follow_a_thousand(memory, relay)


def follow_a_thousand(tmp_path: Path, relay: RelayThread) -> None:
    with llmcrdt.open(tmp_path / "a.db") as a:
        with a.store.transaction():
            for n in range(1000):
                a.create(f"chat {n}", fill=lambda chat, n=n: chat.append("user", f"hello {n}")).close()  # type: ignore[misc]
        with a.connect(relay.url) as link:
            link.wait_synced(PATIENCE)
            assert link.progress[:2] == (1001, 1001)
            assert link.progress.bytes_waiting == 0
        with llmcrdt.open(tmp_path / "b.db", library=a.library) as b, b.connect(relay.url) as link:
            seen: list[llmcrdt.Progress] = []
            link.observe_progress(seen.append)
            link.wait_synced(PATIENCE)
            assert ids(b) == ids(a)
            some = sorted(ids(a))[::100]
            assert [texts(b, id_) for id_ in some] == [texts(a, id_) for id_ in some]
            assert seen[-1].documents == seen[-1].of_documents == 1001
            assert seen[-1].received == seen[-1].of_received >= 1001
            assert [p.received for p in seen] == sorted(p.received for p in seen)
            assert len(seen) > 1


class RelayByHand:
    """The relay's side of one connection, frame by frame, towards a follower of a repo's documents."""

    def __init__(self, repo: llmcrdt.Repo, features: int = 0) -> None:
        self.follower = Synchronizer(SyncSource(repo, URL, None), lambda: 0.5)
        self.follower.connected()
        self.position: dict[bytes, int] = {}
        self.frames = [codec.decode(frame) for frame in self.follower.drain_frames()]
        self.tell(Welcome(features=features))

    def tell(self, *messages: Message) -> None:
        for message in messages:
            self.follower.receive(codec.encode(message))
        self.frames += [codec.decode(frame) for frame in self.follower.drain_frames()]

    def open(self, log: bytes = b"l" * 16) -> None:
        """Answer every OPEN as a relay that has nothing."""
        for message in [m for m in self.frames if isinstance(m, Open)]:
            self.tell(Opened(message.document, RESET, Cursor(log, 0, START), 0))

    def acknowledge(self, document: bytes) -> None:
        for push in [m for m in self.frames if isinstance(m, Push) and m.document == document]:
            self.frames.remove(push)
            place = self.position.get(document, 0) + 1
            self.position[document] = place + len(push.data) - 1
            self.tell(Ack(document, push.session, push.n, len(push.data), place))


def test_an_entry_is_local_then_sent_then_durable_and_local_again_offline(tmp_path: Path) -> None:
    with llmcrdt.open(tmp_path / "a.db") as repo:
        chat = repo.create("chat")
        first = chat.append("user", "one")
        assert first.sync == "local"
        relay = RelayByHand(repo)
        assert chat.entry(first).sync == "local"
        relay.open()
        assert chat.entry(first).sync == "sent"
        assert chat.transcript()[0].sync == chat.entries()[0].sync == "sent"
        relay.acknowledge(document_bytes(chat.id))
        assert chat.entry(first).sync == "durable"
        second = chat.append("user", "two")
        assert chat.entry(second).sync == "local"
        relay.follower.local_changed(chat.id)
        assert chat.entry(second).sync == "sent"
        assert chat.entry(first).sync == "durable"
        before = relay.follower.progress()
        assert (before.of_sent - before.sent, before.bytes_waiting > 0) == (2, True)  # of the chat, and of the library
        relay.follower.disconnected()
        assert chat.entry(second).sync == "local"
        assert chat.entry(first).sync == "durable"


def test_who_is_refused_announces_no_more_on_this_connection(tmp_path: Path) -> None:
    with llmcrdt.open(tmp_path / "a.db") as repo:
        chat = repo.create("chat")
        chat.present({"typing": True})
        for answers in (True, False):
            relay = RelayByHand(repo, FEATURES)
            relay.open()
            assert [m.document for m in relay.frames if isinstance(m, Presence)] == [document_bytes(chat.id)]
            if answers:
                relay.tell(Error(ErrorCode.PRESENCE_REFUSED, "No.", document_bytes(chat.id)))
            relay.frames.clear()
            relay.follower.announce(chat.id)
            relay.tell()
            assert not relay.follower.refused
            assert len([m for m in relay.frames if isinstance(m, Presence)]) == (0 if answers else 1)
        relay = RelayByHand(repo, 0)  # an older relay, which does not know it
        relay.open()
        relay.follower.announce(chat.id)
        relay.tell()
        assert not [m for m in relay.frames if isinstance(m, Presence)]


WRITER = """
import sys, llmcrdt
repo = llmcrdt.open(sys.argv[1])
chat = repo.get(sys.argv[2])
link = repo.connect(sys.argv[3])
n = 0
while True:
    print(chat.append("user", str(n)).id, flush=True)
    n += 1
"""


def test_what_was_written_before_a_kill_is_sent_by_whoever_connects_next(tmp_path: Path) -> None:
    """The relay is out of reach while a process writes and is killed; another process, and a copy of the file, send."""
    with llmcrdt.open(tmp_path / "a.db") as repo:
        chat = repo.create("chat").id
        library = repo.library
    with RelayThread(tmp_path / "relay") as relay:
        with llmcrdt.open(tmp_path / "a.db") as repo, repo.connect(relay.url) as link:
            link.wait_synced(PATIENCE)
        port = relay.port
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, tmp_path / "a.db", chat, f"ws://127.0.0.1:{port}"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout
    written = [writer.stdout.readline().strip() for _ in range(20)]
    os.kill(writer.pid, signal.SIGKILL)
    written += writer.stdout.read().split()
    writer.wait()
    writer.stdout.close()
    # The database with what stands beside it, as a backup would take it.
    for suffix in ("", "-wal"):
        if (found := tmp_path / f"a.db{suffix}").exists():
            (tmp_path / f"copy.db{suffix}").write_bytes(found.read_bytes())
    with RelayThread(tmp_path / "relay", port=port) as relay:
        for name in ("a.db", "copy.db", "a.db"):
            with llmcrdt.open(tmp_path / name) as repo, repo.connect(relay.url) as link:
                link.wait_synced(PATIENCE)
                assert {repo.get(chat).entry(id_).sync for id_ in written if len(id_) == 16} == {"durable"}
        with llmcrdt.open(tmp_path / "b.db", library=library) as b, b.connect(relay.url) as link:
            link.wait_synced(PATIENCE)
            found = [entry.id for entry in b.get(chat).transcript()]
            assert len(found) == len(set(found)) and {id_ for id_ in written if len(id_) == 16} <= set(found)
