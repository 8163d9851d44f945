"""Who waits for a deletion: what was deleted in this step, and which peers are to hear when nothing is left of it."""

from __future__ import annotations

from collections.abc import Collection


class DeletionWaiters:
    """``now``: documents deleted in the step that is under way, whose streams end when it is on disk."""

    def __init__(self) -> None:
        self.now: dict[bytes, None] = {}
        self._waiting: dict[int, list[bytes]] = {}

    def wait(self, peer: int, document: bytes) -> None:
        self._waiting.setdefault(peer, []).append(document)

    def waits(self, peer: int) -> int:
        """How many answers a peer waits for."""
        return len(self._waiting.get(peer, ()))

    def leave(self, peer: int) -> None:
        """A peer is gone. What it asked for is still done."""
        self._waiting.pop(peer, None)

    def fail(self, documents: Collection[bytes]) -> None:
        """The deletions of these documents, if any, are not on disk."""
        for document in documents:
            self.now.pop(document, None)

    def ended(self) -> list[bytes]:
        """The step is on disk: what was deleted in it."""
        now, self.now = list(self.now), {}
        return now

    def answers(self) -> list[tuple[int, bytes]]:
        """Nothing is left of any of them in any file: (peer, document) for all who waited."""
        waiting, self._waiting = self._waiting, {}
        return [(peer, document) for peer, documents in waiting.items() for document in documents]
