"""The contract of a relay's log: records in order, per document, durable.

All else that a relay keeps of a document (snapshots, tombstones, quotas, rejected records) has contracts of its own in
``admin.py``. ``sqlite.py`` is the embedded implementation, ``sync_server/testing`` has one in memory, and
``sync_server/testing/storage_suite.py`` is the suite that each implementation passes. Nothing above the contracts knows
of SQLite or assumes that one process holds all documents, so a distributed log can take its place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from llmcrdt.exceptions import LLMCRDTError
from llmcrdt.sync.messages import Cursor, Record


class LogError(LLMCRDTError):
    """The log can't be opened, read or written. ``hint`` says what to do."""


class Gap(Exception):
    """A record whose n is not the next of its session; ``expected`` is."""

    def __init__(self, expected: int) -> None:
        super().__init__(f"expected n = {expected}")
        self.expected = expected


class Conflict(Exception):
    """A repeated name with other bytes."""


class Head(NamedTuple):
    """The end of a document's log."""

    kind: str
    cursor: Cursor


class Stored(NamedTuple):
    """A record and its position."""

    position: int
    record: Record


class Origin(NamedTuple):
    """The facts that the first record of a document settles: its kind, the id of its log, and its owner (a subject;
    empty: nobody)."""

    kind: str
    log_id: bytes
    owner: str = ""


Notify: TypeAlias = Callable[[bytes], None]
"""Takes a document that somebody else changed. It may be called on any thread, also for a document that did not change,
and does no more than hand the document on."""


class RecordLog(Protocol):
    """The log of each document. One thread uses it at a time.

    Appending *stages* records: this user's reads see them, others' don't, and a crash loses them. ``commit`` makes all
    that is staged durable and says which documents failed. Many documents may share a commit, for speed, but no promise
    spans two of them.

    Invariants:

    1. Positions of a document are 1, 2, 3, ...; the chain hash at a position covers every record up to it.
    2. Of one session, n is 1, 2, 3, ... in the order of positions.
    3. Commit is atomic per document: of a document that it names nothing staged is kept, and of every other one all
       is durable and stays so through a crash.
    4. A method that raises LogError changes nothing durable. If it was to stage something, the next commit names its
       document.
    5. A position that ``append`` gave counts once commit didn't name the document. Another process may be the first to
       take it; then commit names the document.
    6. A document has one kind, log id and owner as long as it exists.
    """

    def head(self, document: bytes) -> Head | None:
        """The end of a document's log; None where nothing was appended yet, or the document was deleted."""

    def chain_at(self, document: bytes, position: int) -> bytes | None:
        """The chain hash at a position; None where there is no such position, or its record is in the snapshot and was
        swept."""

    def holds(self, document: bytes, cursor: Cursor) -> bool:
        """Whether a cursor is a place in this document's log, also where the snapshot stands for its record."""

    def last(self, document: bytes, session: bytes) -> int:
        """The n of the last record of a session; 0 where there is none."""

    def find(self, document: bytes, record: Record) -> int:
        """The position of a record that was appended before: its n is at most ``last``. 0 where the snapshot stands for
        it; then its bytes are not compared. Raises Conflict where the bytes differ, Gap where it is not there."""

    def append(
        self, document: bytes, session: bytes, n: int, data: Sequence[bytes], origin: Origin
    ) -> Sequence[Stored]:
        """Stage records of one session, the ``n``-th and those after it, and say where they stand. ``origin`` counts
        for the first record of a document only. The document must not be deleted. Raises Gap unless n is the next."""

    def read(self, document: bytes, after: int, max_bytes: int, max_records: int) -> Sequence[Stored]:
        """Records after a position, in order: at least one if there is one, else up to the limits. Records that the
        snapshot stands for are left out."""

    def commit(self) -> Mapping[bytes, LogError]:
        """Make durable all that is staged in this storage. The documents that failed, each with its error; empty where
        all went well. Never raises."""

    def subscribe(self, document: bytes, notify: Notify) -> None:
        """Call ``notify`` from now on when somebody else has appended to this document, compacted or deleted it. A
        second call replaces the first."""

    def unsubscribe(self, document: bytes) -> None:
        """Call it no longer. Nothing happens where nobody subscribed."""

    def poll(self) -> None:
        """Look for changes of others, where the storage can't tell by itself, and notify. Call it now and then while
        nothing is staged; it costs next to nothing where nothing changed. Raises LogError."""


def label(document: bytes) -> str:
    """A name for a document in places where its id must not be seen: a document's id is all that it takes to use it."""
    return hashlib.sha256(document).hexdigest()[:12]
