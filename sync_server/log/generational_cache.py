"""A cache that costs nothing to hit, and doesn't grow with all that was ever used."""

from __future__ import annotations

from itertools import islice
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class GenerationalCache(dict[K, V]):
    """Two generations of at most half of ``most`` entries each. ``trim``, at a moment when any entry may go, makes the
    new generation the old one where it is full, and drops the old one; ``revive`` brings an entry that is used again
    back from there. So the entries that were used last stay."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most
        self._old: dict[K, V] = {}

    def revive(self, key: K) -> V | None:
        """An entry of the old generation, which is in the new one again; None where there is none."""
        found = self._old.pop(key, None)
        if found is not None:
            self[key] = found
        return found

    def trim(self) -> None:
        half = self._most // 2
        if len(self) >= half:
            self._old = dict(islice(reversed(self.items()), half))
            super().clear()

    def forget(self, key: K) -> None:
        """The entry is wrong from now on."""
        super().pop(key, None)
        self._old.pop(key, None)

    def clear(self) -> None:
        super().clear()
        self._old.clear()

    @property
    def total(self) -> int:
        """How many entries there are, in both generations."""
        return len(self) + len(self._old)
