"""One document, as it stands on one connection to a relay: its phases, and what may follow what.

    phase      event                                         next
    WAITING    it has a cursor, or room to be filled         OPENING
    OPENING,   all that arrives takes too much memory, and   WAITING
    FILLING,   another document has the largest part of it
    LIVE
    OPENING,   it alone takes too much                       REFUSED
    FILLING,
    LIVE
    OPENING    the relay resumes at its cursor               LIVE
    OPENING    the relay resets to position 0                FILLING
    FILLING    caught up, and the outbox refilled            LIVE
    OPENING,   GAP, CONFLICT or NOT_OPEN, the first time     OPENING, from position 0 (NOT_OPEN: from its cursor)
    FILLING,   BAD_RECORD, and the record set aside          OPENING, from its cursor
    LIVE       a refusal of what is pushed or announced      as before; no more of that is sent
               any other refusal                             REFUSED
    any        it is not to be followed any more             (dropped)

If the relay lost something that it had acknowledged, others notice it at the same time: so the refill comes after a
random pause, as a timer. The invariants:

1. Records are pushed in LIVE only.
2. ``log`` holds the relay's records in FILLING only, and at most ``opening_queue.MOST_FILLING`` documents that had no
   cursor are taken from position 0 at one time.
3. A cursor is remembered in FILLING by the refill only, in one transaction with what the log lacks.
4. Each opening has a number, over all connections, and a timer of an earlier one does nothing.
5. A document is sent anew once on a connection: what a relay refuses twice is REFUSED.
6. REFUSED lasts as long as the connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from ..ids import DocumentId


class Phase(Enum):
    """How far a document has come on a connection."""

    WAITING = auto()
    OPENING = auto()
    FILLING = auto()
    LIVE = auto()
    REFUSED = auto()


MAY_FOLLOW: Final[Mapping[Phase, frozenset[Phase]]] = {
    Phase.WAITING: frozenset({Phase.OPENING}),
    Phase.OPENING: frozenset({Phase.WAITING, Phase.OPENING, Phase.FILLING, Phase.LIVE, Phase.REFUSED}),
    Phase.FILLING: frozenset({Phase.WAITING, Phase.OPENING, Phase.LIVE, Phase.REFUSED}),
    Phase.LIVE: frozenset({Phase.WAITING, Phase.OPENING, Phase.REFUSED}),
    Phase.REFUSED: frozenset(),
}
"""The phases that may come after each."""


@dataclass(slots=True)
class DocumentSync:
    """``raw``: its id as the wire has it. ``had_cursor``: it had one past position 0 when it was opened; a
    relay that does not know it lost something. ``opening``: the number of the last OPEN. ``log``: the records
    that came while it is filled, ``log_size`` its bytes. ``sent``: the place in the outbox up to which all was
    sent. ``position``: how far the log came in. ``quiet``: its outbox was empty when it was looked at, and nobody
    has told of anything since. ``sent_anew``: invariant 5. Refused by the relay: ``records_refused``, all records;
    ``presence_refused``, announcements. ``outbox_refused``: the value of ``replaced()`` when the relay refused this
    outbox; None: it was not refused."""

    id: DocumentId
    raw: bytes
    phase: Phase = Phase.WAITING
    had_cursor: bool = False
    opening: int = 0
    log: list[bytes] = field(default_factory=list)
    log_size: int = 0
    sent: int = 0
    position: int = 0
    quiet: bool = False
    sent_anew: bool = False
    records_refused: bool = False
    outbox_refused: int | None = None
    presence_refused: bool = False

    def enter(self, phase: Phase) -> None:
        """The one place where a phase changes. ``log`` begins empty in each."""
        assert phase in MAY_FOLLOW[self.phase], f"{phase} after {self.phase}"
        self.phase, self.log, self.log_size = phase, [], 0
