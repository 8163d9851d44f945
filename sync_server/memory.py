"""Memory that is free goes back to the system, and what stays for ever is not looked through again and again."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

_MMAP_THRESHOLD, _LARGE = -3, 1 << 20


def keep_what_is_there() -> None:
    """All objects that there are now stay until the process ends, as the modules of a program that has started do: the
    garbage collector leaves them out. To look through them all took the event loop 25 ms, now and then."""
    gc.collect()
    gc.freeze()


def give_back_large() -> None:
    """From now on blocks of 1 MiB and more go back when they are freed. The C library (glibc) otherwise raises that
    size to 32 MiB with the first such blocks, and they stay between others. Does nothing where there is another one."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE)
