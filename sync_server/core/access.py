"""The documents that a peer may use, where its token is for what belongs to its subject."""

from __future__ import annotations

from collections.abc import Callable

from llmcrdt.sync.messages import DELETE_REFUSED, Barrier, Close, Delete, Deleted, ErrorCode, Presence

from .delivery import Delivery
from .subscriptions import Subscriptions
from .validation import Peer, PresenceQuery, Request

FOREIGN = "The token is not for this document."


class Access:
    """Invariant: of a document that is not for it a peer is sent nothing, and says nothing in it. ``close`` ends a
    peer's stream."""

    def __init__(self, subscriptions: Subscriptions, delivery: Delivery, close: Callable[[Peer, bytes], None]) -> None:
        self._subscriptions, self._delivery, self._close = subscriptions, delivery, close

    def is_for(self, peer: Peer, message: Request) -> bool:
        """Whether a message is about a document that is for the peer; it is answered if not. Nobody is announced in a
        document that isn't there yet: to whom it will belong isn't known."""
        if self._subscriptions.peers[peer].named is None or isinstance(message, Close | Barrier):
            return True
        document, presence = message.document, isinstance(message, Presence | PresenceQuery)
        if self._subscriptions.may_use(peer, document):
            return not presence or self._subscriptions.is_there(document)
        if isinstance(message, Delete):
            self._delivery.send(peer, Deleted(document, DELETE_REFUSED))
        elif not presence:
            self.refuse(peer, document)
        return False

    def refuse(self, peer: Peer, document: bytes) -> None:
        """Say that a document is not for a peer."""
        self._delivery.refuse(peer, ErrorCode.FORBIDDEN, FOREIGN, document)

    def end_foreign(self, document: bytes) -> None:
        """A document was begun: those who had it open, and for whom it is not, have it open no more."""
        for peer in self._subscriptions.foreign(document):
            self._close(peer, document)
            self.refuse(peer, document)
