"""CBOR (RFC 8949) of strangers: small messages with some bytes in them, and nothing else that CBOR can say.

The package cbor2 reads and writes it. It takes what it is told, and an empty list is one byte on the wire and sixty in
memory; so what stands in a frame is counted first, without making anything of it.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from llmcrdt.exceptions import MalformedFrame

_WIDTHS = {24: 1, 25: 2, 26: 4, 27: 8}


def installed() -> bool:
    """Whether the package is there (extra ``relay``)."""
    return find_spec("cbor2") is not None


def write(value: object) -> bytes:
    import cbor2

    return cbor2.dumps(value)


def read(data: bytes, items: int, depth: int) -> Any:
    """The value in a frame, of so many items at most: numbers, texts, bytes, lists and maps, keys counted as well; so
    deep inside each other. Raises MalformedFrame, and nothing else."""
    import cbor2

    _count(data, items, depth)
    try:
        return cbor2.loads(
            data, max_depth=depth + 1, allow_indefinite=False, allow_duplicate_keys=False, strict_hashable_types=True
        )
    except Exception as e:  # of several kinds, as what it finds wrong
        raise MalformedFrame(f"These bytes are no CBOR: {type(e).__name__}.") from None


def _count(data: bytes, items: int, depth: int) -> None:
    at, end, open_ = 0, len(data), [1]
    while open_:
        if not open_[-1]:
            open_.pop()
            continue
        open_[-1] -= 1
        items -= 1
        if at >= end:
            raise MalformedFrame("A frame ends too early.")
        kind, number = data[at] >> 5, data[at] & 31
        at += 1
        if number >= 24:
            width = _WIDTHS.get(number, 0)
            if not width or at + width > end:
                raise MalformedFrame("A frame holds a thing of no length.")
            number = int.from_bytes(data[at : at + width], "big")
            at += width
        if kind in (2, 3):
            at += number
        elif kind in (4, 5):
            if len(open_) > depth:
                raise MalformedFrame(f"Things stand at most {depth} deep in each other.")
            inside = number * (kind - 3)
            if inside > items:
                raise MalformedFrame("A frame holds too many things.")
            open_.append(inside)
        elif kind == 6:
            raise MalformedFrame("A frame holds a tag.")
    if at != end:
        raise MalformedFrame(f"{end - at} bytes are left over.")
