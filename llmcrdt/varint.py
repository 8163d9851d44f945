"""Unsigned numbers of variable length: LEB128, which is also lib0's varUint. Seven bits a byte, the lowest first; the
highest bit of a byte says that another follows.

One number has many spellings, with zeros at its end; ``write_uint`` makes the shortest. Whether a longer one is
accepted, and how large a number may be, is for each format to say. The readers of frames (sync.codec) and of token logs
(prompt.generation_log) have loops of their own: a call for each number made them 5 to 20 % slower.
"""

from __future__ import annotations

from typing import Final

MAX_UINT: Final = (1 << 53) - 1
"""The largest number that is written: the largest that every JavaScript client holds exactly."""

_LAST: Final = tuple(bytes((n,)) for n in range(0x80))
_MORE: Final = tuple(bytes((n | 0x80,)) for n in range(0x80))


def write_uint(n: int) -> bytes:
    """The bytes of a number. Raises ValueError for one that is not between 0 and MAX_UINT."""
    if 0 <= n < 0x80:
        return _LAST[n]
    if 0 < n < 1 << 14:
        return _MORE[n & 0x7F] + _LAST[n >> 7]
    if 0 < n < 1 << 21:
        return _MORE[n & 0x7F] + _MORE[n >> 7 & 0x7F] + _LAST[n >> 14]
    if not 0 <= n <= MAX_UINT:
        raise ValueError(f"{n} is not between 0 and 2^53-1")
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def read_uint(data: bytes, at: int, longest: int) -> tuple[int, int]:
    """The number that begins at a place, and the place after it. Raises IndexError where the data ends inside the
    number, ValueError for a number of more than ``longest`` bytes."""
    number = 0
    for shift in range(0, 7 * longest, 7):
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise ValueError(f"a number has more than {longest} bytes")
