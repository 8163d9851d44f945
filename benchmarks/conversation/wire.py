"""Conversations and a relay: the bytes of a streamed answer, and a library of many conversations on two devices.

The relay is a real one. The clock is the stream's own, so that 20 tokens a second take no minute.
"""

from __future__ import annotations

from pathlib import Path

import llmcrdt
from llmcrdt.sync.link import Link
from sync_server.thread import RelayThread

from ..report import Report, seconds
from .talk import CHARS, words

PATIENCE = 120
LETTERS = 5


def measure(report: Report, folder: Path, *, conversations: int, tokens: int) -> None:
    for rate in (50, 20):
        _streaming(report, folder / f"rate{rate}", tokens, rate)
    _library(report, folder, conversations)


def _streaming(report: Report, folder: Path, tokens: int, rate: int) -> None:
    now = [1_700_000_000.0]
    text = " ".join(piece for piece, _ in zip(words(7), range(tokens * 6 // CHARS + 1), strict=False))
    pieces = [text[n * LETTERS : n * LETTERS + LETTERS] for n in range(tokens)]
    folder.mkdir()
    with (
        RelayThread(folder / "relay") as relay,
        llmcrdt.open(folder / "stream.db", clock=lambda: now[0]) as repo,
        llmcrdt.open(folder / "watcher.db", repo.library) as other,
        repo.connect(relay.url) as link,
        other.connect(relay.url) as watching,
    ):
        conversation = repo.create()
        conversation.append("user", "go on")
        _both(link, watching)
        sent, received = link.bytes_sent, watching.bytes_received
        stream = conversation.stream("assistant", frame=conversation.transcript())
        for piece in pieces:
            stream.write(piece)
            now[0] += 1 / rate
            if stream.waiting == 0:
                link.wait_synced(PATIENCE)
        stream.flush()
        _both(link, watching)
        streamed = link.bytes_sent - sent
        stream.seal()
        _both(link, watching)
        seen = watching.bytes_received - received
        sealed = link.bytes_sent - sent - streamed
        document = len(conversation.diff())
    said = len("".join(pieces).encode())
    report.add(
        f"{tokens:,} tokens of {LETTERS} letters at {rate} a second, to one who watches / text", seen / said, "x", 2.5
    )
    report.add("  sent by the writer, a token", streamed / tokens, "bytes", 25)
    report.add("  at the seal, once", sealed, "bytes")
    report.add("  document after it / text", document / said, "x")


def _library(report: Report, folder: Path, size: int) -> None:
    text = words(9)
    folder = folder / "library"
    folder.mkdir()
    with RelayThread(folder / "relay") as relay:
        with llmcrdt.open(folder / "one.db") as repo:
            for n in range(size):
                conversation = repo.create(f"conversation {n}")
                conversation.append("user", next(text))
                conversation.append("assistant", next(text), frame=conversation.transcript())
            first = seconds(lambda: _synced(repo, relay.url))
            again = seconds(lambda: _synced(repo, relay.url))
        device = llmcrdt.open(folder / "two.db", repo.library)
        new = seconds(lambda: _synced(device, relay.url))
        found = seconds(lambda: device.search(next(text).split()[0]))
        close = seconds(device.close)
    report.add(f"{size:,} conversations: first sync", first, "s", 5)
    report.add("  a new device has them", new, "s", 5)
    report.add("  reconnect, nothing new", again, "s", 0.2)
    report.add("  the new device's first search", found, "s", 0.5)
    report.add("  close", close, "s", 0.3)


def _synced(repo: llmcrdt.Repo, url: str) -> None:
    with repo.connect(url) as link:
        link.wait_synced(PATIENCE)


def _both(writer: Link, reader: Link) -> None:
    writer.wait_synced(PATIENCE)
    reader.wait_synced(PATIENCE)
