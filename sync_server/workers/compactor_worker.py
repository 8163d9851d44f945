"""A process that compacts documents and makes catch-ups of parts of them:
``python -m sync_server.workers.compactor_worker BYTES SECONDS``.

It reads orders and answers each, both framed (framing.py): an order is its name, the document's kind and the updates,
the answer is records. It is a process of its own because a stranger's bytes reach the CRDT core here: should it crash,
hang or eat memory, the relay goes on, and its log is as it was. BYTES and SECONDS bound its memory, and its time for
one order.

fold      updates -> the updates that they are compacted to
condense  updates in three parts, an empty one between them: a snapshot, what came after it, and a tail -> what the
          tail adds to the others, as one; none where it can't be said
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from llmcrdt.crdt.registry import backend, kinds
from llmcrdt.exceptions import MalformedUpdate

from . import framing, process


def obey(order: bytes, kind: bytes, data: Sequence[bytes]) -> list[bytes]:
    """The answer to one order about a document of this kind."""
    crdt = backend(kind.decode())
    if order == b"fold":
        return crdt.compact(data)
    parts: list[list[bytes]] = [[]]
    for piece in data:
        if piece:
            parts[-1].append(piece)
        else:
            parts.append([])
    try:
        return [crdt.catch_up(*parts)] if len(parts) == 3 else []
    except MalformedUpdate:
        return []


def prepare() -> None:
    """Load the backends, for the workers that are forked from this process."""
    for kind in kinds():
        backend(kind).make_replica(())


def main() -> None:
    process.bound(int(sys.argv[1]), nice=10)
    # Text that is printed by accident must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        order, kind, *data = framing.read(sys.stdin.buffer)
        process.allow(int(sys.argv[2]))
        framing.write(answers, obey(order, kind, data))


if __name__ == "__main__":
    sys.exit(process.serve(main))
