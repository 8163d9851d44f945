"""One document, as it stands on one connection to a relay."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from ..ids import DocumentId


class Phase(Enum):
    """How far a document has come on a connection (follower.py draws it)."""

    WAITING = auto()
    OPENING = auto()
    FILLING = auto()
    LIVE = auto()
    REFUSED = auto()


@dataclass(slots=True)
class DocumentSync:
    """``lossy``: should the relay not know the cursor, then it lost something. ``opening``: names the last OPEN.
    ``log``: what came while it is filled. ``pushed``: the place in the outbox up to which all was sent. ``restarted``:
    it was sent anew once already. ``mute``: the relay takes no more records of it; ``stuck``: nor of this outbox, which
    was replaced so often; ``hushed``: no more presence."""

    id: DocumentId
    raw: bytes
    phase: Phase = Phase.WAITING
    lossy: bool = False
    opening: int = 0
    log: list[bytes] = field(default_factory=list)
    pushed: int = 0
    position: int = 0
    restarted: bool = False
    mute: bool = False
    stuck: int | None = None
    hushed: bool = False
