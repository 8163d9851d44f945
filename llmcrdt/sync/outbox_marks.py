"""How far an outbox reached at some moment, and whether anything of that still waits."""

from __future__ import annotations

from typing import NamedTuple

from ..ids import DocumentId
from .local import Outbox


class OutboxMark(NamedTuple):
    """All in an outbox up to a place, as long as it was not replaced since (``Outbox.replaced``)."""

    place: int
    replaced: int


def end_of(local: Outbox, document: DocumentId) -> OutboxMark:
    """All that waits now."""
    return OutboxMark(local.outbox_end(document), local.replaced(document))


def ends_of(local: Outbox) -> dict[DocumentId, OutboxMark]:
    """The same of every outbox that is not empty."""
    return {document: OutboxMark(end, local.replaced(document)) for document, end in local.outbox_ends().items()}


def still_waits(local: Outbox, document: DocumentId, before: OutboxMark) -> OutboxMark | None:
    """The mark, if anything up to it still waits. If one record has taken the place of all that waited, that one has to
    be acknowledged."""
    if before.replaced != local.replaced(document):
        before = end_of(local, document)
    first = local.outbox(document, 0, 1)
    return before if first and first[0].place <= before.place else None
