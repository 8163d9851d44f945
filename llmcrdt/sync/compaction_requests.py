"""Documents that a relay is still to fold, as one link has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..ids import DocumentId
from .document_sync import DocumentSync, Phase
from .local import LocalDocuments
from .messages import FOLD_DONE
from .outbox_marks import OutboxMark, end_of, still_waits
from .protocol import Connection


@dataclass(slots=True)
class _Fold:
    """Somebody wants a document's log folded, as soon as all of its outbox up to ``mark`` is acknowledged.

    ``answers``: how many are still to come on this connection; only the last one speaks of all that is asked.
    """

    mark: OutboxMark
    done: list[Callable[[int], None]]
    asked: bool = False
    answers: int = 0


class CompactionRequests:
    """Each is asked for until the relay has answered, on whatever connection."""

    def __init__(self, local: LocalDocuments) -> None:
        self._local = local
        self._wanted: dict[DocumentId, _Fold] = {}

    def add(self, document: DocumentId, done: Callable[[int], None]) -> None:
        """Have a document folded once all that is local now is durable. ``done`` gets the answer."""
        mark, before = end_of(self._local, document), self._wanted.get(document)
        self._wanted[document] = _Fold(mark, [*(before.done if before else []), done])
        self._wanted[document].answers = before.answers if before else 0

    def start_over(self, document: DocumentId | None = None) -> None:
        """What was asked is asked again: of a document that is opened anew, or (None) of all on the next connection."""
        for name, fold in self._wanted.items():
            if document is None or name == document:
                fold.asked, fold.answers = False, 0

    def ask(self, connection: Connection, documents: Mapping[DocumentId, DocumentSync]) -> None:
        """Send what can be asked now."""
        for document, fold in self._wanted.items():
            doc = documents.get(document)
            if fold.asked or doc is None or doc.phase is not Phase.LIVE:
                continue
            left = still_waits(self._local, document, fold.mark)
            if left is not None:
                fold.mark = left
            else:
                fold.asked, fold.answers = True, fold.answers + 1
                connection.request_compaction(doc.raw)

    def answered(self, document: DocumentId, outcome: int) -> None:
        fold = self._wanted.get(document)
        if fold is None or not fold.answers:
            return
        fold.answers -= 1
        if fold.asked and not fold.answers:
            del self._wanted[document]
            for done in fold.done:
                done(outcome)

    def gone(self, document: DocumentId) -> None:
        """The relay has nothing of a document any more: that is more than was asked."""
        fold = self._wanted.pop(document, None)
        for done in fold.done if fold else ():
            done(FOLD_DONE)
