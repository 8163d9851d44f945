"""What relays are still to do: fold away what was erased, delete what was deleted. The store remembers it; a relay is
asked on every link until it has answered."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ..exceptions import RelayRefused, StoreError, SyncError
from ..ids import DocumentId, tagged_hash
from ..store.store import Store

if TYPE_CHECKING:
    from ..sync.link_control import LinkControl


class RelayTasks:
    """Any thread that has the repo's lock. ``library`` says what was deleted: a relay has to have its word first."""

    def __init__(self, store: Store, library: DocumentId) -> None:
        self._store, self._library = store, library
        # What names the token of each link, without telling it.
        self._credentials: WeakKeyDictionary[LinkControl, str] = WeakKeyDictionary()

    def linked(self, link: LinkControl, token: str | None) -> None:
        """A new link: whatever its relay owes is asked for."""
        self._credentials[link] = tagged_hash("llmcrdt/credential/1", (token or "").encode())
        self.ask_to_fold(link)
        self.ask_to_delete(link)

    def ask_to_fold(self, link: LinkControl) -> None:
        """Have a relay drop what was erased, now or when it was out of reach."""
        for document in self._store.owed_folds(link.url):
            self._await_fold(link, DocumentId(document))

    def ask_to_delete(self, link: LinkControl, only: Collection[DocumentId] | None = None) -> None:
        """Have a relay delete what was deleted, but what it refused this token."""
        for document in self._store.owed_deletions(link.url, self._credentials.get(link, "")):
            if only is None or document in only:
                self._await_deletion(link, DocumentId(document))

    def _await_fold(self, link: LinkControl, document: DocumentId) -> None:
        def done(future: Future[None]) -> None:
            error = future.exception()
            if error is None or isinstance(error, RelayRefused):
                with suppress(StoreError):  # closed meanwhile: then it is asked again, and that is harmless
                    self._store.folded(link.url, document)

        with suppress(SyncError):  # a link that was closed: the next one asks
            link.request_compaction(document).add_done_callback(done)

    def _await_deletion(self, link: LinkControl, document: DocumentId) -> None:
        def done(future: Future[None]) -> None:
            error = future.exception()
            with suppress(StoreError):  # closed meanwhile: it is asked again, and that is harmless
                if error is None:
                    self._store.deleted_there(link.url, document)
                elif isinstance(error, RelayRefused) and document in link.kept_there:
                    self._store.deletion_refused(link.url, document, self._credentials[link])

        with suppress(SyncError):  # a link that was closed: the next one asks
            link.request_deletion(document, self._library).add_done_callback(done)
