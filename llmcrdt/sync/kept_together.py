"""The events of a few frames that say something of logs are kept in one transaction: a commit each would cost more than
all else."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType

from .events import Acked, Arrived, CaughtUp, Event, Opened
from .local import LocalDocuments

_OF_LOGS = Opened | Arrived | Acked | CaughtUp


class KeptTogether:
    """A context manager: tell it ``before`` each event is handled, and ``end`` it after the last. Where something is
    raised inside, what is not kept yet is not kept at all. ``ended`` is called when something was."""

    def __init__(self, local: LocalDocuments, ended: Callable[[], None]) -> None:
        self._local, self._ended = local, ended
        self._within: ExitStack | None = None
        self._acked: set[bytes] = set()

    def before(self, event: Event) -> None:
        """An event comes: what it changes is kept with what came before, where it can be."""
        of_log = isinstance(event, _OF_LOGS)
        # Whoever waited for an acknowledgement decides by what stands before it in the log, and not by what comes next.
        if not of_log or (isinstance(event, Arrived) and event.document in self._acked):
            self.end()
        if of_log and self._within is None:
            self._within = ExitStack()
            self._within.enter_context(self._local.together())
        if isinstance(event, Acked):
            self._acked.add(event.document)

    def end(self) -> None:
        """Keep it now."""
        within, self._within = self._within, None
        if within is not None:
            self._acked.clear()
            within.close()
            self._ended()

    def __enter__(self) -> KeptTogether:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        within, self._within = self._within, None
        if within is not None:
            within.__exit__(kind, error, tb)
