"""The messages of the native sync protocol, its limits and its codes. docs/protocol.md is the norm.

codec.py has them as bytes, chain.py the hashes that tie a log together.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

from .address import PATH as PATH

SUBPROTOCOL: Final = "llmcrdt.sync.v1"

MAX_RECORD: Final = 8 << 20
"""Bytes of data in one record."""
MAX_FRAME: Final = MAX_RECORD + (64 << 10)
"""Bytes of one frame; also the ``max_size`` of both WebSocket ends."""
MAX_GREETING: Final = 8 << 10
"""Bytes of one frame of a client before the relay has greeted it: HELLO and OPEN have less."""
MAX_RECORDS: Final = 4096
"""Records in one message."""
MAX_SNAPSHOT: Final = 256 << 20
"""Bytes of one record of a snapshot; it comes in parts."""
MAX_TOKEN: Final = 4096
MAX_AGENT: Final = 128
MAX_TEXT: Final = 512
MAX_STATE: Final = 4096
"""Bytes of one presence state."""
MAX_PRESENT: Final = 1024
"""Entries in one PRESENCE message."""
MAX_PRESENCE: Final = 16 << 10
"""Bytes of the states in one PRESENCE message."""

KIND: Final = re.compile("[a-z0-9-]{1,16}")
"""The kind of a document, all of it."""

PRESENCE: Final = 1
"""The feature bit of PRESENCE messages."""
DELETION: Final = 2
"""The feature bit of DELETE messages."""
ATTACHMENTS: Final = 4
"""The feature bit of OFFER, DATA, FETCH, DISCARD and HELD."""
FEATURES: Final = PRESENCE | DELETION | ATTACHMENTS
"""All feature bits that this version knows."""

MAX_PIECE: Final = 56 << 10
"""Bytes of an attachment in one DATA message. A client sends as many in each but the last."""
MAX_ATTACHMENT: Final = 1 << 36
"""Bytes of an attachment, one less than which a message can say; a relay takes fewer."""


class Record(NamedTuple):
    """One record of a log: the ``n``-th of its session, and its opaque data."""

    session: bytes
    n: int
    data: bytes


class Cursor(NamedTuple):
    """A place in a log: all up to ``position`` is known, and ``chain`` names it."""

    log: bytes
    position: int
    chain: bytes


class Announcement(NamedTuple):
    """One entry of presence: what ``client`` is doing, as the text of a JSON object; empty: it is gone."""

    client: int
    clock: int
    state: str


class ErrorCode(IntEnum):
    """The refusals of a relay. Each says what a client has to do (docs/protocol.md, 5)."""

    MALFORMED = 1
    UNEXPECTED = 2
    WINDOW_EXCEEDED = 3
    NOT_OPEN = 10
    WRONG_KIND = 11
    TOO_MANY_DOCUMENTS = 12
    GAP = 20
    CONFLICT = 21
    RECORD_TOO_LARGE = 22
    READ_ONLY = 23
    LOG_FULL = 24
    SUBJECT_FULL = 25
    PRESENCE_REFUSED = 26
    BAD_RECORD = 27
    STORAGE = 30
    SHUTTING_DOWN = 31
    TOO_MANY_CONNECTIONS = 32
    TOO_SLOW = 33
    TOKEN_REFUSED = 40
    FORBIDDEN = 41
    GONE = 42
    REPLACED = 43


NOTHING_MORE: Final = frozenset({ErrorCode.READ_ONLY, ErrorCode.LOG_FULL, ErrorCode.SUBJECT_FULL})
"""After these a client pushes nothing more for the document on this connection; reading continues."""

RESUMED: Final = 0
RESET: Final = 1
FOLD_DONE: Final = 0
FOLD_NEVER: Final = 1
FOLD_FAILED: Final = 2
DELETE_DONE: Final = 0
DELETE_REFUSED: Final = 1

PLAIN: Final = 0
"""The form of an attachment whose name is the SHA-256 of its bytes."""
SEALED: Final = 1
"""The form of one that devices encrypt: its name tells nobody without the key anything."""


class Outcome(IntEnum):
    """The answers of HELD about an attachment."""

    HELD = 0
    MISSING = 1
    NOT_BEGUN = 2
    TOO_LARGE = 3
    DOCUMENT_FULL = 4
    SUBJECT_FULL = 5
    DAMAGED = 6
    GAP = 7


@dataclass(frozen=True, slots=True)
class Hello:
    agent: str = ""
    token: bytes = b""
    features: int = 0


@dataclass(frozen=True, slots=True)
class Welcome:
    """The relay's greeting, with the limits that a client goes by."""

    agent: str = ""
    record_bytes: int = MAX_RECORD
    window_records: int = MAX_RECORDS
    window_bytes: int = 1 << 20
    documents: int = 10_000
    features: int = 0


@dataclass(frozen=True, slots=True)
class Open:
    document: bytes
    kind: str
    cursor: Cursor | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    document: bytes
    how: int
    head: Cursor
    position: int


@dataclass(frozen=True, slots=True)
class Close:
    document: bytes


@dataclass(frozen=True, slots=True)
class Push:
    """Records ``n``, n + 1, ... of one session."""

    document: bytes
    session: bytes
    n: int
    data: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Ack:
    """``count`` records of one session, from ``n`` on, are on disk at ``position``, position + 1, ..."""

    document: bytes
    session: bytes
    n: int
    count: int
    position: int


@dataclass(frozen=True, slots=True)
class Records:
    """A piece of a document's log, from ``position`` on."""

    document: bytes
    position: int
    records: Sequence[Record]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A part of the snapshot that all records up to ``position`` were compacted to: of ``count`` records of one
    session, numbered from 1, some bytes of the ``n``-th, which has ``size``, from ``offset`` on."""

    document: bytes
    position: int
    chain: bytes
    session: bytes
    n: int
    count: int
    size: int
    offset: int
    data: bytes

    @property
    def last(self) -> bool:
        """Whether the snapshot ends here."""
        return self.n == self.count and self.offset + len(self.data) == self.size


@dataclass(frozen=True, slots=True)
class Fold:
    """Ask the relay to compact a document's log now, so that nothing that the document deleted is left in it."""

    document: bytes


@dataclass(frozen=True, slots=True)
class Folded:
    """The answer: FOLD_DONE, FOLD_NEVER or FOLD_FAILED."""

    document: bytes
    outcome: int


@dataclass(frozen=True, slots=True)
class Presence:
    """The clients that are here just now. On no disk, and never acknowledged."""

    document: bytes
    entries: Sequence[Announcement]


@dataclass(frozen=True, slots=True)
class Delete:
    """Ask the relay to drop a document for good: its log goes, and its id takes no records any more."""

    document: bytes


@dataclass(frozen=True, slots=True)
class Deleted:
    """The answer: DELETE_DONE or DELETE_REFUSED."""

    document: bytes
    outcome: int


class AttachmentName(NamedTuple):
    """The name of an attachment within a document: its form (PLAIN, SEALED), and 32 bytes."""

    form: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Offer:
    """A client has this attachment for the relay, of ``size`` bytes. HELD is the answer."""

    document: bytes
    name: AttachmentName
    size: int


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of an attachment of ``size`` bytes, from ``offset`` on."""

    document: bytes
    name: AttachmentName
    size: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Fetch:
    """A client asks for so many bytes of an attachment, from ``offset`` on. DATA is the answer, or HELD."""

    document: bytes
    name: AttachmentName
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Discard:
    """Nothing in the document names this attachment any more. HELD (missing) is the answer."""

    document: bytes
    name: AttachmentName


@dataclass(frozen=True, slots=True)
class Held:
    """``held`` bytes of an attachment, from its beginning on, are on the relay's disk; ``size``: those that it has in
    all. If they are equal, all of it is there, and is what its name says. ``outcome``: an Outcome."""

    document: bytes
    name: AttachmentName
    outcome: int
    size: int
    held: int


@dataclass(frozen=True, slots=True)
class Barrier:
    id: int


@dataclass(frozen=True, slots=True)
class Reached:
    id: int


@dataclass(frozen=True, slots=True)
class Error:
    """A refusal. ``code`` is an ErrorCode, or one that this version doesn't know. ``retry_after``: milliseconds."""

    code: int
    text: str = ""
    document: bytes | None = None
    session: bytes | None = None
    n: int = 0
    retry_after: int = 0


Message: TypeAlias = (
    Hello
    | Welcome
    | Open
    | Opened
    | Close
    | Push
    | Ack
    | Records
    | Snapshot
    | Fold
    | Folded
    | Presence
    | Delete
    | Deleted
    | Offer
    | Data
    | Fetch
    | Discard
    | Held
    | Barrier
    | Reached
    | Error
)
