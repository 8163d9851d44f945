"""ConversationHost: all that a conversation asks of the repo that it lives in."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from ..crdt.backend import NewField, NewNode, Replica
from ..ids import EntryId
from .blob import BlobStorage
from .encryption import Keys
from .entry import SyncState
from .presence import Presence
from .projection import EntryIndex
from .replica_loading import Journal
from .request import Formats


class ConversationHost(Protocol):
    """The surroundings of one conversation: the storage, the keys, and the services of its repo.

    Every conversation has a host of its own. Methods are called from any thread; under the conversation's lock unless
    their text says otherwise.
    """

    @property
    def journal(self) -> Journal:
        """Keeps the document's bytes."""
        ...

    @property
    def index(self) -> EntryIndex | None:
        """The entry index, derived from the document for pages and search; None where there is none."""
        ...

    @property
    def lock(self) -> threading.RLock:
        """Held wherever the document is used; shared with whoever keeps it."""
        ...

    @property
    def author(self) -> str:
        """Signs the entries that are written here; "" signs nothing."""
        ...

    @property
    def keys(self) -> Keys | None:
        """For encrypted hidden fields; None where there are none."""
        ...

    @property
    def blobs(self) -> BlobStorage | None:
        """Keeps the contents of attachments; None where there is no such place."""
        ...

    @property
    def formats(self) -> Formats:
        """Knows the JSON of providers."""
        ...

    def make_replica(self) -> Replica:
        """A new, empty replica with a writer identity of its own."""
        ...

    def derive(self, groups: Iterable[Sequence[NewNode]], fields: Iterable[NewField] = (), /) -> bytes:
        """``Backend.derive`` of the backend that makes the replicas."""
        ...

    def clock(self) -> float:
        """Seconds since 1970."""
        ...

    def random(self, size: int, /) -> bytes:
        """So many random bytes."""
        ...

    def title(self) -> str:
        """The title that the library gives the conversation."""
        ...

    def sync_state(self, entry: EntryId) -> SyncState:
        """How far an entry that is on disk here has come on its way to the relays."""
        ...

    def linked(self) -> bool:
        """Whether there is a link to a relay, connected or not."""
        ...

    def presence(self) -> Presence:
        """The presence of the conversation. Called without the lock."""
        ...

    def dispatch(self, call: Callable[[], None]) -> None:
        """Run an observer's callback after those before it, on another thread or at once."""
        ...

    # events in the conversation

    def observed(self) -> None:
        """Somebody wants to know of changes: look for those of other processes from now on. Called without the
        lock."""
        ...

    def note_engine(self, engine: Any) -> None:
        """An engine is about to compute on the conversation: an erase must reach what it keeps. Called
        without the lock."""
        ...

    def erased(self) -> None:
        """Words were erased: forget now what was derived from them outside of the document."""
        ...

    def closed(self) -> None:
        """The conversation is not used any more. Called without the lock."""
        ...
