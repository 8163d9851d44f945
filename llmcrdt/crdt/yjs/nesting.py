"""The parts of an update that a core may be given: they wait for nothing, and nest no type deeper than ``DEPTH``.

The core deletes a type by recursion over all that lies in it, so depth is what overflows its stack. How deep a type
lies no update need tell: it names the type that it stands in, or only a neighbour, which may have come long before. So
a replica knows a bound for all that it holds, which each type whose place isn't told raises by one; in documents of
ours hardly any does. When that comes to ``DEPTH``, it finds out how deep everything lies, and keeps account of it from
then on.

That is sound only for what the core takes in at once and as it was looked at here. So nothing is given to it that waits
for something else, and what it has already counts as it has it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from itertools import pairwise

from ...exceptions import MalformedUpdate
from ...varint import write_uint
from .update import DEPTH, TOO_DEEP, Id, Struct, UpdateRange, read_structs

_TYPE = 7


def part_update(update: bytes, state: dict[int, int]) -> tuple[bytes, dict[int, Id]]:
    """The part of an update that a replica with that state vector can take now, with all its deletes; and by client
    the id that the rest of that client's waits for. Raises MalformedUpdate."""
    structs, deletes = read_structs(update)
    ready, missing = _arrange(structs, state)
    new = [struct for struct in ready if struct.end > state.get(struct.client, 0)]
    return _written(update, new) + deletes, missing


class Nesting:
    """How deep the shared types of one replica lie in each other."""

    def __init__(self) -> None:
        self._bound: int | None = 0  # None: nobody looked
        self._levels: _Levels | None = None

    def doubt(self) -> None:
        """Something came in that was not admitted, or was admitted and did not come in."""
        self._bound = self._levels = None

    def admit(self, update: bytes, span: UpdateRange, state: dict[int, int], whole: Callable[[], bytes]) -> None:
        """Raises MalformedUpdate where a type would lie too deep; else the update is to come in now. ``state``: the
        replica's state vector, exact where the update nests types; ``whole``: the replica as one update."""
        if span.follows and (self._levels is None or self._levels.follow(span)):
            return
        if self._levels is None:
            if not span.nested:
                self._raise(span)
                return
            if not span.repeats(state) and self._raise(span):
                return
            self._levels = _Levels()
            self._levels.add(whole(), whole=True)
        self._levels.add(update)

    def wrote(self, update: bytes) -> None:
        """An edit of this replica's own, which nests a type in a node of a root at most, came in."""
        if self._bound is not None:
            self._bound = max(self._bound, 2)
        if self._levels is not None and update:
            self._levels.add(update)

    def _raise(self, span: UpdateRange) -> bool:
        """Raise the bound by what an update tells. False where that is not enough to know."""
        if self._bound is None:
            return not span.hanging
        bound = max(self._bound, span.depth) + span.hanging
        if bound > DEPTH:
            return False
        self._bound = bound
        return True


class _Levels:
    """How many types each item lies in. Items of one client under clocks that follow each other mostly lie in the
    same, so runs are kept: where each begins."""

    def __init__(self) -> None:
        self._ends: dict[int, int] = {}
        self._runs: dict[int, tuple[list[int], list[int]]] = {}

    def follow(self, span: UpdateRange) -> bool:
        """Letters after those that a client wrote last. False where they are something else."""
        ((client, begun),) = span.begun.items()
        if self._ends.get(client) != begun:
            return False
        self._ends[client] = span.written[client]
        return True

    def add(self, update: bytes, *, whole: bool = False) -> None:
        """Raises MalformedUpdate, and knows nothing of it, where it nests too deep or in a circle."""
        structs, _ = read_structs(update, whole=whole)
        ready, missing = _arrange(structs, self._ends)
        if missing:
            raise MalformedUpdate("The update puts things beside or into each other in a circle.")
        before = {client: (self._ends.get(client, 0), self._size(client)) for client in {s.client for s in structs}}
        try:
            for struct in ready:
                self._add(struct)
        except MalformedUpdate:
            for client, (end, size) in before.items():
                self._ends[client] = end
                for numbers in self._runs.get(client, ()):
                    del numbers[size:]
            raise

    def _add(self, struct: Struct) -> None:
        client, end = struct.client, self._ends.get(struct.client, 0)
        if struct.end <= end:
            return
        level = max((self._level(id_) for id_ in struct.beside), default=0)
        if struct.inside is not None:
            level = self._level(struct.inside) + 1
        if struct.kind == _TYPE and level >= DEPTH:
            raise MalformedUpdate(TOO_DEEP)
        starts, levels = self._runs.setdefault(client, ([], []))
        if not levels or levels[-1] != level:
            starts.append(max(end, struct.clock))
            levels.append(level)
        self._ends[client] = struct.end

    def _level(self, id_: Id) -> int:
        starts, levels = self._runs[id_[0]]
        return levels[bisect_right(starts, id_[1]) - 1]

    def _size(self, client: int) -> int:
        return len(self._runs[client][0]) if client in self._runs else 0


def _arrange(structs: Iterable[Struct], state: dict[int, int]) -> tuple[list[Struct], dict[int, Id]]:
    """The structs that wait for nothing else, each after all that it depends on; and per client for which id the rest
    waits."""
    lines: dict[int, list[Struct]] = {}
    for struct in structs:
        lines.setdefault(struct.client, []).append(struct)
    for line in lines.values():
        line.sort(key=lambda struct: struct.clock)
        if any(first.end > second.clock for first, second in pairwise(line)):
            raise MalformedUpdate("The update writes the same clock twice.")
    reached = {client: state.get(client, 0) for client in lines}
    at, stuck, ready = dict.fromkeys(lines, 0), dict[int, Id](), list[Struct]()
    # Of each client those that wait for a clock of it, the lowest first.
    waiting: dict[int, list[tuple[int, int]]] = {client: [] for client in lines}

    def missing(struct: Struct) -> Id | None:
        if struct.clock > reached[struct.client]:
            return struct.client, struct.clock - 1
        for id_ in struct.beside if struct.inside is None else (struct.inside,):
            if id_[1] >= (reached[id_[0]] if id_[0] in reached else state.get(id_[0], 0)):
                return id_
        return None

    todo = list(lines)
    while todo:
        client = todo.pop()
        line, lacks = lines[client], None
        stuck.pop(client, None)
        while at[client] < len(line) and (lacks := missing(line[at[client]])) is None:
            struct = line[at[client]]
            reached[client] = max(reached[client], struct.end)
            ready.append(struct)
            at[client] += 1
        if lacks:
            stuck[client] = lacks
            if lacks[0] in waiting:
                heappush(waiting[lacks[0]], (lacks[1], client))
        queue = waiting[client]
        while queue and queue[0][0] < reached[client]:
            todo.append(heappop(queue)[1])
    return ready, stuck


def _written(update: bytes, structs: Iterable[Struct]) -> bytes:
    """Structs of an update, of each client without holes, as the beginning of another one: its deletes are missing."""
    lines: dict[int, list[Struct]] = {}
    for struct in structs:
        lines.setdefault(struct.client, []).append(struct)
    out = [write_uint(len(lines))]
    for client, line in lines.items():
        out += (write_uint(len(line)), write_uint(client), write_uint(line[0].clock))
        out += (update[struct.start : struct.stop] for struct in line)
    return b"".join(out)
