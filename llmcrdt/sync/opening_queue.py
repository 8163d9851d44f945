"""Which documents of a connection are not live yet, and which of them may be opened now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from ..ids import DocumentId
from .document_sync import DocumentSync

FILLING: Final = 8
"""Documents without a cursor that are opened at one time: their logs are held in memory until the end is reached."""
MOST_FILLING: Final = 32
"""The same, where all that came so far had small logs: then most of the time goes by waiting for answers."""
SMALL_LOG: Final = 64 << 10
"""Bytes, with the weight of records."""


class OpeningQueue:
    """``pending``: all documents that are not live yet, and not refused.

    Each document with a small log makes room for one more, up to ``MOST_FILLING``; a larger one takes it back. Once
    documents were postponed, for together they took too much memory, those are opened one at a time.
    """

    def __init__(self) -> None:
        self.one_at_a_time = False
        self.pending: set[DocumentId] = set()
        self._waiting: dict[DocumentId, DocumentSync] = {}
        self._filling: set[DocumentId] = set()
        self._room = FILLING

    def add(self, doc: DocumentSync) -> None:
        """A document without a cursor, or one that was postponed, to be opened when its turn comes."""
        self.pending.add(doc.id)
        self._waiting[doc.id] = doc

    def ready(self) -> Iterator[DocumentSync]:
        """Those whose turn it is. Each has to be ``opened`` before the next is asked for."""
        while self._waiting and len(self._filling) < (1 if self.one_at_a_time else self._room):
            yield self._waiting.pop(next(iter(self._waiting)))

    def opened(self, doc: DocumentSync, *, from_start: bool) -> None:
        """It was asked for, with a cursor or from position 0."""
        self.pending.add(doc.id)
        if from_start or self.one_at_a_time:
            self._filling.add(doc.id)

    def postpone(self, docs: Iterable[DocumentSync], first: DocumentSync) -> None:
        """Open these later, one at a time, when ``first`` has come to the end."""
        self.one_at_a_time = True
        for doc in docs:
            self.done(doc)
            self.add(doc)
        self._filling.add(first.id)

    def live(self, doc: DocumentSync) -> None:
        """It is about to be live. If documents are opened one at a time it keeps its turn until it is ``done``."""
        self.pending.discard(doc.id)
        if not self.one_at_a_time and doc.id in self._filling:
            self._filling.discard(doc.id)
            self._room = min(self._room + 1, MOST_FILLING) if doc.log_size <= SMALL_LOG else FILLING

    def done(self, doc: DocumentSync) -> None:
        """It is live and nothing is still to come, or it is refused, or not followed any more."""
        self.pending.discard(doc.id)
        self._filling.discard(doc.id)
        self._waiting.pop(doc.id, None)
