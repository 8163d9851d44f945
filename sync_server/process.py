"""Worker processes: a CRDT core sees a stranger's bytes there. One may crash, hang or eat memory; the relay goes on."""

from __future__ import annotations

import os
import subprocess
import sys


def start(module: str, *arguments: object) -> subprocess.Popen[bytes]:
    """``python -m module arguments``, with pipes for its input and output. Raises OSError."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    # It imports what this process imports, wherever that was started.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path) or "."}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)


def bound(memory: int, nice: int = 0) -> None:
    """Inside a worker: the bytes of memory it may have, and no core dumps, for they hold what strangers wrote."""
    if sys.platform == "win32":
        return
    import resource

    os.nice(nice)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def allow(seconds: float) -> None:
    """Inside a worker: so much processor time from now on, then the system ends it."""
    if sys.platform == "win32":
        return
    import resource
    import time

    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + seconds) + 1, hard))
