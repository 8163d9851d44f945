"""The documents of a repo, as one relay gets to see them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..crdt.yjs.update import foreign_key, read_update
from ..document.schema import check_identity
from ..exceptions import MalformedUpdate
from ..ids import DocumentId, SessionId
from ..sync.local import Record, Waiting
from ..sync.messages import Announcement, Cursor

if TYPE_CHECKING:
    from .repo import Repo

logger = logging.getLogger("llmcrdt.sync")


class SyncSource:
    """The documents of a repo towards one relay. Implements ``sync.local.LocalDocuments``."""

    def __init__(self, repo: Repo, relay: str, only: Sequence[DocumentId] | None) -> None:
        self._repo = repo
        self._store = repo.store
        self._relay = relay
        self._only = only

    def documents(self) -> Sequence[DocumentId]:
        return self._only if self._only is not None else self._repo.following()

    def kind(self, document: DocumentId) -> str:
        return "yjs"

    def cursor(self, document: DocumentId) -> Cursor | None:
        found = self._store.cursor(self._relay, document)
        return Cursor(*found) if found else None

    def outbox(self, document: DocumentId, after: int = 0, limit: int = 256) -> Sequence[Waiting]:
        rows = self._store.outbox(self._relay, document, after, limit)
        return [Waiting(row.place, Record(SessionId(row.session), row.n, row.data)) for row in rows]

    def outbox_end(self, document: DocumentId) -> int:
        return self._store.outbox_end(self._relay, document)

    def replaced(self, document: DocumentId) -> int:
        return self._store.refills(self._relay, document)

    def waiting(self) -> tuple[int, int]:
        return self._store.waiting_size(self._relay)

    def pushed(self, document: DocumentId, place: int) -> None:
        self._repo.pushed(document, self, place)

    def acknowledged(self, document: DocumentId, names: Sequence[tuple[SessionId, int]], cursor: Cursor) -> None:
        self._store.acknowledged(self._relay, document, names, cursor)
        self._repo.touch(document, acknowledged=True)

    def received(self, document: DocumentId, records: Sequence[Record], cursor: Cursor | None) -> bool:
        """Structure is checked here, and that a record is not of another document; one that passes and still breaks the
        core is set aside when it is applied."""
        good: list[tuple[str, int, bytes]] = []
        refused: list[tuple[bytes, str]] = []
        for record in records:
            try:
                read_update(record.data)
                check_identity(document, record.data, foreign_key)
                good.append(record)
            except MalformedUpdate as error:
                logger.warning("A record of %s was set aside: %s", document, error)
                refused.append((record.data, str(error)))
        # What says again what the document had may hold words that were erased since; in the file they have no place.
        stale = bool(self._store.purged(document)) and self._repo.repeats(document, [data for _, _, data in good])
        self._store.received(self._relay, document, good, refused, cursor, stale=stale)
        if records:
            self._repo.touch(document, refresh=True)
            # An erase, or words that an erase has to take: they must not wait in the file until somebody opens it.
            if any(b"erased:" in record.data for record in records) or self._store.purged(document):
                self._repo.take_in(document)
        return document == self._repo.library

    def refused(self, document: DocumentId, session: SessionId, n: int, why: str) -> None:
        self._store.refused(self._relay, document, session, n, why)
        self._repo.touch(document)

    def refill(self, document: DocumentId, log: Sequence[bytes], cursor: Cursor) -> None:
        with self._store.lock:
            data, keys, place = self._repo.lacking(document, log)
            with self._store.transaction():
                # Another process may have written since: a refill drops its outbox, where it has one yet.
                if self._store.last_place(document) != place:
                    data, keys, _ = self._repo.lacking(document, log)
                self._store.refill(self._relay, document, data, cursor, keys)
        self._repo.touch(document)

    def deleted_last(self) -> Sequence[DocumentId]:
        return [DocumentId(id_) for id_ in self._store.deleted_last(self._relay)]

    def lost(self) -> None:
        self._store.owe_deletions(self._relay)
        self._repo.ask_to_delete(self._relay)

    def announced(self, document: DocumentId, *, anew: bool) -> Sequence[Announcement]:
        presence = self._repo.known_presence(document)
        return [Announcement(*entry) for entry in presence.announced(anew=anew)] if presence else ()

    def heard(self, document: DocumentId, entries: Sequence[Announcement]) -> None:
        if self._repo.known_presence(document) or any(entry.state for entry in entries):
            self._repo.presence(document).heard(entries)
