"""A host for a conversation that lives in no repo."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from ..crdt.backend import Replica
from ..crdt.registry import DEFAULT, backend
from ..document.blob import BlobStorage
from ..document.encryption import Keys
from ..document.entry import SyncState
from ..document.presence import Presence
from ..document.replica_loading import Journal
from ..ids import EntryId, Random
from ..interop.requests import FORMATS


class LoneHost:
    """Implements ``document.host.ConversationHost``. No index, no keys, no relay; observers are called at once."""

    index = None
    keys: Keys | None = None
    blobs: BlobStorage | None = None
    formats = FORMATS

    def __init__(
        self,
        journal: Journal,
        make_replica: Callable[[], Replica],
        *,
        author: str = "",
        clock: Callable[[], float] = time.time,
        random: Random = os.urandom,
        kind: str = DEFAULT,
    ) -> None:
        crdt = backend(kind)
        self.journal = journal
        self.make_replica = make_replica
        self.author = author
        self.clock = clock
        self.random = random
        self.lock = threading.RLock()
        self.derive = crdt.derive
        self._presence = Presence(author)

    def title(self) -> str:
        return ""

    def sync_state(self, entry: EntryId) -> SyncState:
        return "local"

    def linked(self) -> bool:
        return False

    def presence(self) -> Presence:
        return self._presence

    def dispatch(self, call: Callable[[], None]) -> None:
        call()

    def observed(self) -> None: ...

    def note_engine(self, engine: Any) -> None: ...

    def erased(self) -> None: ...

    def closed(self) -> None: ...
