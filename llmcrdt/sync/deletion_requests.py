"""Documents that a relay is still to delete, as one link has them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from ..ids import DocumentId, document_bytes
from .local import Outbox
from .outbox_marks import OutboxMark, end_of, still_waits
from .protocol import Connection

MAX_UNDER_WAY = 256
"""Deletions under way at one time; the relay ends a connection that has many more (docs/protocol.md, 4)."""


@dataclass(slots=True)
class _Deletion:
    """``after``: the document that says so. Its outbox has to be acknowledged up to ``mark`` first: whoever finds the
    other one gone must be able to find out why."""

    after: DocumentId
    mark: OutboxMark
    done: list[Callable[[int], None]]
    asked: bool = False


class DeletionRequests:
    """Each is asked for once a connection, until the relay has answered. ``held_back``: some could not be asked for
    yet."""

    def __init__(self, local: Outbox) -> None:
        self._local = local
        self._wanted: dict[DocumentId, _Deletion] = {}
        self._under_way = 0
        self.held_back = False

    def add(self, document: DocumentId, after: DocumentId, done: Callable[[int], None]) -> None:
        """Have a document deleted once all that is local now of ``after`` is durable. ``done`` gets the answer."""
        if document in self._wanted:
            self._wanted[document].done.append(done)
        else:
            self._wanted[document] = _Deletion(after, end_of(self._local, after), [done])

    def start_over(self) -> None:
        """The connection is gone."""
        self._under_way, self.held_back = 0, False
        for deletion in self._wanted.values():
            deletion.asked = False

    def ask(self, connection: Connection, pending: Collection[DocumentId] = ()) -> bool:
        """Send what can be asked now; whether anything was. An older relay is not asked; a later one may be.
        ``pending``: documents that are not live yet, so the relay may lack what was durable there before."""
        asked = self.held_back = False
        for document, deletion in self._wanted.items() if connection.can_delete() else ():
            if deletion.asked:
                continue
            if self._under_way >= MAX_UNDER_WAY:
                self.held_back = True
                break
            if deletion.after in pending:
                self.held_back = True
                continue
            waits = still_waits(self._local, deletion.after, deletion.mark)
            if waits is not None:
                deletion.mark = waits
            else:
                asked = deletion.asked = True
                self._under_way += 1
                connection.delete(document_bytes(document))
        return asked

    def answered(self, document: DocumentId, outcome: int) -> None:
        self._under_way = max(0, self._under_way - 1)
        deletion = self._wanted.pop(document, None)
        for done in deletion.done if deletion else ():
            done(outcome)
