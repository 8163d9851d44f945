"""Conversations and a relay: the bytes of a streamed answer.

The relay is a real one. The clock is the stream's own, so that 20 tokens a second take no minute.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import llmcrdt
from llmcrdt.crdt.registry import kinds
from llmcrdt.sync.link import Link
from sync_server.thread import RelayThread

from ..report import Report
from .talk import CHARS, words

PATIENCE = 120
LETTERS = 5


def measure(report: Report, folder: Path, *, tokens: int) -> None:
    for kind in sorted(kinds(), reverse=True):
        for rate in (50, 20):
            _streaming(report, folder / f"{kind}{rate}", tokens, rate, kind)


def _streaming(report: Report, folder: Path, tokens: int, rate: int, kind: str) -> None:
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
        conversation = repo.create(crdt=kind)
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
        document, kept = len(conversation.diff()), len(zlib.compress(conversation.diff(), 6))
    said = len("".join(pieces).encode())
    yjs, ours = kind == "yjs", kind.capitalize()
    told = f"{ours}, {tokens:,} tokens of {LETTERS} letters at {rate} a second"
    report.add(f"{told}: to one who watches / text", seen / said, "x", 2.5 if yjs else None)
    report.add(f"  {ours}, {rate}: to one who watches, a token", seen / tokens, "bytes", None if yjs else 40)
    report.add(f"  {ours}, {rate}: sent by the writer, a token", streamed / tokens, "bytes", 25 if yjs else None)
    report.add(f"  {ours}, {rate}: at the seal, once", sealed, "bytes")
    report.add(f"  {ours}, {rate}: document after it / text", document / said, "x", None if yjs else 1.6)
    report.add(f"  {ours}, {rate}: the same deflated, as it is kept", kept / said, "x")


def _both(writer: Link, reader: Link) -> None:
    writer.wait_synced(PATIENCE)
    reader.wait_synced(PATIENCE)
