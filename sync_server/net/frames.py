"""Takes plain WebSocket frames out of what a socket reads, many at a time: parsing them one by one, as a library for
all of RFC 6455 must, costs a relay more than what stands in them.

A *plain* frame is a whole message of bytes: final, binary, without extension bits, masked, and here from its first byte
to its last. Everything else (control frames, fragments, compressed frames, frames that come in several reads, and
what is no frame at all) goes to the library as it is, in order, so that every rule is kept in one place.
"""

from __future__ import annotations

from collections.abc import Callable

try:
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

_PLAIN = 0x82
_MASKED = 0x80


class PlainFrames:
    """``message`` gets what plain frames carry, ``rest`` all other bytes; both are called in the order of the bytes.
    ``open_`` says whether plain frames may be taken now: else, and where one is larger than ``most()``, all goes to
    ``rest``. The first byte has to be the first of a frame."""

    def __init__(
        self,
        message: Callable[[bytes], None],
        rest: Callable[[bytes], None],
        open_: Callable[[], bool],
        most: Callable[[], int],
    ) -> None:
        self._message, self._rest, self._open, self._most = message, rest, open_, most
        # Bytes of a frame's head that has not come whole, and how much is missing of a frame in the library's hands.
        self._head = b""
        self._missing = 0

    def feed(self, data: bytes) -> None:
        """The bytes of one read."""
        if self._missing:
            piece = data[: self._missing]
            self._missing -= len(piece)
            self._rest(piece)
            data = data[len(piece) :]
        if self._head:
            data, self._head = self._head + data, b""
        at, end, open_, most = 0, len(data), self._open(), self._most()
        while end - at >= 2:
            size, start = data[at + 1], at + 6
            if size < _MASKED:
                return self._rest(data[at:])  # a client has to mask: the library says so, and ends the connection
            size -= _MASKED
            if size >= 126:
                start += 2 if size == 126 else 8
                size = int.from_bytes(data[at + 2 : start - 4], "big")
            stop = start + size
            if start > end:
                break
            if stop > end:
                self._missing = stop - end
                return self._rest(data[at:])
            if data[at] == _PLAIN and open_ and size <= most:
                self._message(apply_mask(data[start:stop], data[start - 4 : start]))
            else:
                self._rest(data[at:stop])
                open_ = self._open()
            at = stop
        self._head = data[at:]
