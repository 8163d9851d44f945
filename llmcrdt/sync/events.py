"""The events of a connection to a relay, which ``protocol.Connection.receive`` returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from . import messages
from .messages import Cursor, Record


class Welcomed(NamedTuple):
    limits: messages.Welcome


class Opened(NamedTuple):
    """The stream of a document begins: after the cursor that was given, or (``reset``) at position 0."""

    document: bytes
    reset: bool


class Arrived(NamedTuple):
    """Records of others. ``cursor``: the place after the last."""

    document: bytes
    records: tuple[Record, ...]
    cursor: Cursor


class Acked(NamedTuple):
    """Records of ours, named by (session, n), are durable. ``cursor``: how far the document is known now."""

    document: bytes
    names: tuple[tuple[bytes, int], ...]
    cursor: Cursor


class CaughtUp(NamedTuple):
    """The end that the log had when the document was opened is reached. Comes once for each opening."""

    document: bytes


class Reached(NamedTuple):
    barrier: int


class Folded(NamedTuple):
    """The relay's answer to ``request_compaction``: FOLD_DONE, FOLD_NEVER or FOLD_FAILED."""

    document: bytes
    outcome: int


class Present(NamedTuple):
    """Others have a document open, and announce this."""

    document: bytes
    entries: Sequence[messages.Announcement]


class Deleted(NamedTuple):
    """The relay's answer to ``delete``: DELETE_DONE or DELETE_REFUSED."""

    document: bytes
    outcome: int


class Refused(NamedTuple):
    """The relay refused something. Without a document, the connection ends."""

    error: messages.Error


Event: TypeAlias = Welcomed | Opened | Arrived | Acked | CaughtUp | Reached | Folded | Present | Deleted | Refused
