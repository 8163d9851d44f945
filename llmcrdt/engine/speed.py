"""How fast an engine is, by what it has done: for the time that a plan would take, and for what is worth fetching."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

from ..files import replace_file
from .base import Reuse

_LEAST = 16  # tokens: fewer say more about the clock than about the engine
_REMEMBERED = 16_384  # tokens; what was measured before counts half
_here: dict[str, float] = {}  # what this process has found


class Speed:
    """Seconds per token, to evaluate one, to load one and to have one handed over. One thread notes, any asks."""

    def __init__(self, folder: Path | None = None) -> None:
        """``folder``: where what was measured is kept."""
        self._folder = folder
        self._evaluated = self._loaded = self._fetched = (0, 0.0)  # tokens, seconds
        self._before: float | None = None

    @property
    def per_token(self) -> float | None:
        """Seconds to evaluate a token: by what was done here, else by what ``believe`` was told, or None."""
        return _per(self._evaluated) if self._evaluated[0] else self._before

    def note(self, done: Reuse, seconds: float) -> None:
        """A prompt took so long."""
        loaded = done.memory + done.disk
        if not loaded and not done.peer and done.evaluate >= _LEAST:
            self._evaluated = _add(self._evaluated, done.evaluate, seconds)
        elif max(loaded, done.peer) >= _LEAST and self._evaluated[0]:
            rest = max(0.0, seconds - done.evaluate * _per(self._evaluated))
            if done.peer:
                self._fetched = _add(self._fetched, done.peer, max(0.0, rest - loaded * _per(self._loaded)))
            else:
                self._loaded = _add(self._loaded, loaded, rest)

    def estimate(self, plan: Reuse) -> float | None:
        """Seconds until the logits of ``plan`` are there; None where nothing was measured yet."""
        if not self._evaluated[0]:
            return None
        loading = (plan.memory + plan.disk) * _per(self._loaded) + plan.peer * _per(self._fetched)
        return plan.evaluate * _per(self._evaluated) + loading

    def believe(self, per_token: float) -> None:
        """The cost of a prompt's token elsewhere: in a probe, or in an earlier process."""
        if math.isfinite(per_token) and per_token > 0:
            self._before = per_token

    def recall(self, name: str) -> None:
        """Believe what this process, or an earlier one, has kept under this name."""
        if name in _here:
            self.believe(_here[name])
        elif self._folder is not None:
            with contextlib.suppress(OSError, ValueError):
                self.believe(float((self._folder / name).read_text(encoding="ascii")))

    def keep(self, name: str) -> None:
        """Keep what was measured, under this name. A file that can't be written is no error: it only saves time."""
        if self.per_token is None:
            return
        _here[name] = self.per_token
        if self._folder is not None:
            with contextlib.suppress(OSError):
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                replace_file(self._folder / name, f"{self.per_token:.9f}\n".encode())


def _add(sum_: tuple[int, float], tokens: int, seconds: float) -> tuple[int, float]:
    before = (sum_[0] // 2, sum_[1] / 2) if sum_[0] > _REMEMBERED else sum_
    return before[0] + tokens, before[1] + seconds


def _per(sum_: tuple[int, float]) -> float:
    return sum_[1] / sum_[0] if sum_[0] else 0.0
