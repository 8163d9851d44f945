"""Updates that wait for others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import heappop, heappush

from .update import Id


class Waiting:
    """Updates, each in one or more parts (any numbers) that wait for an id. They cost nothing while others come that
    they don't wait for."""

    def __init__(self) -> None:
        self._parts: dict[bytes, Mapping[int, Id]] = {}
        # Of each client the clocks that something waits for, the lowest first.
        self._queues: dict[int, list[tuple[int, bytes, int]]] = {}

    def __iter__(self) -> Iterator[bytes]:
        """The updates, in the order in which they came."""
        return iter(tuple(self._parts))

    def __bool__(self) -> bool:
        return bool(self._parts)

    def put(self, update: bytes, missing: Mapping[int, Id]) -> bool:
        """Note for which id each part of an update waits now; none: it waits no longer. Whether it is a new one."""
        before = self._parts.get(update)
        if missing:
            self._parts[update] = missing
        else:
            self._parts.pop(update, None)
        for part, (client, clock) in missing.items():
            if before is None or before.get(part) != (client, clock):
                heappush(self._queues.setdefault(client, []), (clock, update, part))
        return bool(missing) and before is None

    def reached(self, client: int, end: int) -> list[bytes]:
        """The updates that waited for a clock of a client below ``end``. Each is to be ``put`` again."""
        queue, found = self._queues.get(client, []), dict[bytes, None]()
        while queue and queue[0][0] < end:
            clock, update, part = heappop(queue)
            if self._parts.get(update, {}).get(part) == (client, clock):
                found[update] = None
        if not queue:
            self._queues.pop(client, None)
        return list(found)
