"""Automerge's binary format, read without Automerge: the chunks that stand one after another in an update or a save.

A chunk says its own length and begins with a part of its own hash. Three kinds are known: a *change*, a change that is
deflated, and a whole *document*, with all its changes in columns. All that stands here is checked before the core gets
it, for the core believes lengths and counts: it panics, loops or takes all memory where they lie.

Two things of our own may stand between them, each a byte, its length and its body. *Names* say of the change right
behind them which actor and number those have that it comes after: their hashes are others where something was erased.
*Erasures* say which fields of which objects are erased, as soon as some changes are here (``erasures.py``).
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import NamedTuple

from ...exceptions import MalformedUpdate
from ...varint import write_uint
from ..backend import ParsedUpdate
from .columns import (
    MAX_NUMBER,
    Reader,
    count_runs,
    read_bools,
    read_deltas,
    read_texts,
    read_uints,
    spread,
    spread_deltas,
    spread_texts,
)

MAGIC = b"\x85\x6f\x4a\x83"
DOCUMENT, CHANGE, DEFLATED = 0, 1, 2
NAMES, ERASURES = 1, 2
"""The kinds of chunks of this project's own, beside those of Automerge."""
MAP, SET, LIST, DELETE, TEXT, MARK = 0, 1, 2, 3, 4, 7
"""The deed of an operation. 5 adds to a counter, 6 made a table: neither is taken, the core's Python side can't read
them, and one that it tried to read ends every later call."""

EMPTY = bytes.fromhex("856f4a83b81a9544000400000000")
"""A document without changes, as Automerge saves it."""
MOST_INFLATED = 256 << 20
"""Bytes that an update may grow to."""
_MOST_CHANGE = 32 << 20
"""Bytes that one deflated change may grow to."""
_TEXTS, _COUNTER, _LAST_TYPE = 6, 8, 9
_ACTORS = frozenset({0x01, 0x11, 0x21, 0x71, 0x81})
_DELTAS = frozenset({0x13, 0x23, 0x73, 0x83})
_OTHERS = frozenset({0x02, 0x42, 0x56, 0x57, 0x15, 0x34, 0x70, 0x80, 0x94, 0xA5})
_IS_DEFLATED = 0x08
_SHORT = 64
"""Bytes of a column of which one remembers how many values it tells."""

ObjectId = tuple[bytes, int]
"""The operation that made a map, list or text: actor and number."""
Name = tuple[bytes, int]
"""A change: its actor, and which one of that actor it is."""


class Operation(NamedTuple):
    """``object``: the map, list or text that it writes to, None for the root of the document; ``key``: in a map."""

    object: ObjectId | None
    key: str | None
    action: int


def _most_operations(size: int) -> int:
    """Runs say much in few bytes; the core takes memory for each operation."""
    return 100_000 + 16 * size


class Change:
    """One change. ``raw``: the chunk, not deflated; ``count``: how many operations, numbered from ``start`` on;
    ``names``: those of ``deps``, where they were told; ``came``: the hash that it had when it came, before something of
    it was erased."""

    __slots__ = ("actor", "actors", "came", "columns", "count", "deps", "hash", "names", "raw", "seq", "start")

    def __init__(self, hash_: bytes, raw: bytes, body: bytes, *, trusted: bool = False) -> None:
        """``trusted``: the core told it, so it need not be checked again."""
        reader = Reader(body)
        self.hash, self.raw = hash_, raw
        self.came = hash_
        self.deps = [reader.take(32) for _ in range(_counted(reader, 32))]
        self.names: Sequence[Name | None] = ()
        self.actor = reader.prefixed()
        self.seq, self.start = reader.uint(), reader.uint()
        reader.sint()  # its time
        reader.text()  # its message
        self.actors = [self.actor, *(reader.prefixed() for _ in range(_counted(reader, 1)))]
        specs = _read_specs(reader)
        self.columns = {spec: reader.take(length) for spec, length in specs}
        if not self.actor or not self.seq or not self.start:
            raise MalformedUpdate("A change has no actor, or no number.")
        if trusted:
            self.count = count_runs(read_uints(self.columns.get(0x42, b"")))
        else:
            self.count = _check_operations(self.columns, len(self.actors), len(body))

    @property
    def name(self) -> Name:
        return self.actor, self.seq

    @property
    def last(self) -> int:
        """The number of its last operation."""
        return self.start + self.count - 1

    def operations(self) -> Iterator[Operation]:
        return _read_operations(self.columns, self.actors, self.count)

    def holds(self, text: bytes) -> bool:
        return text in self.raw

    @property
    def told(self) -> bytes:
        """As it came."""
        return write_names(self.names, *self.name) + self.raw

    def take_names(self, names: bytes) -> None:
        """Raises MalformedUpdate."""
        reader, found = Reader(names), list[Name | None]()
        for _ in self.deps:
            length = reader.uint()
            if length < 2:
                found.append((self.actor, self.seq - 1) if length else None)
            else:
                found.append((reader.take(length - 1), reader.uint()))
        if reader.left:
            raise MalformedUpdate("The names before a change are not those of what it comes after.")
        self.names = found


class Whole:
    """A whole document as one chunk. ``changes``: actor and number of each of them."""

    def __init__(self, raw: bytes, body: bytes) -> None:
        reader = Reader(body)
        self.raw = raw
        self._actors = [reader.prefixed() for _ in range(_counted(reader, 1))]
        heads = [reader.take(32) for _ in range(_counted(reader, 32))]
        change_specs, specs = _read_specs(reader), _read_specs(reader)
        self._changes = dict(_inflated(reader, change_specs))
        self._columns = dict(_inflated(reader, specs))
        size = len(body) + sum(map(len, self._columns.values())) + sum(map(len, self._changes.values()))
        self.size = size
        self.count = _check_operations(self._columns, len(self._actors), size)
        self.number = _check_changes(self._changes, len(self._actors), size)
        if bool(self.number) != bool(heads):
            raise MalformedUpdate("The document has no heads.")

    @cached_property
    def changes(self) -> list[tuple[bytes, int]]:
        """Actor and number of each change."""
        actors = spread(read_uints(self._changes.get(0x01, b"")))
        seqs = spread_deltas(read_deltas(self._changes.get(0x03, b"")))
        return [
            (self._actors[actor], seq)
            for actor, seq in zip(actors, seqs, strict=False)
            if actor is not None and seq is not None
        ]

    def operations(self) -> Iterator[Operation]:
        return _read_operations(self._columns, self._actors, self.count)

    def holds(self, text: bytes) -> bool:
        return any(text in column for column in self._columns.values())


Chunk = Change | Whole


class Erased(NamedTuple):
    """Fields of objects that are erased as soon as the changes ``after`` are here."""

    after: tuple[Name, ...]
    fields: tuple[tuple[ObjectId, frozenset[str]], ...]


class Chunks(tuple[Chunk, ...]):
    """The chunks of an update, and what it says is ``erased``."""

    erased: Sequence[Erased] = ()


def read_update(update: bytes) -> ParsedUpdate:
    """The chunks of an update: at least one, or erasures. Raises MalformedUpdate."""
    erased: list[Erased] = []
    chunks = Chunks(_read(update, erased))
    chunks.erased = erased
    return ParsedUpdate(update, chunks)


def read_chunks(data: bytes) -> list[Chunk]:
    return [*_read(data, [])]


def write_names(names: Sequence[Name | None], actor: bytes, seq: int, /) -> bytes:
    """The bytes before a change of that actor and number; none if no name is to be told."""
    if not any(names):
        return b""
    told = bytearray()
    for name in names:
        if name is None or name == (actor, seq - 1):
            told.append(0 if name is None else 1)
        else:
            told += write_uint(len(name[0]) + 1) + name[0] + write_uint(name[1])
    return b"".join((bytes((NAMES,)), write_uint(len(told)), told))


def read_erasures(data: bytes, place: int = 0) -> list[Erased]:
    """Erasures alone. Raises MalformedUpdate."""
    reader, found = Reader(data, place), list[Erased]()
    while reader.left:
        if reader.take(1)[0] != ERASURES:
            raise MalformedUpdate("These bytes are no erasures.")
        found.append(_read_erasures(reader))
    return found


def _read_erasures(reader: Reader) -> Erased:
    body = Reader(reader.prefixed())
    checksum = body.take(4)
    if hashlib.sha256(body.data[4:]).digest()[:4] != checksum:
        raise MalformedUpdate("Erasures are not those that their checksum tells of.")
    after = tuple((body.prefixed(), body.uint()) for _ in range(_counted(body, 2)))
    fields: list[tuple[ObjectId, frozenset[str]]] = []
    while body.left:
        object_ = body.prefixed(), body.uint()
        names = frozenset(body.text() for _ in range(_counted(body, 1)))
        if not object_[0] or not object_[1] or "" in names:
            raise MalformedUpdate("Erasures name no object, or no field.")
        fields.append((object_, names))
    return Erased(after, tuple(fields))


def _read(data: bytes, erased: list[Erased]) -> list[Chunk]:
    if not data:
        raise MalformedUpdate("There is no Automerge chunk.")
    chunks: list[Chunk] = []
    room, reader = MOST_INFLATED, Reader(data)
    names: bytes | None = None
    while reader.left:
        mark = reader.data[reader.place]
        if mark in (NAMES, ERASURES) and names is None:
            reader.take(1)
            if mark == NAMES:
                names = reader.prefixed()
            else:
                erased.append(_read_erasures(reader))
            continue
        kind, checksum, body, raw = _read_chunk(reader)
        if kind == DEFLATED:
            body = _inflate(body, min(room, _MOST_CHANGE))
            room -= len(body)
            raw = b""
        digest = hashlib.sha256(bytes((CHANGE if kind == DEFLATED else kind,)) + write_uint(len(body)) + body).digest()
        if digest[:4] != checksum:
            raise MalformedUpdate("The bytes of an Automerge chunk are not those that its hash tells of.")
        if kind == DOCUMENT:
            whole = Whole(raw, body)
            room -= whole.size
            chunks.append(whole)
        else:
            change = Change(digest, raw or _chunk(CHANGE, digest, body), body)
            if names is not None:
                change.take_names(names)
                names = None
            chunks.append(change)
        if room < 0:
            raise MalformedUpdate("The update grows too large.")
        if names is not None:
            raise MalformedUpdate("Names stand before something that is no change.")
    if names is not None:
        raise MalformedUpdate("Names stand before no change.")
    return chunks


def read_change(data: bytes) -> Change:
    """One change."""
    chunks = read_chunks(data)
    if len(chunks) != 1 or not isinstance(chunks[0], Change):
        raise MalformedUpdate("These bytes are not one change.")
    return chunks[0]


def trusted_change(hash_: bytes, raw: bytes) -> Change:
    """One change as the core tells it."""
    return Change(hash_, raw, Reader(raw, 9).prefixed(), trusted=True)


def write_chunk(body: bytes) -> bytes:
    """A change from its body."""
    return _chunk(CHANGE, hashlib.sha256(b"\x01" + write_uint(len(body)) + body).digest(), body)


def _chunk(kind: int, digest: bytes, body: bytes) -> bytes:
    return b"".join((MAGIC, digest[:4], bytes((kind,)), write_uint(len(body)), body))


def _read_chunk(reader: Reader) -> tuple[int, bytes, bytes, bytes]:
    start = reader.place
    if reader.take(4) != MAGIC:
        raise MalformedUpdate(
            "These bytes are no Automerge chunk.", hint='A document of another kind is joined as that: crdt="yjs".'
        )
    checksum = reader.take(4)
    kind = reader.take(1)[0]
    if kind not in (DOCUMENT, CHANGE, DEFLATED):
        raise MalformedUpdate("An Automerge chunk is of a kind that is not known.")
    body = reader.prefixed()
    return kind, checksum, body, reader.data[start : reader.place]


def _counted(reader: Reader, least: int) -> int:
    """A count of things that take so many bytes at least."""
    count = reader.uint()
    if count * least > reader.end - reader.place:
        raise MalformedUpdate("A count is greater than there are bytes.")
    return count


def _read_specs(reader: Reader) -> list[tuple[int, int]]:
    specs = [(reader.uint(), reader.uint()) for _ in range(_counted(reader, 2))]
    plain = [spec & ~_IS_DEFLATED for spec, _ in specs]
    if any(before >= after for before, after in pairwise(plain)):
        raise MalformedUpdate("The columns of a chunk stand in no order.")
    return specs


def _inflate(data: bytes, room: int) -> bytes:
    inflater = zlib.decompressobj(-15)
    try:
        whole = inflater.decompress(data, max(room, 1))
    except zlib.error:
        raise MalformedUpdate("A deflated part of an Automerge chunk is damaged.") from None
    if not inflater.eof or inflater.unused_data:
        raise MalformedUpdate("A deflated part of an Automerge chunk is too large, or ends too early.")
    return whole


def _inflated(reader: Reader, specs: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
    room = MOST_INFLATED
    for spec, length in specs:
        column = reader.take(length)
        if spec & _IS_DEFLATED:
            column = _inflate(column, room)
            room -= len(column)
        yield spec & ~_IS_DEFLATED, column


def _uints(column: bytes, below: int) -> Iterator[tuple[int, int | None]]:
    for count, value in read_uints(column):
        if value is not None and value >= below:
            raise MalformedUpdate("An operation names an actor that is not there.")
        yield count, value


def _count_deltas(column: bytes, least: int = 0) -> int:
    return sum(count for count, _, _ in read_deltas(column, least))


def _check_changes(columns: Mapping[int, bytes], actors: int, size: int) -> int:
    """How many changes the columns of a document tell of. Raises MalformedUpdate where they do not fit together."""
    number = count_runs(_uints(columns.get(0x01, b""), actors))
    _, dependencies = _count_ids(columns.get(0x40, b""))
    if number > _most_operations(size) or dependencies > number + _most_operations(size):
        raise MalformedUpdate("The document holds too many changes.")
    if _check_values(columns.get(0x56, b""))[1] != len(columns.get(0x57, b"")):
        raise MalformedUpdate("The values of an update are not as long as it says.")
    told = {
        0x03: _count_deltas(columns.get(0x03, b"")),
        0x13: _count_deltas(columns.get(0x13, b"")),
        0x23: _count_deltas(columns.get(0x23, b""), -MAX_NUMBER),
        0x35: count_runs(read_texts(columns.get(0x35, b""))),
        0x40: count_runs(read_uints(columns.get(0x40, b""))),
        0x56: count_runs(read_uints(columns.get(0x56, b""))),
    }
    if any(count > number for count in told.values()) or _count_deltas(columns.get(0x43, b"")) > dependencies:
        raise MalformedUpdate("A column tells of more changes than there are.")
    return number


def _check_operations(columns: Mapping[int, bytes], actors: int, size: int) -> int:
    """How many operations the columns tell of. Raises MalformedUpdate where they do not fit together, or hold what is
    not taken."""
    number, _, _ = _measure(0x42, columns.get(0x42, b""), 0)
    if number > _most_operations(size):
        raise MalformedUpdate("The update holds too many operations.")
    ids = 0
    for spec, column in columns.items():
        if spec in (0x42, 0x57):
            continue
        most = ids if spec in (0x71, 0x73, 0x81, 0x83) else number
        told, named, taken = _measure(spec, column, actors if spec in _ACTORS else 0)
        if spec in (0x70, 0x80):
            ids = named
            if ids > _most_operations(size):
                raise MalformedUpdate("The update names too many operations.")
        elif spec == 0x56 and taken != len(columns.get(0x57, b"")):
            raise MalformedUpdate("The values of an update are not as long as it says.")
        if told > most:
            raise MalformedUpdate("A column tells of more operations than there are.")
    return number


class _Measure(NamedTuple):
    """Of a column: how many values it tells, how many operations those name, and how many bytes of values."""

    told: int
    named: int = 0
    taken: int = 0


def _measure(spec: int, column: bytes, actors: int) -> _Measure:
    """Changes of one writer are alike: most of their columns are the same bytes, but for those of keys and places."""
    alike = len(column) <= _SHORT and spec not in (0x02, 0x15)
    return (_measured if alike else _measured.__wrapped__)(spec, column, actors)


@lru_cache(maxsize=1 << 10)
def _measured(spec: int, column: bytes, actors: int) -> _Measure:
    """Raises MalformedUpdate for a column that can't be read, or holds what is not taken."""
    if spec == 0x42:
        actions, number = set[int | None](), 0
        for count, action in read_uints(column):
            actions.add(action)
            number += count
        if not actions <= {MAP, SET, LIST, DELETE, TEXT, MARK}:
            raise MalformedUpdate(
                "The update holds an operation that is not taken.",
                hint="Counters and tables can't be kept in a document.",
            )
        return _Measure(number)
    if spec in _ACTORS:
        return _Measure(count_runs(_uints(column, actors)))
    if spec in _DELTAS:
        return _Measure(_count_deltas(column))
    if spec in (0x70, 0x80):
        return _Measure(*_count_ids(column))
    if spec == 0x56:
        told, taken = _check_values(column)
        return _Measure(told, taken=taken)
    if spec in (0x15, 0xA5):
        return _Measure(count_runs(read_texts(column)))
    if spec in (0x34, 0x94):
        return _Measure(count_runs(read_bools(column)))
    if spec == 0x02:
        return _Measure(count_runs(read_uints(column)))
    return _Measure(0)  # of a newer version; the core keeps it as it is


def _count_ids(column: bytes) -> tuple[int, int]:
    told = ids = 0
    for count, value in read_uints(column):
        told += count
        ids += count * (value or 0)
    return told, ids


def _check_values(column: bytes) -> tuple[int, int]:
    """How many values there are, and how many bytes of them."""
    told = taken = 0
    for count, value in read_uints(column):
        told += count
        if value is None:
            continue
        kind = value & 0x0F
        if kind == _COUNTER or kind > _LAST_TYPE:
            raise MalformedUpdate(
                "The update holds a value that is not taken.", hint="Counters can't be kept in a document."
            )
        taken += count * (value >> 4)
    return told, taken


def _read_operations(columns: Mapping[int, bytes], actors: Sequence[bytes], number: int) -> Iterator[Operation]:
    object_actors = spread(read_uints(columns.get(0x01, b"")))
    object_counters = spread(read_uints(columns.get(0x02, b"")))
    keys = spread_texts(read_texts(columns.get(0x15, b"")))
    actions = spread(read_uints(columns.get(0x42, b"")))
    for _ in range(number):
        actor, counter = next(object_actors, None), next(object_counters, None)
        inside = None if actor is None or counter is None else (actors[actor], counter)
        yield Operation(inside, next(keys, None), next(actions, None) or 0)
