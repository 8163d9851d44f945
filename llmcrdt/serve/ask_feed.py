"""AskFeed: the conversations in which something was asked, found without reading the others."""

from __future__ import annotations

from ..document.ask import asks_of
from ..exceptions import CRDTMissing, LLMCRDTError, MalformedUpdate
from ..ids import DocumentId
from ..repo.core import RepoCore

_ASK = "ask:"


class AskFeed:
    """One thread. Sees what this process writes, what other processes do, and what a relay brings."""

    def __init__(self, core: RepoCore) -> None:
        self._core = core
        self._seq = core.store.updates.last()
        self._unread = [i for i in core.following() if i != core.library_id]

    def changed(self, limit: int = 32) -> list[DocumentId]:
        """Conversations in which something may have been asked since the last call. At first all that there are are
        looked through, the youngest first, ``limit`` of them in a call."""
        some, self._unread = self._unread[:limit], self._unread[limit:]
        news, self._seq = self._core.store.updates.news(self._seq)
        found = [DocumentId(document) for document, data in news if self._may_ask(document, data)]
        return list(dict.fromkeys(found + [document for document in some if self._asked_in(document)]))

    def _may_ask(self, document: str, data: bytes | None) -> bool:
        if document == self._core.library_id:
            return False
        if data is None:
            return True
        try:
            crdt = self._core.resources.crdt_of(DocumentId(document))
            return crdt.touches(crdt.read(data), _ASK)
        except (CRDTMissing, MalformedUpdate):
            return False

    def _asked_in(self, document: DocumentId) -> bool:
        """Whether a conversation has an ask; it is read for the moment."""
        core = self._core.documents.core(document)
        if core is not None:
            return True
        with self._core.lock:
            lone = self._core.documents.lone_core(document)
            try:
                return bool(asks_of(lone))
            except LLMCRDTError:  # it can't be read: nobody is answered there
                return False
            finally:
                lone.document.close()
                self._core.documents.touch(document)
