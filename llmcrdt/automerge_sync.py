"""Automerge's sync messages as bytes. Of documents and changes nothing is known here.

    message = 42 | 43, hashes: heads, hashes: need, count, have*, count, bytes: chunk*, capabilities
    hashes  = count, 32 bytes each          have   = hashes: last_sync, bytes: filter
    filter  = nothing | entries, 10, 7, bits

All numbers are LEB128. 43 is a message whose chunks may be whole documents. *Heads* are the changes that no other of
the sender's follows, *need* those it asks for by name, and each *have* says which changes it has beside all up to
``last_sync``: a bloom filter of ten bits for each, seven of which are set.

Source: https://github.com/automerge/automerge, rust/automerge/src/sync. Filters are read only with these parameters:
Automerge's core divides by zero over others, or takes gigabytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from .exceptions import MalformedFrame
from .varint import read_uint, write_uint

HASH = 32
BITS, PROBES = 10, 7
MOST_CHUNKS = 65_536
"""Chunks in one message."""
_OUR_OWN = (1, 2)
"""The first bytes of names and erasures in a record (docs/schema.md)."""
_LEAST_CHUNK = 12
"""Bytes of a chunk: what it is, and its hash and length."""
_MOST_HAVE, _MOST_AFTER = 8, 64
_TYPES = (0x42, 0x43)
_WORDS = struct.Struct("<III").unpack_from
CAPABILITIES = b"\x02\x01\x02"
"""The end of a message whose sender knows both types."""


class Filter(NamedTuple):
    """A bloom filter. ``bits`` without entries: it holds nothing."""

    entries: int
    bits: bytes

    def __contains__(self, hash_: object) -> bool:
        bits = self.bits
        return bool(bits) and all(bits[n >> 3] >> (n & 7) & 1 for n in _probes(hash_, len(bits)))  # type: ignore[arg-type]


NOTHING = Filter(0, b"")


class Have(NamedTuple):
    last_sync: Sequence[bytes]
    filter: Filter


class SyncMessage(NamedTuple):
    """``chunks``: how many there are; ``end``: where what comes before their number ends."""

    data: bytes
    heads: Sequence[bytes]
    need: Sequence[bytes]
    have: Sequence[Have]
    end: int
    chunks: int

    @property
    def question(self) -> bytes:
        """The message without its chunks."""
        return self.data[: self.end] + b"\0"

    @property
    def changes(self) -> bytes:
        """The chunks, one after another."""
        data, joined = memoryview(self.data), bytearray()
        _, at = read_uint(self.data, self.end, 8)
        for _ in range(self.chunks):
            size, at = read_uint(self.data, at, 8)
            joined += data[at : at + size]
            at += size
        return bytes(joined)

    @property
    def starts_over(self) -> bool:
        """Whether its sender lost track: it tells nothing of what it has beside its heads."""
        return bool(self.heads) and self.have == [([], NOTHING)]


def make_filter(hashes: Sequence[bytes]) -> Filter:
    """A filter that holds these."""
    if not hashes:
        return NOTHING
    bits = bytearray((len(hashes) * BITS + 7) // 8)
    for hash_ in hashes:
        for n in _probes(hash_, len(bits)):
            bits[n >> 3] |= 1 << (n & 7)
    return Filter(len(hashes), bytes(bits))


def write_message(
    heads: Sequence[bytes], need: Sequence[bytes], have: Sequence[Have], chunks: Iterable[bytes]
) -> bytes:
    return write_question(heads, need, have) + write_chunks(chunks)


def write_question(heads: Sequence[bytes], need: Sequence[bytes], have: Sequence[Have]) -> bytes:
    """The part of a message before its chunks; ``write_chunks`` has the rest."""
    parts = [b"\x42", *_hashes(heads), *_hashes(need), write_uint(len(have))]
    for last_sync, (entries, bits) in have:
        filter_ = b"".join((write_uint(entries), bytes((BITS, PROBES)), bits)) if entries else b""
        parts += (*_hashes(last_sync), write_uint(len(filter_)), filter_)
    return b"".join(parts)


def write_chunks(chunks: Iterable[bytes]) -> bytes:
    listed = list(chunks)
    parts = [write_uint(len(listed))]
    for chunk in listed:
        parts += (write_uint(len(chunk)), chunk)
    return b"".join((*parts, CAPABILITIES))


def read_message(data: bytes) -> SyncMessage:
    """Raises MalformedFrame, and nothing else, for bytes that are no sync message. Chunks are not looked at."""
    try:
        return _read(data)
    except (IndexError, ValueError):
        raise MalformedFrame("A sync message ends too early, or holds a number that is too large.") from None


def read_told(data: bytes) -> Sequence[bytes]:
    """The heads that a message written here tells."""
    return _read_hashes(data, 1)[0]


def cut_chunks(data: bytes) -> Iterator[bytes]:
    """The chunks that stand one after another in a record, each of which tells its length; without the names and
    erasures between them, which Automerge doesn't know. The rest of what is none comes as one piece."""
    at = 0
    while at < len(data):
        ours = data[at] in _OUR_OWN
        try:
            size, start = read_uint(data, at + (1 if ours else 9), 8)
        except (IndexError, ValueError):
            size, start, ours = len(data), at, False
        end = min(start + size, len(data))
        if not ours:
            yield data[at:end]
        at = end


def _read(data: bytes) -> SyncMessage:
    if data[0] not in _TYPES:
        raise MalformedFrame(f"{data[0]} is not a type of sync message.")
    heads, at = _read_hashes(data, 1)
    need, at = _read_hashes(data, at)
    count, at = read_uint(data, at, 8)
    if count > _MOST_HAVE:
        raise MalformedFrame(f"A sync message tells {_MOST_HAVE} times at most what its sender has.")
    have = list[Have]()
    for _ in range(count):
        last_sync, at = _read_hashes(data, at)
        size, at = read_uint(data, at, 8)
        have.append(Have(last_sync, _read_filter(data, at, size)))
        at += size
    end = at
    count, at = read_uint(data, at, 8)
    if count > MOST_CHUNKS or count * _LEAST_CHUNK > len(data) - at:
        raise MalformedFrame("A sync message has more changes than may be, or than there are bytes for.")
    for _ in range(count):
        size, at = read_uint(data, at, 8)
        at += size
        if at > len(data):
            raise MalformedFrame("A sync message ends inside a change.")
    if len(data) - at > _MOST_AFTER:
        raise MalformedFrame(f"{len(data) - at} bytes are left over after a sync message.")
    return SyncMessage(data, heads, need, have, end, count)


def _read_hashes(data: bytes, at: int) -> tuple[list[bytes], int]:
    count, at = read_uint(data, at, 8)
    end = at + count * HASH
    if end > len(data):
        raise MalformedFrame("A sync message names more changes than there are bytes for.")
    return [data[n : n + HASH] for n in range(at, end, HASH)], end


def _read_filter(data: bytes, at: int, size: int) -> Filter:
    end = at + size
    if end > len(data):
        raise MalformedFrame("A sync message ends inside a filter.")
    if not size:
        return NOTHING
    entries, at = read_uint(data, at, 8)
    bits, at = read_uint(data, at, 8)
    probes, at = read_uint(data, at, 8)
    if entries and ((bits, probes) != (BITS, PROBES) or (entries * BITS + 7) // 8 != end - at):
        raise MalformedFrame(f"A filter has {BITS} bits for each change, of which {PROBES} are set; this one is none.")
    return Filter(entries, data[at:end]) if entries else NOTHING


def _hashes(hashes: Sequence[bytes]) -> Iterable[bytes]:
    return write_uint(len(hashes)), *hashes


def _probes(hash_: bytes, size: int) -> Iterator[int]:
    room = size * 8
    x, y, z = (word % room for word in _WORDS(hash_))
    yield x
    for _ in range(PROBES - 1):
        x = (x + y) % room
        y = (y + z) % room
        yield x
