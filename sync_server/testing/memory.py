"""All that a relay keeps, in memory: Storage for tests, and an example of one that many relays may use at once.

``MemoryData`` is the durable part. Each ``MemoryStorage`` over it is one relay: what it stages is a copy of a document,
which takes the place of the other at the commit, unless another relay was first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from math import inf

from llmcrdt.sync.chain import START, digest, next_chain
from llmcrdt.sync.messages import AttachmentName, Cursor, Record

from ..log.admin import PIECE, REJECTED_KEPT, Part, RejectedRecord, StoredAttachment, StoredSnapshot, cut
from ..log.base import Conflict, Gap, Head, LogError, Notify, Origin, Stored


@dataclass
class _Document:
    """``chains``: the chain hash of each position, from 0 on; ``records``: of each from 1 on, None where it was swept;
    ``version`` grows with each commit."""

    origin: Origin
    chains: list[bytes] = field(default_factory=lambda: [START])
    records: list[Record | None] = field(default_factory=list)
    last: dict[bytes, int] = field(default_factory=dict)
    compacted: dict[bytes, int] = field(default_factory=dict)
    snapshot: StoredSnapshot | None = None
    parts: list[Part] = field(default_factory=list)
    contents: Sequence[bytes] = ()
    requested: int = 0
    rejected: dict[Record, RejectedRecord] = field(default_factory=dict)
    attachments: dict[AttachmentName, tuple[StoredAttachment, list[bytes]]] = field(default_factory=dict)
    deleted: bool = False
    version: int = 0

    def copy(self) -> _Document:
        made = copy(self)
        made.chains, made.records, made.rejected = [*self.chains], [*self.records], {**self.rejected}
        made.last, made.compacted = {**self.last}, {**self.compacted}
        made.attachments = {name: (stored, [*pieces]) for name, (stored, pieces) in self.attachments.items()}
        return made

    @property
    def end(self) -> int:
        return len(self.records)

    @property
    def upto(self) -> int:
        """The position of the snapshot."""
        return self.snapshot.position if self.snapshot else 0

    def tail(self, after: int, upto: float = inf) -> Iterator[Stored]:
        for position in range(max(after, self.upto) + 1, int(min(upto, self.end)) + 1):
            record = self.records[position - 1]
            assert record is not None
            yield Stored(position, record)

    def size(self, after: int = 0, upto: float = inf) -> int:
        return sum(len(stored.record.data) for stored in self.tail(after, upto))


class MemoryData:
    """The durable part, for all relays that use it."""

    def __init__(self) -> None:
        self.documents: dict[bytes, _Document] = {}
        self.relays: list[MemoryStorage] = []


class MemoryStorage:
    """One relay's use of the data. ``failure``: the error of every commit, for tests of a storage that fails."""

    def __init__(self, data: MemoryData) -> None:
        self.data = data
        self.failure: LogError | None = None
        self.staged: dict[bytes, _Document] = {}
        self.records = _Records(self)
        self.snapshots = _Snapshots(self)
        self.tombstones = _Tombstones(self)
        self.quotas = _Quotas(self)
        self.rejected = _Rejected(self)
        self.attachments = _Attachments(self)
        self.sweeper = _Sweeper(self)
        data.relays.append(self)

    def close(self) -> None:
        self.staged.clear()
        self.data.relays.remove(self)

    def any(self, document: bytes) -> _Document | None:
        return self.staged.get(document) or self.data.documents.get(document)

    def get(self, document: bytes) -> _Document | None:
        """None where nothing was appended to it, or it was deleted."""
        found = self.any(document)
        return found if found and found.end and not found.deleted else None

    def existing(self, document: bytes) -> _Document:
        found = self.get(document)
        if found is None:
            raise LogError(f"There is no document {document.hex()}.")
        return found

    def stage(self, document: bytes, origin: Origin | None = None) -> _Document:
        if document not in self.staged:
            found = self.data.documents.get(document)
            self.staged[document] = found.copy() if found else _Document(Origin("", b""))
        staged = self.staged[document]
        if origin is not None and not staged.end:
            staged.origin = origin
        return staged

    def commit(self) -> dict[bytes, LogError]:
        staged, self.staged = self.staged, {}
        failed: dict[bytes, LogError] = {}
        for document, made in staged.items():
            before = self.data.documents.get(document)
            if self.failure is not None:
                failed[document] = self.failure
            elif (before.version if before else 0) != made.version:
                failed[document] = LogError("Another relay was the first to change this document.")
            else:
                made.version += 1
                self.data.documents[document] = made
                for relay in self.data.relays:
                    if relay is not self:
                        relay.records.notify(document)
        return failed


class _Records:
    def __init__(self, storage: MemoryStorage) -> None:
        self._storage = storage
        self._subscribed: dict[bytes, Notify] = {}

    def head(self, document: bytes) -> Head | None:
        doc = self._storage.get(document)
        return Head(doc.origin.kind, Cursor(doc.origin.log_id, doc.end, doc.chains[-1])) if doc else None

    def chain_at(self, document: bytes, position: int) -> bytes | None:
        doc = self._storage.get(document)
        if doc is None or not 0 <= position <= doc.end:
            return None
        swept = 0 < position < doc.upto and doc.records[position - 1] is None
        return None if swept else doc.chains[position]

    def holds(self, document: bytes, cursor: Cursor) -> bool:
        doc = self._storage.get(document)
        if doc is None or cursor.log != doc.origin.log_id or not 0 <= cursor.position <= doc.end:
            return False
        return doc.chains[cursor.position] == cursor.chain

    def last(self, document: bytes, session: bytes) -> int:
        doc = self._storage.get(document)
        return doc.last.get(session, 0) if doc else 0

    def find(self, document: bytes, record: Record) -> int:
        doc, last = self._storage.get(document), self.last(document, record.session)
        if doc is None or record.n > last:
            raise Gap(last + 1)
        if record.n <= doc.compacted.get(record.session, 0):
            return 0
        found = next(s for s in doc.tail(0) if s.record[:2] == record[:2])
        if found.record != record:
            raise Conflict
        return found.position

    def append(
        self, document: bytes, session: bytes, n: int, data: Sequence[bytes], origin: Origin
    ) -> Sequence[Stored]:
        if n != self.last(document, session) + 1:
            raise Gap(self.last(document, session) + 1)
        doc = self._storage.stage(document, origin)
        out = []
        for record in (Record(session, n + at, piece) for at, piece in enumerate(data)):
            doc.chains.append(next_chain(doc.chains[-1], digest(document, record)))
            doc.records.append(record)
            doc.last[session] = record.n
            out.append(Stored(doc.end, record))
        return out

    def read(self, document: bytes, after: int, max_bytes: int, max_records: int) -> Sequence[Stored]:
        doc = self._storage.get(document)
        out: list[Stored] = []
        size = 0
        for stored in doc.tail(after) if doc else ():
            size += len(stored.record.data)
            if out and (size > max_bytes or len(out) == max_records):
                break
            out.append(stored)
        return out

    def commit(self) -> dict[bytes, LogError]:
        return self._storage.commit()

    def subscribe(self, document: bytes, notify: Notify) -> None:
        self._subscribed[document] = notify

    def unsubscribe(self, document: bytes) -> None:
        self._subscribed.pop(document, None)

    def poll(self) -> None:
        """Nothing to look for: each commit notifies the others."""

    def notify(self, document: bytes) -> None:
        if document in self._subscribed:
            self._subscribed[document](document)


class _Snapshots:
    def __init__(self, storage: MemoryStorage) -> None:
        self._storage = storage

    def get(self, document: bytes) -> StoredSnapshot | None:
        doc = self._storage.get(document)
        return doc.snapshot if doc else None

    def part(self, document: bytes, index: int) -> Part:
        return self._storage.existing(document).parts[index]

    def put(self, document: bytes, upto: Cursor, session: bytes, records: Sequence[bytes], part_size: int) -> bool:
        doc = self._storage.get(document)
        if doc is None or upto.position <= doc.upto or not self._storage.records.holds(document, upto):
            return False
        doc = self._storage.stage(document)
        for stored in doc.tail(0, upto.position):
            doc.compacted[stored.record.session] = stored.record.n
        doc.contents, doc.parts = tuple(records), list(cut(records, part_size))
        doc.snapshot = StoredSnapshot(*upto[1:], session, len(doc.parts), sum(map(len, records)))
        doc.requested = 0 if doc.requested <= upto.position else doc.requested
        doc.rejected = {name: kept._replace(data=None) for name, kept in doc.rejected.items()}
        return True

    def tail_size(self, document: bytes) -> int:
        doc = self._storage.get(document)
        return doc.size() if doc else 0

    def tail_start(self, document: bytes, max_bytes: int) -> Cursor:
        doc = self._storage.existing(document)
        position = doc.end
        while position > doc.upto and doc.size(position - 1) <= max_bytes:
            position -= 1
        return Cursor(doc.origin.log_id, position, doc.chains[position])

    def bytes_between(self, document: bytes, after: int, upto: int, enough: float = inf) -> int:
        return self._storage.existing(document).size(after, upto)

    def contents(self, document: bytes, upto: int) -> Iterator[bytes]:
        doc = self._storage.data.documents.get(document)
        if doc and not doc.deleted:
            yield from doc.contents
            yield from (stored.record.data for stored in doc.tail(0, upto))

    def contents_around(self, document: bytes, after: int, upto: int) -> Iterator[bytes]:
        doc = self._storage.data.documents.get(document)
        if doc and not doc.deleted and doc.upto <= after < upto:
            yield from doc.contents
            for start, end in ((0, after), (after, upto)):
                yield b""
                yield from (stored.record.data for stored in doc.tail(start, end))

    def request(self, document: bytes) -> None:
        doc = self._storage.stage(document)
        doc.requested = doc.end

    def requested(self) -> Sequence[bytes]:
        return [id_ for id_, doc in self._storage.data.documents.items() if doc.requested and not doc.deleted]


class _Tombstones:
    def __init__(self, storage: MemoryStorage) -> None:
        self._storage = storage

    def is_deleted(self, document: bytes) -> bool:
        doc = self._storage.any(document)
        return doc is not None and doc.deleted

    def delete(self, document: bytes, subject: str = "") -> None:
        doc = self._storage.stage(document)
        if not doc.deleted:
            owner = Origin("", b"", "" if doc.end else subject)
            self._storage.staged[document] = _Document(owner, deleted=True, requested=doc.end, version=doc.version)


class _Quotas:
    def __init__(self, storage: MemoryStorage) -> None:
        self._storage = storage

    def owner(self, document: bytes) -> str:
        doc = self._storage.get(document)
        return doc.origin.owner if doc else ""

    def used(self, owner: str) -> int:
        return sum(
            doc.size()
            + (doc.snapshot.size if doc.snapshot else 0)
            + sum(stored.size for stored, _ in doc.attachments.values())
            for doc in {**self._storage.data.documents, **self._storage.staged}.values()
            if owner and doc.origin.owner == owner and not doc.deleted
        )

    def unknown_tombstones(self, subject: str) -> int:
        documents = {**self._storage.data.documents, **self._storage.staged}.values()
        return sum(doc.deleted and not doc.requested and doc.origin.owner == subject for doc in documents)


class _Rejected:
    def __init__(self, storage: MemoryStorage) -> None:
        self._storage = storage

    def keep(self, document: bytes, record: Record, reason: str) -> None:
        rejected = self._storage.stage(document).rejected
        kept = RejectedRecord(record.session, record.n, reason, len(record.data), record.data)
        name = Record(record.session, record.n, digest(document, record))
        rejected.pop(name, None)
        rejected[name] = kept
        while len(rejected) > REJECTED_KEPT:
            del rejected[next(iter(rejected))]

    def read(self, document: bytes) -> Sequence[RejectedRecord]:
        doc = self._storage.data.documents.get(document)
        return tuple(doc.rejected.values()) if doc else ()


class _Attachments:
    def __init__(self, storage: MemoryStorage) -> None:
        self._storage = storage

    def get(self, document: bytes, name: AttachmentName) -> StoredAttachment | None:
        found = self._of(document).get(name)
        return found[0] if found else None

    def begin(self, document: bytes, name: AttachmentName, size: int) -> None:
        self._storage.existing(document)
        self._storage.stage(document).attachments[name] = StoredAttachment(name, size, 0, False), []

    def append(self, document: bytes, name: AttachmentName, data: bytes) -> None:
        stored, pieces = self._existing(document, name)
        assert stored.held % PIECE == 0 and len(data) == min(PIECE, stored.size - stored.held)
        change = stored._replace(held=stored.held + len(data)), [*pieces, data]
        self._storage.stage(document).attachments[name] = change

    def finish(self, document: bytes, name: AttachmentName) -> None:
        stored, pieces = self._existing(document, name)
        self._storage.stage(document).attachments[name] = stored._replace(whole=True), pieces

    def remove(self, document: bytes, name: AttachmentName) -> None:
        self._existing(document, name)
        del self._storage.stage(document).attachments[name]

    def piece(self, document: bytes, name: AttachmentName, index: int) -> bytes:
        found = self._of(document).get(name)
        return found[1][index] if found and index < len(found[1]) else b""

    def unfinished(self, document: bytes) -> Sequence[StoredAttachment]:
        return [stored for stored, _ in self._of(document).values() if not stored.whole]

    def count(self, document: bytes) -> tuple[int, int]:
        found = [stored.size for stored, _ in self._of(document).values()]
        return len(found), sum(found)

    def _of(self, document: bytes) -> dict[AttachmentName, tuple[StoredAttachment, list[bytes]]]:
        doc = self._storage.get(document)
        return doc.attachments if doc else {}

    def _existing(self, document: bytes, name: AttachmentName) -> tuple[StoredAttachment, list[bytes]]:
        found = self._storage.stage(document).attachments.get(name)
        if found is None:
            raise LogError("There is no such attachment.")
        return found


class _Sweeper:
    """Records of a deleted document are gone at once; ``requested`` of its tombstone says that there were some."""

    def __init__(self, storage: MemoryStorage) -> None:
        self._storage = storage

    def sweep(self, rows: int) -> bool:
        for doc in self._storage.data.documents.values():
            for at in range(doc.upto):
                if rows == 0:
                    return True
                if doc.records[at] is not None:
                    doc.records[at] = None
                    rows -= 1
        return False

    def scrub(self) -> bool:
        return True
