"""Conversations and a relay: the bytes of a streamed answer.

The relay is a real one. The clock is the stream's own, so that 20 tokens a second take no minute.
"""

from __future__ import annotations

from pathlib import Path

import llmcrdt
from llmcrdt.sync.link import Link
from sync_server.thread import RelayThread

from ..report import Report
from .talk import CHARS, words

PATIENCE = 120
LETTERS = 5


def measure(report: Report, folder: Path, *, tokens: int) -> None:
    for rate in (50, 20):
        _streaming(report, folder / f"rate{rate}", tokens, rate)


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


def _both(writer: Link, reader: Link) -> None:
    writer.wait_synced(PATIENCE)
    reader.wait_synced(PATIENCE)
