"""An idle document costs nothing once nobody has it open: open, write and close many, and look at the memory."""

from __future__ import annotations

import os

from llmcrdt.sync import codec
from llmcrdt.sync.messages import Ack, Barrier, Close, Open, Push, Reached

from ..report import Report
from .folding import connected, hear
from .servers import Server

_TOGETHER = 500


def measure(report: Report, server: Server, count: int) -> None:
    """Twice as many: what the first cost may be a cache that fills; what the second cost is a leak."""
    _visit(server.url, _TOGETHER)
    memory = [server.memory]
    for _ in range(2):
        _visit(server.url, count)
        memory.append(server.memory)
    what = f"{count:,} documents opened, written, closed: memory more"
    report.add(what, (memory[1] - memory[0]) / count, "bytes each")
    report.add("  as many others after them", (memory[2] - memory[1]) / count, "bytes each")


def _visit(url: str, count: int) -> None:
    with connected(url) as client:
        for start in range(0, count, _TOGETHER):
            documents = [os.urandom(16) for _ in range(min(_TOGETHER, count - start))]
            for document in documents:
                client.send(codec.encode(Open(document, "yjs")))
                client.send(codec.encode(Push(document, os.urandom(16), 1, (b"\x00\x00",))))
            acks = 0
            while acks < len(documents):
                acks += isinstance(hear(client), Ack)
            for document in documents:
                client.send(codec.encode(Close(document)))
        client.send(codec.encode(Barrier(1)))
        while not isinstance(hear(client), Reached):
            pass
