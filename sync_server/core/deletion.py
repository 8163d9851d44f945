"""Deletes documents, ends their streams, and remembers which peers are to hear when nothing is left of them."""

from __future__ import annotations

from collections.abc import Collection

from ..log.admin import Storage
from .limits import Limits
from .subscriptions import Subscriptions
from .validation import Peer


class Deletions:
    """Invariants:

    1. A document is deleted from the moment that its deletion is staged; its streams end when that is durable.
    2. A peer is answered when no file holds anything of what was deleted.
    """

    def __init__(self, storage: Storage, limits: Limits, subscriptions: Subscriptions) -> None:
        self._storage, self._limits, self._subscriptions = storage, limits, subscriptions
        self._staged: dict[bytes, None] = {}
        self._waiting: dict[Peer, list[bytes]] = {}

    def is_deleted(self, document: bytes) -> bool:
        """Whether a document was deleted, in this step or before."""
        if document in self._staged:
            return True
        return document not in self._subscriptions.rooms and self._storage.tombstones.is_deleted(document)

    def may_delete(self, document: bytes, subject: str, admin: bool) -> bool:
        """Whether a subject may delete it: its own documents, and nobody's; an unknown one where there is room."""
        if not admin and self._storage.quotas.owner(document) not in ("", subject):
            return False
        if self.is_deleted(document) or self._storage.records.head(document) is not None:
            return True
        return self._storage.quotas.unknown_tombstones(subject) < self._limits.max_unknown_tombstones

    def delete(self, peer: Peer, document: bytes, subject: str) -> bool:
        """Stage a deletion. Whether there is something to delete that was not deleted before."""
        new = not self.is_deleted(document)
        if new:
            self._storage.tombstones.delete(document, subject)
            self._staged[document] = None
        self._waiting.setdefault(peer, []).append(document)
        return new

    def count_waiting(self, peer: Peer) -> int:
        """How many answers a peer waits for."""
        return len(self._waiting.get(peer, ()))

    def leave(self, peer: Peer) -> None:
        """A peer is gone. Its deletions are still done."""
        self._waiting.pop(peer, None)

    def fail(self, documents: Collection[bytes]) -> None:
        """The commit failed for these documents: they are not deleted."""
        for document in documents:
            self._staged.pop(document, None)

    def take_committed(self) -> list[bytes]:
        """The commit is through: the documents that were deleted in this step."""
        if not self._staged:
            return []
        staged, self._staged = self._staged, {}
        return [*staged]

    def take_answers(self) -> list[tuple[Peer, bytes]]:
        """No file holds anything of them: (peer, document) for all who waited."""
        if not self._waiting:
            return []
        waiting, self._waiting = self._waiting, {}
        return [(peer, document) for peer, documents in waiting.items() for document in documents]
