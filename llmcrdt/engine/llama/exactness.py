"""Whether an engine's model is exact here: what was found before, or else a probe when there is time."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from ...exceptions import EngineError
from ..base import Mode
from . import probe
from .context import Aborted, Context
from .probe import Exactness

_LOG = logging.getLogger("llmcrdt.engine")


class ExactnessCheck:
    """For the engine's thread; ``value`` may be asked from any. ``new_context`` makes a context for the probe alone, so
    that what is live stays; ``folder`` remembers what was found."""

    def __init__(
        self,
        name: str,
        new_context: Callable[[], Context],
        chunk: int,
        n_vocab: int,
        folder: Path | None,
        mode: Mode,
    ) -> None:
        self._name, self._new_context, self._chunk, self._n_vocab = name, new_context, chunk, n_vocab
        self._folder = folder
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
        try:
            with contextlib.closing(self._new_context()) as context:
                for step in probe.probe(context, self._chunk, self._n_vocab):
                    equal = step
                    yield
        except (Aborted, EngineError):
            return
        self._found = "exact" if equal else "approximate"
        probe.remember(fingerprint, self._folder, self._found)
        if not equal:
            _LOG.warning("%s is not exact here: answers may depend on what was cached", self._name)
