"""One commit for the events of several frames, as far as they say something of logs: a commit each would cost more than
all else."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType

from .events import Acked, Arrived, CaughtUp, Event, Opened
from .local import LocalDocuments

_OF_LOGS = Opened | Arrived | Acked | CaughtUp


class GroupCommit:
    """A context manager for the handling of events: call ``before`` each of them, and ``end`` after the last. If
    something is raised inside, the open transaction is rolled back. ``committed`` is called after each commit."""

    def __init__(self, local: LocalDocuments, committed: Callable[[], None]) -> None:
        self._local, self._committed = local, committed
        self._transaction: ExitStack | None = None
        self._acked: set[bytes] = set()

    def before(self, event: Event) -> None:
        """An event comes: begin a transaction, go on with the open one, or commit that first."""
        of_log = isinstance(event, _OF_LOGS)
        # A claim that waited for its acknowledgement is decided by the records before it in the log, not by later ones.
        if not of_log or (isinstance(event, Arrived) and event.document in self._acked):
            self.end()
        if of_log and self._transaction is None:
            self._transaction = ExitStack()
            self._transaction.enter_context(self._local.transaction())
        if isinstance(event, Acked):
            self._acked.add(event.document)

    def end(self) -> None:
        """Commit what is open."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            self._acked.clear()
            transaction.close()
            self._committed()

    def __enter__(self) -> GroupCommit:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.__exit__(kind, error, tb)
