"""A second store, in memory: small and plain. A transaction that fails puts a copy of everything back."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..exceptions import ConversationDeleted, RepoClosed
from ..ids import NO_LOG, Random, new_session_id
from ..store.base import GROWN, SMALL, Cursor, Kept, Listed, OutboxRow, Snapshot

_LAST_DELETED = 8
_BATCH = 1 << 20


@dataclass
class _Update:
    seq: int
    document: str
    data: bytes
    writer: str | None = None
    name: tuple[str, int] | None = None
    keys: tuple[str, ...] = ()


@dataclass
class _State:
    settings: dict[str, str] = field(default_factory=dict)
    documents: dict[str, str] = field(default_factory=dict)
    listing: dict[str, Listed] = field(default_factory=dict)
    updates: list[_Update] = field(default_factory=list)
    snapshots: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    aside: list[tuple[str, bytes]] = field(default_factory=list)
    cursors: dict[tuple[str, str], Cursor] = field(default_factory=dict)
    refills: dict[tuple[str, str], int] = field(default_factory=dict)
    # By relay and document: of each update that waits, the seq and the record name.
    outboxes: dict[tuple[str, str], dict[int, tuple[str, int]]] = field(default_factory=dict)
    compactions: set[tuple[str, str]] = field(default_factory=set)
    deletions: dict[tuple[str, str], str] = field(default_factory=dict)
    deleted: list[tuple[str, str]] = field(default_factory=list)
    local: set[str] = field(default_factory=set)
    purges: dict[str, int] = field(default_factory=dict)
    # By document, hash and relay ("": all of them): "send", "sent" or "discard".
    attachments: dict[tuple[str, str, str], str] = field(default_factory=dict)
    names: dict[tuple[str, str], tuple[int, str, int]] = field(default_factory=dict)
    last: int = 0

    def of(self, document: str) -> list[_Update]:
        return [update for update in self.updates if update.document == document]

    def waiting(self, document: str) -> set[int]:
        return {seq for (_, other), rows in self.outboxes.items() if other == document for seq in rows}

    def relays(self, document: str) -> list[str]:
        return [relay for relay, other in self.cursors if other == document]

    def keep(self, update: _Update) -> int:
        self.last += 1
        update.seq = self.last
        self.updates.append(update)
        return self.last


class MemoryStore:
    """Implements ``store.base.Store``; each part is a view of the same state."""

    path = Path(":memory:")

    def __init__(
        self,
        random: Random = os.urandom,
        cut: Callable[[str, bytes], Sequence[bytes]] = lambda _, update: [update],
        redact: Callable[[str, bytes, Sequence[bytes]], Sequence[bytes] | None] = lambda document, whole, updates: [
            whole
        ],
    ) -> None:
        self.lock = threading.RLock()
        self.random, self.cut, self.redact = random, cut, redact
        self.closed = False
        self._state = _State()
        self._depth = 0
        self.settings = MemorySettings(self)
        self.catalog = MemoryCatalog(self)
        self.updates = MemoryUpdates(self)
        self.outboxes = MemoryOutboxes(self)
        self.relay_tasks = MemoryRelayTasks(self)
        self.attachment_tasks = MemoryAttachmentTasks(self)
        self.deletions = MemoryDeletions(self)

    @property
    def state(self) -> _State:
        if self.closed:
            raise RepoClosed("The store is closed.", hint="Open the repo again.")
        return self._state

    @contextmanager
    def transaction(self) -> Iterator[object]:
        with self.lock:
            before = None if self._depth else copy.deepcopy(self.state)
            self._depth += 1
            try:
                yield None
            except BaseException:
                if before is not None:
                    self._state = before
                raise
            finally:
                self._depth -= 1

    def data_version(self) -> int:
        return 0  # nobody else writes here

    def close(self) -> None:
        self.closed = True


class _Part:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    @property
    def _state(self) -> _State:
        return self._store.state


class MemorySettings(_Part):
    def get(self, name: str) -> str | None:
        return self._state.settings.get(name)

    def put(self, name: str, value: str) -> None:
        self._state.settings[name] = value

    def put_first(self, name: str, value: str) -> str:
        return self._state.settings.setdefault(name, value)


class MemoryCatalog(_Part):
    def add(self, document: str, kind: str) -> None:
        self._state.documents.setdefault(document, kind)

    def documents(self, kind: str) -> list[str]:
        return sorted(document for document, own in self._state.documents.items() if own == kind)

    def kind(self, document: str) -> str | None:
        return self._state.documents.get(document)

    def put(self, rows: Iterable[Listed]) -> None:
        self._state.listing.update((row.id, row) for row in rows)

    def page(self, limit: int, before: str | None) -> list[Listed]:
        rows = sorted(self._state.listing.values(), key=lambda row: (row.created_at, row.id), reverse=True)
        if before is not None:
            end = self._state.listing[before]
            rows = [row for row in rows if (row.created_at, row.id) < (end.created_at, end.id)]
        return [row for row in rows if not row.deleted][:limit]

    def everything(self) -> set[Listed]:
        return set(self._state.listing.values())

    def get(self, document: str) -> Listed | None:
        return self._state.listing.get(document)

    def set_local(self, document: str, local: bool) -> None:
        (self._state.local.add if local else self._state.local.discard)(document)

    def is_local(self, document: str) -> bool:
        return document in self._state.local

    def locals(self) -> set[str]:
        return set(self._state.local)


class MemoryUpdates(_Part):
    def since(self, document: str, seq: int, except_writer: str | None = None) -> Kept:
        whole, reaches = self._state.snapshots.get(document, (b"", 0))
        rows = [update for update in self._state.of(document) if update.seq > seq]
        last = max([seq, reaches, *(update.seq for update in rows)])
        updates = [u.data for u in rows if except_writer is None or u.writer != except_writer]
        return Kept(whole if reaches > seq else None, updates, last)

    def append(self, document: str, data: bytes, writer: str, keys: Iterable[str]) -> int:
        listed = self._state.listing.get(document)
        if listed is not None and listed.deleted:
            raise ConversationDeleted(document)
        seqs = self._store.outboxes.keep_pieces(document, self._store.cut(document, data), keys, writer)
        for relay in self._state.relays(document):
            self._store.outboxes.queue(relay, document, seqs)
        return seqs[-1]

    def last_seq(self, document: str) -> int:
        return self.since(document, 0).seq

    def news(self, seq: int) -> tuple[list[tuple[str, bytes | None]], int]:
        rows: list[tuple[int, str, bytes | None]] = [
            (place, document, None) for document, (_, place) in self._state.snapshots.items() if place > seq
        ]
        rows += [(each.seq, each.document, each.data) for each in self._state.updates if each.seq > seq]
        rows.sort(key=lambda row: row[0])
        return [(document, data) for _, document, data in rows], max([seq, *(row[0] for row in rows)])

    def last(self) -> int:
        return self._state.last

    def unseen(self, document: str, seen: int, writer: str | None) -> bool:
        _, compacted = self._state.snapshots.get(document, (b"", 0))
        rows = self._state.of(document)
        return compacted > seen or any(u.seq > seen and (writer is None or u.writer != writer) for u in rows)

    def compact(self, document: str, seen: int, writer: str | None, snapshot: Snapshot) -> MemoryCompaction | None:
        waiting = self._state.waiting(document)
        size = sum(len(update.data) for update in self._state.of(document) if update.seq not in waiting)
        if size <= max(SMALL, len(self._state.snapshots.get(document, (b"", 0))[0]) // GROWN):
            return None
        if self.unseen(document, seen, writer):
            return None
        return MemoryCompaction(self, document, writer, self.last_seq(document), *snapshot())

    def purge(self, document: str, seen: int, writer: str | None, erased: int, snapshot: Snapshot) -> bool:
        if self.unseen(document, seen, writer):
            return False
        state = self._state
        whole, pending = snapshot()
        emptied: list[tuple[str, Sequence[bytes], list[str]]] = []
        for (relay, other), rows in list(state.outboxes.items()):
            if other != document or not rows:
                continue
            waiting = [update for update in state.of(document) if update.seq in rows]
            pieces = self._store.redact(document, whole, [update.data for update in waiting])
            if pieces is not None:
                emptied.append((relay, pieces, sorted({key for update in waiting for key in update.keys})))
                del state.outboxes[relay, document]
                state.refills[relay, document] += 1
        state.aside = [row for row in state.aside if row[0] != document]
        kept = self._replace(document, whole, pending)[1:]
        clean = [
            seq
            for seq, update in zip(kept, pending, strict=True)
            if self._store.redact(document, whole, [update]) is None
        ]
        for relay, pieces, keys in emptied:
            seqs = self._store.outboxes.keep_pieces(document, pieces, keys)
            self._store.outboxes.queue(relay, document, [*seqs, *clean])
        state.purges[document] = erased
        state.compactions.update((document, relay) for relay in state.relays(document))
        return True

    def purged(self, document: str) -> int:
        return self._state.purges.get(document, 0)

    def set_aside(self, document: str, data: bytes, reason: str) -> None:
        state = self._state
        if (document, data) not in state.aside:
            state.aside.append((document, data))
        gone = {update.seq for update in state.of(document) if update.data == data}
        state.updates = [update for update in state.updates if update.seq not in gone]
        for (_, other), rows in state.outboxes.items():
            for seq in gone & rows.keys() if other == document else ():
                del rows[seq]

    def set_aside_count(self, document: str) -> int:
        return sum(other == document for other, _ in self._state.aside)

    def _replace(self, document: str, whole: bytes, pending: Sequence[bytes]) -> list[int]:
        """Keep a snapshot and what waits for others, instead of what waits for no relay. The seqs."""
        state, waiting = self._state, self._state.waiting(document)
        last = max((update.seq for update in state.of(document)), default=0)
        state.snapshots[document] = (whole, max(last, state.snapshots.get(document, (b"", 0))[1]))
        state.updates = [u for u in state.updates if u.document != document or u.seq in waiting]
        return [last, *(state.keep(_Update(0, document, update)) for update in pending)]


class MemoryCompaction:
    """Implements ``base.Compaction``."""

    def __init__(
        self,
        updates: MemoryUpdates,
        document: str,
        writer: str | None,
        seq: int,
        whole: bytes,
        pending: Sequence[bytes],
    ) -> None:
        self._state, self._document, self._writer, self._seq = updates._state, document, writer, seq
        self._whole, self._pending = whole, pending
        self._old = self._state.snapshots.get(document)
        self._done = False

    @property
    def seq(self) -> int:
        return self._seq

    def prepare(self) -> None:
        pass

    def finish(self) -> bool:
        state, document = self._state, self._document
        if self._done:
            return True
        listed = state.listing.get(document)
        if state.snapshots.get(document) is not self._old or (listed is not None and listed.deleted):
            return False
        self._done = True
        state.snapshots[document] = (self._whole, self._seq)
        for update in self._pending:
            state.keep(_Update(0, document, update, self._writer))
        return True

    def trim(self) -> bool:
        state, document = self._state, self._document
        waiting = state.waiting(document)
        state.updates = [u for u in state.updates if u.document != document or u.seq > self._seq or u.seq in waiting]
        return False


class MemoryOutboxes(_Part):
    def cursor(self, relay: str, document: str) -> Cursor | None:
        return self._state.cursors.get((relay, document))

    def cursors(self, relay: str) -> dict[str, Cursor]:
        return {document: cursor for (own, document), cursor in self._state.cursors.items() if own == relay}

    def rows(self, relay: str, document: str, after: int, limit: int) -> list[OutboxRow]:
        names = self._state.outboxes.get((relay, document), {})
        rows, size = list[OutboxRow](), 0
        for update in self._state.of(document):
            if update.seq > after and update.seq in names and len(rows) < limit and size <= _BATCH:
                rows.append(OutboxRow(update.seq, *names[update.seq], update.data))
                size += len(update.data)
        return rows

    def end(self, relay: str, document: str) -> int:
        return max(self._state.outboxes.get((relay, document), {0: ("", 0)}), default=0)

    def ends(self, relay: str) -> dict[str, int]:
        return {document: self.end(relay, document) for document in self.documents(relay)}

    def documents(self, relay: str) -> list[str]:
        return [document for (own, document), rows in self._state.outboxes.items() if own == relay and rows]

    def size(self, relay: str) -> tuple[int, int]:
        sizes = [len(row.data) for document in self.documents(relay) for row in self._all(relay, document)]
        return len(sizes), sum(sizes)

    def refills(self, relay: str, document: str) -> int:
        return self._state.refills.get((relay, document), 0)

    def unacknowledged(self, document: str) -> dict[str, int] | None:
        if not self._state.relays(document):
            return None
        waiting = self._state.waiting(document)
        return {key: u.seq for u in self._state.of(document) if u.seq in waiting for key in u.keys}

    def acknowledge(self, relay: str, document: str, names: Sequence[tuple[str, int]], cursor: Cursor) -> None:
        self._move_cursor(relay, document, cursor)
        rows = self._state.outboxes.get((relay, document), {})
        for seq in [seq for seq, name in rows.items() if name in names]:
            del rows[seq]

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
        state = self._state
        for session, n, data in records:
            if not any(update.name == (session, n) for update in state.of(document)):
                state.keep(_Update(0, document, data, name=(session, n)))
        state.aside += [(document, data) for data, _ in refused]
        if stale:
            state.purges[document] = -1
        if cursor is None or not self._move_cursor(relay, document, cursor):
            known = state.cursors.get((relay, document))
            if known is not None:
                state.cursors[relay, document] = (NO_LOG, *known[1:])

    def refill(self, relay: str, document: str, data: bytes | None, cursor: Cursor, keys: Iterable[str] = ()) -> None:
        state = self._state
        state.outboxes.pop((relay, document), None)
        state.cursors[relay, document] = cursor
        state.refills[relay, document] = state.refills.get((relay, document), 0) + 1
        if data is not None:
            self.queue(relay, document, self.keep_pieces(document, self._store.cut(document, data), keys))

    def refuse(self, relay: str, document: str, session: str, n: int, why: str) -> None:
        state, rows = self._state, self._state.outboxes.get((relay, document), {})
        found = next((seq for seq, name in rows.items() if name == (session, n)), None)
        if found is None:
            return
        state.aside += [(document, update.data) for update in state.of(document) if update.seq == found]
        del rows[found]
        state.refills[relay, document] += 1
        for seq in sorted(seq for seq, name in rows.items() if name[0] == session and name[1] > n):
            self.queue(relay, document, [seq])

    def keep_pieces(
        self, document: str, pieces: Sequence[bytes], keys: Iterable[str], writer: str | None = None
    ) -> list[int]:
        """Keep an update in pieces; their seqs."""
        made = [_Update(0, document, piece, writer) for piece in pieces]
        made[-1].keys = tuple(keys)
        return [self._state.keep(update) for update in made]

    def queue(self, relay: str, document: str, seqs: Iterable[int]) -> None:
        """Have updates wait for a relay, named as the next records."""
        state, key = self._state, (relay, document)
        for seq in seqs:
            refills, session, n = state.names.get(key, (-1, "", 0))
            if refills != state.refills.get(key, 0):
                session, n = new_session_id(self._store.random), 0
            state.names[key] = (state.refills.get(key, 0), session, n + 1)
            state.outboxes.setdefault(key, {})[seq] = (session, n + 1)

    def _all(self, relay: str, document: str) -> list[_Update]:
        rows = self._state.outboxes[relay, document]
        return [update for update in self._state.of(document) if update.seq in rows]

    def _move_cursor(self, relay: str, document: str, cursor: Cursor) -> bool:
        known = self._state.cursors.get((relay, document))
        if known is None or known[0] != cursor[0]:
            return False
        if known[1] < cursor[1]:
            self._state.cursors[relay, document] = cursor
        return True


class MemoryRelayTasks(_Part):
    def compactions(self, relay: str) -> list[str]:
        return sorted(document for document, own in self._state.compactions if own == relay)

    def compacted(self, relay: str, document: str) -> None:
        self._state.compactions.discard((document, relay))

    def deletions(self, relay: str, credential: str = "") -> list[str]:
        owed = self._state.deletions.items()
        return sorted(d for (d, own), refused in owed if own == relay and (not credential or refused != credential))

    def deletion_refused(self, relay: str, document: str, credential: str) -> None:
        if (document, relay) in self._state.deletions:
            self._state.deletions[document, relay] = credential

    def ask_again(self, document: str) -> bool:
        refused = [key for key, value in self._state.deletions.items() if key[0] == document and value]
        self._state.deletions.update(dict.fromkeys(refused, ""))
        return bool(refused)

    def delete_all_again(self, relay: str) -> None:
        deleted = [row.id for row in self._state.listing.values() if row.deleted and row.id not in self._state.local]
        self._state.deletions.update(((document, relay), "") for document in deleted)

    def deleted(self, relay: str, document: str) -> None:
        self._state.deletions.pop((document, relay), None)
        others = [row for row in self._state.deleted if row != (relay, document)]
        own = [row for row in others if row[0] == relay][1 - _LAST_DELETED :]
        self._state.deleted = [*(row for row in others if row[0] != relay), *own, (relay, document)]

    def deleted_last(self, relay: str) -> list[str]:
        return [document for own, document in self._state.deleted if own == relay]


class MemoryAttachmentTasks(_Part):
    def want(self, document: str, hashes: Iterable[str]) -> None:
        for hash_ in hashes:
            self._remove(document, hash_, "discard")
            self._state.attachments.setdefault((document, hash_, ""), "send")

    def to_send(self, relay: str) -> list[tuple[str, str]]:
        rows = self._state.attachments
        return sorted((d, h) for d, h, own in rows if not own and (d, h, relay) not in rows)

    def sent(self, relay: str, document: str, hash: str) -> None:
        self._state.attachments.setdefault((document, hash, relay), "sent")

    def send_again(self, relay: str, document: str) -> None:
        self._remove(document, state="sent", relay=relay)

    def unwant(self, document: str, hashes: Iterable[str]) -> None:
        for hash_ in hashes:
            self._remove(document, hash_)
            relays = self._state.relays(document)
            self._state.attachments.update({(document, hash_, relay): "discard" for relay in relays})

    def to_discard(self, relay: str) -> list[tuple[str, str]]:
        rows = self._state.attachments.items()
        return sorted((d, h) for (d, h, own), state in rows if own == relay and state == "discard")

    def discarded(self, relay: str, document: str, hash: str) -> None:
        self._remove(document, hash, "discard", relay)

    def forget(self, document: str) -> None:
        self._remove(document)

    def _remove(self, document: str, hash: str = "", state: str = "", relay: str = "") -> None:
        """Rows of a document; "": with anything."""
        wanted = (document, hash, relay, state)
        self._state.attachments = {
            key: found
            for key, found in self._state.attachments.items()
            if any(want and want != has for want, has in zip(wanted, (*key, found), strict=True))
        }


class MemoryDeletions(_Part):
    def left(self) -> list[str]:
        state = self._state
        deleted = [row.id for row in state.listing.values() if row.deleted]
        return sorted(d for d in deleted if state.of(d) or d in state.snapshots or state.relays(d))

    def drop(self, document: str) -> None:
        state = self._state
        relays = {*state.relays(document), *state.relays(state.settings.get("library", ""))}
        state.deletions.update(((document, relay), "") for relay in relays if document not in state.local)
        state.updates = [update for update in state.updates if update.document != document]
        state.aside = [row for row in state.aside if row[0] != document]
        state.compactions = {row for row in state.compactions if row[0] != document}
        for relay in relays:
            for table in (state.outboxes, state.cursors, state.refills):
                table.pop((relay, document), None)
        state.snapshots.pop(document, None)
        state.purges.pop(document, None)

    def scrub(self) -> bool:
        return True
