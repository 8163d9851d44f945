"""Arrangement: the result of the rules of order for a document at one moment, and the head of the next one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from ..ids import ContentHash, EntryId
from .frame import Pin
from .nodes import Node
from .order_rules import Hider


@dataclass
class Arrangement:
    """The result of the rules for a document at one moment.

    ``head`` is frame(g) and g, for the latest visible generation g; ``tail`` the other visible entries, arranged.
    ``pins``: the version of each head entry that the frame holds. ``withheld``: alternatives that an erase keeps out of
    sight, each with the erased entry that it was made of.
    The lists and ``pins`` only grow in place: their lengths are a snapshot that costs nothing. ``visible`` is the same
    set from one arrangement to the next.
    """

    head: list[EntryId] = field(default_factory=list)
    tail: list[EntryId] = field(default_factory=list)
    visible: set[EntryId] = field(default_factory=set)
    tips: tuple[EntryId, ...] = ()
    malformed: dict[EntryId, str] = field(default_factory=dict)
    hidden_by: dict[EntryId, Hider] = field(default_factory=dict)
    withheld: Mapping[EntryId, EntryId] = field(default_factory=dict)
    pins: dict[EntryId, ContentHash] = field(default_factory=dict)
    generation: EntryId | None = None

    def head_at(
        self, latest: EntryId | None, sound: Mapping[EntryId, Node]
    ) -> tuple[list[EntryId], dict[EntryId, ContentHash], int]:
        """The head where ``latest`` is the latest visible generation: its frame, then itself. With its pins, and how
        many of its entries stand at the beginning of this head as well, with the same pins. Costs what differs."""
        if latest is None:
            return [], {}, 0
        if latest == self.generation:
            return self.head, self.pins, len(self.head)
        bases = _bases(self.generation, sound)
        pieces: list[Sequence[Pin]] = []
        base: EntryId | None = latest
        known = dict.fromkeys(islice(bases, 1))
        while base is not None and base not in known:
            frame = sound[base].frame
            assert frame is not None
            pieces.append(frame.pins)
            base = frame.base[0] if frame.base else None
            age = sound[base].age if base else (0, "")
            for older in bases:
                known[older] = None
                if sound[older].age <= age:
                    break
        new = [pin for piece in reversed(pieces) for pin in piece]
        same = 0
        if base is not None:
            same = len(self.head) - 1 - next(n for n, i in enumerate(reversed(self.head)) if i == base)
        pins = self.pins.copy()
        for i in self.head[same:]:
            pins.pop(i, None)
        pins.update(new)
        return [*self.head[:same], *(entry for entry, _ in new), latest], pins, same


def _bases(generation: EntryId | None, sound: Mapping[EntryId, Node]) -> Iterator[EntryId]:
    """A generation, and those that its frame stands on, youngest first."""
    while generation is not None:
        yield generation
        frame = sound[generation].frame
        generation = frame.base[0] if frame and frame.base else None
