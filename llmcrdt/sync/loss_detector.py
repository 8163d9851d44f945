"""Whether a relay lost something that it had acknowledged."""

from __future__ import annotations

from collections.abc import Container

from ..ids import DocumentId, document_bytes
from .events import Event, Opened, Refused
from .local import Deletions
from .messages import ErrorCode
from .protocol import Connection


class LossDetector:
    """Of one connection. A relay that went back to an old copy may have lost a deletion and no record: so it is asked
    for what it was the last to delete. One that still knows says GONE."""

    def __init__(self, local: Deletions, connection: Connection) -> None:
        self._local, self._connection = local, connection
        self._probed: set[bytes] = set()
        self._noted = False

    def probe(self, followed: Container[DocumentId]) -> None:
        """Open what the relay was the last to delete, but what is followed again."""
        for document in self._local.deleted_last():
            if document not in followed:
                raw = document_bytes(document)
                self._probed.add(raw)
                self._connection.open(raw, self._local.kind(document), None)

    def handle_event(self, event: Event) -> bool:
        """Whether an event answers a probe; nobody else has to know of it then."""
        match event:
            case Opened(document) if document in self._probed:
                self._probed.discard(document)
                self._connection.close(document)
                self.note_loss()
                return True
            case Refused(error) if error.document is not None and error.document in self._probed:
                self._probed.discard(error.document)
                if error.code == ErrorCode.WRONG_KIND:  # somebody has brought another one
                    self.note_loss()
                return True
        return False

    def note_loss(self) -> None:
        """The relay lost something. ``Deletions.lost`` is called once."""
        if not self._noted:
            self._noted = True
            self._local.lost()
