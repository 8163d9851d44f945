"""How fast an engine is, by what it has done: for the time that a plan would take."""

from __future__ import annotations

from .base import Reuse

_LEAST = 16  # tokens: fewer say more about the clock than about the engine
_REMEMBERED = 16_384  # tokens; what was measured before counts half


class Speed:
    """Seconds per token, to evaluate one and to load one. One thread notes, any asks."""

    def __init__(self) -> None:
        self._evaluated = self._loaded = (0, 0.0)  # tokens, seconds

    def note(self, done: Reuse, seconds: float) -> None:
        """A prompt took so long."""
        loaded = done.memory + done.disk
        if not loaded and done.evaluate >= _LEAST:
            self._evaluated = _add(self._evaluated, done.evaluate, seconds)
        elif loaded >= _LEAST and self._evaluated[0]:
            self._loaded = _add(self._loaded, loaded, max(0.0, seconds - done.evaluate * _per(self._evaluated)))

    def estimate(self, plan: Reuse) -> float | None:
        """Seconds until the logits of ``plan`` are there; None where nothing was measured yet."""
        if not self._evaluated[0]:
            return None
        return plan.evaluate * _per(self._evaluated) + (plan.memory + plan.disk) * _per(self._loaded)


def _add(sum_: tuple[int, float], tokens: int, seconds: float) -> tuple[int, float]:
    before = (sum_[0] // 2, sum_[1] / 2) if sum_[0] > _REMEMBERED else sum_
    return before[0] + tokens, before[1] + seconds


def _per(sum_: tuple[int, float]) -> float:
    return sum_[1] / sum_[0] if sum_[0] else 0.0
