"""How fast somebody may send. No clock: times are arguments, in seconds."""

from __future__ import annotations


class Rate:
    """``rate`` bytes a second, and ``burst`` bytes at once after a rest."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._left = burst
        self._at = 0.0

    def rested(self, now: float) -> bool:
        """Whether nothing is left of what was counted: a new one would say the same."""
        return self._left + (now - self._at) * self._rate >= self._burst

    def pause(self, size: int, now: float) -> float:
        """Count what came in; how long to wait before more is read."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate) - size
        self._at = now
        return max(0.0, -self._left / self._rate)
