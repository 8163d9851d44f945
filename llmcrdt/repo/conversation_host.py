"""A repo, as one of its conversations gets to see it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

from ..crdt.backend import Replica
from ..document.entry import SyncState
from ..document.presence import Presence
from ..ids import DocumentId, EntryId
from ..interop.requests import FORMATS
from .conversation_blobs import ConversationBlobs
from .journal import StoreJournal
from .resources import Resources


class Surroundings(Protocol):
    """The conversations of the same repo."""

    def blobs_of(self, document: DocumentId) -> ConversationBlobs:
        """The contents of attachments, as a conversation uses them."""
        ...

    def linked(self) -> bool:
        """Whether there is a link to a relay, connected or not."""
        ...

    def presence(self, document: DocumentId) -> Presence:
        """The presence of people in a conversation."""
        ...

    def watch(self) -> None:
        """Look for what other processes write, from now on."""
        ...


class RepoHost:
    """Implements ``document.host.ConversationHost``, which says what each of these is for. ``on_close`` is called when
    the conversation is closed."""

    def __init__(
        self,
        document: DocumentId,
        journal: StoreJournal,
        resources: Resources,
        surroundings: Surroundings,
        on_close: Callable[[], None],
    ) -> None:
        self.journal = self.index = journal
        self.lock: threading.RLock = resources.lock
        self.author, self.keys, self.blobs = resources.author, resources.keyring, surroundings.blobs_of(document)
        self.clock, self.random, self.dispatch = resources.clock, resources.random, resources.dispatcher.run
        crdt = resources.crdt_of(document)
        self.derive, self.formats = crdt.derive, FORMATS
        self.note_engine: Callable[[Any], None] = resources.caches.note
        self.observed, self.closed = surroundings.watch, on_close
        self.linked = surroundings.linked
        self._document, self._resources, self._surroundings = document, resources, surroundings

    def make_replica(self) -> Replica:
        return self._resources.make_replica(self._document)

    def title(self) -> str:
        listed = self._resources.store.catalog.get(self._document)
        return listed.title if listed else ""

    def sync_state(self, entry: EntryId) -> SyncState:
        return self.journal.sync_state(entry)

    def presence(self) -> Presence:
        return self._surroundings.presence(self._document)

    def erased(self) -> None:
        self._resources.caches.forget(self._document)
