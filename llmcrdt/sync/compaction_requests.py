"""Documents whose logs a relay is still to compact, as one link has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..ids import DocumentId
from .document_sync import DocumentSync, Phase
from .local import Outbox
from .messages import FOLD_DONE
from .outbox_marks import OutboxMark, end_of, still_waits
from .protocol import Connection


@dataclass(slots=True)
class _Request:
    """Somebody wants a document's log compacted, as soon as all of its outbox up to ``mark`` is acknowledged.

    ``answers``: how many are still to come on this connection; only the last one is about all that was asked.
    """

    mark: OutboxMark
    done: list[Callable[[int], None]]
    asked: bool = False
    answers: int = 0


class CompactionRequests:
    """Each is asked for until the relay has answered, on whatever connection."""

    def __init__(self, local: Outbox) -> None:
        self._local = local
        self._wanted: dict[DocumentId, _Request] = {}

    def add(self, document: DocumentId, done: Callable[[int], None]) -> None:
        """Have a log compacted once all that is local now is durable. ``done`` gets the answer."""
        mark, before = end_of(self._local, document), self._wanted.get(document)
        self._wanted[document] = _Request(mark, [*(before.done if before else []), done])
        self._wanted[document].answers = before.answers if before else 0

    def start_over(self, document: DocumentId | None = None) -> None:
        """Ask again: for a document that is opened anew, or (None) for all, on the next connection."""
        for name, request in self._wanted.items():
            if document is None or name == document:
                request.asked, request.answers = False, 0

    def ask(self, connection: Connection, documents: Mapping[DocumentId, DocumentSync]) -> None:
        """Send what can be asked now."""
        for document, request in self._wanted.items():
            doc = documents.get(document)
            if request.asked or doc is None or doc.phase is not Phase.LIVE:
                continue
            left = still_waits(self._local, document, request.mark)
            if left is not None:
                request.mark = left
            else:
                request.asked, request.answers = True, request.answers + 1
                connection.request_compaction(doc.raw)

    def answered(self, document: DocumentId, outcome: int) -> None:
        request = self._wanted.get(document)
        if request is None or not request.answers:
            return
        request.answers -= 1
        if request.asked and not request.answers:
            del self._wanted[document]
            for done in request.done:
                done(outcome)

    def gone(self, document: DocumentId) -> None:
        """The relay has nothing of a document any more, which is more than was asked."""
        request = self._wanted.pop(document, None)
        for done in request.done if request else ():
            done(FOLD_DONE)
