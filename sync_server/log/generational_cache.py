"""A cache that costs nothing to hit, and doesn't grow with all that was ever looked at."""

from __future__ import annotations

from itertools import islice
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class GenerationalCache(dict[K, V]):
    """What was used lately. ``settle``, at a moment when all may go, puts it in second place where it is half of
    ``most``, and drops what stood there; what is asked for again comes back from there by ``revive``. So less than
    ``most`` stay behind, and what was used last does."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most
        self._before: dict[K, V] = {}

    def revive(self, key: K) -> V | None:
        """What stands in second place takes the first again."""
        found = self._before.pop(key, None)
        if found is not None:
            self[key] = found
        return found

    def settle(self) -> None:
        half = self._most // 2
        if len(self) >= half:
            self._before = dict(islice(reversed(self.items()), half))
            super().clear()

    def forget(self, key: K) -> None:
        """It is wrong from now on."""
        super().pop(key, None)
        self._before.pop(key, None)

    def clear(self) -> None:
        super().clear()
        self._before.clear()

    @property
    def held(self) -> int:
        """How many there are, in both places."""
        return len(self) + len(self._before)
