"""The documents of a repo, as one relay gets to see them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import NamedTuple, Protocol

from ..crdt.backend import Backend, ParsedUpdate
from ..document.entry_fields import ERASE_MARK
from ..document.schema import check_identity
from ..exceptions import MalformedUpdate
from ..ids import DocumentId, SessionId
from ..store.base import Store
from ..sync.local import Record, Waiting
from ..sync.messages import Announcement, Cursor
from .open_documents import OpenDocuments

logger = logging.getLogger("llmcrdt.sync")


class SyncHost(Protocol):
    """The repo, as its links get to see it."""

    @property
    def store(self) -> Store: ...
    @property
    def documents(self) -> OpenDocuments:
        """The conversations in use."""
        ...

    @property
    def library_id(self) -> DocumentId: ...

    def kind(self, document: DocumentId) -> str:
        """The kind of a document."""
        ...

    def crdt_of(self, document: DocumentId) -> Backend | None:
        """The backend of a document; None where it is not here, and the document is carried as it comes."""
        ...

    def following(self) -> Sequence[DocumentId]:
        """The library, and every conversation in it that is not deleted; the library first."""
        ...

    def repeats(self, document: DocumentId, updates: Sequence[ParsedUpdate]) -> bool:
        """Whether any of these updates writes something that a document had already."""
        ...

    def missing_from(self, document: DocumentId, log: Sequence[bytes]) -> tuple[bytes | None, set[str], int]:
        """All that a relay's log lacks of a document, deletes and waiting updates included, the keys that it touches,
        and the last seq that was looked at; None if nothing is lacking."""
        ...

    def request_deletions(self, relay: str) -> None:
        """This relay may have forgotten what was deleted: it is asked again."""
        ...


class _Changed(NamedTuple):
    """The changes to a document: ``news`` came in, with an ``erase``; some of its records were acknowledged."""

    news: bool = False
    erase: bool = False
    acks: bool = False


class SyncSource:
    """The documents of a repo towards one relay. Implements ``sync.local.LocalDocuments``."""

    def __init__(self, host: SyncHost, relay: str, only: Sequence[DocumentId] | None) -> None:
        self._host, self._documents = host, host.documents
        self._store = host.store
        self._relay = relay
        self._only = only
        self._group: ExitStack | None = None  # while a ``transaction`` is open; its first write begins it in the store
        self._writing = False
        self._changed: dict[DocumentId, _Changed] = {}

    def documents(self) -> Sequence[DocumentId]:
        return self._only if self._only is not None else self._host.following()

    def kind(self, document: DocumentId) -> str:
        return self._host.kind(document)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        try:
            with ExitStack() as self._group:
                yield
        except BaseException:
            self._changed.clear()
            raise
        finally:
            self._group, self._writing = None, False
        self._tell_changed()

    def _begin_write(self) -> AbstractContextManager[object]:
        if self._group is None:
            return self._store.transaction()
        if not self._writing:
            self._group.enter_context(self._store.transaction())
            self._writing = True
        return nullcontext()

    def _note_changed(
        self, document: DocumentId, *, news: bool = False, erase: bool = False, acks: bool = False
    ) -> None:
        before = self._changed.get(document, _Changed())
        self._changed[document] = _Changed(before.news or news, before.erase or erase, before.acks or acks)
        if self._group is None:
            self._tell_changed()

    def _tell_changed(self) -> None:
        """Not before all is kept: whoever has a document open may write, and remembers what the store has."""
        changed, self._changed = self._changed, {}
        with self._store.lock:
            for document, what in changed.items():
                self._documents.touch(document, refresh=what.news, acknowledged=what.acks)
                # An erase, or words that an erase has to take: they must not wait in the file until somebody opens it.
                if what.news and (what.erase or self._store.updates.purged(document)):
                    self._documents.apply_pending(document)

    def cursors(self) -> Mapping[DocumentId, Cursor]:
        return {DocumentId(id_): Cursor(*found) for id_, found in self._store.outboxes.cursors(self._relay).items()}

    def outbox_ends(self) -> Mapping[DocumentId, int]:
        return {DocumentId(id_): end for id_, end in self._store.outboxes.ends(self._relay).items()}

    def cursor(self, document: DocumentId) -> Cursor | None:
        found = self._store.outboxes.cursor(self._relay, document)
        return Cursor(*found) if found else None

    def outbox(self, document: DocumentId, after: int = 0, limit: int = 256) -> Sequence[Waiting]:
        rows = self._store.outboxes.rows(self._relay, document, after, limit)
        return [Waiting(row.seq, Record(SessionId(row.session), row.n, row.data)) for row in rows]

    def outbox_end(self, document: DocumentId) -> int:
        return self._store.outboxes.end(self._relay, document)

    def replaced(self, document: DocumentId) -> int:
        return self._store.outboxes.refills(self._relay, document)

    def waiting(self) -> tuple[int, int]:
        return self._store.outboxes.size(self._relay)

    def pushed(self, document: DocumentId, place: int) -> None:
        self._documents.note_pushed(document, self, place)

    def acknowledged(self, document: DocumentId, names: Sequence[tuple[SessionId, int]], cursor: Cursor) -> None:
        with self._begin_write():
            self._store.outboxes.acknowledge(self._relay, document, names, cursor)
        self._note_changed(document, acks=True)

    def received(self, document: DocumentId, records: Sequence[Record], cursor: Cursor | None) -> bool:
        """Structure is checked here, and that a record is not of another document; one that passes and still breaks the
        core is set aside when it is applied."""
        crdt = self._host.crdt_of(document)
        good: list[tuple[str, int, bytes]] = []
        parsed: list[ParsedUpdate] = []
        refused: list[tuple[bytes, str]] = []
        for record in records:
            if crdt is None:
                good.append(record)
                continue
            try:
                update = crdt.read(record.data)
                check_identity(document, update, crdt.foreign_key)
                good.append(record)
                parsed.append(update)
            except MalformedUpdate as error:
                logger.warning("A record of %s was set aside: %s", document, error)
                refused.append((record.data, str(error)))
        # Records that repeat what the document had may carry erased words, which must not stay in the file.
        with self._begin_write():
            stale = bool(self._store.updates.purged(document)) and self._host.repeats(document, parsed)
            self._store.outboxes.receive(self._relay, document, good, refused, cursor, stale=stale)
            if records and document != self._host.library_id:
                self._store.catalog.add(document, "conversation")
        if records:
            erase = crdt is not None and any(crdt.touches(update, ERASE_MARK) for update in parsed)
            self._note_changed(document, news=True, erase=erase)
        return document == self._host.library_id

    def refused(self, document: DocumentId, session: SessionId, n: int, why: str) -> None:
        self._store.outboxes.refuse(self._relay, document, session, n, why)
        self._documents.touch(document)

    def refill(self, document: DocumentId, log: Sequence[bytes], cursor: Cursor) -> None:
        with self._store.lock:
            found = None if self._writing else self._host.missing_from(document, log)
            with self._begin_write():
                # Another process may have written since: a refill drops its outbox, where it has one yet.
                if found is None or self._store.updates.last_seq(document) != found[2]:
                    found = self._host.missing_from(document, log)
                data, keys, _ = found
                self._store.outboxes.refill(self._relay, document, data, cursor, keys)
                self._store.attachment_tasks.send_again(self._relay, document)
        self._documents.attachments_changed()
        self._note_changed(document)

    def deleted_last(self) -> Sequence[DocumentId]:
        return [DocumentId(id_) for id_ in self._store.relay_tasks.deleted_last(self._relay)]

    def lost(self) -> None:
        self._store.relay_tasks.delete_all_again(self._relay)
        self._host.request_deletions(self._relay)

    def announced(self, document: DocumentId, *, anew: bool) -> Sequence[Announcement]:
        presence = self._documents.known_presence(document)
        return [Announcement(*entry) for entry in presence.announced(anew=anew)] if presence else ()

    def heard(self, document: DocumentId, entries: Sequence[Announcement]) -> None:
        if self._documents.known_presence(document) or any(entry.state for entry in entries):
            self._documents.presence(document).heard(entries)
