"""Which of some updates ends the process that applies it: ``python -m llmcrdt.crdt.yjs.trial ROOT...`` is one that may.

It reads the snapshot and the updates, each as its length in 8 bytes and its bytes, and says before each, as a line,
which it comes to: 0 is the snapshot.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence

from ...exceptions import MalformedUpdate
from .replica import YjsReplica

SNAPSHOT = -1
_PATIENCE = 600.0
"""Seconds; what takes longer is no crash."""


def deadly(snapshot: bytes | None, updates: Sequence[bytes], roots: Iterable[str]) -> int | None:
    """The first update that ends a process which applies them one after the other, or SNAPSHOT. None where none does,
    or no other process can be started."""
    if not sys.executable or getattr(sys, "frozen", False):
        return None
    command = [sys.executable, "-m", __name__, *roots]
    path = os.pathsep.join(entry for entry in sys.path if entry) or "."
    data = b"".join(len(piece).to_bytes(8, "big") + piece for piece in (snapshot or b"", *updates))
    try:
        done = subprocess.run(
            command, input=data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_PATIENCE, check=False,
            env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.split()
    # What Python itself gives up with is 1 or 2.
    if done.returncode in (0, 1, 2) or not lines:
        return None
    return int(lines[-1]) - 1


def main() -> None:
    if os.name == "posix":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    replica, number = YjsReplica(sys.argv[1:]), 0
    while head := sys.stdin.buffer.read(8):
        piece = sys.stdin.buffer.read(int.from_bytes(head, "big"))
        os.write(1, b"%d\n" % number)
        with contextlib.suppress(MalformedUpdate):
            if number:
                replica.apply(piece)
            else:
                replica.load(piece or None, ())
        if replica.broken:
            break  # whoever loads it finds that one
        number += 1


if __name__ == "__main__":
    main()
