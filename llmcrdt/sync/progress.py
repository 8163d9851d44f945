"""How far a link has come and how it stands, and the observers who are told."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, Literal, NamedTuple, TypeVar

from ..exceptions import LLMCRDTError, RelayRefused
from ..observation import Observers

Report = TypeVar("Report")

logger = logging.getLogger(__name__)

REPORT = 0.1
"""Seconds at least between two reports of progress."""


class Progress(NamedTuple):
    """How far a link has come. ``documents`` of ``of_documents`` are caught up with, or refused; both are 0 while there
    is no connection. Records ``received`` and ``sent`` (acknowledged) since the link was made, and with those that are
    known to be still to come or to go: of how many. ``bytes_waiting``: what is still to go, in bytes."""

    documents: int = 0
    of_documents: int = 0
    received: int = 0
    of_received: int = 0
    sent: int = 0
    of_sent: int = 0
    bytes_waiting: int = 0


class LinkStatus(NamedTuple):
    """How a link stands.

    ``state``: "connecting"; "catching up": connected, and something is still to come or to go; "in step": all that is
    known of is here and there; "offline": the link tries again after a pause; "refused": the relay doesn't take the
    token, and the link has given up; "closed". ``error``: why it is offline or refused; where it is connected, why the
    relay refuses one of the documents, else None.
    """

    state: Literal["connecting", "catching up", "in step", "offline", "refused", "closed"]
    error: LLMCRDTError | None = None

    @property
    def code(self) -> int | None:
        """The code of the relay's refusal (docs/protocol.md, section 6); None where it refused nothing."""
        return self.error.code if isinstance(self.error, RelayRefused) else None


class Reports(Generic[Report]):
    """Reads how a link stands, and tells observers when that has changed, ten times a second at most. For one thread,
    but ``latest`` and ``observers``. ``call_later(seconds, function)`` is that thread's; ``first`` is the latest until
    something was read."""

    def __init__(
        self,
        read: Callable[[], Report],
        call_later: Callable[[float, Callable[[], None]], None],
        first: Report,
    ) -> None:
        self._read, self._call_later = read, call_later
        self._soon = False
        self.latest = first
        self.observers: Observers[Report] = Observers(_logged)

    def update(self) -> None:
        """Read it now."""
        with suppress(LLMCRDTError):  # the disk, for a moment
            self.latest = self._read()

    def report_soon(self) -> None:
        if self.observers and not self._soon:
            self._soon = True
            self._call_later(REPORT, self.report_now)

    def report_now(self) -> None:
        if not self.observers:
            return
        self._soon = False
        before = self.latest
        self.update()
        if self.latest != before:
            self.observers.tell(self.latest)


def _logged(call: Callable[[], None]) -> None:
    try:
        call()
    except Exception:
        logger.exception("an observer of a link failed")
