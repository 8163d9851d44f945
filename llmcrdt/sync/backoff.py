"""How long to wait before the next try. Randomness is an argument; no clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

RETRY_AFTER: Final = 300.0
"""Seconds that a relay may keep a client away: longer, and one wrong answer would do so for ever."""


class Backoff:
    """Exponential with full jitter: a uniform share of min(``cap``, ``first`` * 2^k). Times are seconds.

    Full jitter spreads clients that lost the same relay at the same moment.
    """

    def __init__(self, random: Callable[[], float], first: float = 0.1, cap: float = 30.0) -> None:
        self._random, self._first, self._cap = random, first, cap
        self._tries = 0

    def next(self, retry_after: float = 0.0) -> float:
        """The next pause. ``retry_after``: what the relay asked for; ``RETRY_AFTER`` of it counts at most. Never less,
        and as much again at random."""
        pause = self._random() * min(self._cap, self._first * 2.0**self._tries)
        # Past the cap the power would only grow out of range.
        self._tries = min(self._tries + 1, 60)
        return max(pause, min(retry_after, RETRY_AFTER) * (1 + self._random()))

    def reset(self) -> None:
        """After a connection that held."""
        self._tries = 0
