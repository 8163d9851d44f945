"""Where a document meets the store: what it writes, and the tables that are derived from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from ..document.entry import SyncState
from ..document.projection import RULES, IndexSource
from ..ids import DocumentId, EntryId, SessionId
from ..store.store import SMALL, Store

if TYPE_CHECKING:
    from ..store.entry_index import Database


_NOT_PUSHED = 1 << 62
LISTING = "listing 1"
"""Names the rules that the listing is made by."""


class StoreJournal:
    """Keeps one document's updates in the store, and its tables. Implements ``document.Journal`` and
    ``document.EntryIndex``; called under the store's lock."""

    def __init__(
        self,
        store: Store,
        document: DocumentId,
        appended: Callable[[DocumentId], None],
        pushed: Callable[[], int] = lambda: 0,
        purged: Callable[[], None] = lambda: None,
        settle_all: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._document = document
        self._appended = appended
        self._pushed = pushed
        self._purged = purged
        self._settle_all = settle_all
        self._session: SessionId | None = None
        self._seen = 0
        self._grown = 0
        self._version = -1
        self._stale = True
        self._local: dict[str, int] | None = None
        self._local_stale = True
        self._source: IndexSource | None = None
        self._base: int | None = None  # what the source calls changed came after this place

    def load(self) -> tuple[bytes | None, Sequence[bytes]]:
        self._version, self._stale, self._session = self._store.data_version(), False, None
        kept = self._store.since(self._document, 0)
        self._seen, self._grown = kept.place, sum(map(len, kept.updates))
        return kept.snapshot, kept.updates

    def append(self, update: bytes, session: SessionId, keys: Iterable[str]) -> None:
        names = set(keys)
        written: list[int] = []

        def tables(db: Database, place: int) -> None:
            if not self._store.unseen(self._document, self._seen, session):
                written.append(place)
                self._write_tables(db, place)

        self._store.append(self._document, update, session, sorted(names), tables)
        self._session = session
        if written:
            self._seen = written[0]
            self._tables_written(written[0])
        self._grown += len(update)
        if self._local is not None:
            self._local |= dict.fromkeys(names, _NOT_PUSHED)
        self._appended(self._document)

    def news(self) -> Sequence[bytes]:
        version = self._store.data_version()
        if version == self._version and not self._stale:
            return ()
        self._version, self._stale, self._local_stale = version, False, True
        kept = self._store.since(self._document, self._seen, self._session)
        self._seen = kept.place
        self._grown += sum(map(len, kept.updates))
        return [kept.snapshot, *kept.updates] if kept.snapshot is not None else kept.updates

    def compact(self, snapshot: Callable[[], tuple[bytes, Sequence[bytes]]]) -> None:
        if self._grown > SMALL:
            self._grown = 0
            place = self._store.compact(self._document, self._seen, self._session, snapshot)
            if place is not None:
                self._seen = place

    def purge(self, snapshot: Callable[[], tuple[bytes, Sequence[bytes]]], erased: int) -> bool:
        if not self._store.purge(self._document, self._seen, self._session, erased, snapshot):
            return False
        self._grown = 0
        self._stale = self._local_stale = True
        self._appended(self._document)
        self._purged()
        return True

    def purged(self) -> int:
        return self._store.purged(self._document)

    # the tables

    def follow(self, source: IndexSource | None) -> None:
        self._source, self._base = source, None
        if source is not None and self._store.tables.place(self._document, RULES) == self._seen:
            self._base = self._seen
            source.note_written()

    def refresh(self) -> None:
        if self._source is None or self._document not in self._store.tables.stale(RULES, self._document):
            return
        written: list[int] = []

        def tables(db: Database, place: int) -> None:
            if not self._store.unseen(self._document, self._seen, self._session):
                written.append(place)
                self._write_tables(db, place)

        self._store.derive(self._document, tables)
        if written:
            self._tables_written(written[0])

    def page(self, last: int, before: str | None) -> Sequence[tuple[str, str | None, bytes]] | None:
        return self._store.tables.page(self._document, RULES, last, before)

    def nodes(self) -> Sequence[tuple[str, int | None, str | None, str]] | None:
        return self._store.tables.nodes(self._document, RULES, self._seen)

    def copies(self, entry: str) -> Sequence[tuple[str, bool]]:
        self._settle_all()
        return self._store.tables.copies(self._document, entry)

    def is_listed(self) -> bool:
        """For a library: whether the listing was made of all that is kept of it."""
        place = self._store.tables.place(self._document, LISTING)
        return place is not None and place >= self._store.last_place(self._document)

    def note_listed(self) -> None:
        """For a library: the listing is made of all that its replica holds."""

        def note(db: Database, place: int) -> None:
            if not self._store.unseen(self._document, self._seen, self._session):
                self._store.tables.write(db, self._document, LISTING, place, gone=(), put=(), moved=())

        if not self.is_listed():
            self._store.derive(self._document, note)

    def _write_tables(self, db: Database, place: int) -> None:
        """In a transaction that has seen that the source holds all up to ``place``."""
        if self._source is None:
            return
        tables, document = self._store.tables, self._document
        true = tables.place(document, RULES)
        trusted = self._base is not None and true is not None and true >= self._base
        change = self._source.changes(None) if trusted else None
        if change is None:
            known = tables.known(db, document)
            change = self._source.changes(known if trusted else {})
            assert change is not None
            if not trusted:
                change = change._replace(gone=sorted(known.keys() - {row.entry for row in change.put}))
        tables.write(db, document, RULES, place, gone=change.gone, put=change.put, moved=change.moved)

    def _tables_written(self, place: int) -> None:
        if self._source is not None:
            self._base = place
            self._source.note_written()

    # what is odd

    def set_aside(self, update: bytes, reason: str) -> None:
        self._store.set_aside(self._document, update, reason)

    def touch(self) -> None:
        """Something was put into the store beside this journal."""
        self._stale = self._local_stale = True

    def sent(self) -> None:
        """A link has sent more of this document, or its connection is gone."""
        self._local_stale = True

    def sync_state(self, entry: EntryId) -> SyncState:
        """Where an entry is: here only, on its way to a relay, or on every relay's disk."""
        if self._local_stale:
            self._local, self._local_stale = self._store.unacknowledged(self._document), False
        place = _NOT_PUSHED if self._local is None else self._local.get(entry, 0)
        return "durable" if not place else "sent" if place <= self._pushed() else "local"
