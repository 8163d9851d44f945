"""Find the update that ends the process which applies it: ``python -m llmcrdt.crdt.trial KIND ROOT...`` is a process
that may end.

It reads a snapshot and updates, each as its length in 8 bytes and its bytes, and writes before each its number as a
line: 0 is the snapshot.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence

from ..exceptions import MalformedUpdate
from .registry import backend

SNAPSHOT = -1
_PATIENCE = 600.0
"""Seconds; what takes longer is no crash."""


def deadly(kind: str, snapshot: bytes | None, updates: Sequence[bytes], roots: Iterable[str]) -> int | None:
    """The first update that ends a process which applies them one after the other, or SNAPSHOT. None where none does,
    or no other process can be started. ``kind``: one of the registry's."""
    if not sys.executable or getattr(sys, "frozen", False):
        return None
    command = [sys.executable, "-m", __name__, kind, *roots]
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
    # Python itself gives up with 1 or 2.
    if done.returncode in (0, 1, 2) or not lines:
        return None
    return int(lines[-1]) - 1


def main() -> None:
    if os.name == "posix":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    kind, *roots = sys.argv[1:]
    replica, number = backend(kind).make_replica(roots), 0
    while head := sys.stdin.buffer.read(8):
        piece = sys.stdin.buffer.read(int.from_bytes(head, "big"))
        os.write(1, b"%d\n" % number)
        with contextlib.suppress(MalformedUpdate):
            if number:
                replica.apply(piece)
            else:
                replica.load(piece or None, ())
        if replica.broken:
            break  # whoever loads the document finds this one
        number += 1


if __name__ == "__main__":
    main()
