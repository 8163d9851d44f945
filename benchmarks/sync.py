"""Bytes on the wire: conversations that grow, devices that watch, that come later, that come back with nothing new.

A writer's conversation grows by turns: a question, and an answer that is streamed at 50 tokens a second (the clock is
the stream's own, so that it takes less). One device watches all the time, one comes back after every tenth turn, one
comes when all is over. The bytes that the relay sends to each are counted on the wire, compressed, without the HTTP
upgrades; content is the visible text. Then answers are streamed at several speeds, to a device and to a page at the
door of its kind of documents. Then devices come back with nothing new: one document, and many. All that with documents
of each kind, and under it the bytes that the bare library has for the same words, in one change for each token.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import pycrdt
from websockets.sync.client import connect
from websockets.typing import Subprotocol

import llmcrdt
from llmcrdt.crdt.registry import kinds
from llmcrdt.ids import document_bytes
from llmcrdt.sync import codec
from llmcrdt.sync.link import Link
from llmcrdt.sync.messages import PATH, SUBPROTOCOL, Barrier, Hello, Message, Open, Opened, Reached, Welcome
from llmcrdt.varint import read_uint
from sync_server.doors import cbor
from sync_server.thread import RelayThread

from .conversation import words
from .report import Report

QUESTION, TOKENS = 120, 160
SPEEDS = 5, 20, 100
"""Tokens a second."""
AWAY = 10
_PATIENCE = 120


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--turns", type=int, default=1_000, help="turns of the conversation (default 1,000)")
    parser.add_argument(
        "--documents", type=int, default=1_000, help="documents of a device that returns (default 1,000)"
    )


def run(options: argparse.Namespace) -> Report:
    report = Report("sync")
    with tempfile.TemporaryDirectory(prefix="llmcrdt-bench-") as folder:
        path = Path(folder)
        with RelayThread(path / "relay") as relay:
            for kind in sorted(kinds(), reverse=True):
                (path / kind).mkdir()
                _growing(report, path / kind, relay.url, options.turns, kind)
                for speed in SPEEDS:
                    _watched(report, path / kind, relay.url, speed, max(1, options.turns // 100), kind)
                _returning(report, path / kind, relay.url, options.documents, kind)
    return report


def _growing(report: Report, folder: Path, url: str, turns: int, kind: str) -> None:
    now = [1_700_000_000.0]
    text = words(5)
    received = 0
    with (
        llmcrdt.open(folder / "writer.db", clock=lambda: now[0]) as writer,
        llmcrdt.open(folder / "watcher.db", writer.library) as watcher,
        llmcrdt.open(folder / "visitor.db", writer.library) as visitor,
        llmcrdt.open(folder / "late.db", writer.library) as late,
        writer.connect(url) as sending,
        watcher.connect(url) as watching,
    ):
        conversation = writer.create("long", crdt=kind)
        for repo in (watcher, visitor, late):
            repo.join(conversation.id, crdt=kind)
        content = history = 0
        for turn in range(turns):
            question = next(text)[:QUESTION]
            conversation.append("user", question)
            answer = _stream(conversation, sending, text, now)
            watching.wait_synced(_PATIENCE)
            content += len((question + answer).encode())
            history += content
            if turn % AWAY == AWAY - 1:
                received += _visit(visitor, url)
        sending.wait_synced(_PATIENCE)
        watching.wait_synced(_PATIENCE)
        _visit(visitor, url)
        once = _visit(late, url)
        hashes = {repo.get(conversation.id).transcript().hash for repo in (writer, watcher, visitor, late)}
        assert len(hashes) == 1, "the devices show different conversations"
        _up_to_date(report, url, conversation.id, kind)
        most, least = (2.5, 1.2) if kind == "yjs" else (None, None)
        report.add(f"{kind}: content of {turns:,} turns", content / 1e6, "MB")
        report.add(f"  {kind}: sent by the writer / content", sending.bytes_sent / content, "x", most)
        report.add(f"  {kind}: to a device that watched / content", watching.bytes_received / content, "x", most)
        report.add(f"  {kind}: to one that came after every {AWAY}th turn / content", received / content, "x", least)
        report.add(f"  {kind}: to one that came at the end / content", once / content, "x", least)
        report.add(f"  {kind}: sending the history with each turn would be", history / content, "x")
        answer = next(text)[: TOKENS * 5]
        bare = sum(_bare_changes(kind, [answer[start : start + 5] for start in range(0, len(answer), 5)]))
        report.add(f"  {kind}: the bare library's changes, one for each token / content", bare / len(answer), "x")


def _bare_changes(kind: str, pieces: Sequence[str]) -> Iterator[int]:
    """The bytes of each change of a text that grows piece by piece, in a document of the bare library."""
    if kind == "yjs":
        doc: pycrdt.Doc[Any] = pycrdt.Doc()
        text = doc.get("text", type=pycrdt.Text)
        for piece in pieces:
            state = doc.get_state()
            text += piece
            yield len(doc.get_update(state))
        return
    from llmcrdt.crdt.automerge.package import load_core

    core = load_core()
    document = core.Document()
    with document.transaction() as transaction:
        grown = transaction.put_object(core.ROOT, "text", core.ObjType.Text)
    for piece in pieces:
        with document.transaction() as transaction:
            transaction.splice_text(grown, transaction.length(grown), 0, piece)
        yield len(document.get_last_local_change().raw_bytes)


def _watched(report: Report, folder: Path, url: str, speed: int, answers: int, kind: str) -> None:
    """Answers at so many tokens a second, and nothing else: what comes to a device and to a page that watch. Each
    opened the conversation before."""
    now = [1_700_000_000.0]
    text = words(speed)
    with (
        llmcrdt.open(folder / f"{speed}-writer.db", clock=lambda: now[0]) as writer,
        llmcrdt.open(folder / f"{speed}-watcher.db", writer.library) as watcher,
        writer.connect(url) as sending,
        watcher.connect(url) as watching,
    ):
        conversation = writer.create("watched", crdt=kind)
        watcher.join(conversation.id, crdt=kind)
        sending.wait_synced(_PATIENCE)
        watching.wait_synced(_PATIENCE)
        with (_YjsPage if kind == "yjs" else _AutomergePage)(url, conversation.id) as page:
            conversation.append("user", "Go on.")
            sending.wait_synced(_PATIENCE)
            watching.wait_synced(_PATIENCE)
            before, seen = watching.bytes_received, page.reach(conversation)
            content = 0
            for _ in range(answers):
                content += len(_stream(conversation, sending, text, now, 1 / speed).encode())
            watching.wait_synced(_PATIENCE)
            what, most = f"{kind}, an answer at {speed} tokens/s", 2.5 if kind == "yjs" else None
            here, there = watching.bytes_received - before, page.reach(conversation) - seen
            report.add(f"{what}: to a device / content", here / content, "x", most)
            report.add(f"  {what}: to a page / content", there / content, "x", most)
            if kind != "yjs":
                report.add(f"  {what}: to a device, a token", here * 5 / content, "bytes", 40)


class _Page(ABC):
    """A plain client that offers compression, as browsers do. ``received``: bytes of its frames."""

    path = ""

    def __init__(self, url: str, id_: str) -> None:
        self._id = id_
        self._connecting = connect(url + self.path.format(id_), proxy=None, max_size=None)
        self.received = 0

    def __enter__(self) -> Self:
        self._socket = self._connecting.__enter__()
        if self._socket.protocol.extensions:
            raise RuntimeError("What a frame has on the wire is not known here.")
        self._ask()
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    @abstractmethod
    def _ask(self) -> None: ...

    @abstractmethod
    def reach(self, conversation: llmcrdt.Conversation) -> int:
        """Read until all that the conversation has is here. The bytes that have come."""

    def _hear(self) -> bytes:
        frame = _bytes(self._socket.recv(timeout=_PATIENCE))
        self.received += len(frame) + (2 if len(frame) < 126 else 4 if len(frame) < 1 << 16 else 10)
        return frame


class _YjsPage(_Page):
    path = "/yjs/{}"

    def __init__(self, url: str, id_: str) -> None:
        super().__init__(url, id_)
        self._doc: pycrdt.Doc[Any] = pycrdt.Doc()

    def _ask(self) -> None:
        self._socket.send(b"\x00\x00\x01\x00")

    def reach(self, conversation: llmcrdt.Conversation) -> int:
        there: pycrdt.Doc[Any] = pycrdt.Doc()
        there.apply_update(conversation.diff())
        while self._doc.get_state() != there.get_state():
            frame = self._hear()
            if frame[:2] in (b"\x00\x01", b"\x00\x02"):
                _, at = read_uint(frame, 2, 8)
                self._doc.apply_update(frame[at:])
        return self.received


class _AutomergePage(_Page):
    """Speaks as automerge-repo does, with the bare library."""

    path = "/automerge"

    def __init__(self, url: str, id_: str) -> None:
        from llmcrdt.crdt.automerge.package import load_core

        super().__init__(url, id_)
        self._core = load_core()
        self._doc, self._state = self._core.Document(), self._core.SyncState()

    def _ask(self) -> None:
        self._send("join", peerMetadata={}, supportedProtocolVersions=["1"])
        self._send("request", documentId=self._id, data=self._doc.generate_sync_message(self._state).encode())

    def _send(self, type_: str, **fields: object) -> None:
        self._socket.send(cbor.write({"type": type_, "senderId": "page", "targetId": "relay", **fields}))

    def reach(self, conversation: llmcrdt.Conversation) -> int:
        there = self._core.Document.load(conversation.diff())
        while not {*there.get_heads()} <= {*self._doc.get_heads()}:
            said: Any = cbor.read(self._hear(), 1_000, 9)
            if said["type"] == "sync":
                self._doc.receive_sync_message(self._state, self._core.Message.decode(said["data"]))
                answer = self._doc.generate_sync_message(self._state)
                if answer is not None:
                    self._send("sync", documentId=self._id, data=answer.encode())
        return self.received


def _stream(
    conversation: llmcrdt.Conversation, link: Link, text: Iterator[str], now: list[float], pause: float = 0.02
) -> str:
    """An answer in pieces of 5 letters, with pauses. Each piece leaves before the next one comes."""
    said = " ".join(next(text) for _ in range(TOKENS * 5 // 240 + 1))[: TOKENS * 5]
    with conversation.stream("assistant", frame=conversation.transcript()) as stream:
        for start in range(0, len(said), 5):
            stream.write(said[start : start + 5])
            now[0] += pause
            if stream.waiting == 0:
                _sent(link)
    link.wait_synced(_PATIENCE)
    return said


def _sent(link: Link) -> None:
    """Wait until the relay has acknowledged all. ``wait_synced`` would send a barrier with every piece: 11 bytes on the
    wire that no writer sends."""
    end = time.monotonic() + _PATIENCE
    while link.progress.bytes_waiting:
        if time.monotonic() > end:
            raise TimeoutError("The relay acknowledges nothing.")
        time.sleep(0.0005)


def _visit(repo: llmcrdt.Repo, url: str) -> int:
    """Connect, get in step, go. The bytes that came."""
    with repo.connect(url) as link:
        link.wait_synced(_PATIENCE)
        return link.bytes_received


def _up_to_date(report: Report, url: str, id_: str, kind: str) -> None:
    """All that a client with nothing new says leaves at once, and the answers say that nothing is missing."""
    document = document_bytes(id_)
    protocol = [Subprotocol(SUBPROTOCOL)]
    with connect(url + PATH, subprotocols=protocol, compression=None, proxy=None, max_size=None) as client:
        client.send(codec.encode(Hello("benchmark")))
        client.send(codec.encode(Open(document, kind)))
        opened = next(m for _ in range(2) if isinstance(m := codec.decode(_bytes(client.recv())), Opened))
    with connect(url + PATH, subprotocols=protocol, compression=None, proxy=None) as client:
        began = time.perf_counter()
        size = 0
        for message in (Hello("benchmark"), Open(document, kind, opened.head), Barrier(1)):
            client.send(frame := codec.encode(message))
            size += len(frame)
        heard: list[Message] = []
        while not isinstance(heard[-1] if heard else None, Reached):
            frame = _bytes(client.recv(timeout=_PATIENCE))
            heard.append(codec.decode(frame))
            size += len(frame)
        took = time.perf_counter() - began
    assert [type(m) for m in heard] == [Welcome, Opened, Reached]
    report.add(f"{kind}, up to date: bytes of one round trip, both ways", size, "bytes", 200)
    report.add(f"  {kind}: until it is known", took * 1e3, "ms")


def _bytes(frame: bytes | str) -> bytes:
    assert isinstance(frame, bytes)
    return frame


def _returning(report: Report, folder: Path, url: str, count: int, kind: str) -> None:
    with llmcrdt.open(folder / "many.db") as repo:
        for n in range(count):
            repo.create(f"conversation {n}", crdt=kind).append("user", "Hello")
        with repo.connect(url) as link:
            link.wait_synced(_PATIENCE)
        began = time.perf_counter()
        with repo.connect(url) as link:
            link.wait_synced(_PATIENCE)
            took = time.perf_counter() - began
            sent, received = link.bytes_sent, link.bytes_received
    report.add(f"{kind}: a device with {count:,} documents returns, nothing new", took * 1e3, "ms")
    report.add(f"  {kind}: sent and received for each document", (sent + received) / count, "bytes", 200)
