"""The links of a repo: what each is told, and how far it has sent."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from ..ids import DocumentId
from .relay_tasks import TaskRequests
from .resources import Resources

if TYPE_CHECKING:
    from ..sync.link_control import LinkControl


class Links:
    """Used under the repo's lock, but ``close``."""

    def __init__(self, resources: Resources) -> None:
        self._lock, self._store = resources.lock, resources.store
        self._open: list[LinkControl] = []
        self._requests = TaskRequests(resources.store, resources.library)
        # For each document, up to which seq of its outbox each link has sent it on its connection.
        self._pushed: dict[DocumentId, dict[object, int]] = {}
        self.notify_attachments: Callable[[], None] = lambda: None
        """Relays are to be given an attachment, or to take one away."""
        self.note_news: Callable[[DocumentId], None] = lambda document: None
        """Something came for a document from elsewhere."""

    def add(self, link: LinkControl, token: str | None) -> None:
        """A new link: its relay is asked for what it is still to do."""
        with self._lock:
            self._open = [other for other in self._open if other.state != "closed"] + [link]
            self._requests.linked(link, token)

    def any_open(self) -> bool:
        """Whether there is one that was not closed."""
        return any(link.state != "closed" for link in tuple(self._open))

    def stop(self) -> None:
        """Have all end, and don't wait for it."""
        for link in self._open:
            link.stop()

    def close(self) -> None:
        """Close all. Without the lock: a link's thread may be waiting for it."""
        with self._lock:
            links, self._open = self._open, []
        for link in links:
            link.close()

    def notify(self, document: DocumentId) -> None:
        """There is more to send of a document."""
        for link in self._open:
            link.notify(document)

    def notify_waiting(self) -> None:
        """There may be more to send of anything, and other documents to follow."""
        for link in self._open:
            link.notify()
            for document in self._store.outboxes.documents(link.url):
                link.notify(DocumentId(document))

    def announce(self, document: DocumentId) -> None:
        """Presence in a document changed here."""
        for link in self._open:
            link.announce(document)

    def request_compactions(self) -> None:
        """Have relays compact documents of which something was erased."""
        for link in self._open:
            self._requests.request_compactions(link)

    def request_deletions(self, only: Collection[DocumentId] | None = None, relay: str | None = None) -> None:
        """Have relays, or one of them, delete what was deleted: all of it, or ``only`` these documents."""
        for link in self._open:
            if relay is None or link.url == relay:
                self._requests.request_deletions(link, only)

    def note_pushed(self, document: DocumentId, link: object, seq: int) -> None:
        """A link has sent a document's outbox up to ``seq``, on the connection that it has; 0: nothing."""
        sent = self._pushed.setdefault(document, {})
        sent[link] = seq
        if not seq:
            del sent[link]
        if not sent:
            del self._pushed[document]

    def pushed(self, document: DocumentId) -> int:
        """How far a document's outbox was sent on the connections that there are."""
        return max((0, *self._pushed.get(document, {}).values()))
