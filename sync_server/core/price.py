"""The price of a message to the relay, in bytes: 64 of them stand for about a microsecond of its loop.

It is counted twice: in ``Limits.rate``, so that nobody takes more than a share of the loop for long, and in
``Limits.window``, so that what waits is no long queue.
"""

from __future__ import annotations

from llmcrdt.sync.messages import Barrier, Close, Data, Delete, Discard, Fetch, Fold, Offer, Open, Presence, Push

from .limits import Limits
from .validation import DiffRequest, MergeRequest, PresenceQuery, Request

FRAME = 64
"""The price of a frame beside its bytes, so that many small ones are not free."""
OTHER_FRAME = 2 << 10
"""The same for one that is compressed; a ping, or a part of a message, counts three times that (net/frames.py)."""
NOTHING = 1 << 10
"""The price of a message that asks for nothing."""
_OPEN = 4 << 10
_ENTRY = 64
"""Of one entry of presence."""
_ROWS = 64 << 10
"""Of what looks through rows of the log, or takes them away."""


def price(message: Request | None, limits: Limits) -> int:
    """Beside a message's bytes, and the checks of its records, which are shared out by the time that they take."""
    match message:
        case None | Close() | Barrier():
            return NOTHING
        case Push() | MergeRequest():
            return 0
        case Open() | DiffRequest() | Offer():
            return _OPEN
        case Data():
            return NOTHING
        case Fetch(_, _, _, length):
            return NOTHING + length  # so many bytes are sent
        case Fold() | Delete() | Discard():
            return _ROWS
        case Presence(_, entries):
            return limits.presence_cost + _ENTRY * len(entries)
        case PresenceQuery():
            return limits.presence_cost
