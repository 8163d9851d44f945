"""A process that compacts documents and makes catch-ups of parts of them:
``python -m sync_server.workers.compactor_worker BYTES SECONDS``.

It reads orders and answers each, both as framing.py has it: an order is its name and what it is about, the answer is
the records that it comes to. It is a process of its own because a stranger's bytes reach the CRDT core here: should it
crash, hang or eat memory, the relay goes on, and its log is as it was. BYTES and SECONDS bound its memory, and its time
for one order.

fold      updates -> the updates that they are compacted to
condense  updates in three parts, an empty one between them: a snapshot, what came after it, and a tail -> what the
          tail adds to the others, as one; none where it can't be said
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from llmcrdt.crdt.yjs.compact import catch_up_updates, compact_updates
from llmcrdt.exceptions import MalformedUpdate

from . import framing, process


def obey(order: bytes, data: Sequence[bytes]) -> list[bytes]:
    """The answer to one order."""
    if order == b"fold":
        return compact_updates(data)
    parts: list[list[bytes]] = [[]]
    for piece in data:
        if piece:
            parts[-1].append(piece)
        else:
            parts.append([])
    try:
        return [catch_up_updates(*parts)] if len(parts) == 3 else []
    except MalformedUpdate:
        return []


def main() -> None:
    process.bound(int(sys.argv[1]), nice=10)
    # Whatever is printed by accident must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        order, *data = framing.read(sys.stdin.buffer)
        process.allow(int(sys.argv[2]))
        framing.write(answers, obey(order, data))


if __name__ == "__main__":
    sys.exit(process.serve(main))
