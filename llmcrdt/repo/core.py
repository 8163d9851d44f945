"""An open repo: its parts, and how they hang together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from ..crdt.backend import Backend, ParsedUpdate
from ..document.library import Library
from ..exceptions import MalformedUpdate, RepoClosed, StoreError
from ..ids import DocumentId, Random
from ..store.store import SqliteStore
from .attachments import Attachments
from .deletion import Deletion
from .links import Links
from .listing import Listing
from .open_documents import OpenDocuments
from .resources import Resources
from .watcher import Watcher

_NEVER = "never syncs"
"""The setting of a database that a person keeps from every relay."""


class RepoCore:
    """For links, commands and the repo itself; people use ``Repo``. Implements ``sync_source.SyncHost``.

    ``resources``: the files; ``links``; ``documents``: conversations in use; ``attachments``: those that travel;
    ``listing``: the library; ``deletion``: what is dropped; ``watcher``: looks for what other processes wrote. Raises
    what ``Resources`` raises.
    """

    def __init__(
        self,
        path: Path,
        library: str | None,
        *,
        author: str,
        clock: Callable[[], float],
        random: Random,
        crdt: Backend,
    ) -> None:
        self.resources = Resources(path, library, author=author, clock=clock, random=random, crdt=crdt)
        try:
            self.lock = self.resources.lock
            self.links = Links(self.resources)
            self.watcher = Watcher(
                self.lock, lambda: self.documents.tick_presence(), self.look, lambda: self.documents.indexing.turn()
            )
            self.documents = OpenDocuments(
                self.resources, self.links, self.watcher.start, lambda: self.library.document.refresh()
            )
            self.attachments = Attachments(self.resources, self.documents, self.links)
            self.deletion = Deletion(self.resources, self.documents, self.links)
            journal = self.documents.journal(self.resources.library)
            self.listing = Listing(self.resources, journal, self.documents.delete, self.deletion.drop)
            with suppress(StoreError):  # the disk is full: reading needs none of it
                self.deletion.drop()  # a crash may have come between
        except BaseException:
            self.resources.close()
            raise

    @property
    def library(self) -> Library:
        return self.listing.library

    def check_open(self) -> None:
        """Raises RepoClosed."""
        if self.watcher.stopped:
            raise RepoClosed(f"{self.store.path} is closed.", hint="Open the repo again.")

    def look(self, version: int | None) -> int:
        """Read what other processes wrote to the file since it had this version, and have links send it; the version
        that it has now."""
        self.deletion.tick()
        now = self.store.data_version()
        if now != version:
            self.stop_syncing()
            self.library.document.refresh()
            self.documents.refresh()
            self.listing.observers.look()
            self.links.notify_waiting()
        return now

    @property
    def never_syncs(self) -> bool:
        """Whether this database is set never to sync."""
        return self.store.settings.get(_NEVER) == "yes"

    def set_never_syncs(self, never: bool) -> None:
        """Set that, for every process that has the database open."""
        self.store.settings.put(_NEVER, "yes" if never else "no")
        self.stop_syncing()

    def stop_syncing(self) -> None:
        """End all links, where the database is set never to sync."""
        if self.never_syncs:
            self.links.stop()

    def close(self) -> None:
        """Close links, conversations and the file. Twice is harmless."""
        self.watcher.stop()
        self.links.close()
        self.attachments.close()
        with self.lock:
            self.listing.close()
            self.documents.close()
            self.resources.dispatcher.close()
            self.resources.close()

    def end(self, seconds: float) -> None:
        """At the end of the process: close, and wait until no thread of this repo runs any more. Observers hear first
        of what was written, while they can still read it."""
        deadline = time.monotonic() + seconds
        self.resources.dispatcher.close()
        self.resources.dispatcher.join(max(0.0, deadline - time.monotonic()))
        if not self.lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return  # somebody is in the middle of something and doesn't end it: what they wrote is not kept
        self.lock.release()
        self.close()
        self.watcher.join(max(0.0, deadline - time.monotonic()))
        self.resources.upkeep.join(max(0.0, deadline - time.monotonic()))

    # ---------------------------------------------------------------- what links ask for

    @property
    def store(self) -> SqliteStore:
        return self.resources.store

    def kind(self, document: DocumentId) -> str:
        return self.resources.kind(document)

    def crdt_of(self, document: DocumentId) -> Backend | None:
        return self.resources.crdt_of(document) if self.resources.can_read(document) else None

    @property
    def library_id(self) -> DocumentId:
        return self.resources.library

    def following(self) -> Sequence[DocumentId]:
        return self.listing.following()

    def repeats(self, document: DocumentId, updates: Sequence[ParsedUpdate]) -> bool:
        with self.lock:
            crdt = self.crdt_of(document)
            return crdt is not None and crdt.repeats(updates, self.documents.version(document))

    def missing_from(self, document: DocumentId, log: Sequence[bytes]) -> tuple[bytes | None, set[str], int]:
        with self.lock:
            found = self.store.updates.since(document, 0)
            if found.snapshot is None and set(log).issuperset(found.updates):  # a new device: all came from there
                return None, set(), found.seq
            if self.crdt_of(document) is None:  # it is carried as it came: nobody can tell what is lacking
                return None, set(), found.seq
            if not log:  # a new relay: all goes there
                kept, seq = self.resources.load_replica(document)
                return kept.diff(), {key for root in self.resources.roots(document) for key in kept.keys(root)}, seq
            theirs = self.resources.make_replica(document)
            for update in log:
                try:
                    theirs.apply(update)
                except MalformedUpdate:
                    if theirs.broken:  # can't tell what it holds: then everything is sent
                        theirs, log = self.resources.make_replica(document), ()
                        break
            kept, seq = self.resources.load_replica(document)
            missing = kept.diff(since=theirs.version())
            applied = theirs.apply(missing)
            return missing if applied.news else None, set().union(*applied.touched.keys.values()), seq

    def request_deletions(self, relay: str) -> None:
        with self.lock:
            self.links.request_deletions(relay=relay)
