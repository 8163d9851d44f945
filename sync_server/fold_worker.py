"""A process that folds one document: ``python -m sync_server.fold_worker BYTES SECONDS``.

Reads updates from its input and writes what they fold to, both as pieces.py has it. It is a process of its own because
a stranger's bytes reach the CRDT core here: should it crash, hang or eat memory, the relay goes on, and its log is as
it was. BYTES and SECONDS bound its memory and its time.
"""

from __future__ import annotations

import sys

from llmcrdt.crdt.fold import fold_updates

from . import pieces, process


def main() -> None:
    process.bound(int(sys.argv[1]), nice=10)
    process.allow(int(sys.argv[2]))
    pieces.write(sys.stdout.buffer, fold_updates(pieces.read(sys.stdin.buffer)))


if __name__ == "__main__":
    sys.exit(process.serve(main))
