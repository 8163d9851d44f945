"""A replica is built from what a journal keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from ..crdt.backend import Replica
from ..exceptions import MalformedUpdate
from ..ids import SessionId


class Journal(Protocol):
    """Keeps the bytes of one document, shared by every process that has it open. Called under the document's lock."""

    def load(self) -> tuple[bytes | None, Sequence[bytes]]:
        """The snapshot, and the updates after it. ``news`` continues from here."""
        ...

    def append(self, update: bytes, session: SessionId, keys: Iterable[str]) -> None:
        """Keep an update that ``session`` made; it is on disk when this returns. ``keys``: the entries it touches."""
        ...

    def news(self) -> Sequence[bytes]:
        """Updates that others (processes, the relay) appended since the last call."""
        ...

    def compact(self, snapshot: Callable[[], tuple[bytes, Sequence[bytes]]]) -> None:
        """Put a new snapshot in place of the updates if they have outgrown the old one. Called after writes."""
        ...

    def purge(self, snapshot: Callable[[], tuple[bytes, Sequence[bytes]]], erased: int) -> bool:
        """Keep the document as it is now and nothing of what it was: erased words must not stay in old updates.
        ``erased``: how many entries are erased by now. False, and nothing done, where there are ``news``."""
        ...

    def purged(self) -> int:
        """How many entries were erased when ``purge`` was called last."""
        ...

    def set_aside(self, update: bytes, reason: str) -> None:
        """Keep an update that can't be applied, apart from the document."""
        ...


def load_replica(journal: Journal, make_replica: Callable[[], Replica]) -> Replica:
    """All that the journal keeps, in a new replica. An update that breaks it is set aside, and the rest loaded without
    it. Raises MalformedUpdate where the snapshot itself can't be read."""
    snapshot, updates = journal.load()
    kept = list(updates)
    while True:
        replica = make_replica()
        try:
            replica.load(snapshot, kept)
            return replica
        except MalformedUpdate:
            bad = _first_bad(make_replica(), snapshot, kept)
            if bad is None:
                raise
            journal.set_aside(kept[bad], "It broke the document when it was loaded.")
            del kept[bad]


def _first_bad(replica: Replica, snapshot: bytes | None, updates: Sequence[bytes]) -> int | None:
    replica.load(snapshot, ())
    for index, update in enumerate(updates):
        try:
            replica.apply(update)
        except MalformedUpdate:
            return index
    return None
