"""A text of several writers as Yjs orders it, UTF-16 unit by unit, and the updates that they write: an oracle."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from llmcrdt.varint import write_uint

Id = tuple[int, int]
NAME = "t"
WORDS = ("a", "bc", "😀", "x😀y", "😀😁", "é", "𝒳", "long words 😀 here")


@dataclass
class Unit:
    id: Id
    left: Id | None
    right: Id | None
    value: int
    deleted: bool = False


@dataclass
class Insert:
    id: Id
    left: Id | None
    right: Id | None
    text: str

    @property
    def units(self) -> list[int]:
        data = self.text.encode("utf-16-le")
        return [data[at] | data[at + 1] << 8 for at in range(0, len(data), 2)]

    @property
    def update(self) -> bytes:
        flags = 4 | (0x80 if self.left else 0) | (0x40 if self.right else 0)
        place = b"".join(map(_id, filter(None, (self.left, self.right)))) or b"\x01" + _text(NAME)
        return b"\x01\x01" + _id(self.id) + bytes((flags,)) + place + _text(self.text) + b"\x00"


@dataclass
class Delete:
    ranges: dict[int, list[tuple[int, int]]]

    @property
    def update(self) -> bytes:
        out = [b"\x00", write_uint(len(self.ranges))]
        for client, ranges in self.ranges.items():
            out += (write_uint(client), write_uint(len(ranges)))
            out += (write_uint(n) for start, end in ranges for n in (start, end - start))
        return b"".join(out)


def _id(id_: Id) -> bytes:
    return write_uint(id_[0]) + write_uint(id_[1])


def _text(text: str) -> bytes:
    return write_uint(len(text.encode())) + text.encode()


@dataclass
class Letters:
    """A replica. ``cut``: the ids between which and the ones before them something stands or ends."""

    units: list[Unit] = field(default_factory=list)
    ends: dict[int, int] = field(default_factory=dict)
    cut: set[Id] = field(default_factory=set)

    def apply(self, operation: Insert | Delete) -> None:
        if isinstance(operation, Delete):
            for client, ranges in operation.ranges.items():
                self.cut |= {(client, clock) for both in ranges for clock in both}
            for unit in self.units:
                ranges = operation.ranges.get(unit.id[0], [])
                unit.deleted = unit.deleted or any(start <= unit.id[1] < end for start, end in ranges)
            return
        client, clock = operation.id
        left = operation.left
        self.cut |= {(left[0], left[1] + 1)} if left else set()
        self.cut |= {operation.right} if operation.right else set()
        for value in operation.units:
            self._integrate(Unit((client, clock), left, operation.right, value))
            left = client, clock
            clock += 1
        self.ends[client] = clock

    def _integrate(self, new: Unit) -> None:
        """As Item.integrate of Yjs."""
        at = {unit.id: place for place, unit in enumerate(self.units)}
        left = at[new.left] if new.left else -1
        end = at[new.right] if new.right else len(self.units)
        before: set[Id] = set()
        conflicting: set[Id] = set()
        for place in range(left + 1, end):
            other = self.units[place]
            before.add(other.id)
            conflicting.add(other.id)
            if other.left == new.left:
                if other.id[0] < new.id[0]:
                    left = place
                    conflicting.clear()
                elif other.right == new.right:
                    break
            elif other.left in before:
                if other.left not in conflicting:
                    left = place
                    conflicting.clear()
            else:
                break
        self.units.insert(left + 1, new)

    @property
    def text(self) -> str:
        found: list[int] = []
        for unit in self.units:
            client, clock = unit.id
            half = unit.value & 0xF800 == 0xD800
            second = clock + (unit.value & 0xFC00 == 0xD800)
            if not unit.deleted:
                found.append(0xFFFD if half and (client, second) in self.cut else unit.value)
        return b"".join(value.to_bytes(2, "little") for value in found).decode("utf-16-le")


def write(rng: random.Random, writers: int, steps: int) -> tuple[list[Insert | Delete], Letters]:
    """Writes of several who have not always seen each other's last words, and the text that all have in the end."""
    done: list[Insert | Delete] = []
    by: list[int] = []
    replicas = {3 + number * 7: Letters() for number in range(writers)}
    seen = dict.fromkeys(replicas, 0)
    for _ in range(steps):
        client = rng.choice(list(replicas))
        letters = replicas[client]
        if rng.random() < 0.6:
            for author, operation in zip(by[seen[client] :], done[seen[client] :], strict=True):
                if author != client:
                    letters.apply(operation)
            seen[client] = len(done)
        operation = _act(rng, client, letters)
        letters.apply(operation)
        done.append(operation)
        by.append(client)
    everything = Letters()
    for operation in done:
        everything.apply(operation)
    return done, everything


def _act(rng: random.Random, client: int, letters: Letters) -> Insert | Delete:
    """A writer puts its words anywhere between two units, or deletes some."""
    units = letters.units
    at = rng.randint(0, len(units))
    halves = [place for place in range(1, len(units)) if units[place].value & 0xFC00 == 0xDC00]
    if halves and rng.random() < 0.5:
        at = rng.choice(halves)
    if units and rng.random() < 0.3:
        ranges: dict[int, list[tuple[int, int]]] = {}
        for unit in sorted(units[at : at + rng.randint(1, 4)], key=lambda unit: unit.id):
            own = ranges.setdefault(unit.id[0], [])
            if own and own[-1][1] == unit.id[1]:
                own[-1] = own[-1][0], unit.id[1] + 1
            else:
                own.append((unit.id[1], unit.id[1] + 1))
        if ranges:
            return Delete(ranges)
    left = units[at - 1].id if at else None
    right = units[at].id if at < len(units) else None
    return Insert((client, letters.ends.get(client, 0)), left, right, rng.choice(WORDS))
