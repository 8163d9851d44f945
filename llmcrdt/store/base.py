"""The seam of the store: everything that a repo keeps, as small protocols. ``Store`` is all of them on one transaction.

It handles bytes; it knows no CRDT and no conversation. A document is a snapshot and the *updates* after it; each update
has a *seq*, a number that grows and is never used twice. Towards each relay a document has a *cursor* and an *outbox*:
updates that the relay has not acknowledged, each with a record name (session, n).

Invariants, at any moment, also after a crash:

* **Durable when it returns.** A method's change is on disk then, or, inside ``transaction``, when that ends; all of a
  transaction's changes or none.
* **Nothing is lost.** Where a document has a cursor, the relay's log up to it and the outbox together contain all that
  the document has here. ``compact`` and ``purge`` keep what waits in an outbox, or what stands for it.
* **A record's name means one content for ever.** Sessions live in memory: no copy of the file, and no second process,
  goes on with a name that another one uses. Within a session n is 1, 2, 3, ...
* **A cursor goes forward** within its log; only ``refill`` moves it to another one.
* **Deleted is deleted.** Nothing is appended to a document that the listing has as deleted; ``drop`` and ``purge``
  leave no old bytes in any file once they said so.

All methods are called under ``lock``, or take it themselves. They raise StoreError, and RepoClosed after ``close``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

SMALL = 256 << 10
"""Below this many bytes of updates, a snapshot is not worth its writing."""

GROWN = 4
"""A new snapshot is worth its writing when the updates beside the one before have grown to a part of it: this one."""

Cursor = tuple[bytes, int, bytes]
"""Log, position, chain."""
Snapshot = Callable[[], tuple[bytes, Sequence[bytes]]]
"""Gives a document as one update, and the updates that wait for others."""


class OutboxRow(NamedTuple):
    """One update in an outbox: a record's name, and its bytes."""

    seq: int
    session: str
    n: int
    data: bytes


class Kept(NamedTuple):
    """All that is kept of a document: a snapshot, updates beside it, and the last seq it reaches to."""

    snapshot: bytes | None
    updates: list[bytes]
    seq: int


class Listed(NamedTuple):
    """One row of the listing; ``created_at`` in seconds since 1970."""

    id: str
    title: str
    created_at: float
    archived: bool
    deleted: bool


class Settings(Protocol):
    """A few named texts."""

    def get(self, name: str) -> str | None: ...

    def put(self, name: str, value: str) -> None: ...

    def put_first(self, name: str, value: str) -> str:
        """Set it unless another process was faster; its value now."""
        ...


class Catalog(Protocol):
    """The documents that are here, and the listing: what the library says of each conversation."""

    def add(self, document: str, kind: str) -> None:
        """Note a document ("library" or "conversation"); again is harmless."""
        ...

    def documents(self, kind: str) -> list[str]:
        """The documents of this kind, deleted ones too."""
        ...

    def kind(self, document: str) -> str | None: ...

    def put(self, rows: Iterable[Listed]) -> None:
        """Add rows to the listing, or replace those of the same ids."""
        ...

    def page(self, limit: int, before: str | None) -> list[Listed]:
        """Conversations that are not deleted, youngest first; ``before``: the last id of the page before."""
        ...

    def everything(self) -> set[Listed]:
        """Every row, deleted ones too."""
        ...

    def get(self, document: str) -> Listed | None: ...

    def set_local(self, document: str, local: bool) -> None:
        """Say that a document is never told to any relay, or is from now on. While it is local, no deletion of it is
        asked for."""
        ...

    def is_local(self, document: str) -> bool: ...

    def locals(self) -> set[str]:
        """The documents that are local."""
        ...


class Compaction(Protocol):
    """A compaction that was begun. It may be dropped at any moment: the document stays as it was."""

    @property
    def seq(self) -> int:
        """The snapshot holds all up to this seq."""
        ...

    def prepare(self) -> None:
        """Do what takes long. Without the lock, from any thread; twice is harmless."""
        ...

    def finish(self) -> bool:
        """Put the snapshot that was taken at the beginning in the place of the older one; from now on nobody needs the
        updates that it holds. Twice is harmless. False, and nothing done, where another one has replaced it."""
        ...

    def trim(self) -> bool:
        """After ``finish``: delete some of the updates that the snapshot holds and that wait for no relay, or give some
        room back to the disk, so little that nobody waits long. Whether there may be more."""
        ...


class Updates(Protocol):
    """The bytes of documents."""

    def since(self, document: str, seq: int, except_writer: str | None = None) -> Kept:
        """All that was kept after ``seq`` (0: everything), other than by one writer. If some of it was compacted into a
        snapshot meanwhile, the snapshot too."""
        ...

    def append(self, document: str, data: bytes, writer: str, keys: Iterable[str]) -> int:
        """Keep a local update, and queue it for every relay that knows the document. ``keys``: the entries it touches.
        Its seq, or that of its last piece. Raises ConversationDeleted for a document that the listing has as
        deleted."""
        ...

    def last_seq(self, document: str) -> int:
        """The seq of the last update that is kept of a document; 0 where there is none."""
        ...

    def news(self, seq: int) -> tuple[list[tuple[str, bytes | None]], int]:
        """The updates of all documents that were kept after ``seq``, in order, each with its document; None in place of
        the bytes where some were compacted into a snapshot since. And the last seq there is."""
        ...

    def last(self) -> int:
        """The last seq that any document was given."""
        ...

    def unseen(self, document: str, seen: int, writer: str | None) -> bool:
        """Whether there is something that a replica which holds all up to ``seen``, and all by ``writer``, may lack: an
        update, or a snapshot, for others' updates may have given way to it."""
        ...

    def compact(self, document: str, seen: int, writer: str | None, snapshot: Snapshot) -> Compaction | None:
        """Begin to replace updates by a new snapshot, if they have outgrown the old one; nothing is changed yet.

        The caller's replica holds all up to ``seen``, and all that ``writer`` wrote; if there is anything else by now,
        it is None."""
        ...

    def purge(self, document: str, seen: int, writer: str | None, erased: int, snapshot: Snapshot) -> bool:
        """Keep the snapshot and nothing older of a document: no update, nothing set aside, and nothing deleted that is
        still to be sent; and note that every relay which knows it is to compact it. An outbox without anything deleted
        goes on waiting under its names: were it all replaced, two devices that send each other erased words would never
        come to the end. Afterwards the old bytes are in no file.

        If another reader stands in the way of that, or a crash, ``purged`` is -1 until a later purge gets through.
        ``seen`` and ``writer`` as in ``compact``: False, and nothing done, if the caller's replica lacks something."""
        ...

    def purged(self, document: str) -> int:
        """How many entries were erased when ``purge`` was called last; -1 where a purge is still to be done."""
        ...

    def set_aside(self, document: str, data: bytes, reason: str) -> None:
        """Take an update out of the document, and keep it apart, once. A store may bound how many are kept."""
        ...

    def set_aside_count(self, document: str) -> int: ...


class Outboxes(Protocol):
    """Cursors and outboxes, by relay and document."""

    def cursor(self, relay: str, document: str) -> Cursor | None: ...

    def cursors(self, relay: str) -> dict[str, Cursor]:
        """The cursors of all documents that this relay knows."""
        ...

    def rows(self, relay: str, document: str, after: int, limit: int) -> list[OutboxRow]:
        """Updates that this relay has not acknowledged, in order, after ``after``: one if there is one, and no more
        than make some 1 MiB."""
        ...

    def end(self, relay: str, document: str) -> int:
        """The seq of the last one; 0 where the outbox is empty."""
        ...

    def ends(self, relay: str) -> dict[str, int]:
        """The same of every document whose outbox is not empty."""
        ...

    def documents(self, relay: str) -> list[str]:
        """Documents with updates that this relay has not acknowledged."""
        ...

    def size(self, relay: str) -> tuple[int, int]:
        """How many records wait for a relay, and their bytes."""
        ...

    def refills(self, relay: str, document: str) -> int:
        """How often the outbox towards this relay gave way to new records that cover it."""
        ...

    def unacknowledged(self, document: str) -> dict[str, int] | None:
        """The entries in updates that wait for a relay, and the last seq where each does; None where no relay knows
        the document."""
        ...

    def acknowledge(self, relay: str, document: str, names: Sequence[tuple[str, int]], cursor: Cursor) -> None:
        """Take records from the outbox and move the cursor, if it is one into the same log."""
        ...

    def receive(
        self,
        relay: str,
        document: str,
        records: Sequence[tuple[str, int, bytes]],
        refused: Sequence[tuple[bytes, str]],
        cursor: Cursor | None,
        *,
        stale: bool = False,
    ) -> None:
        """Keep records of the relay, and set the ``refused`` ones aside with their reason; all in one transaction.
        ``stale``: they may hold words that were erased, so a purge is to be done. A cursor that is not into the log of
        the one remembered makes that one's log ``NO_LOG``."""
        ...

    def refill(self, relay: str, document: str, data: bytes | None, cursor: Cursor, keys: Iterable[str] = ()) -> None:
        """Drop what waits for this relay; queue ``data``, which covers it, as the first records of a new session. Names
        of later records begin anew, in every process that has the file open. ``keys``: the entries in ``data``."""
        ...

    def refuse(self, relay: str, document: str, session: str, n: int, why: str) -> None:
        """Take a record from the outbox that this relay will never take. It stays in the document, and a copy of it is
        set aside; the later ones of its session get names in a new one."""
        ...


class RelayTasks(Protocol):
    """Tasks of relays: compact documents of which something was erased, delete those that were deleted."""

    def compactions(self, relay: str) -> list[str]:
        """Documents that this relay is still to compact."""
        ...

    def compacted(self, relay: str, document: str) -> None: ...

    def deletions(self, relay: str, credential: str = "") -> list[str]:
        """Documents that this relay is still to delete; without those that it refused to this ``credential``."""
        ...

    def deletion_refused(self, relay: str, document: str, credential: str) -> None:
        """The relay does not delete a document for this credential. The task stays: another one may be allowed to."""
        ...

    def ask_again(self, document: str) -> bool:
        """Forget that relays refused to delete a document; whether any did."""
        ...

    def delete_all_again(self, relay: str) -> None:
        """This relay lost something, and may have forgotten what was deleted: it is to hear of all of it again."""
        ...

    def deleted(self, relay: str, document: str) -> None: ...

    def deleted_last(self, relay: str) -> list[str]:
        """The last few documents that this relay said it deleted, the oldest first."""
        ...


class AttachmentTasks(Protocol):
    """Attachments that relays are to be given, and those that they are to take away. A hash is 64 hex digits."""

    def want(self, document: str, hashes: Iterable[str]) -> None:
        """Every relay is to have these, which are here."""
        ...

    def to_send(self, relay: str) -> list[tuple[str, str]]:
        """(document, hash) of those that this relay was not given yet."""
        ...

    def sent(self, relay: str, document: str, hash: str) -> None:
        """The relay has it."""
        ...

    def send_again(self, relay: str, document: str) -> None:
        """The relay lost what it had of a document."""
        ...

    def unwant(self, document: str, hashes: Iterable[str]) -> None:
        """A document names these no more: every relay that knows it is to take them away."""
        ...

    def to_discard(self, relay: str) -> list[tuple[str, str]]:
        """(document, hash) of those that this relay is still to take away."""
        ...

    def discarded(self, relay: str, document: str, hash: str) -> None: ...

    def forget(self, document: str) -> None:
        """A document was deleted: relays take its attachments away with it."""
        ...


class Deletions(Protocol):
    """Conversations that the listing calls deleted leave no trace."""

    def left(self) -> list[str]:
        """Deleted conversations of which something is kept all the same."""
        ...

    def drop(self, document: str) -> None:
        """Keep nothing of a deleted conversation, and note for every relay that knows it, or the library, that it is to
        delete it too: a copy of this file may have sent it there. Its bytes are in no file after ``scrub``."""
        ...

    def scrub(self) -> bool:
        """Take what was dropped out of all files, where it is still there. False while another reader stands in the
        way."""
        ...


class Store(Protocol):
    """All of it, in one file. ``close`` twice is harmless."""

    @property
    def path(self) -> Path: ...
    @property
    def lock(self) -> threading.RLock: ...
    @property
    def closed(self) -> bool: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def catalog(self) -> Catalog: ...
    @property
    def updates(self) -> Updates: ...
    @property
    def outboxes(self) -> Outboxes: ...
    @property
    def relay_tasks(self) -> RelayTasks: ...
    @property
    def attachment_tasks(self) -> AttachmentTasks: ...
    @property
    def deletions(self) -> Deletions: ...

    def transaction(self) -> AbstractContextManager[object]:
        """All that is changed inside is kept together, or not at all. May be entered inside of another one."""
        ...

    def data_version(self) -> int:
        """Changes whenever another process, or another open store, has written to the file."""
        ...

    def close(self) -> None: ...
