"""Relays are asked for what they are still to do: compact what was erased, delete what was deleted. The store remembers
it; a relay is asked on every link until it has answered."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ..exceptions import RelayRefused, StoreError, SyncError
from ..ids import DocumentId, tagged_hash
from ..store.base import Store

if TYPE_CHECKING:
    from ..sync.link_control import LinkControl


class TaskRequests:
    """Any thread that has the repo's lock. ``library`` says what was deleted: a relay has to have its word first."""

    def __init__(self, store: Store, library: DocumentId) -> None:
        self._store, self._library = store, library
        # A name for the token of each link, without telling it.
        self._credentials: WeakKeyDictionary[LinkControl, str] = WeakKeyDictionary()

    def linked(self, link: LinkControl, token: str | None) -> None:
        """A new link: its relay is asked for all that it is still to do."""
        self._credentials[link] = tagged_hash("llmcrdt/credential/1", (token or "").encode())
        self.request_compactions(link)
        self.request_deletions(link)

    def request_compactions(self, link: LinkControl) -> None:
        """Have a relay drop what was erased, now or when it was out of reach."""
        for document in self._store.relay_tasks.compactions(link.url):
            self._request_compaction(link, DocumentId(document))

    def request_deletions(self, link: LinkControl, only: Collection[DocumentId] | None = None) -> None:
        """Have a relay delete what was deleted, except what it refused this token."""
        for document in self._store.relay_tasks.deletions(link.url, self._credentials.get(link, "")):
            if only is None or document in only:
                self._request_deletion(link, DocumentId(document))

    def _request_compaction(self, link: LinkControl, document: DocumentId) -> None:
        def done(future: Future[None]) -> None:
            error = future.exception()
            if error is None or isinstance(error, RelayRefused):
                with suppress(StoreError):  # closed meanwhile: then it is asked again, and that is harmless
                    self._store.relay_tasks.compacted(link.url, document)

        with suppress(SyncError):  # a link that was closed: the next one asks
            link.request_compaction(document).add_done_callback(done)

    def _request_deletion(self, link: LinkControl, document: DocumentId) -> None:
        def done(future: Future[None]) -> None:
            error = future.exception()
            with suppress(StoreError):  # closed meanwhile: it is asked again, and that is harmless
                if error is None:
                    self._store.relay_tasks.deleted(link.url, document)
                elif isinstance(error, RelayRefused) and document in link.kept_there:
                    self._store.relay_tasks.deletion_refused(link.url, document, self._credentials[link])

        with suppress(SyncError):  # a link that was closed: the next one asks
            link.request_deletion(document, self._library).add_done_callback(done)
