"""LocalDocuments over sets of opaque blobs, in memory: the smallest thing that merges.

A document is the set of blobs put into it; applying a record adds its blobs, so order and repetition don't matter. A
blob is any bytes; a record holds one or more, each with its length before it.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial

from ..ids import NO_LOG, DocumentId, SessionId, new_session_id
from ..sync.local import Record, Waiting
from ..sync.messages import Announcement, Cursor


def pack(blobs: Sequence[bytes]) -> bytes:
    """Blobs as the data of one record."""
    return b"".join(len(b).to_bytes(4, "big") + b for b in blobs)


def unpack(data: bytes) -> list[bytes]:
    """The blobs of a record. Raises ValueError where the data is something else."""
    blobs, at = [], 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            raise ValueError("a blob ends after its record")
        blobs.append(data[at + 4 : end])
        at = end
    return blobs


@dataclass
class BlobDocument:
    """One replica: its blobs, in the order they came in, and what it keeps for its relay."""

    session: SessionId
    kind: str = "yjs"
    blobs: dict[bytes, None] = field(default_factory=dict)
    cursor: Cursor | None = None
    outbox: list[Waiting] = field(default_factory=list)
    place: int = 0
    n: int = 0
    present: tuple[Announcement, ...] = ()
    heard: dict[int, tuple[int, str]] = field(default_factory=dict)
    refills: int = 0
    pushed: int = 0
    quarantine: list[Record] = field(default_factory=list)

    def begin_session(self, session: SessionId) -> None:
        """New records go into this session."""
        self.session, self.n = session, 0

    def add(self, blobs: Iterable[bytes]) -> None:
        """Merge blobs."""
        self.blobs.update(dict.fromkeys(blobs))

    def write(self, blobs: Sequence[bytes]) -> None:
        """Merge blobs, and queue a record of them."""
        self.add(blobs)
        self.n += 1
        self.place += 1
        self.outbox.append(Waiting(self.place, Record(self.session, self.n, pack(blobs))))

    def acknowledge(self, names: Sequence[tuple[SessionId, int]], cursor: Cursor) -> None:
        """Records are on the relay, whose log this document follows up to ``cursor``."""
        done = set(names)
        self.outbox = [w for w in self.outbox if (w.record.session, w.record.n) not in done]
        if self.cursor is not None and self.cursor.log == cursor.log:
            self.cursor = cursor

    def receive(self, records: Sequence[Record], cursor: Cursor | None) -> list[bytes]:
        """Merge records of the relay's log; returns their blobs. A record that can't be read is kept aside."""
        found: list[bytes] = []
        for record in records:
            try:
                found += unpack(record.data)
            except ValueError:
                self.quarantine.append(record)
        self.add(found)
        if self.cursor is not None:
            same = cursor is not None and cursor.log == self.cursor.log
            self.cursor = cursor if same else self.cursor._replace(log=NO_LOG)
        return found

    def refill(self, log: Sequence[bytes], cursor: Cursor, session: SessionId) -> None:
        """Give a log what it lacks, as one record of a new session; nothing else waits any more."""
        known = {blob for data in log for blob in _readable(data)}
        lacking = [blob for blob in self.blobs if blob not in known]
        self.begin_session(session)
        self.outbox, self.cursor = [], cursor
        self.refills += 1
        if lacking:
            self.write(lacking)

    def refuse(self, session: SessionId, n: int, new: SessionId) -> None:
        """Keep a record aside that the relay refused. Those of its session that follow it go into a new one."""
        if (session, n) not in {(w.record.session, w.record.n) for w in self.outbox}:
            return
        waiting, self.outbox = self.outbox, []
        self.begin_session(new)
        for place, record in waiting:
            if (record.session, record.n) == (session, n):
                self.quarantine.append(record)
            elif record.session == session and record.n > n:
                self.n += 1
                self.outbox.append(Waiting(place, Record(new, self.n, record.data)))
            else:
                self.outbox.append(Waiting(place, record))

    def announce(self, *, anew: bool) -> Sequence[Announcement]:
        """The presence of this side; ``anew`` with clocks that others have not heard."""
        if anew:
            self.present = tuple(entry._replace(clock=entry.clock + 1) for entry in self.present)
        return self.present


class BlobDocuments:
    """Implements LocalDocuments, over a ``BlobDocument`` each. ``seed`` decides the session ids; ``discover`` may name
    further documents to follow after a blob came in, the way a library does.

    Safe to use from any thread. ``put`` tells nobody: call ``LinkControl.notify(document)`` after it. It has many
    methods, for LocalDocuments has.
    """

    def __init__(self, seed: int = 0, discover: Callable[[bytes], DocumentId | None] | None = None) -> None:
        self._new_session = partial(new_session_id, random.Random(seed).randbytes)
        self._find_in = discover
        self._lock = threading.RLock()
        self._documents: dict[DocumentId, BlobDocument] = {}
        # As they were before what is just kept together.
        self._before: dict[DocumentId, BlobDocument] | None = None

    def follow(self, document: DocumentId, kind: str = "yjs") -> BlobDocument:
        """Follow a document, empty at first. Following it twice changes nothing."""
        with self._lock:
            return self._documents.setdefault(document, BlobDocument(self._new_session(), kind))

    def forget(self, document: DocumentId) -> None:
        """Follow it no longer."""
        with self._lock:
            self._documents.pop(document, None)

    def put(self, document: DocumentId, *blobs: bytes) -> None:
        """Add blobs as one local record. Blobs that are there already still make a record."""
        with self._lock:
            self._documents[document].write(blobs)
            self._discover(blobs)

    def blobs(self, document: DocumentId) -> set[bytes]:
        with self._lock:
            return set(self._documents[document].blobs)

    def __getitem__(self, document: DocumentId) -> BlobDocument:
        return self._documents[document]

    def restart(self) -> None:
        """As after a restart of the process: new records go into new sessions."""
        with self._lock:
            for doc in self._documents.values():
                doc.begin_session(self._new_session())

    # ---------------------------------------------------------------- LocalDocuments

    def documents(self) -> Sequence[DocumentId]:
        with self._lock:
            return list(self._documents)

    def kind(self, document: DocumentId) -> str:
        return self._get(document).kind

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._lock:
            self._before = {}
            try:
                yield
            except BaseException:
                self._documents |= self._before
                raise
            finally:
                self._before = None

    def cursors(self) -> Mapping[DocumentId, Cursor]:
        with self._lock:
            return {id_: doc.cursor for id_, doc in self._documents.items() if doc.cursor is not None}

    def cursor(self, document: DocumentId) -> Cursor | None:
        with self._lock:
            return self._get(document).cursor

    def outbox(self, document: DocumentId, after: int = 0, limit: int = 256) -> Sequence[Waiting]:
        with self._lock:
            return [w for w in self._get(document).outbox if w.place > after][:limit]

    def outbox_end(self, document: DocumentId) -> int:
        with self._lock:
            outbox = self._get(document).outbox
            return outbox[-1].place if outbox else 0

    def outbox_ends(self) -> Mapping[DocumentId, int]:
        with self._lock:
            return {id_: doc.outbox[-1].place for id_, doc in self._documents.items() if doc.outbox}

    def replaced(self, document: DocumentId) -> int:
        return self._get(document).refills

    def waiting(self) -> tuple[int, int]:
        with self._lock:
            records = [w.record.data for doc in self._documents.values() for w in doc.outbox]
            return len(records), sum(map(len, records))

    def pushed(self, document: DocumentId, place: int) -> None:
        with self._lock:
            self._get(document).pushed = place

    def acknowledged(self, document: DocumentId, names: Sequence[tuple[SessionId, int]], cursor: Cursor) -> None:
        with self._lock:
            self._changing(document).acknowledge(names, cursor)

    def received(self, document: DocumentId, records: Sequence[Record], cursor: Cursor | None) -> bool:
        with self._lock:
            before = len(self._documents)
            self._discover(self._changing(document).receive(records, cursor))
            return len(self._documents) != before

    def refill(self, document: DocumentId, log: Sequence[bytes], cursor: Cursor) -> None:
        with self._lock:
            self._changing(document).refill(log, cursor, self._new_session())

    def deleted_last(self) -> Sequence[DocumentId]:
        """Nothing is ever deleted here."""
        return ()

    def lost(self) -> None:
        """Nothing is ever deleted here."""

    def refused(self, document: DocumentId, session: SessionId, n: int, why: str) -> None:
        with self._lock:
            self._get(document).refuse(session, n, self._new_session())

    def announced(self, document: DocumentId, *, anew: bool) -> Sequence[Announcement]:
        with self._lock:
            return self._get(document).announce(anew=anew)

    def heard(self, document: DocumentId, entries: Sequence[Announcement]) -> None:
        with self._lock:
            self._get(document).heard.update((client, (clock, state)) for client, clock, state in entries)

    # ---------------------------------------------------------------- inside

    def _get(self, document: DocumentId) -> BlobDocument:
        """A document that was forgotten is an empty one, kept nowhere."""
        return self._documents.get(document) or BlobDocument(self._new_session())

    def _changing(self, document: DocumentId) -> BlobDocument:
        if self._before is not None and document in self._documents:
            self._before.setdefault(document, deepcopy(self._documents[document]))
        return self._get(document)

    def _discover(self, blobs: Iterable[bytes]) -> None:
        """Follow the documents that blobs name."""
        for blob in blobs if self._find_in else ():
            found = self._find_in(blob) if self._find_in else None
            if found is not None:
                self.follow(found)


def _readable(data: bytes) -> list[bytes]:
    try:
        return unpack(data)
    except ValueError:
        return []
