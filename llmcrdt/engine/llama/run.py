"""One generation, queued or running."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from ..base import Event, Sampling


class LlamaRun:
    """One queued or running generation. ``stop`` is called once it is running and shall end."""

    def __init__(
        self,
        ids: tuple[int, ...],
        max_tokens: int,
        sampling: Sampling,
        on_event: Callable[[Event], None],
        owner: str = "",
        marks: tuple[int, ...] = (),
    ) -> None:
        self.owner, self.marks = owner, marks
        self.grammar = ""  # GBNF that the tokens must follow
        self.ids, self.max_tokens, self.sampling, self.on_event = ids, max_tokens, sampling, on_event
        self.seed = sampling.seed if sampling.seed is not None else int.from_bytes(os.urandom(4), "little")
        self.tokens: list[int] = []
        self.deaf = False  # its listener failed: nothing more is reported
        self._lock = threading.Lock()
        self._cancelled = False
        self._stop: Callable[[], None] | None = None

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def cancel(self) -> None:
        """Ask it to stop, in a prefill too. Returns at once; ``Finished("cancelled")`` follows."""
        with self._lock:
            self._cancelled = True
            if self._stop is not None:
                self._stop()

    def running(self, stop: Callable[[], None] | None) -> None:
        """The engine works on it from now on, and is told to ``stop`` by it; None: no longer."""
        with self._lock:
            self._stop = stop
            if stop is not None and self._cancelled:
                stop()
