"""The structure of a Yjs update and state vector (encoding v1), read without building a document.

Why we read them ourselves before the CRDT core does: yrs allocates a declared count before it checks it, and block
arithmetic at clocks near 2**31 makes it panic or corrupt a replica without a word. So every count is held against the
bytes that are left, every clock range must end below 2**31, and an update of others holds so many things and no more.
A document that many such made may hold more: ``whole`` reads one that the core encoded here. How deep shared types lie
in each other is found out in ``nesting.py``, for which each update says what it tells of that.

Format: https://github.com/yjs/yjs, src/utils/encoding.js, and lib0's encoding.js.

    update       = count client*  deletes
    client       = count id clock struct*
    struct       = GC | Skip | Item                     (info byte 0, 10, or a content type in its low five bits)
    deletes      = count (id count (clock length)*)*
    state vector = count (id clock)*
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from ...exceptions import MalformedUpdate
from ...varint import read_uint, write_uint
from ..backend import ParsedUpdate

CLOCK_END = 1 << 31
CLIENT_END = 1 << 53
CLIENTS = 1 << 16
"""Clients that one update may write for, or delete of."""
STRUCTS = 1 << 21
"""Structs in one update; a record of 8 MiB has fewer, for a usual one takes 10 bytes."""
RANGES = 1 << 21
"""Ranges that one update may delete."""
DEPTH = 128
"""Shared types inside each other, a type in a root being the first. The core deletes them by recursion: on a stack of
512 KiB, which threads of macOS have, yrs 0.28 still deletes 2,000, and ends the process at 4,000."""
_DEPTH = 64


@dataclass(slots=True)
class UpdateRange:
    """Per client, the first clock that an update writes, and the first after what it writes and what it deletes;
    ``deletes``: per client the (start, end) of all that it deletes. ``needs``: of other clients than the writer, the
    first clock after what it stands beside or in.

    ``odd``: something is left out in what it writes of a client, or told in several places. ``nested``: shared types
    that stand in or beside something else than a root; ``depth`` of those whose place it tells itself, else they count
    as ``hanging``. ``follows``: only letters, right after the clock before the first. ``pairs``: per client the clocks
    of the second halves of letters that are two UTF-16 units, in its texts. ``cuts``: of each client the clocks before
    which its items stand, so that the core splits what is there."""

    begun: dict[int, int] = field(default_factory=dict)
    written: dict[int, int] = field(default_factory=dict)
    deleted: dict[int, int] = field(default_factory=dict)
    deletes: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    needs: dict[int, int] = field(default_factory=dict)
    odd: bool = False
    nested: bool = False
    depth: int = 0
    hanging: int = 0
    follows: bool = field(default=False, compare=False)
    pairs: dict[int, array[int]] = field(default_factory=dict)
    cuts: dict[int, array[int]] = field(default_factory=dict)

    def covered_by(self, state: dict[int, int]) -> bool:
        """Whether a replica with that state vector has integrated all of it."""
        return all(end <= state.get(client, 0) for ends in (self.written, self.deleted) for client, end in ends.items())

    def behind(self, state: dict[int, int]) -> dict[int, Id]:
        """Per client, what is right before all that it writes, where that isn't in that state vector."""
        return {client: (client, start - 1) for client, start in self.begun.items() if start > state.get(client, 0)}

    def repeats(self, state: dict[int, int]) -> bool:
        """Whether a replica with that state vector had some of what it writes."""
        return any(start < state.get(client, 0) for client, start in self.begun.items())

    def lacks(self, state: dict[int, int]) -> bool:
        """Whether something comes before what it writes, or beside or around it, that neither it nor that state vector
        has."""
        if self.behind(state):
            return True
        written = self.written
        return any(n > state.get(client, 0) and n > written.get(client, 0) for client, n in self.needs.items())


Id = tuple[int, int]
"""Client and clock."""


@dataclass(slots=True)
class Struct:
    """The place of a struct in an update: clocks ``clock`` to ``end`` of a client, bytes ``start`` to ``stop``; of an
    item also its right neighbour's id, its content, and how many bytes of text it ends with (``size``). ``beside`` and
    ``inside``: the ids of its neighbours, and of the type that it stands in, where it names them."""

    client: int
    clock: int
    kind: int
    start: int
    end: int = 0
    stop: int = 0
    right: int = 0
    right_stop: int = 0
    content: int = 0
    size: int = 0
    beside: tuple[Id, ...] = ()
    inside: Id | None = None


def read_structs(data: bytes, *, whole: bool = False) -> tuple[list[Struct], bytes]:
    """Check an update: all its structs but those that are skipped, and the bytes of its deletes. Raises
    MalformedUpdate."""
    reader, structs, found, places = _Reader(data, whole), list[Struct](), UpdateRange(), dict[Id, int]()
    for _ in range(reader.count_to(CLIENTS)):
        _read_client(reader, found, places, structs)
    deletes = data[reader.place :]
    read_update(b"\x00" + deletes, whole=whole)
    return structs, deletes


class _Texts(list[Struct]):
    """Of the structs that are appended only the texts that have one of some clocks inside."""

    def __init__(self, clocks: Mapping[int, Sequence[int]]) -> None:
        super().__init__()
        self._clocks = clocks

    def append(self, struct: Struct) -> None:
        clocks = self._clocks.get(struct.client) if struct.kind == 4 else None
        if clocks and bisect_right(clocks, struct.clock) < bisect_left(clocks, struct.end):
            super().append(struct)


def read_texts(data: bytes, clocks: Mapping[int, Sequence[int]]) -> list[Struct]:
    """The texts of an update, of any size, that have one of these clocks after their first; those of each client are
    in order. Raises MalformedUpdate."""
    reader, found, texts, places = _Reader(data, True), UpdateRange(), _Texts(clocks), dict[Id, int]()
    for _ in range(reader.count()):
        _read_client(reader, found, places, texts)
    return texts


class Stretch(NamedTuple):
    """A stretch of structs that stand together in an update: of one client, from a clock on, so many, and the bytes
    where they begin and end."""

    client: int
    clock: int
    structs: int
    start: int
    stop: int


def read_stretches(data: bytes, *, whole: bool = False) -> tuple[list[Stretch], bytes]:
    """The same as ``read_structs`` for whoever need not know each struct."""
    reader, found, stretches, places = _Reader(data, whole), UpdateRange(), list[Stretch](), dict[Id, int]()
    for _ in range(reader.count_to(CLIENTS)):
        _read_client(reader, found, places, stretches=stretches)
    deletes = data[reader.place :]
    read_update(b"\x00" + deletes, whole=whole)
    return stretches, deletes


def foreign_key(data: bytes, root: str, prefix: str, own: str) -> str | None:
    """A key that begins with ``prefix`` and that an update writes into a root map without writing ``own``; None where
    there is none, or where it only writes over one. Raises MalformedUpdate."""
    # A struct without neighbours names its parent: a root by its name, and the key in it.
    parent = b"\x01" + _text(root)
    begun = re.escape(parent) + rb"[\x80-\xff]*[\x00-\x7f]" + re.escape(prefix.encode())
    if parent + _text(own) in data or not re.search(begun, data):
        return None
    for struct in read_structs(data)[0]:
        info = data[struct.start]
        if struct.kind not in (0, 10) and info & 0xE0 == 0x20 and data.startswith(parent, struct.start + 1):
            key = _Reader(data[struct.start + 1 + len(parent) : struct.content]).text()
            if key.startswith(prefix):
                return key
    return None


def _text(text: str) -> bytes:
    return write_uint(len(text.encode())) + text.encode()


def write_deletes(deletes: Mapping[int, Sequence[tuple[int, int]]]) -> bytes:
    """The deletes of an update, from the (start, end) of each client."""
    out = [write_uint(len(deletes))]
    for client, ranges in deletes.items():
        out += (write_uint(client), write_uint(len(ranges)))
        out += (write_uint(n) for start, end in ranges for n in (start, end - start))
    return b"".join(out)


def less_ranges(
    ranges: Mapping[int, Sequence[tuple[int, int]]], others: Mapping[int, Sequence[tuple[int, int]]]
) -> dict[int, list[tuple[int, int]]]:
    """Of each client the (start, end) ranges without what the others cover, in order."""
    left = {client: _less(sorted(own), sorted(others.get(client, ()))) for client, own in ranges.items()}
    return {client: own for client, own in left.items() if own}


def _less(ranges: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    at = done = 0
    for start, end in ranges:
        start, done = max(start, done), max(done, end)
        while at < len(others) and others[at][1] <= start:
            at += 1
        cut = at
        while start < end and cut < len(others) and others[cut][0] < end:
            if start < others[cut][0]:
                out.append((start, others[cut][0]))
            start = max(start, others[cut][1])
            cut += 1
        if start < end:
            out.append((start, end))
    return out


_AUTOMERGE = b"\x85\x6f\x4a\x83"
"""The bytes with which all that Automerge writes begins."""

# One client, one item: text after another item, no deletes. A client's id is below 2^53, a clock here below 2^28.
_LOW_CLOCK_END = 1 << 28
_ID, _LOW_CLOCK = rb"([\x80-\xff]{0,6}[\x00-\x7f]|[\x80-\xff]{7}[\x00-\x0f])", rb"([\x80-\xff]{0,3}[\x00-\x7f])"
_WORD = re.compile(rb"\x01\x01" + _ID + _LOW_CLOCK + rb"\x84" + _ID + _LOW_CLOCK + rb"([\x01-\x7f])")


def read_update(data: bytes, *, whole: bool = False) -> UpdateRange:
    """Check an update. Raises MalformedUpdate."""
    try:
        return _read_word(data) or _read_update(data, whole)
    except MalformedUpdate:
        if data.startswith(_AUTOMERGE):
            raise MalformedUpdate(
                "These bytes are those of an Automerge document, and this one is of kind yjs.",
                hint='Join it as what it is: repo.join(id, crdt="automerge").',
            ) from None
        raise


def parse_update(data: bytes) -> ParsedUpdate:
    """An update with its UpdateRange. Raises MalformedUpdate."""
    return ParsedUpdate(data, read_update(data))


def _read_word(data: bytes) -> UpdateRange | None:
    """An update that adds a few ASCII letters to a text, as nearly all updates of a streamed answer do, for less than
    half of what it costs to read any other; None where it is something else."""
    found = _WORD.match(data)
    if found is None:
        return None
    start, size = found.end(), data[found.end() - 1]
    if start + size + 1 != len(data) or data[-1] or not data[start:].isascii():
        return None
    writer, first, neighbour, last, _ = found.groups()
    client, clock, at = _number(writer), _number(first), _number(last)
    beside = client if neighbour == writer else _number(neighbour)
    if client != beside:
        cuts = {beside: array("I", (at + 1,))}
        return UpdateRange({client: clock}, {client: clock + size}, needs={beside: at + 1}, cuts=cuts)
    if at >= clock:
        return None
    if at + 1 == clock:
        return UpdateRange({client: clock}, {client: clock + size}, follows=True)
    return UpdateRange({client: clock}, {client: clock + size}, cuts={beside: array("I", (at + 1,))})


def join_words(updates: Sequence[bytes], first: int, most: float) -> tuple[bytes, int]:
    """One update that adds the letters of some that a client made one after the other, from the ``first`` on, and how
    many those are. Just the first, as it is, where it adds no ASCII letters or the next doesn't follow."""
    update = updates[first]
    found = _WORD.match(update) if first + 1 < len(updates) else None
    word = _read_word(update) if found else None
    if found is None or word is None:
        return update, 1
    client, start = found[1], found.end()
    ((_, end),) = word.written.items()
    texts, size = [update[start:-1]], len(update)
    for following in islice(updates, first + 1, None):
        head = b"".join((b"\x01\x01", client, write_uint(end), b"\x84", client, write_uint(end - 1)))
        at = len(head) + 1
        letters = following[at:-1]
        size += len(letters)
        if (
            not following.startswith(head)
            or not 0 < len(letters) < 0x80
            or following[at - 1] != len(letters)
            or following[-1]
            or not letters.isascii()
            or size >= most
            or end + len(letters) > _LOW_CLOCK_END
        ):
            break
        texts.append(letters)
        end += len(letters)
    if len(texts) == 1:
        return update, 1
    text = b"".join(texts)
    return b"".join((update[: start - 1], write_uint(len(text)), text, b"\x00")), len(texts)


def _number(data: bytes) -> int:
    """A number whose bytes a pattern has found. Faster than read_uint, for it checks nothing."""
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
    return value


def _read_update(data: bytes, whole: bool = False) -> UpdateRange:
    reader, found, places, ranges = _Reader(data, whole), UpdateRange(), dict[Id, int](), 0
    for _ in range(reader.count_to(CLIENTS)):
        _read_client(reader, found, places)
    for _ in range(reader.count_to(CLIENTS)):
        client, count = reader.client(), reader.count()
        ranges += count
        if ranges > RANGES and not whole:
            raise MalformedUpdate(_TOO_MUCH)
        # The core forgets deletes that are out of order when it merges updates, and of a client that is named again all
        # that came before. No client of Yjs or yrs writes any: each brings its own into order.
        if client in found.deletes:
            raise MalformedUpdate("The update tells in two places what it deletes of one client.")
        ranges_of, end = list[tuple[int, int]](), 0
        for _ in range(count):
            start, length = reader.uint(), reader.uint()
            if start + length >= CLOCK_END:
                raise MalformedUpdate("The update deletes past the highest clock.")
            if start < end:
                raise MalformedUpdate("The update tells out of order what it deletes.")
            end = start + length
            ranges_of.append((start, end))
        if ranges_of:
            found.deleted[client], found.deletes[client] = end, ranges_of
    reader.end()
    return found


# A clock is below 2^32.
_CLOCK = rb"([\x80-\xff]{0,3}[\x00-\x7f]|[\x80-\xff]{4}[\x00-\x0f])"
_CLOCK_OF = re.compile(_ID + _CLOCK)
_CLOCKS = re.compile(rb"(?:" + _ID.replace(b"(", b"(?:") + _CLOCK.replace(b"(", b"(?:") + rb")*+")
_NOT_LAST = bytes(range(0x80, 0x100))


def check_state_vector(data: bytes) -> None:
    """Check a state vector without making anything of it: to Python what stands in a few bytes is an object of a
    hundred. Raises MalformedUpdate."""
    reader = _Reader(data)
    count = reader.count()
    whole = _CLOCKS.fullmatch(data, reader.place)
    # A number ends with a byte that has no high bit.
    if not whole or len(data.translate(None, _NOT_LAST)) != 1 + 2 * count:
        raise MalformedUpdate("This is no state vector.")


def read_state_vector(data: bytes) -> dict[int, int]:
    """Check and read a state vector. Raises MalformedUpdate."""
    check_state_vector(data)
    reader = _Reader(data)
    reader.count()
    return {_number(found[1]): _number(found[2]) for found in _CLOCK_OF.finditer(data, reader.place)}


def write_state_vector(state: Mapping[int, int]) -> bytes:
    numbers = (write_uint(number) for both in state.items() for number in both)
    return b"".join((write_uint(len(state)), *numbers))


_TOO_MUCH = "The update holds more than one may."
_STRETCH = 64
"""Plain structs that are read together."""


def _read_client(
    reader: _Reader,
    found: UpdateRange,
    places: dict[Id, int],
    into: list[Struct] | None = None,
    stretches: list[Stretch] | None = None,
) -> None:
    """``places``: how deep the types lie that were read before."""
    left = reader.count()
    name = reader.place
    client = reader.client()
    plain = _Plain(client, reader.data[name : reader.place])
    clock = reader.uint()
    reader.structs += left
    if reader.structs > STRUCTS and not reader.whole:
        raise MalformedUpdate(_TOO_MUCH)
    found.odd = found.odd or client in found.written
    while left:
        if plain.after:
            start = reader.place
            count = plain.read(reader, min(left, _STRETCH), clock, found, places, into)
            if count:
                if stretches is not None:
                    stretches.append(Stretch(client, clock, count, start, reader.place))
                left -= count
                clock += count
                continue
        left -= 1
        start, info = reader.place, reader.byte()
        kind = info & 0x1F
        struct = None if into is None else Struct(client, clock, kind, start)
        inside: Id | None = None
        if kind in (0, 10):
            if info != kind:
                raise MalformedUpdate("The update holds flags where none may be.")
            length = reader.uint()
            found.odd = found.odd or kind == 10
        else:
            inside = _read_place(reader, info, client, clock, found, struct)
            if struct:
                struct.content = reader.place
            length = _read_content(reader, kind)
            if kind == 4 and length != reader.letters:
                _note_pairs(reader, client, clock, found)
            if kind == 7:
                _place_type(found, places, (client, clock), inside)
        if length == 0 and kind != 4:  # the core alone leaves an empty text where half a letter is deleted (pairs.py)
            raise MalformedUpdate("The update holds an empty struct.")
        if kind != 10:
            found.begun[client] = min(found.begun.get(client, clock), clock)
        clock += length
        if clock >= CLOCK_END:
            raise MalformedUpdate("The update writes past the highest clock.")
        if kind != 10:
            found.written[client] = max(found.written.get(client, 0), clock)
            if stretches is not None:
                stretches.append(Stretch(client, clock - length, 1, start, reader.place))
            if into is not None and struct:
                struct.end, struct.stop = clock, reader.place
                struct.size = reader.last
                into.append(struct)
        if kind == 7:
            plain.follow(reader, start, info, clock - 1, inside)


class _Plain:
    """Reads the structs that most updates consist of, each for a fraction of what any other costs: new types in a root
    map, each with fields that hold one text or byte array. It takes nothing that ``_read_client`` would not take, and
    leaves to that whatever looks otherwise. ``client``: of whom they are; ``own``: its bytes."""

    __slots__ = ("_client", "_field", "_own", "_root", "_type", "after")

    def __init__(self, client: int, own: bytes) -> None:
        self._client, self._own = client, own
        self._type, self._root, self._field = 0, b"", b""
        self.after = False
        """Whether it is worth while to try: a type was read, or the last try went well."""

    def follow(self, reader: _Reader, start: int, info: int, clock: int, inside: Id | None) -> None:
        """A type at ``clock`` was read."""
        self._type, self._field, self.after = clock, b"\x28\x00" + self._own + write_uint(clock), True
        if inside == _ROOT and info == 0x27:
            size, name = read_uint(reader.data, start + 2, 9)
            self._root = reader.data[start : name + size]

    def read(
        self,
        reader: _Reader,
        most: int,
        clock: int,
        found: UpdateRange,
        places: dict[Id, int],
        into: list[Struct] | None,
    ) -> int:
        """Read such structs from ``clock`` on; how many that were."""
        data, at, first, client, types = reader.data, reader.place, clock, self._client, len(places)
        start, end, size, field, root = at, min(clock + most, CLOCK_END - 1), len(data), self._field, self._root
        try:
            while clock < end:
                start = at
                if data.startswith(field, at):
                    at += len(field)
                    length = data[at]
                    content = at + 1 + length
                    if length > 0x7F or data[content] != 1 or not data[at + 1 : content].isascii():
                        break
                    kind, length, at = data[content + 1], data[content + 2], content + 3
                    if length > 0x7F:
                        high = data[at]
                        if high > 0x7F:
                            break
                        length += (high - 1) << 7
                        at += 1
                    at += length
                    if at > size or (kind == 119 and not _is_utf8(data[at - length : at])) or kind not in (116, 119):
                        break
                    if into is not None:
                        struct = Struct(client, clock, 8, start, clock + 1, at, start + 1, start + 1, content)
                        struct.size, struct.inside = length, (client, self._type)
                        into.append(struct)
                elif root and data.startswith(root, at):
                    at += len(root)
                    length = data[at]
                    content = at + 1 + length
                    if length > 0x7F or data[content] > 2 or not data[at + 1 : content].isascii():
                        break
                    at = content + 1
                    places[client, clock] = 1
                    self._type, self._field = clock, field[:2] + self._own + write_uint(clock)
                    field = self._field
                    if into is not None:
                        struct = Struct(client, clock, 7, start, clock + 1, at, start + 1, start + 1, content)
                        struct.size = length
                        into.append(struct)
                else:
                    break
                clock += 1
                start = at
        except IndexError:
            pass
        count = clock - first
        reader.go(start)
        self.after = count > 0
        if len(places) > types:
            found.depth = max(found.depth, 1)
        if count:
            found.begun[client] = min(found.begun.get(client, first), first)
            found.written[client] = max(found.written.get(client, 0), clock)
        return count


_PAIR = re.compile("[\U00010000-\U0010ffff]")


def _note_pairs(reader: _Reader, client: int, clock: int, found: UpdateRange) -> None:
    """Note the letters of two units in the text that was read last, which begins at ``clock``."""
    text = reader.data[reader.place - reader.last : reader.place].decode()
    pairs = found.pairs.setdefault(client, array("I"))
    pairs.extend(clock + match.start() + before + 1 for before, match in enumerate(_PAIR.finditer(text)))


def _is_utf8(text: bytes) -> bool:
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


_ROOT = (-1, -1)


def _place_type(found: UpdateRange, places: dict[Id, int], id_: Id, inside: Id | None) -> None:
    """Note how deep a type lies. ``inside``: what it stands in, or None where it only names neighbours."""
    depth = 1 if inside == _ROOT else places[inside] + 1 if inside in places else 0
    found.nested = found.nested or inside != _ROOT
    if depth > DEPTH:
        raise MalformedUpdate(TOO_DEEP)
    if depth:
        places[id_] = depth
        found.depth = max(found.depth, depth)
    else:
        found.hanging += 1


TOO_DEEP = f"The update nests shared types more than {DEPTH} deep."


def _read_place(
    reader: _Reader, info: int, client: int, clock: int, found: UpdateRange, struct: Struct | None = None
) -> Id | None:
    """The parent of the item: the id of a type, or _ROOT; None where only its neighbours tell."""
    inside: Id | None = None
    beside: tuple[Id, ...] = ()
    for bit in (0x80, 0x40):  # left and right neighbour
        start = reader.place
        if info & bit:
            id_ = _read_id(reader, client, clock, found.needs)
            beside += (id_,)
            cut = id_[1] + (bit == 0x80)
            if cut != clock or id_[0] != client:
                found.cuts.setdefault(id_[0], array("I")).append(cut)
    if struct:
        struct.right, struct.right_stop, struct.beside = start, reader.place, beside
    if not info & 0xC0:
        parent = reader.uint()
        if parent == 1:
            reader.text()
            inside = _ROOT
        elif parent == 0:
            inside = _read_id(reader, client, clock, found.needs)
            if struct:
                struct.inside = inside
        else:
            raise MalformedUpdate("The update names a parent in an unknown way.")
        if info & 0x20:
            reader.text()
    return inside


def _read_id(reader: _Reader, client: int, clock: int, needs: dict[int, int]) -> Id:
    """The id of something that was there before the item at ``client`` and ``clock``."""
    other, at = reader.client(), reader.clock()
    if other == client:
        if at >= clock:
            raise MalformedUpdate("The update puts something beside or into what comes after it.")
    elif needs.get(other, 0) <= at:
        needs[other] = at + 1
    return other, at


_XML_ELEMENT = 3
_TYPES = frozenset({0, 1, 2, _XML_ELEMENT, 4, 6})
"""Array, map, text, XML element, fragment and text. The core reads an XML hook (5) without its name, and texts of JSON
(2, of before Yjs 13) with one too many: more than anybody checked would lie in them."""


def _read_content(reader: _Reader, kind: int) -> int:
    match kind:
        case 1:  # deleted
            return reader.uint()
        case 3:  # bytes
            reader.bytes()
        case 4:  # text; its length counts UTF-16 units
            text = reader.text()
            reader.letters = len(text)
            return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2
        case 5:  # embed
            reader.text()
        case 6:  # format
            reader.text()
            reader.text()
        case 7:  # shared type
            ref = reader.byte()
            if ref not in _TYPES:
                raise MalformedUpdate("The update holds a shared type this version doesn't know.")
            if ref == _XML_ELEMENT:
                reader.text()
        case 8:  # values
            count = reader.count()
            for _ in range(count):
                _read_any(reader, 0)
            return count
        case 9:  # subdocument
            reader.text()
            _read_any(reader, 0)
        case _:
            raise MalformedUpdate(f"The update holds content of an unknown kind, {kind}.")
    return 1


def _read_any(reader: _Reader, depth: int) -> None:
    if depth > _DEPTH:
        raise MalformedUpdate("The update nests values too deeply.")
    match reader.byte():
        case 127 | 126 | 121 | 120:  # undefined, null, false, true
            pass
        case 125:
            reader.sint()
        case 124:
            reader.skip(4)
        case 123 | 122:
            reader.skip(8)
        case 119:
            reader.text()
        case 118:
            for _ in range(reader.count()):
                reader.text()
                _read_any(reader, depth + 1)
        case 117:
            for _ in range(reader.count()):
                _read_any(reader, depth + 1)
        case 116:
            reader.bytes()
        case _:
            raise MalformedUpdate("The update holds a value of an unknown type.")


class _Reader:
    """lib0's variable-length integers, strings and byte arrays."""

    __slots__ = ("_at", "_size", "data", "last", "letters", "structs", "whole")

    def __init__(self, data: bytes, whole: bool = False) -> None:
        self.data, self._at, self._size = data, 0, len(data)
        self.whole = whole
        """Whether it may hold any number of things."""
        self.last = 0
        """Bytes of the text or byte array read last."""
        self.letters = 0
        """Letters of the content read last, where that is a text."""
        self.structs = 0
        """Structs that the update holds, as far as it is read."""

    @property
    def place(self) -> int:
        return self._at

    def go(self, place: int) -> None:
        """Go on at a place up to which somebody else has read."""
        self._at = place

    def byte(self) -> int:
        if self._at >= self._size:
            raise MalformedUpdate("The update ends too early.")
        value = self.data[self._at]
        self._at += 1
        return value

    def uint(self) -> int:
        data, at = self.data, self._at
        if at < self._size and data[at] < 0x80:
            # So it is with most lengths, counts and clocks.
            self._at = at + 1
            return data[at]
        try:
            value, self._at = read_uint(data, at, 9)
        except IndexError:
            raise MalformedUpdate("The update ends too early.") from None
        except ValueError:
            raise MalformedUpdate("The update holds a number that is too long.") from None
        return value

    def sint(self) -> None:
        """A signed number: the first byte holds six bits and the sign. Only skipped."""
        for _ in range(10):
            if self.byte() < 0x80:
                return
        raise MalformedUpdate("The update holds a number that is too long.")

    def count(self) -> int:
        """How many things follow: each takes a byte at least."""
        value = self.uint()
        if value > self._size - self._at:
            raise MalformedUpdate("The update declares more than it holds.")
        return value

    def count_to(self, most: int) -> int:
        """The same, where only so many may follow in an update of others."""
        value = self.count()
        if value > most and not self.whole:
            raise MalformedUpdate(_TOO_MUCH)
        return value

    def client(self) -> int:
        value = self.uint()
        if value >= CLIENT_END:
            raise MalformedUpdate("The update names a client past the highest id.")
        return value

    def clock(self) -> int:
        value = self.uint()
        if value >= CLOCK_END:
            raise MalformedUpdate("The update names a clock past the highest one.")
        return value

    def skip(self, size: int) -> None:
        if size > self._size - self._at:
            raise MalformedUpdate("The update declares more than it holds.")
        self._at += size

    def bytes(self) -> bytes:
        size = self.uint()
        start = self._at
        self.skip(size)
        self.last = size
        return self.data[start : self._at]

    def text(self) -> str:
        try:
            return self.bytes().decode("utf-8")
        except UnicodeDecodeError:
            raise MalformedUpdate("The update holds text that is not UTF-8.") from None

    def end(self) -> None:
        if self._at != self._size:
            raise MalformedUpdate("The update goes on after its end.")
