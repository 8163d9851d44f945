"""Whether the other side of a connection still lives. After some silence it is asked for a sign, and after some more it
is given up. No clock of its own.

A WebSocket library's own keepalive does not do: its ping waits until all else was sent. So it never gives up a peer
that reads nothing at all, and gives up one that reads a large message slowly, for the answer comes after that.
"""

from __future__ import annotations

import asyncio
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final

PATIENCE: Final = 20.0
"""Seconds of silence before the other side is asked, and again before it is given up."""


class Keepalive:
    """Of one connection. Signs of life are bytes that come in, and bytes that waited and are read by the other side, so
    that a slow peer is not given up. ``ask`` sends a ping."""

    def __init__(
        self, transport: asyncio.WriteTransport, ask: Callable[[], None], now: float, patience: float = PATIENCE
    ) -> None:
        self._transport, self._ask, self._patience = transport, ask, patience
        self._alive = now
        self._asked: float | None = None
        self._heard = self._taken = self._waiting = 0

    def beat(self, now: float, heard: int, given: int, *, excused: bool = False) -> bool:
        """To be called now and then. False: give the other side up. ``heard`` and ``given``: how many
        bytes came and were written in all. ``excused``: its bytes are not read just now."""
        waiting = untaken(self._transport)
        taken = given - waiting
        # Bytes that are taken at once prove nothing: the system takes them for a process that hangs.
        takes = taken > self._taken and waiting > 0 and self._waiting > 0
        if heard > self._heard or takes or excused:
            self._alive, self._asked = now, None
        self._heard, self._taken, self._waiting = heard, taken, waiting
        if self._asked is not None:
            return now - self._asked < self._patience
        if now - self._alive >= self._patience:
            self._asked = now
            self._ask()
        return True


def untaken(transport: asyncio.WriteTransport) -> int:
    """Bytes that were written and that the other side's system has not taken, as far as this one tells."""
    waiting = transport.get_write_buffer_size()
    if sys.platform != "win32":
        import fcntl
        import termios

        with suppress(OSError, ValueError):
            number = transport.get_extra_info("socket").fileno()
            (held,) = struct.unpack("i", fcntl.ioctl(number, termios.TIOCOUTQ, bytes(4)))
            waiting += held
    return waiting
