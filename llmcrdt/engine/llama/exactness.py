"""Whether an engine's model is exact here, and how many of its sequences may go on together: what was found before, or
else a probe when there is time."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ...exceptions import EngineError
from ..base import Mode
from ..speed import Speed
from . import probe, widths
from .context import Aborted, Context
from .probe import Exactness
from .rows import Rows

_LOG = logging.getLogger("llmcrdt.engine")


class ExactnessCheck:
    """For the engine's thread; ``value`` may be asked from any. ``new_context`` makes a context for the probe alone, so
    that what is live stays; ``folder`` remembers what was found. ``speed`` is told how long the probe's tokens took."""

    def __init__(
        self,
        name: str,
        new_context: Callable[[], Context],
        chunk: int,
        n_vocab: int,
        folder: Path | None,
        mode: Mode,
        speed: Speed,
    ) -> None:
        self._name, self._new_context, self._chunk, self._n_vocab = name, new_context, chunk, n_vocab
        self._folder, self._speed = folder, speed
        self._found: Exactness | None = None if mode == "exact" else "approximate"  # None: nobody has looked yet

    @property
    def value(self) -> Exactness:
        return self._found or "unknown"

    def is_unknown(self, fingerprint: bytes) -> bool:
        """Look, once, for what was found before. True where nothing was: then ``probe``."""
        if self._found is not None:
            return False
        self._found = probe.remembered(fingerprint, self._folder)
        return self._found == "unknown"

    def probe(self, fingerprint: bytes) -> Iterator[None]:
        """Try it, a batch or less per step, and remember what was found. Stopped or failed, it stays unknown."""
        equal: bool | None = None
        seconds, began = 0.0, time.perf_counter()
        try:
            with contextlib.closing(self._new_context()) as context:
                for step in probe.probe(context, self._chunk, self._n_vocab):
                    equal = step
                    seconds += time.perf_counter() - began
                    yield
                    began = time.perf_counter()
                self._speed.believe(seconds / max(1, context.counters["settled_tokens"]))
        except (Aborted, EngineError):
            return
        self._speed.keep(fingerprint.hex())
        self._found = "exact" if equal else "approximate"
        probe.remember(fingerprint, self._folder, self._found)
        if not equal:
            _LOG.warning("%s is not exact here: answers may depend on what was cached", self._name)


class WidthsCheck:
    """For the engine's thread; ``value``: the numbers of sequences that may go on together, none until that is known.
    ``new_context`` and ``new_rows`` make what the probe needs; ``setting`` is what else decides the bits."""

    def __init__(
        self,
        new_context: Callable[[], Context],
        new_rows: Callable[[], Rows],
        slots: int,
        n_vocab: int,
        folder: Path | None,
        setting: str,
    ) -> None:
        self._new_context, self._new_rows, self._slots, self._n_vocab = new_context, new_rows, slots, n_vocab
        self._folder, self._setting = folder, setting
        self._looked = slots == 1
        self.value: frozenset[int] = frozenset()

    def is_unknown(self, fingerprint: bytes) -> bool:
        """As ``ExactnessCheck.is_unknown``."""
        if self._looked:
            return False
        self._looked = True
        found = widths.remembered(self._name(fingerprint), self._folder)
        self.value = found or frozenset()
        return found is None

    def probe(self, fingerprint: bytes) -> Iterator[None]:
        """As ``ExactnessCheck.probe``."""
        found: frozenset[int] | None = None
        try:
            with contextlib.closing(self._new_context()) as context, contextlib.closing(self._new_rows()) as rows:
                for step in widths.try_widths(context, rows, self._slots, self._n_vocab):
                    found = step
                    yield
        except (Aborted, EngineError):
            return
        self.value = found or frozenset()
        widths.remember(self._name(fingerprint), self._folder, self.value)

    def _name(self, fingerprint: bytes) -> str:
        return f"{fingerprint.hex()}-{self._slots}-{self._setting}"
