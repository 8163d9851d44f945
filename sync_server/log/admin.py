"""The contracts of all that a relay keeps beside records: snapshots, tombstones, quotas, rejected records, attachments,
and the sweeping of rows that are no longer needed.

Methods that change something *stage* it, as ``RecordLog.append`` does, and ``RecordLog.commit`` makes it durable, per
document. ``Sweeper`` is the exception: it changes nothing that a document says, so it commits by itself. Every method
raises LogError where the storage fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf
from typing import NamedTuple, Protocol

from llmcrdt.sync.messages import MAX_PIECE, AttachmentName, Cursor, Record

from .base import RecordLog


class StoredSnapshot(NamedTuple):
    """A snapshot that stands for the records up to ``position``: ``parts`` parts of records of ``session``, ``size``
    bytes."""

    position: int
    chain: bytes
    session: bytes
    parts: int
    size: int


class Part(NamedTuple):
    """Bytes of the ``n``-th of ``of`` records of a snapshot; that record has ``size`` bytes, these begin at
    ``offset``."""

    n: int
    of: int
    size: int
    offset: int
    data: bytes


def cut(records: Sequence[bytes], most: int) -> Iterator[Part]:
    """The records of a snapshot in parts of ``most`` bytes."""
    for n, data in enumerate(records, 1):
        for offset in range(0, len(data), most):
            yield Part(n, len(records), len(data), offset, data[offset : offset + most])


class SnapshotStore(Protocol):
    """Snapshots of documents. A snapshot stands for all records of a log up to a position.

    The records after it are the log's *tail*.

    Invariants:

    1. The position of a document's snapshot only grows, and is a position of its log.
    2. Positions and chain hashes stay as they were: a cursor before the snapshot is still told from one of another
       history.
    3. Once a snapshot is committed, no read gives a record that it stands for.
    """

    def get(self, document: bytes) -> StoredSnapshot | None:
        """The snapshot of a document; None where there is none."""

    def part(self, document: bytes, index: int) -> Part:
        """A part of the snapshot, from 0 on."""

    def put(self, document: bytes, upto: Cursor, session: bytes, records: Sequence[bytes], part_size: int) -> bool:
        """Stage that ``records``, named as those of ``session``, stand for all up to a place, in parts of
        ``part_size`` bytes. The bytes of the document's rejected records go with it. False, and nothing is done, where
        that is no place in this log after the snapshot there is."""

    def tail_size(self, document: bytes) -> int:
        """Bytes of data in the tail."""

    def tail_start(self, document: bytes, max_bytes: int) -> Cursor:
        """The place after which the last records have at most ``max_bytes`` of data."""

    def bytes_between(self, document: bytes, after: int, upto: int, enough: float = inf) -> int:
        """Bytes of data in those records of the tail that stand after position ``after``, up to ``upto``. It may stop
        counting at ``enough``."""

    def contents(self, document: bytes, upto: int) -> Iterator[bytes]:
        """All that is committed up to a position: the snapshot's records, then the others. May run on any thread."""

    def contents_around(self, document: bytes, after: int, upto: int) -> Iterator[bytes]:
        """The snapshot's records; the tail up to ``after``; the tail after that up to ``upto``; and an empty one
        between the three. Nothing at all where ``after`` is not in the tail. May run on any thread."""

    def request(self, document: bytes) -> None:
        """Stage that all there is now is to be compacted."""

    def requested(self) -> Sequence[bytes]:
        """Documents that were to be compacted, and were not yet."""


class Tombstones(Protocol):
    """Deleted documents.

    Invariants:

    1. A document is deleted for good; nothing is appended to it any more.
    2. To every other contract a deleted document is one that never was.
    3. All that was kept of it goes: rejected records at once, the rest by the ``Sweeper``.
    """

    def is_deleted(self, document: bytes) -> bool: ...

    def delete(self, document: bytes, subject: str = "") -> None:
        """Stage that a document is gone. Its tombstone counts for ``subject`` where nothing was ever appended to it."""


class Quotas(Protocol):
    """The use that subjects make of a relay.

    Invariants:

    1. A document has the owner that its first record gave it; the empty subject owns what is nobody's, uncounted.
    2. ``used`` is the sum over the documents of an owner of snapshot, tail and attachments, staged changes included.
    """

    def owner(self, document: bytes) -> str:
        """The owner of a document; empty where it is nobody's, or not there."""

    def used(self, owner: str) -> int:
        """Bytes of data in all logs of one owner, snapshots and attachments included."""

    def unknown_tombstones(self, subject: str) -> int:
        """How many documents to which nothing was ever appended were deleted for a subject."""


REJECTED_KEPT = 20
"""Rejected records of one document that are kept."""


class RejectedRecord(NamedTuple):
    """``size``: of its data in bytes; ``data``: its beginning, None after a snapshot."""

    session: bytes
    n: int
    reason: str
    size: int
    data: bytes | None


class RejectedRecords(Protocol):
    """Records that a check refused, apart from the log, for the operator.

    Invariants:

    1. No log, snapshot or quota holds them.
    2. Of each document only the last ``REJECTED_KEPT`` are kept, and their bytes only until its next snapshot.
    """

    def keep(self, document: bytes, record: Record, reason: str) -> None:
        """Stage that a record was rejected. The same one again takes no more room."""

    def read(self, document: bytes) -> Sequence[RejectedRecord]:
        """Those of a document that are kept, the last at the end."""


class StoredAttachment(NamedTuple):
    """``held`` of ``size`` bytes are there, from the beginning on; ``whole``: all of them, and they were checked."""

    name: AttachmentName
    size: int
    held: int
    whole: bool


PIECE = MAX_PIECE
"""Bytes of an attachment that are kept together; the last piece has fewer."""


class AttachmentStore(Protocol):
    """The attachments of documents: bytes that entries name, apart from the log.

    Methods that change something stage it. The document has to be there, and a name that is changed has been begun.

    Invariants:

    1. An attachment belongs to one document, and goes with it.
    2. Nothing of one is read before it is whole, but by ``piece``, for whoever checks it.
    3. Its ``size`` counts for the owner of its document from ``begin`` on, however much of it is there.
    4. After ``remove`` it never was; its pieces go by the ``Sweeper``.
    """

    def get(self, document: bytes, name: AttachmentName) -> StoredAttachment | None:
        """None where it was not begun, or there is no such document."""

    def begin(self, document: bytes, name: AttachmentName, size: int) -> None:
        """Stage that it is there, with nothing of it held yet. It must not be there."""

    def append(self, document: bytes, name: AttachmentName, data: bytes) -> None:
        """Stage the next piece: ``PIECE`` bytes, but for the last."""

    def finish(self, document: bytes, name: AttachmentName) -> None:
        """Stage that all of it is held, and was checked."""

    def remove(self, document: bytes, name: AttachmentName) -> None:
        """Stage that it is gone."""

    def piece(self, document: bytes, name: AttachmentName, index: int) -> bytes:
        """A piece, from 0 on; empty where it isn't held."""

    def unfinished(self, document: bytes) -> Sequence[StoredAttachment]:
        """Those of a document that are not whole, the one that was begun first at the beginning."""

    def count(self, document: bytes) -> tuple[int, int]:
        """How many a document has, and the sum of their sizes."""


class Sweeper(Protocol):
    """Takes away the records that snapshots stand for, and the remains of deleted documents and attachments.

    Use it while nothing is staged. When ``sweep`` returns, its work is durable.

    Invariants:

    1. No head, cursor or content changes.
    2. A sweep that raised has done nothing; the next one does it again, also after a restart.
    3. After a sweep that returned False and a scrub that returned True, no file holds anything of what was to go.
    """

    def sweep(self, rows: int) -> bool:
        """Take away at most so many rows. Whether there are more."""

    def scrub(self) -> bool:
        """Remove from every file what was swept. False where that can't be done now."""


class Storage(Protocol):
    """All that a relay keeps. The parts share one commit: ``records.commit``. A relay on another one than SQLite is
    ``Relay(..., storage=...)``; the operator's commands (inspect, verify, compact, backup, restore) are no part of the
    contract, they are SQLite's own."""

    @property
    def records(self) -> RecordLog: ...
    @property
    def snapshots(self) -> SnapshotStore: ...
    @property
    def tombstones(self) -> Tombstones: ...
    @property
    def quotas(self) -> Quotas: ...
    @property
    def rejected(self) -> RejectedRecords: ...
    @property
    def attachments(self) -> AttachmentStore: ...
    @property
    def sweeper(self) -> Sweeper: ...

    def close(self) -> None:
        """Give up all that is staged, and let others use the storage."""
