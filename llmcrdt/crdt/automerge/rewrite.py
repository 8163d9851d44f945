"""Changes with the same operations under another hash: after other changes, or without some of their values."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from itertools import chain, repeat

from ...varint import write_uint
from .chunks import Change, write_chunk
from .columns import Reader, read_uints, spread, write_column

_META, _VALUES = 0x56, 0x57
_NOTHING = 0
"""The value that is none, as the column of kinds and lengths has it."""


def with_deps(raw: bytes, deps: Sequence[bytes]) -> tuple[bytes, bytes]:
    """The hash and the bytes of a change after other changes than those that it names."""
    reader = _body(raw)
    reader.take(32 * reader.uint())
    body = b"".join((write_uint(len(deps)), *sorted(deps), reader.data[reader.place :]))
    return hash_of(body), write_chunk(body)


def hash_of(body: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + write_uint(len(body)) + body).digest()


def after(change: Change, deps: Sequence[bytes]) -> Change:
    """The change after these ones."""
    _, raw = with_deps(change.raw, deps)
    return _again(change, raw)


def without_values(change: Change, gone: Collection[int]) -> Change:
    """The change without the values of these operations, by their place in it; itself where they have none."""
    reader = _body(change.raw)
    reader.take(32 * reader.uint())
    reader.prefixed()
    reader.uint(), reader.uint(), reader.sint(), reader.prefixed()
    for _ in range(reader.uint()):
        reader.prefixed()
    head = reader.data[: reader.place]
    specs = [(reader.uint(), reader.uint()) for _ in range(reader.uint())]
    columns = {spec: reader.take(length) for spec, length in specs}
    metas, values = [*_values(columns, change.count)], Reader(columns.get(_VALUES, b""))
    kept, places, lost = list[bytes](), set(gone), False
    for n, meta in enumerate(metas):
        value = values.take((meta or 0) >> 4)
        if n in places and meta:
            metas[n], lost = _NOTHING, True
        else:
            kept.append(value)
    if not lost:
        return change
    columns[_META] = write_column(None if meta is None else write_uint(meta) for meta in metas)
    columns[_VALUES] = b"".join(kept)
    told = [(spec, columns[spec]) for spec, _ in specs if columns[spec]]
    body = b"".join(
        (
            head, write_uint(len(told)), *(write_uint(spec) + write_uint(len(column)) for spec, column in told),
            *(column for _, column in told), reader.data[reader.place :],
        )
    )  # fmt: skip
    return _again(change, write_chunk(body))


def is_same(one: Change, other: Change) -> bool:
    """Whether two changes of the same actor and number say the same, but for the changes that they come after and for
    values that one of them lacks."""
    if (one.start, one.count) != (other.start, other.count) or one.actors != other.actors:
        return False
    mine, theirs = one.columns, other.columns
    if any(mine.get(spec) != theirs.get(spec) for spec in {*mine, *theirs} - {_META, _VALUES}):
        return False
    pairs = zip(_told(mine, one.count), _told(theirs, other.count), strict=True)
    return all(a == b or not a[0] or not b[0] for a, b in pairs)


def _told(columns: dict[int, bytes], count: int) -> Iterator[tuple[int, bytes]]:
    values = Reader(columns.get(_VALUES, b""))
    for meta in _values(columns, count):
        yield meta or _NOTHING, values.take((meta or 0) >> 4)


def _values(columns: dict[int, bytes], count: int) -> Iterator[int | None]:
    found = chain(spread(read_uints(columns.get(_META, b""))), repeat(None))
    return (meta for meta, _ in zip(found, range(count), strict=False))


def _body(raw: bytes) -> Reader:
    return Reader(Reader(raw, 9).prefixed())


def _again(change: Change, raw: bytes) -> Change:
    body = _body(raw).data
    made = Change(hash_of(body), raw, body, trusted=True)
    made.came, made.names = change.came, change.names
    return made
