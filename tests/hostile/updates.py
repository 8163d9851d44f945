"""Updates that are small and take a CRDT core long."""

from __future__ import annotations

from llmcrdt.varint import write_uint as u


def text(letters: int, client: int = 1) -> bytes:
    """A text in one piece, in the root "t"."""
    return b"\x01\x01" + u(client) + u(0) + b"\x04\x01\x01t" + u(letters) + b"a" * letters + b"\x00"


def far_apart(letters: int, client: int = 100_000) -> bytes:
    """One letter before each of the text's, all of them said to come behind its first: each is held against all that
    stands between (0.25 µs for each). 6,000 take about 5 s in 48 kB."""
    structs = (b"\xc4" + u(1) + u(0) + u(1) + u(place) + b"\x01x" for place in range(1, letters))
    return b"\x01" + u(letters - 1) + u(client) + u(0) + b"".join(structs) + b"\x00"


def all_between_two(letters: int, client: int) -> bytes:
    """Letters that all come between the text's first and its second."""
    item = b"\xc4" + u(1) + u(0) + u(1) + u(1) + b"\x01x"
    return b"\x01" + u(letters) + u(client) + u(0) + item * letters + b"\x00"
