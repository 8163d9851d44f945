"""Memory that is free goes back to the system."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_MMAP_THRESHOLD, _LARGE = -3, 1 << 20


def give_back_large() -> None:
    """From now on blocks of 1 MiB and more go back when they are freed. The C library (glibc) otherwise raises that
    size to 32 MiB with the first such blocks, and they stay between others. Does nothing where there is another one."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE)
