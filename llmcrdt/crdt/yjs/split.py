"""One Yjs update as several smaller ones: a record has a limit.

The pieces say together what the update said. A piece holds the structs of clients from some clock on; one that needs
another piece waits for it, as every update does. A long text is cut as Yjs itself cuts it (src/structs/Item.js, write
with an offset): the rest is an item whose left neighbour is the last character before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ...exceptions import MalformedUpdate
from ...varint import write_uint
from .update import Struct, read_stretches, read_structs, write_deletes

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
            [update] if len(update) <= RECORD else _cut_stretches(update) or cut_structs(update, *read_structs(update))
        )
    except MalformedUpdate:
        return [update]


def _cut_stretches(update: bytes) -> list[bytes]:
    """The same between stretches of structs; [] where one of them alone is too long."""
    stretches, deletes = read_stretches(update)
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
    return pieces if deletes == b"\x00" else [*pieces, b"\x00" + deletes]


def cut_structs(update: bytes, structs: Iterable[Struct], deletes: bytes) -> list[bytes]:
    """The same for some structs of an update, and deletes that need not be its own: one for each run of structs at
    least."""
    return _split(update, structs, deletes, RECORD, strict=False)


def split_update(update: bytes, most: int) -> list[bytes]:
    """Updates of at most ``most`` bytes, in an order in which they can be applied. Raises MalformedUpdate where that
    can't be: for one value that is larger, or bytes that are no update."""
    return [update] if len(update) <= most else _split(update, *read_structs(update), most, strict=True)


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
    if deletes != b"\x00":
        if strict and len(deletes) + 1 > most:
            raise MalformedUpdate("The update deletes more than one record can say.")
        pieces.append(b"\x00" + deletes)
    return pieces


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
