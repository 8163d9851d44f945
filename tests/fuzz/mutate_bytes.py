"""Valid frames with something wrong: bytes, numbers as LEB128 has them, lengths, pieces of other frames, JSON."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

_NUMBERS = (
    0, 1, 2, 0x7F, 0x80, 0x3FFF, 0x4000, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 53) - 1, 1 << 53,
    (1 << 56) - 1, (1 << 64) - 1,
)  # fmt: skip
_JSON = (
    b"[" * 3000, b'{"a":' * 3000, b"9" * 5000, b"1e999", b"NaN", b"-Infinity", b'"\\ud800"', b"null", b'""', b"{}",
    b"[]", b"true", b"-1", b"0.5", b'"\\u0000"',
)  # fmt: skip


def leb128(n: int) -> bytes:
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def mutant(frame: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """A frame with one to four changes."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        frame = rng.choice(_CHANGES)(frame, others, rng)
    return frame


def _flip(frame: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    at = rng.randrange(len(frame) or 1)
    return frame[:at] + bytes([(frame[at] if frame else 0) ^ 1 << rng.randrange(8)]) + frame[at + 1 :]


def _byte(frame: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    at = rng.randrange(len(frame) or 1)
    return frame[:at] + rng.choice((b"\x00", b"\x01", b"\x7f", b"\x80", b"\xff", rng.randbytes(1))) + frame[at + 1 :]


def _number(frame: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """A number, at whatever byte it may begin, becomes another; or the same in more bytes than it needs."""
    at = end = rng.randrange(len(frame) or 1)
    while end < len(frame) - 1 and frame[end] & 0x80 and end - at < 8:
        end += 1
    if rng.random() < 0.1:
        return frame[:end] + bytes([(frame[end] if frame else 0) | 0x80, 0]) + frame[end + 1 :]
    if rng.random() < 0.3:
        size = rng.choice((1, 2, 4, 8))
        number = (rng.choice(_NUMBERS) & (1 << 8 * size) - 1).to_bytes(size, rng.choice(("big", "little")))
        return frame[:at] + number + frame[at + size :]
    return (
        frame[:at] + leb128(rng.choice((rng.choice(_NUMBERS), len(frame) - end, rng.randrange(300)))) + frame[end + 1 :]
    )


def _cut(frame: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    return frame[: rng.randint(0, len(frame))]


def _remove(frame: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    at = rng.randint(0, len(frame))
    return frame[:at] + frame[at + rng.choice((1, 2, 16, 32)) :]


def _repeat(frame: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    at = rng.randint(0, len(frame))
    return frame[:at] + frame[at : at + rng.choice((1, 2, 16, 32))] * rng.choice((2, 3, 40)) + frame[at:]


def _insert(frame: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    at = rng.randint(0, len(frame))
    return frame[:at] + rng.randbytes(rng.choice((1, 2, 16, 300))) + frame[at:]


def _splice(frame: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    other = rng.choice(others)
    return frame[: rng.randint(0, len(frame))] + other[rng.randint(0, len(other)) :]


def _json(frame: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """A value behind a colon or a comma becomes another."""
    places = [i for i, byte in enumerate(frame) if byte in b":,["]
    if not places:
        return rng.choice(_JSON)
    at = rng.choice(places) + 1
    end = at
    while end < len(frame) and frame[end] not in b",}]":
        end += 1
    return frame[:at] + rng.choice(_JSON) + frame[end:]


_CHANGES: tuple[Callable[[bytes, Sequence[bytes], random.Random], bytes], ...] = (
    _flip, _byte, _number, _number, _number, _cut, _remove, _repeat, _insert, _splice, _json,
)  # fmt: skip
