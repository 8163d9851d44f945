"""A link as a repo uses it: to tell of changes, and to have the relay do things."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Final

from ..exceptions import RelayRefused, SyncError
from ..ids import DocumentId
from .failures import deletion_refused
from .link_loop import LinkLoop
from .messages import DELETE_REFUSED, FOLD_DONE, FOLD_FAILED, FOLD_NEVER
from .reconnect import State

logger = logging.getLogger(__name__)

ANNOUNCE = 0.1
"""Seconds at least between two announcements for one document."""


class LinkControl:
    """Of one link. Any method may be called from any thread, and returns at once, but ``close``.

    Attributes:
        url: the relay's, as it was given.
        kept_there: deleted documents that the relay refused to delete when this link asked it, and why.
    """

    def __init__(self, loop: LinkLoop) -> None:
        self._loop = loop
        self.url = loop.url
        self.kept_there: Mapping[DocumentId, RelayRefused] = {}
        self._lock = threading.Lock()
        # Documents that changed since the loop handled changes last; None: the list of documents.
        self._changed: set[DocumentId | None] = set()
        # Documents announced for just now, and whether there is more to announce.
        self._announcing: dict[DocumentId, bool] = {}

    @property
    def state(self) -> State:
        """As ``Link.state``."""
        return self._loop.state

    @property
    def token(self) -> str | None:
        """The token that this link shows just now. Raises TokenUnavailable before a provider has given one."""
        return self._loop.tokens.shown

    def notify(self, document: DocumentId | None = None) -> None:
        """A document has new local records; or, with None, there are other documents to follow. Many calls in a row
        cost little more than one."""
        with self._lock:
            first = not self._changed
            self._changed.add(document)
        if first:
            self._loop.call(self._handle_changes)

    def announce(self, document: DocumentId) -> None:
        """The presence of a document on this device has changed. If nobody is connected, it is told with the next
        connection."""
        self._loop.call(self._announce, document)

    def request_compaction(self, document: DocumentId) -> Future[None]:
        """Have the relay compact a document's log, so that what was erased from the document is in no file of the relay
        any more. The relay is asked when all that is local now is durable there, and again after a reconnection that
        came before its answer.

        The future ends with None; with RelayRefused, where the relay can't compact documents of that kind; with
        SyncError, where it failed or the link was closed."""
        future = self._loop.new_future()

        def done(outcome: int) -> None:
            self._loop.resolve(future, _COMPACTION_ERRORS[outcome])

        self._call(self._loop.synchronizer.request_compaction, document, done)
        return future

    def request_deletion(self, document: DocumentId, after: DocumentId) -> Future[None]:
        """Have the relay delete a document. It is asked when all that is local now of ``after`` (the library, which
        says so) is durable there, and on every reconnection until the relay has answered.

        The future ends with None; with RelayRefused, where the token does not allow it, which ``kept_there`` and
        ``Link.last_error`` say too; with SyncError, where the link was closed first."""
        future = self._loop.new_future()

        def done(outcome: int) -> None:
            refused = deletion_refused(document) if outcome == DELETE_REFUSED else None
            if refused is not None:
                self._loop.transport.last_error = refused
                self.kept_there = {**self.kept_there, document: refused}
                logger.warning("%s", refused)
            self._loop.resolve(future, refused)

        self._call(self._loop.synchronizer.request_deletion, document, after, done)
        return future

    def stop(self) -> None:
        """As ``close``, without waiting for its end."""
        self._loop.call(self._loop.transport.stop)

    def close(self) -> None:
        """As ``Link.close``."""
        self._loop.close()

    # ---------------------------------------------------------------- on the loop's thread

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        self._loop.call(self._loop.guard, function, *arguments)

    def _handle_changes(self) -> None:
        with self._lock:
            changed, self._changed = self._changed, set()
        for document in changed:
            self._loop.guard(self._loop.synchronizer.local_changed, document)

    def _announce(self, document: DocumentId) -> None:
        if document in self._announcing:
            self._announcing[document] = True
            return
        self._announcing[document] = False
        self._loop.call_later(ANNOUNCE, self._announced, document)
        self._loop.guard(self._loop.synchronizer.announce, document)

    def _announced(self, document: DocumentId) -> None:
        if self._announcing.pop(document):
            self._announce(document)


_COMPACTION_ERRORS: Final[Mapping[int, SyncError | None]] = {
    FOLD_DONE: None,
    FOLD_NEVER: RelayRefused("The relay never compacts documents of this kind."),
    FOLD_FAILED: SyncError("The relay could not compact the document.", hint="Ask again later; nothing was lost."),
}
