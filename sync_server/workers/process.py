"""Worker processes: a CRDT core sees a stranger's bytes there. One may crash, hang or eat memory; the relay goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable


def command(module: str, *arguments: object) -> list[str]:
    """``python -m module arguments``."""
    return [sys.executable, "-m", module, *map(str, arguments)]


def environment() -> dict[str, str]:
    """In which a worker imports what this process imports, wherever that was started."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path) or "."}


def start(module: str, *arguments: object) -> subprocess.Popen[bytes]:
    """A worker with pipes for its input and output. Raises OSError."""
    pipe = subprocess.PIPE
    return subprocess.Popen(command(module, *arguments), stdin=pipe, stdout=pipe, env=environment())


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


def serve(work: Callable[[], None]) -> int:
    """Inside a worker: do its work. Once who started it is gone, which a pipe tells, it ends at once and says nothing:
    what it had in hand is of no use to anybody. Signals that a terminal or a service manager sends to all processes of
    a relay are for the relay, which still needs it to finish."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        work()
    except (EOFError, BrokenPipeError):
        os._exit(0)  # no buffer is written once more
    return 0
