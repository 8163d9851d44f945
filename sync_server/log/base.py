"""The durable, ordered log of records that the relay keeps for each document: the contract.

``sqlite_log.SqliteLog`` is the embedded implementation. Nothing above the contract knows of SQLite or assumes that one
process holds all documents, so a distributed log can take its place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from math import inf
from typing import NamedTuple, Protocol

from llmcrdt.exceptions import LLMCRDTError
from llmcrdt.sync.messages import Cursor, Record

from .snapshots import Part, StoredSnapshot


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
    """Where a document's log ends."""

    kind: str
    cursor: Cursor


class Stored(NamedTuple):
    """A record and its position."""

    position: int
    record: Record


class RecordLog(Protocol):
    """A log per document. One thread uses it at a time.

    A log can be *folded* up to a position: what its records make together then stands for them, and they go.

    Appending happens inside ``with log.transaction():``. When that block ends without an exception, all of it is on
    disk and stays there through a crash; when it raises, nothing of it is. Inside the block, reads see what was
    appended so far. Every method raises LogError where the storage fails.
    """

    def transaction(self) -> AbstractContextManager[None]: ...

    def head(self, document: bytes) -> Head | None:
        """The end of a document's log; None where nothing was appended yet."""

    def chain_at(self, document: bytes, position: int) -> bytes | None:
        """The chain hash at a position; None where there is no such position, or its record was folded."""

    def holds(self, document: bytes, cursor: Cursor) -> bool:
        """Whether a cursor is a place in this document's log, folded or not."""

    def append(self, document: bytes, record: Record, kind: str, log_id: bytes, owner: str = "") -> tuple[int, bool]:
        """The position of the record, and whether it is new (not a repeat). ``kind``, ``log_id`` and ``owner`` (a
        subject; empty: nobody) count only for the first record of a document. A repeat of a record that was folded has
        position 0, and is not compared. Raises Gap, Conflict."""

    def extend(
        self, document: bytes, session: bytes, n: int, data: Sequence[bytes], kind: str, log_id: bytes, owner: str = ""
    ) -> Sequence[Stored]:
        """Append records of one session, the ``n``-th and those behind it, all of them new, and say where they stand
        now. Raises Gap."""

    def last(self, document: bytes, session: bytes) -> int:
        """The n of the last record of a session; 0 where there is none."""

    def set_aside(self, document: bytes, record: Record, why: str) -> None:
        """Inside a transaction: keep a record that was refused, apart from the log, for the operator. Of each document
        only the last ones are kept; their bytes go with its next fold."""

    def read(self, document: bytes, after: int, max_bytes: int, max_records: int) -> Sequence[Stored]:
        """Records behind position ``after``, in order: at least one if there is one, else up to the limits. Those that
        were folded are left out."""

    def size(self, document: bytes) -> int:
        """Bytes of data in the records that are not folded."""

    def fold(self, document: bytes) -> StoredSnapshot | None:
        """What stands for the records that were folded; None where none were."""

    def part(self, document: bytes, place: int) -> Part:
        """The part of the snapshot at ``place``, from 0 on."""

    def tail(self, document: bytes, most: int) -> Cursor:
        """The place behind which the last records have about ``most`` bytes of data."""

    def want_fold(self, document: bytes) -> None:
        """Remember, in this transaction, that all that is there now is to be folded."""

    def wanted(self) -> Sequence[bytes]:
        """Documents that are to be folded since before a restart."""

    def contents(self, document: bytes, position: int) -> Iterator[bytes]:
        """All there is up to a position: the snapshot's records, then the others. May run on another thread."""

    def weigh(self, document: bytes, after: int, upto: int, enough: float = inf) -> int:
        """Bytes of data in the records behind position ``after``, up to ``upto``, that are not folded. It may stop to
        count where that is ``enough``."""

    def stretch(self, document: bytes, after: int, upto: int) -> Iterator[bytes]:
        """The snapshot's records; those behind it up to ``after``; those behind that up to ``upto``; and nothing
        (``b""``) between the three. Nothing at all where ``after`` is no place behind the snapshot. May run on another
        thread."""

    def put_fold(self, document: bytes, upto: Cursor, session: bytes, records: Sequence[bytes], part: int) -> bool:
        """Inside a transaction: from now on ``records`` stand for all up to a place, in parts of ``part`` bytes. False,
        and nothing done, where that is no longer a place in this log, or folded already."""

    def sweep(self, rows: int) -> bool:
        """Inside a transaction: take away a few of the records that were folded. Whether there are more."""

    def scrub(self) -> bool:
        """Bring it about that what was swept is in no file any more. False where that can't be now."""

    def gone(self, document: bytes) -> bool:
        """Whether a document was deleted. To all other methods but this one it is then not there; nothing may be
        appended to it."""

    def delete(self, document: bytes, asked: str = "") -> None:
        """Inside a transaction: a document is gone for good, also one that nothing was appended to; that one counts for
        the subject that ``asked``. What was kept of it is taken away by ``sweep`` and ``scrub``."""

    def unknown(self, asked: str) -> int:
        """How many documents were deleted for a subject to which nothing was ever appended."""

    def owner(self, document: bytes) -> str:
        """Whose a document is; empty where it is nobody's, or not there."""

    def held(self, owner: str) -> int:
        """Bytes of data in all logs of one owner, snapshots included."""

    def close(self) -> None: ...


def label(document: bytes) -> str:
    """What a document is called where its id must not be seen, for who knows an id may use it."""
    return hashlib.sha256(document).hexdigest()[:12]
