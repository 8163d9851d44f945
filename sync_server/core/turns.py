"""Whose turn it is: time is shared out equally among those who want some. No clock: what a turn took is told."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeAlias, TypeVar

Source: TypeAlias = "str | int"
"""A token's subject, or a connection."""

K = TypeVar("K", bound=Hashable)


class Turns(Generic[K]):
    """Things that wait, by who wants them.

    A source that has used the least time is next (start-time fair queueing, Goyal, Vin and Cheng 1996), and has its
    own things one after the other. One that comes anew, or was away, begins with as much as the one that is served now
    has used: nobody saves up time, and nobody gets rid of a debt by going away for a moment.
    """

    def __init__(self) -> None:
        self._waiting: dict[Source, dict[K, None]] = {}
        self._used: dict[Source, float] = {}
        self._now = 0.0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __contains__(self, of: tuple[Source, K]) -> bool:
        return of[1] in self._waiting.get(of[0], ())

    @property
    def sources(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def enter(self, source: Source, thing: K) -> None:
        """Somebody wants a thing; to say so twice changes nothing."""
        if not self._waiting:
            self._used.clear()
            self._now = 0.0
        if source not in self._waiting:
            self._waiting[source] = {}
            self._used[source] = max(self._now, self._used.get(source, 0.0))
        self._waiting[source].setdefault(thing)

    def leave(self, source: Source, thing: K) -> None:
        things = self._waiting.get(source)
        if things is not None and thing in things:
            del things[thing]
            if not things:
                del self._waiting[source]

    def served(self, source: Source, thing: K) -> None:
        """It is the turn of this source's other things, if there are any."""
        things = self._waiting.get(source, {})
        if thing in things:
            del things[thing]
            things[thing] = None

    def charge(self, source: Source, seconds: float) -> None:
        """Somebody has used so much time."""
        if source in self._used:
            self._used[source] += seconds

    def next(self) -> tuple[Source, K] | None:
        """Whose turn it is, and for what."""
        for source in self.order():
            return source, next(iter(self._waiting[source]))
        return None

    def order(self) -> Iterator[Source]:
        """All who wait, in the order of their turns."""
        order = sorted(self._waiting, key=self._used.__getitem__)
        if order:
            self._now = self._used[order[0]]
            if len(self._used) > 2 * len(self._waiting) + 16:
                self._used = {s: used for s, used in self._used.items() if s in self._waiting or used > self._now}
        return iter(order)

    def of(self, source: Source) -> tuple[K, ...]:
        """The documents that a source waits for, in the order of their turns."""
        return tuple(self._waiting.get(source, ()))
