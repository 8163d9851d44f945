"""Room for large frames, which all connections share: whoever begins one waits until it is there."""

from __future__ import annotations

from typing import Protocol

SMALL = 64 << 10
"""Bytes of a frame that takes no room here. A connection has no more than a few such bytes unread anyway."""
HUGE = 9 << 20
"""Frames above it have half of the room together, so that those below always have the other half."""
_PATIENCE, _LEAST = 10.0, 64 << 10
"""If others wait: seconds after which a frame has to come with so many bytes a second."""


class Holder(Protocol):
    """A connection. ``heard``: all bytes that came."""

    heard: int

    def room_freed(self) -> None:
        """There may be room for it now: it asks again."""

    def give_way(self) -> None:
        """It takes too long, and others wait."""


class LargeRoom:
    """``most`` bytes. From the head of a frame until its message is dealt with."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[Holder, int] = {}
        # In the order in which they asked; and of those that hold: since when, and what had come then.
        self._waiting: dict[Holder, int] = {}
        self._begun: dict[Holder, tuple[float, int]] = {}

    @property
    def held(self) -> int:
        return sum(self._held.values())

    def ask(self, holder: Holder, size: int, now: float) -> bool:
        """Whether there is room for a frame of it. If not, it is told when there may be."""
        if size <= self._held.get(holder, SMALL):
            return True
        if self._fits(holder, size):
            self._waiting.pop(holder, None)
            self._held[holder] = size
            self._begun[holder] = now, holder.heard
            return True
        self._waiting[holder] = size
        return False

    def keep(self, holder: Holder, size: int) -> None:
        """It needs no more than this; nothing, where that is small."""
        if holder in self._held and size < self._held[holder]:
            if size > SMALL:
                self._held[holder] = size
            else:
                del self._held[holder], self._begun[holder]
            self._wake()

    def leave(self, holder: Holder) -> None:
        """It is gone."""
        self._waiting.pop(holder, None)
        self.keep(holder, 0)
        self._wake()

    def evict_slow(self, now: float) -> None:
        """To be called now and then: where others wait, whoever is too slow gives way."""
        if self._waiting:
            for holder, (since, heard) in tuple(self._begun.items()):
                if now - since > _PATIENCE and holder.heard - heard < (now - since - _PATIENCE) * _LEAST:
                    holder.give_way()

    def _fits(self, holder: Holder, size: int) -> bool:
        huge = size > HUGE
        others = [held for other, held in self._held.items() if other is not holder and (held > HUGE) is huge]
        before = [other for other, wanted in self._waiting.items() if (wanted > HUGE) is huge]
        first = not before or before[0] is holder
        # One alone always may, however large it is.
        return first and (not others or sum(others) + size <= self._most // 2)

    def _wake(self) -> None:
        for holder, size in tuple(self._waiting.items()):
            if self._fits(holder, size):
                holder.room_freed()
