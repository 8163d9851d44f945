"""Bytes on the wire: conversations that grow, devices that watch, that come later, that come back with nothing new.

A writer's conversation grows by turns: a question, and an answer that is streamed at 50 tokens a second (the clock is
the stream's own, so that it takes less). One device watches all the time, one comes back after every tenth turn, one
comes when all is over. The bytes that the relay sends to each are counted on the wire, compressed, without the HTTP
upgrades; content is the visible text. Then answers are streamed at several speeds, to a device and to a page at the
Yjs door. Then devices come back with nothing new: one document, and many.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pycrdt
from websockets.sync.client import connect
from websockets.typing import Subprotocol

import llmcrdt
from llmcrdt.ids import document_bytes
from llmcrdt.sync import codec
from llmcrdt.sync.link import Link
from llmcrdt.sync.messages import PATH, SUBPROTOCOL, Barrier, Hello, Message, Open, Opened, Reached, Welcome
from llmcrdt.varint import read_uint
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
            _growing(report, path, relay.url, options.turns)
            for speed in SPEEDS:
                _watched(report, path, relay.url, speed, max(1, options.turns // 100))
            _returning(report, path, relay.url, options.documents)
    return report


def _growing(report: Report, folder: Path, url: str, turns: int) -> None:
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
        conversation = writer.create("long")
        for repo in (watcher, visitor, late):
            repo.join(conversation.id)
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
        _up_to_date(report, url, conversation.id)
        report.add(f"content of {turns:,} turns", content / 1e6, "MB")
        report.add("sent by the writer / content", sending.bytes_sent / content, "x", 2.5)
        report.add("to a device that watched / content", watching.bytes_received / content, "x", 2.5)
        report.add(f"to one that came after every {AWAY}th turn / content", received / content, "x", 1.2)
        report.add("to one that came at the end / content", once / content, "x", 1.2)
        report.add("sending the history with each turn would be", history / content, "x")


def _watched(report: Report, folder: Path, url: str, speed: int, answers: int) -> None:
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
        conversation = writer.create("watched")
        watcher.join(conversation.id)
        sending.wait_synced(_PATIENCE)
        watching.wait_synced(_PATIENCE)
        with _Page(url, conversation.id) as page:
            conversation.append("user", "Go on.")
            sending.wait_synced(_PATIENCE)
            watching.wait_synced(_PATIENCE)
            before, seen = watching.bytes_received, page.reach(conversation)
            content = 0
            for _ in range(answers):
                content += len(_stream(conversation, sending, text, now, 1 / speed).encode())
            watching.wait_synced(_PATIENCE)
            what = f"an answer at {speed} tokens/s"
            report.add(f"{what}: to a device / content", (watching.bytes_received - before) / content, "x", 2.5)
            report.add(f"{what}: to a page / content", (page.reach(conversation) - seen) / content, "x", 2.5)


class _Page:
    """A client at the Yjs door that offers compression, as browsers do. ``received``: bytes of its frames."""

    def __init__(self, url: str, id_: str) -> None:
        self._connecting = connect(f"{url}/yjs/{id_}", proxy=None, max_size=None)
        self._doc: pycrdt.Doc[Any] = pycrdt.Doc()
        self.received = 0

    def __enter__(self) -> _Page:
        self._socket = self._connecting.__enter__()
        if self._socket.protocol.extensions:
            raise RuntimeError("What a frame has on the wire is not known here.")
        self._socket.send(b"\x00\x00\x01\x00")
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def reach(self, conversation: llmcrdt.Conversation) -> int:
        """Read until all that the conversation has is here. The bytes that have come."""
        there: pycrdt.Doc[Any] = pycrdt.Doc()
        there.apply_update(conversation.diff())
        while self._doc.get_state() != there.get_state():
            frame = _bytes(self._socket.recv(timeout=_PATIENCE))
            self.received += len(frame) + (2 if len(frame) < 126 else 4 if len(frame) < 1 << 16 else 10)
            if frame[:2] in (b"\x00\x01", b"\x00\x02"):
                _, at = read_uint(frame, 2, 8)
                self._doc.apply_update(frame[at:])
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


def _up_to_date(report: Report, url: str, id_: str) -> None:
    """All that a client with nothing new says leaves at once, and the answers say that nothing is missing."""
    document = document_bytes(id_)
    protocol = [Subprotocol(SUBPROTOCOL)]
    with connect(url + PATH, subprotocols=protocol, compression=None, proxy=None, max_size=None) as client:
        client.send(codec.encode(Hello("benchmark")))
        client.send(codec.encode(Open(document, "yjs")))
        opened = next(m for _ in range(2) if isinstance(m := codec.decode(_bytes(client.recv())), Opened))
    with connect(url + PATH, subprotocols=protocol, compression=None, proxy=None) as client:
        began = time.perf_counter()
        size = 0
        for message in (Hello("benchmark"), Open(document, "yjs", opened.head), Barrier(1)):
            client.send(frame := codec.encode(message))
            size += len(frame)
        heard: list[Message] = []
        while not isinstance(heard[-1] if heard else None, Reached):
            frame = _bytes(client.recv(timeout=_PATIENCE))
            heard.append(codec.decode(frame))
            size += len(frame)
        took = time.perf_counter() - began
    assert [type(m) for m in heard] == [Welcome, Opened, Reached]
    report.add("up to date: bytes of one round trip, both ways", size, "bytes", 200)
    report.add("  until it is known", took * 1e3, "ms")


def _bytes(frame: bytes | str) -> bytes:
    assert isinstance(frame, bytes)
    return frame


def _returning(report: Report, folder: Path, url: str, count: int) -> None:
    with llmcrdt.open(folder / "many.db") as repo:
        for n in range(count):
            repo.create(f"conversation {n}").append("user", "Hello")
        with repo.connect(url) as link:
            link.wait_synced(_PATIENCE)
        began = time.perf_counter()
        with repo.connect(url) as link:
            link.wait_synced(_PATIENCE)
            took = time.perf_counter() - began
            sent, received = link.bytes_sent, link.bytes_received
    report.add(f"a device with {count:,} documents returns, nothing new", took * 1e3, "ms")
    report.add("  sent and received for each document", (sent + received) / count, "bytes", 200)
