"""Worker processes: a CRDT core sees a stranger's bytes there. One may crash, hang or eat memory; the relay goes on."""

from __future__ import annotations

import mmap
import os
import signal
import struct
import sys
from collections.abc import Callable


def command(module: str, *arguments: object) -> list[str]:
    """``python -m module arguments``."""
    return [sys.executable, "-m", module, *map(str, arguments)]


def environment() -> dict[str, str]:
    """In which a worker imports what this process imports, wherever that was started."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path) or "."}


def bound(memory: int, nice: int = 0) -> None:
    """Inside a worker: the bytes of memory it may have, and no core dumps, for they hold what strangers wrote."""
    if sys.platform == "win32":
        return
    import resource

    os.nice(nice)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        # If it has more already, it ends now, and not whenever it next asks for some.
        bytearray(1 << 20)


def allow(seconds: float) -> None:
    """Inside a worker: so much processor time from now on, then the system ends it (``ran_out``)."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_PROF, seconds)


def processor_time(pid: int) -> int:
    """The processor time that a worker has had, in nanoseconds; 0 where the system doesn't tell."""
    try:
        with open(f"/proc/{pid}/schedstat") as file:
            return int(file.read().split()[0])
    except (OSError, ValueError, IndexError):
        return 0


def ran_out(status: int | None) -> bool:
    """Whether a worker that ended with this status had used up the processor time that it was allowed."""
    return sys.platform != "win32" and status == -signal.SIGPROF


class Progress:
    """How far a worker has come in its batch, in memory that it shares with the relay: still there when it is gone.
    It holds what the worker wrote, so it may be anything."""

    ORDERS = 1_024
    """So many orders of a batch have a time."""
    _PLACE = struct.Struct("=III")
    _TIME = struct.Struct("=I")

    def __init__(self, file: int) -> None:
        """``file``: of ``SIZE`` bytes, or -1: then nothing is shared."""
        self.shared = file >= 0
        self._memory = mmap.mmap(file, self.SIZE)

    SIZE = _PLACE.size + ORDERS * _TIME.size

    def begin(self, order: int, first: int = 0, count: int = 0) -> None:
        """The worker works on an order now, on ``count`` records of it from the ``first`` on."""
        self._PLACE.pack_into(self._memory, 0, order, first, count)

    def end(self, order: int, seconds: float) -> None:
        """An order took so long."""
        if order < self.ORDERS:
            micros = min(int(seconds * 1e6), (1 << 32) - 1)
            self._TIME.pack_into(self._memory, self._PLACE.size + order * self._TIME.size, micros)

    def place(self) -> tuple[int, int, int]:
        """The place that ``begin`` was given last."""
        order, first, count = self._PLACE.unpack_from(self._memory)
        return order, first, count

    def seconds(self, order: int) -> float:
        """The time that an order of the last batch took."""
        if order >= self.ORDERS:
            return 0.0
        (micros,) = self._TIME.unpack_from(self._memory, self._PLACE.size + order * self._TIME.size)
        return float(micros) / 1e6

    def close(self) -> None:
        self._memory.close()


def shared_file() -> int:
    """A file for Progress that has no name and goes with the last process that has it open; -1 where there is no such
    thing."""
    if sys.platform != "linux":
        return -1
    file = os.memfd_create("progress")
    os.ftruncate(file, Progress.SIZE)
    return file


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
