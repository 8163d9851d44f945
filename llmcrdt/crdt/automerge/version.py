"""A version names all that a replica holds: the changes that no other follows, by their hashes, and how many changes
there are of each actor. The changes that make root maps are not told; everybody has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ...exceptions import MalformedUpdate
from ...varint import write_uint
from .columns import Reader

_FORMAT = b"\x01"


class Version(NamedTuple):
    heads: list[bytes]
    seqs: dict[bytes, int]


def write_version(heads: Iterable[bytes], seqs: Mapping[bytes, int]) -> bytes:
    sorted_heads = sorted(heads)
    out = [_FORMAT, write_uint(len(sorted_heads)), *sorted_heads]
    for actor, seq in sorted(seqs.items()):
        out += (write_uint(len(actor)), actor, write_uint(seq))
    return b"".join(out)


def parse_version(data: bytes) -> Version:
    """Raises MalformedUpdate."""
    reader = Reader(data)
    if reader.take(1) != _FORMAT:
        raise MalformedUpdate("These bytes are no version of an Automerge document.")
    count = reader.uint()
    if count * 32 > len(data):
        raise MalformedUpdate("The version is cut short.")
    heads = [reader.take(32) for _ in range(count)]
    seqs: dict[bytes, int] = {}
    while reader.left:
        actor = reader.prefixed()
        seqs[actor] = reader.uint()
    return Version(heads, seqs)
