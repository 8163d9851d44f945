"""A repo, as one of its conversations gets to see it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..crdt.backend import Replica
from ..document.entry import SyncState
from ..document.presence import Presence
from ..ids import EntryId, Random
from ..store.blobs import BlobStore
from ..store.keyring import Keyring
from .journal import StoreJournal


@dataclass(frozen=True, eq=False)
class RepoHost:
    """Implements ``document.host.ConversationHost``, which says what each of these is for."""

    journal: StoreJournal
    lock: threading.RLock
    author: str
    keys: Keyring
    blobs: BlobStore
    clock: Callable[[], float]
    random: Random
    title: Callable[[], str]
    presence: Callable[[], Presence]
    dispatch: Callable[[Callable[[], None]], None]
    observed: Callable[[], None]
    note_engine: Callable[[Any], None]
    erased: Callable[[], None]
    closed: Callable[[], None]
    make_replica: Callable[[], Replica]

    @property
    def index(self) -> StoreJournal:
        return self.journal

    def sync_state(self, entry: EntryId) -> SyncState:
        return self.journal.sync_state(entry)
