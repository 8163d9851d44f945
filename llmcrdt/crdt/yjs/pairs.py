"""Letters of two UTF-16 units that something splits.

Yjs counts UTF-16 units, and an editor in JavaScript may write between the two of an emoji, or delete one of them. In
Yjs either unit becomes U+FFFD then (src/structs/ContentString.js, splice). yrs 0.28 leaves the letter whole and counts
one unit less from there on: other replicas put what follows in another place, and the writer's next update waits for
ever. So before the core gets something that splits such a letter, both units become U+FFFD: in the bytes that arrive,
or in the core, which is loaded again with them.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from ...varint import write_uint
from .update import UpdateRange, read_state_vector, read_structs, read_texts, read_update, write_state_vector

_FOUR = re.compile(b"[\xf0-\xf4][\x80-\xbf]{3}")
"""A letter of two units, as UTF-8; other bytes may look so."""
_LESS = bytes(n for n in range(256) if not 0xF0 <= n <= 0xF4)
_REPLACED = "\ufffd\ufffd"

Clocks = Mapping[int, Sequence[int]]
"""By client, in order."""


def may_hold_pairs(data: bytes) -> bool:
    """False where no text in these bytes has a letter of two units."""
    return bool(data.translate(None, _LESS)) and _FOUR.search(data) is not None


def replace_pairs(update: bytes, clocks: Clocks) -> bytes:
    """The update, in whose texts the letters whose second units have these clocks are U+FFFD twice."""
    out: list[bytes] = []
    at = 0
    for struct in sorted(read_texts(update, clocks), key=lambda struct: struct.start):
        own = clocks[struct.client]
        wanted = own[bisect_right(own, struct.clock) : bisect_left(own, struct.end)]
        units = update[struct.stop - struct.size : struct.stop].decode().encode("utf-16-le")
        for clock in wanted:
            byte = 2 * (clock - struct.clock)
            if 0xDC <= units[byte + 1] <= 0xDF:
                units = units[: byte - 2] + _REPLACED.encode("utf-16-le") + units[byte + 2 :]
        text = units.decode("utf-16-le").encode()
        out += (update[at : struct.content], write_uint(len(text)), text)
        at = struct.stop
    return b"".join((*out, update[at:]))


def merge_whole(updates: Sequence[bytes], merge: Callable[..., bytes]) -> bytes:
    """Several updates as one. If one ends in the middle of a letter that another has whole, the core would lose it."""
    if not any(map(may_hold_pairs, updates)) or not _overlap(updates):
        return bytes(merge(*updates))
    edges: dict[int, set[int]] = {}
    for update in updates:
        for struct in read_structs(update, whole=True)[0]:
            edges.setdefault(struct.client, set()).update((struct.clock, struct.end))
    clocks = {client: sorted(own) for client, own in edges.items()}
    return bytes(merge(*(_replace_at(update, clocks) for update in updates)))


def _overlap(updates: Sequence[bytes]) -> bool:
    """Whether two of them write for the same clocks."""
    ranges: dict[int, list[tuple[int, int]]] = {}
    for update in updates:
        span = read_update(update, whole=True)
        for client, start in span.begun.items():
            ranges.setdefault(client, []).append((start, span.written[client]))
    return any(first[1] > second[0] for own in ranges.values() for first, second in pairwise(sorted(own)))


def _replace_at(update: bytes, clocks: Clocks) -> bytes:
    pairs = _common(read_update(update, whole=True).pairs, clocks)
    return replace_pairs(update, pairs) if pairs else update


def _common(pairs: Clocks, clocks: Clocks) -> dict[int, list[int]]:
    found = {client: [clock for clock in own if _has(pairs.get(client, ()), clock)] for client, own in clocks.items()}
    return {client: own for client, own in found.items() if own}


def _has(clocks: Sequence[int], clock: int) -> bool:
    at = bisect_left(clocks, clock)
    return at < len(clocks) and clocks[at] == clock


class Pairs:
    """The letters of two units in the texts of one replica, and the clocks at which something will split what is to
    come."""

    def __init__(self) -> None:
        self._pairs: dict[int, array[int]] | None = {}  # None: nobody looked
        self._ahead: dict[int, list[int]] = {}

    def doubt(self) -> None:
        """Something came in that was not told here."""
        self._pairs = None

    def wrote(self, update: bytes) -> None:
        """The core took an edit of its own, which splits nothing."""
        if self._pairs is not None and may_hold_pairs(update):
            self._add(read_update(update, whole=True).pairs, {})

    def split(
        self, update: bytes, span: UpdateRange, state: Mapping[int, int], whole: Callable[[], bytes]
    ) -> tuple[bytes, dict[int, list[int]]]:
        """The update as the core is to get it now, and the second units of letters that it splits in the core.
        ``state``: the state vector; ``whole``: all that the core has."""
        broken: dict[int, list[int]] = {}
        if span.pairs or self._pairs or self._pairs is None:
            cuts = _cuts(span)
            there = {client: clocks for client, clocks in cuts.items() if clocks[0] < state.get(client, 0)}
            if there and self._pairs is None:
                self._look(whole())
            if there and self._pairs:
                broken = _common(self._pairs, there)
                self._drop(broken)
            if span.pairs:
                update = self._take_pairs(update, span, state, cuts)
        self._note_ahead(span, state)
        return update, broken

    def on_letters(self, version: bytes, whole: Callable[[], bytes]) -> bytes:
        """``Intake.on_letters``."""
        if self._pairs is None:
            self._look(whole())
        if not self._pairs:
            return version
        state = read_state_vector(version)
        inside = [client for client, pairs in self._pairs.items() if _has(pairs, state.get(client, 0))]
        for client in inside:
            state[client] -= 1
        return write_state_vector(state) if inside else version

    def _take_pairs(self, update: bytes, span: UpdateRange, state: Mapping[int, int], cuts: Clocks) -> bytes:
        """The update without the letters that it, what is there, or an earlier delete splits; the others are noted."""
        ends = {
            client: sorted({*cuts.get(client, ()), *self._ahead.get(client, ()), state.get(client, 0)})
            for client in span.pairs
        }
        own = _common({client: sorted(pairs) for client, pairs in span.pairs.items()}, ends)
        if self._pairs is not None:
            self._add(span.pairs, own, state)
        return replace_pairs(update, own) if own else update

    def _note_ahead(self, span: UpdateRange, state: Mapping[int, int]) -> None:
        """Deletes of what isn't there yet are done when it comes."""
        for client in span.written.keys() & self._ahead.keys() if self._ahead else ():
            left = [clock for clock in self._ahead[client] if clock > span.written[client]]
            if left:
                self._ahead[client] = left
            else:
                del self._ahead[client]
        for client, deleted in span.deleted.items():
            end = max(state.get(client, 0), span.written.get(client, 0))
            if deleted > end:
                clocks = {clock for both in span.deletes[client] for clock in both if clock > end}
                self._ahead[client] = sorted(clocks.union(self._ahead.get(client, ())))

    def _look(self, whole: bytes) -> None:
        self._pairs = {}
        if may_hold_pairs(whole):
            self._add(read_update(whole, whole=True).pairs, {})

    def _add(self, pairs: Clocks, without: Clocks, state: Mapping[int, int] | None = None) -> None:
        assert self._pairs is not None
        for client, clocks in pairs.items():
            end, gone = (state or {}).get(client, 0), without.get(client, ())
            new = array("I", (clock for clock in clocks if clock >= end and not _has(gone, clock)))
            if not new:
                continue
            known = self._pairs.setdefault(client, array("I"))
            if known and new[0] <= known[-1]:
                self._pairs[client] = array("I", sorted({*known, *new}))
            else:
                known.extend(new)

    def _drop(self, pairs: Clocks) -> None:
        assert self._pairs is not None
        for client, clocks in pairs.items():
            left = array("I", (clock for clock in self._pairs[client] if not _has(clocks, clock)))
            if left:
                self._pairs[client] = left
            else:
                del self._pairs[client]


def _cuts(span: UpdateRange) -> dict[int, list[int]]:
    """By client the clocks at which an update splits what is there, or what it brings itself."""
    cuts: dict[int, set[int]] = {client: set(clocks) for client, clocks in span.cuts.items()}
    for client, ranges in span.deletes.items():
        cuts.setdefault(client, set()).update(clock for both in ranges for clock in both)
    return {client: sorted(clocks) for client, clocks in cuts.items()}
