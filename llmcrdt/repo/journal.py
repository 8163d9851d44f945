"""A document in the store: its updates, and the entry index that is derived from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from ..document.projection import RULES, IndexRow, IndexSource
from ..ids import DocumentId, EntryId, SessionId
from ..store.base import SMALL, Compaction
from ..store.store import SqliteStore
from .upkeep import finish

if TYPE_CHECKING:
    from ..document.entry import SyncState

_NOT_PUSHED = 1 << 62
MANY = 256
"""Entries that come at once, above which their rows wait: whoever brings more wants to see the last of them first."""
LISTING = "listing 1"
"""Names the rules that the listing is made by."""


class StoreJournal:
    """Keeps one document's updates in the store, and its tables. Implements ``document.Journal`` and
    ``document.EntryIndex``; called under the store's lock."""

    def __init__(
        self,
        store: SqliteStore,
        document: DocumentId,
        appended: Callable[[DocumentId], None],
        pushed: Callable[[], int] = lambda: 0,
        purged: Callable[[], None] = lambda: None,
        refresh_index: Callable[[], object] = lambda: None,
        go_on: Callable[[Compaction], object] = finish,
        index_later: Callable[[DocumentId], object] | None = None,
    ) -> None:
        self._store = store
        self._document = document
        self._appended = appended
        self._pushed = pushed
        self._purged = purged
        self._refresh_index = refresh_index
        self._go_on = go_on
        self._index_later = index_later
        self._rows_wait = False  # the tables say nothing of what came last, until ``refresh``
        self._session: SessionId | None = None
        self._seen = 0
        self._compacted = 0  # a snapshot of here holds all up to this seq
        self._grown = 0
        self._version = -1
        self._stale = True
        self._local: dict[str, int] | None = None
        self._local_stale = True
        self._source: IndexSource | None = None
        self._base: int | None = None  # what the source calls changed came after this seq

    def load(self) -> tuple[bytes | None, Sequence[bytes]]:
        self._version, self._stale, self._session = self._store.data_version(), False, None
        kept = self._store.updates.since(self._document, 0)
        self._seen, self._grown = kept.seq, sum(map(len, kept.updates))
        return kept.snapshot, kept.updates

    def append(self, update: bytes, session: SessionId, keys: Iterable[str]) -> None:
        names = set(keys)
        with self._store.transaction():
            seq = self._store.updates.append(self._document, update, session, sorted(names))
            current = not self._store.updates.unseen(self._document, self._held, session)
            later = current and self._leaves_rows(len(names))
            if current and not later:
                self._write_rows(seq)
        self._session = session
        if current:
            self._seen = seq
        if later:
            self._rows_wait = True
            if self._index_later is not None:
                self._index_later(self._document)
        elif current:
            self._rows_written(seq)
        self._grown += len(update)
        if self._local is not None:
            self._local |= dict.fromkeys(names, _NOT_PUSHED)
        self._appended(self._document)

    def _leaves_rows(self, entries: int) -> bool:
        return self._index_later is not None and (self._rows_wait or entries > MANY)

    def news(self) -> Sequence[bytes]:
        version = self._store.data_version()
        if version == self._version and not self._stale:
            return ()
        self._version, self._stale, self._local_stale = version, False, True
        kept = self._store.updates.since(self._document, self._seen, self._session)
        self._seen = kept.seq
        self._grown += sum(map(len, kept.updates))
        return [kept.snapshot, *kept.updates] if kept.snapshot is not None else kept.updates

    def is_current(self) -> bool:
        """Whether all that the store has of the document was read."""
        kept = self._store.updates.since(self._document, self._seen, self._session)
        return kept.snapshot is None and not kept.updates

    def compact(self, snapshot: Callable[[], tuple[bytes, Sequence[bytes]]]) -> None:
        if self._grown > SMALL:
            self._grown = 0
            begun = self._store.updates.compact(self._document, self._held, self._session, snapshot)
            if begun is not None:
                self._compacted = begun.seq
                self._go_on(begun)

    def purge(self, snapshot: Callable[[], tuple[bytes, Sequence[bytes]]], erased: int) -> bool:
        if not self._store.updates.purge(self._document, self._held, self._session, erased, snapshot):
            return False
        self._grown = 0
        self._stale = self._local_stale = True
        self._appended(self._document)
        self._purged()
        return True

    @property
    def _held(self) -> int:
        """All of the file up to this seq is in memory; past it, all that was written here."""
        return max(self._seen, self._compacted)

    def purged(self) -> int:
        return self._store.updates.purged(self._document)

    # the tables

    def follow(self, source: IndexSource | None) -> None:
        self._source, self._base = source, None
        if source is not None and self._store.entries.made_of(self._document, RULES) == self._seen:
            self._base = self._seen
            source.note_written()

    def refresh(self) -> None:
        if self._source is None or self._document not in self._store.entries.stale(RULES, self._document):
            return
        with self._store.transaction():
            seq = self._store.updates.last_seq(self._document)
            current = not self._store.updates.unseen(self._document, self._held, self._session)
            if current:
                self._write_rows(seq)
        if current:
            self._rows_written(seq)

    def page(self, last: int, before: str | None) -> Sequence[tuple[str, str | None, bytes]] | None:
        return self._store.entries.page(self._document, RULES, last, before)

    def nodes(self) -> Sequence[tuple[str, bool, str]] | None:
        return self._store.entries.nodes(self._document, RULES, self._seen)

    def copy(self, source: str, entries: Sequence[str], rows: Sequence[IndexRow], shown: Sequence[str]) -> None:
        index, updates, document = self._store.entries, self._store.updates, self._document
        with self._store.transaction():
            made_of = index.made_of(source, RULES)
            if made_of is not None and made_of >= updates.last_seq(source):
                index.copy(source, document, entries)
                index.write(document, RULES, updates.last_seq(document), put=rows, steady=0, shown=shown)

    def copies(self, entry: str) -> Sequence[tuple[str, bool]]:
        self._refresh_index()
        return self._store.entries.copies(self._document, entry)

    def is_listed(self) -> bool:
        """For a library: whether the listing was made of all that is kept of it."""
        seq = self._store.entries.made_of(self._document, LISTING)
        return seq is not None and seq >= self._store.updates.last_seq(self._document)

    def note_listed(self) -> None:
        """For a library: the listing is made of all that its replica holds."""
        if self.is_listed():
            return
        with self._store.transaction():
            if not self._store.updates.unseen(self._document, self._held, self._session):
                seq = self._store.updates.last_seq(self._document)
                self._store.entries.write(self._document, LISTING, seq, steady=0)

    def _write_rows(self, seq: int) -> None:
        """In a transaction: have the tables say what the source says, which holds all up to ``seq``."""
        if self._source is None:
            return
        index, document = self._store.entries, self._document
        made_of = index.made_of(document, RULES)
        trusted = self._base is not None and made_of is not None and made_of >= self._base
        # If another process wrote rows since, those of then are not what is there: each has to be looked at.
        change = self._source.changes(None) if trusted and made_of == self._base else None
        if change is None:
            known = index.pins(document)
            change = self._source.changes(known if trusted else {})
            assert change is not None
            if not trusted:
                change = change._replace(gone=sorted(known.keys() - {row.entry for row in change.put}))
        index.write(document, RULES, seq, **change._asdict())

    def _rows_written(self, seq: int) -> None:
        self._rows_wait = False
        if self._source is not None:
            self._base = seq
            self._source.note_written()

    # what is odd

    def set_aside(self, update: bytes, reason: str) -> None:
        self._store.updates.set_aside(self._document, update, reason)

    def touch(self) -> None:
        """Something was put into the store beside this journal."""
        self._stale = self._local_stale = True

    def note_pushed(self) -> None:
        """A link has sent more of this document, or its connection is gone."""
        self._local_stale = True

    def sync_state(self, entry: EntryId) -> SyncState:
        """The durability of an entry: here only, on its way to a relay, or on every relay's disk."""
        if self._local_stale:
            self._local, self._local_stale = self._store.outboxes.unacknowledged(self._document), False
        place = _NOT_PUSHED if self._local is None else self._local.get(entry, 0)
        return "durable" if not place else "sent" if place <= self._pushed() else "local"
