"""Deleted conversations are dropped here, and deleted at relays."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from ..exceptions import LLMCRDTError
from ..ids import DocumentId
from .links import Links
from .open_documents import OpenDocuments
from .resources import Resources

_AGAIN = 16
"""Looks of the watcher after which it is tried again to drop what could not be dropped."""


class Deletion:
    """Used under the repo's lock."""

    def __init__(self, resources: Resources, documents: OpenDocuments, links: Links) -> None:
        self._resources, self._documents, self._links = resources, documents, links
        self.looks_left = 0
        """Looks until it is tried again, because it failed; 0: nothing is to be dropped."""

    def drop(self, heard: Iterable[DocumentId] = ()) -> None:
        """Keep nothing of conversations that were deleted: no words, no attachments that nothing else names, no KV
        state; and have every relay that knows them do the same. ``heard``: those that the library says it of since now.
        Another process may have dropped them, and may have no link. If the disk is full, or somebody reads the
        write-ahead log, it is tried again in a while."""
        deletions, done = self._resources.store.deletions, False
        try:
            left = [DocumentId(id_) for id_ in deletions.left()]
            for id_ in left:
                blobs: set[str] = set()
                from ..document.conversation import Conversation  # hardly ever is there anything to do

                with suppress(LLMCRDTError):  # one that can't be read: ``collect`` finds them later
                    blobs = Conversation(self._documents.lone_core(id_)).blobs()
                deletions.drop(id_)
                self._resources.store.attachment_tasks.forget(id_)
                with suppress(LLMCRDTError, OSError):
                    self._resources.caches.forget(id_)
                    if blobs:
                        self._documents.blobs.release(blobs)
            done = deletions.scrub()
        finally:
            self.looks_left = 0 if done else _AGAIN
            if not done:
                self._documents.watch()
        if to_ask := {*left, *heard}:
            self._links.request_deletions(to_ask)

    def tick(self) -> None:
        """The watcher looks: what could not be dropped before is tried again in its turn, and links ask for what they
        could not hear of then."""
        if not self.looks_left:
            return
        self.looks_left -= 1
        if self.looks_left == 0:
            self.drop()
            self._links.request_deletions()
