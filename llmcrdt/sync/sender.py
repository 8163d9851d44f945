"""Sends outboxes as far as the relay's window goes."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import lru_cache

from ..exceptions import RelayRefused
from ..ids import DocumentId, SessionId
from .document_sync import DocumentSync, Phase
from .local import Outbox, Waiting
from .messages import MAX_RECORDS, ErrorCode, Record
from .protocol import Connection

BATCH = 64 << 10
"""Bytes of data in one PUSH, unless a single record is larger."""


class Sender:
    """Of all documents of one connection. ``stalled``: those whose outboxes wait for room in the window."""

    def __init__(self, local: Outbox) -> None:
        self._local = local
        self.stalled: dict[DocumentId, DocumentSync] = {}

    def send(self, connection: Connection, doc: DocumentSync) -> RelayRefused | None:
        """Send what an outbox holds. Returns the refusal, where the next record is one that the relay never takes: then
        nothing more of this outbox is sent until another has taken its place."""
        self.stalled.pop(doc.id, None)
        if doc.outbox_refused is not None and doc.outbox_refused == self._local.replaced(doc.id):
            return None
        doc.outbox_refused = None
        while doc.phase is Phase.LIVE and not doc.records_refused:
            waiting = self._local.outbox(doc.id, doc.sent)
            if not waiting:
                return None
            while waiting:
                if _too_large(connection, waiting[0]):
                    doc.outbox_refused = self._local.replaced(doc.id)
                    return _refusal(connection, doc, waiting[0])
                run = _run(connection, waiting)
                if not run:
                    self.stalled[doc.id] = doc
                    return None
                waiting = waiting[len(run) :]
                self._note_sent(doc, run[-1].place)
                session = _raw_session(run[0].record.session)
                connection.push(doc.raw, [Record(session, w.record.n, w.record.data) for w in run])
        return None

    def start_over(self, doc: DocumentSync) -> None:
        """Nothing of this outbox counts as sent any more."""
        self._note_sent(doc, 0)
        self.stalled.pop(doc.id, None)
        doc.outbox_refused = None

    def _note_sent(self, doc: DocumentSync, place: int) -> None:
        if place != doc.sent:
            doc.sent = place
            self._local.pushed(doc.id, place)


def _too_large(connection: Connection, waiting: Waiting) -> bool:
    return connection.limits is not None and len(waiting.record.data) > connection.limits.record_bytes


def _refusal(connection: Connection, doc: DocumentSync, waiting: Waiting) -> RelayRefused:
    assert connection.limits is not None
    text = (
        f"A record of {doc.id} has {len(waiting.record.data)} bytes; the relay takes {connection.limits.record_bytes}."
    )
    hint = (
        "It stays on this device, and what follows it there too; all other documents go on. Have the relay take more"
        " (limit `record`), or erase the entry."
    )
    return RelayRefused(text, code=ErrorCode.RECORD_TOO_LARGE, hint=hint)


def _run(connection: Connection, waiting: Sequence[Waiting]) -> list[Waiting]:
    """The first records that can go in one PUSH. Empty where the window is full."""
    run: list[Waiting] = []
    size = 0
    for w in waiting:
        session, n, data = w.record
        if run and ((session, n) != (run[-1].record.session, run[-1].record.n + 1) or size + len(data) > BATCH):
            break
        full = len(run) == MAX_RECORDS or not connection.fits(size + len(data), len(run))
        if full or _too_large(connection, w):
            break
        size += len(data)
        run.append(w)
    return run


@lru_cache(4096)
def _raw_session(session: SessionId) -> bytes:
    return base64.urlsafe_b64decode(session + "==")
