"""Takes plain WebSocket frames out of what a socket reads, and makes some, many at a time: one by one, as a library for
all of RFC 6455 must do it, that costs a relay more than what stands in them.

A *plain* frame is a whole message of bytes: final, binary, without extension bits, masked, and here from its first byte
to its last. Everything else (control frames, fragments, compressed frames, frames that come in several reads, and
what is no frame at all) goes to the library as it is, in order, so that every rule is kept in one place.
"""

from __future__ import annotations

import math
from collections.abc import Callable

try:
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

from .large import SMALL

OTHER = 8
"""The weight of a frame for the library beside a plain one."""
_PART = 3
"""The same of a frame that brings no message, a ping or a part of one, beside a compressed one."""
_PLAIN = 0x82
_MASKED = 0x80
_FINAL, _COMPRESSED, _OPCODE = 0x80, 0x40, 0x0F
_DATA = (1, 2)
_DEFLATED = 1032
_HEADS = tuple(bytes((_PLAIN, size)) for size in range(126))


def frame_head(size: int) -> bytes:
    """The head of a server's frame of so many bytes: binary, final, not masked, not compressed."""
    if size < 126:
        return _HEADS[size]
    if size < 1 << 16:
        return b"\x82\x7e" + size.to_bytes(2, "big")
    return b"\x82\x7f" + size.to_bytes(8, "big")


class PlainFrames:
    """``message`` gets what plain frames carry, ``rest`` all other bytes; both are called in the order of the bytes.
    ``open_`` says whether plain frames may be taken now: else, and where one is larger than ``most()``, all goes to
    ``rest``. ``enough`` says whether what was taken should be dealt with first; ``room`` gets the bytes that a frame
    may take, before it is taken, and whether its message has other frames, and says whether there is room. The first
    byte has to be the first of a frame."""

    def __init__(
        self,
        message: Callable[[bytes], None],
        rest: Callable[[bytes], None],
        open_: Callable[[], bool],
        most: Callable[[], int],
        enough: Callable[[], bool] = lambda: False,
        room: Callable[[int, bool], bool] = lambda size, parts: True,
    ) -> None:
        self._message, self._rest, self._open, self._most = message, rest, open_, most
        self._enough, self._room = enough, room
        self.unfinished = 0
        """Bytes of the frame of which a part is still to come."""
        self.others = 0
        """Frames that the library got; one that brings no message by itself counts ``_PART``."""
        # Bytes of a frame's head that has not come whole, and how much is missing of a frame in the library's hands.
        self._head = b""
        self._missing = 0

    def feed(self, data: bytes, most_frames: float = math.inf) -> bytes:
        """Bytes as they came. If there are more frames than ``most_frames`` the rest of the bytes comes back, and is
        to be fed again; a frame that the library takes counts ``OTHER``."""
        if self._missing:
            piece = data[: self._missing]
            self._missing -= len(piece)
            self.unfinished = self.unfinished if self._missing else 0
            self._rest(piece)
            data = data[len(piece) :]
        if self._head:
            data, self._head = self._head + data, b""
        at, end, open_, most = 0, len(data), self._open(), self._most()
        left, message, enough = most_frames, self._message, self._enough
        while end - at >= 2:
            if left <= 0 or enough():
                return data[at:]
            size, start = data[at + 1], at + 6
            if size < _MASKED:
                self.others += 1
                self._rest(data[at:])  # a client has to mask: the library says so, and ends the connection
                return b""
            size -= _MASKED
            if size >= 126:
                start += 2 if size == 126 else 8
                size = int.from_bytes(data[at + 2 : start - 4], "big")
            stop = start + size
            if start > end:
                break
            kind = data[at]
            if kind != _PLAIN or size > SMALL:
                # A compressed one may become a thousand times as long.
                grown = min(size * _DEFLATED, most) if kind & _COMPRESSED else size
                if not self._room(min(grown, most), not kind & _FINAL or not kind & _OPCODE):
                    return data[at:]
            if stop > end:
                self._missing, self.unfinished = stop - end, size
                self.others += 1
                self._rest(data[at:])
                return b""
            if data[at] == _PLAIN and open_ and size <= most:
                message(apply_mask(data[start:stop], data[start - 4 : start]))
                left -= 1
            else:
                self.others += 1 if kind & _FINAL and kind & _OPCODE in _DATA else _PART
                left -= OTHER
                self._rest(data[at:stop])
                open_ = self._open()
            at = stop
        self._head = data[at:]
        return b""
