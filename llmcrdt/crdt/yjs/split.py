"""One Yjs update as several smaller ones: a record has a limit, and so has the number of things in an update.

The pieces say together what the update said. A piece holds the structs of clients from some clock on; one that needs
another piece waits for it, as every update does. A long text is cut as Yjs itself cuts it (src/structs/Item.js, write
with an offset): the rest is an item whose left neighbour is the last character before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ...exceptions import MalformedUpdate
from ...varint import write_uint
from .update import CLIENTS, RANGES, STRUCTS, Stretch, Struct, read_stretches, read_structs, read_update, write_deletes

_HEAD = 32
"""Bytes that a piece has at most beside its structs and deletes, and a cut text beside its characters, rounded up."""
_TEXT = 4
_CHARACTER = 4
"""Bytes that one has at most."""
_LEFT, _RIGHT = 0x80, 0x40

RECORD = 1 << 20
"""Bytes of an update that a device keeps, and sends, as one record. Relays take 8 MiB where nobody set less."""


def cut_update(update: bytes) -> list[bytes]:
    """Updates of at most ``RECORD`` bytes that say the same, in an order in which they can be applied. A value that is
    larger has one of its own, which a relay may refuse. Bytes that are no update stay as they are."""
    try:
        return (
            cut_document(update)
            if len(update) <= RECORD
            else _cut_stretches(update) or cut_structs(update, *read_structs(update, whole=True))
        )
    except MalformedUpdate:
        return [update]


class Most(NamedTuple):
    """The numbers of things that an update of others may hold."""

    clients: int = CLIENTS
    structs: int = STRUCTS
    ranges: int = RANGES


_MOST = Most()


def cut_document(whole: bytes, most: Most | None = None) -> list[bytes]:
    """A document that the core encoded here, as updates that others take, few and large. Raises MalformedUpdate."""
    most = most or _MOST
    if len(whole) <= min(most):  # each thing takes a byte at least
        return [whole]
    stretches, deletes = read_stretches(whole, whole=True)
    pieces = [b"".join(_sections(whole, group)) for group in _groups(stretches, most)]
    ranges = read_update(b"\x00" + deletes, whole=True).deletes
    gone = [b"\x00" + write_deletes(dict(group)) for group in _delete_groups(ranges, most)]
    few = len(pieces) <= 1 and len(gone) <= 1
    return [whole] if few else [*(piece + b"\x00" for piece in pieces), *gone]


def _groups(stretches: Iterable[Stretch], most: Most) -> Iterator[list[list[Stretch]]]:
    """Stretches by client, for one update after the other."""
    group: list[list[Stretch]] = []
    structs = 0
    for stretch in stretches:
        follows = group and group[-1][-1].client == stretch.client and group[-1][-1].stop == stretch.start
        if group and (structs + stretch.structs > most.structs or (not follows and len(group) >= most.clients)):
            yield group
            group, structs, follows = [], 0, False
        if follows:
            group[-1].append(stretch)
        else:
            group.append([stretch])
        structs += stretch.structs
    if group:
        yield group


def _sections(update: bytes, group: Sequence[Sequence[Stretch]]) -> Iterator[bytes]:
    """The beginning of an update of some clients' stretches: its deletes are missing."""
    yield write_uint(len(group))
    for stretches in group:
        first, last = stretches[0], stretches[-1]
        yield write_uint(sum(stretch.structs for stretch in stretches))
        yield write_uint(first.client) + write_uint(first.clock) + update[first.start : last.stop]


def _delete_groups(
    deletes: Mapping[int, Sequence[tuple[int, int]]], most: Most
) -> Iterator[list[tuple[int, Sequence[tuple[int, int]]]]]:
    group: list[tuple[int, Sequence[tuple[int, int]]]] = []
    room = most.ranges
    for client, ranges in deletes.items():
        for at in range(0, len(ranges), most.ranges):
            part = ranges[at : at + most.ranges]
            if group and (len(group) >= most.clients or len(part) > room):
                yield group
                group, room = [], most.ranges
            group.append((client, part))
            room -= len(part)
    if group:
        yield group


def _cut_stretches(update: bytes) -> list[bytes]:
    """The same between stretches of structs; [] where one of them alone is too long."""
    stretches, deletes = read_stretches(update, whole=True)
    if any(stretch.stop - stretch.start > RECORD - _HEAD for stretch in stretches):
        return []
    pieces: list[bytes] = []
    client = clock = count = start = stop = 0

    def piece() -> bytes:
        return b"".join(
            (b"\x01", write_uint(count), write_uint(client), write_uint(clock), update[start:stop], b"\x00")
        )

    for stretch in stretches:
        if count and (stretch.start != stop or stretch.stop - start > RECORD - _HEAD):
            pieces.append(piece())
            count = 0
        if not count:
            client, clock, start = stretch.client, stretch.clock, stretch.start
        count, stop = count + stretch.structs, stretch.stop
    if count:
        pieces.append(piece())
    return pieces + _cut_deletes(deletes)


def _cut_deletes(deletes: bytes) -> list[bytes]:
    """The bytes of deletes, as updates."""
    return cut_document(b"\x00" + deletes) if deletes != b"\x00" else []


def cut_structs(update: bytes, structs: Iterable[Struct], deletes: bytes) -> list[bytes]:
    """The same for some structs of an update, and deletes that need not be its own: one for each run of structs at
    least."""
    return _split(update, structs, deletes, RECORD, strict=False)


def split_update(update: bytes, most: int) -> list[bytes]:
    """Updates of at most ``most`` bytes, in an order in which they can be applied. Raises MalformedUpdate where that
    can't be: for one value that is larger, or bytes that are no update."""
    return [update] if len(update) <= most else _split(update, *read_structs(update, whole=True), most, strict=True)


def small_pieces(update: bytes, deletes: Mapping[int, Sequence[tuple[int, int]]], most: int) -> list[bytes]:
    """The same as updates of one client each: ``most`` of its structs, or what is deleted of it. In an order in which
    they can be applied."""
    runs: list[list[Struct]] = []
    for struct in read_structs(update)[0]:
        before = runs[-1][-1] if runs else None
        if before is None or before.client != struct.client or before.end != struct.clock or len(runs[-1]) >= most:
            runs.append([])
        runs[-1].append(struct)
    pieces = [_piece(run[0].client, run[0].clock, [update[s.start : s.stop] for s in run]) for run in runs]
    return pieces + [b"\x00" + write_deletes({client: ranges}) for client, ranges in deletes.items()]


def _split(update: bytes, structs: Iterable[Struct], deletes: bytes, most: int, *, strict: bool) -> list[bytes]:
    pieces: list[bytes] = []
    run: list[bytes] = []
    size = client = start = 0
    before: Struct | None = None
    for struct in structs:
        for clock, body, follows in _bodies(update, struct, most - _HEAD, strict):
            follows = follows or (before is not None and before.client == struct.client and before.end == clock)
            if run and (not follows or size + len(body) > most - _HEAD):
                pieces.append(_piece(client, start, run))
                run, size = [], 0
            if not run:
                client, start = struct.client, clock
            run.append(body)
            size += len(body)
        before = struct
    if run:
        pieces.append(_piece(client, start, run))
    gone = _cut_deletes(deletes)
    if strict and any(len(piece) > most for piece in gone):
        raise MalformedUpdate("The update deletes more than one record can say.")
    return pieces + gone


def _piece(client: int, clock: int, structs: list[bytes]) -> bytes:
    return b"".join((b"\x01", write_uint(len(structs)), write_uint(client), write_uint(clock), *structs, b"\x00"))


def _bodies(update: bytes, struct: Struct, most: int, strict: bool) -> list[tuple[int, bytes, bool]]:
    """The struct, in pieces where it is too long: clock, bytes, and whether it goes on from the piece before."""
    whole = update[struct.start : struct.stop]
    if len(whole) <= most or not (strict or struct.kind == _TEXT):
        return [(struct.clock, whole, False)]
    if struct.kind != _TEXT:
        raise MalformedUpdate("The update holds a value that is larger than a record may be.")
    text = update[struct.content : struct.stop]
    text = text[len(text) - struct.size :]
    info = update[struct.start]
    right = update[struct.right : struct.right_stop]
    out: list[tuple[int, bytes, bool]] = []
    clock, at = struct.clock, 0
    head = update[struct.start : struct.content]
    room = most - max(_HEAD, len(head)) - 2 * _HEAD
    if room < _CHARACTER:
        if strict:
            raise MalformedUpdate("The update holds a value that is larger than a record may be.")
        return [(struct.clock, whole, False)]
    while at < len(text):
        stop = _boundary(text, min(len(text), at + room))
        part = text[at:stop]
        if at:
            flags = (info & 0x3F) | _LEFT | (_RIGHT if right else 0)
            head = bytes((flags,)) + write_uint(struct.client) + write_uint(clock - 1) + right
        out.append((clock, head + write_uint(len(part)) + part, bool(at)))
        clock += len(part.decode().encode("utf-16-le")) // 2
        at = stop
    return out


def _boundary(text: bytes, at: int) -> int:
    """The beginning of the character at a place."""
    while at < len(text) and text[at] & 0xC0 == 0x80:
        at -= 1
    return at
