"""The conversations of a repo that are in use: their objects, journals and presence."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..document.presence import Presence
from ..ids import DocumentId
from ..store.blobs import BlobStore
from .conversation_blobs import ConversationBlobs
from .indexing import Indexing
from .journal import StoreJournal
from .links import Links
from .resources import Resources

if TYPE_CHECKING:
    from ..document.blob import Blob
    from ..document.conversation import Conversation
    from ..document.core import ConversationCore


class OpenDocuments:
    """Any thread; what reads or changes more than one thing holds the repo's lock. ``watch``: look for what other
    processes write, from now on. ``refresh_library``: read what came for the library."""

    def __init__(
        self,
        resources: Resources,
        links: Links,
        watch: Callable[[], None],
        refresh_library: Callable[[], None],
    ) -> None:
        self.watch = watch
        self.indexing = Indexing(resources, self, watch)
        self.blobs = BlobStore(f"{resources.store.path}.blobs", self.named_blobs)
        self._resources, self._links, self._refresh_library = resources, links, refresh_library
        self._lock, self._store = resources.lock, resources.store
        self._conversations: dict[DocumentId, Conversation] = {}
        self._cores: dict[DocumentId, ConversationCore] = {}
        self._journals: dict[DocumentId, StoreJournal] = {}
        self._presence: dict[DocumentId, Presence] = {}

    # ---------------------------------------------------------------- objects

    def conversation(self, id_: DocumentId) -> Conversation:
        """The one object of a conversation in this process."""
        if id_ not in self._conversations:
            from ..document.conversation import Conversation  # as _make does

            core = self._make(id_, self.journal(id_), lambda: self._closed(id_))
            self._cores[id_], self._conversations[id_] = core, Conversation(core)
            if self._store.entries.erased(id_) > self._store.updates.purged(id_):
                core.document.load()  # a process ended between an erase and its purge: that is made up for now
        return self._conversations[id_]

    def core(self, id_: DocumentId) -> ConversationCore | None:
        """A conversation that is open."""
        return self._cores.get(id_)

    def lone_core(self, id_: DocumentId) -> ConversationCore:
        """A conversation for a moment, beside the one that may be open. Close it, and ``touch``."""
        return self._make(id_, StoreJournal(self._store, id_, self._links.notify), lambda: None)

    def journal(self, document: DocumentId) -> StoreJournal:
        """A new journal of a document, which is told of what is stored beside it."""
        self._journals[document] = made = StoreJournal(
            self._store,
            document,
            self._links.notify,
            lambda: self._links.pushed(document),
            self._links.request_compactions,
            self.indexing.refresh,
            self._resources.upkeep.add,
            self.indexing.note_waiting,
        )
        return made

    def forget(self, document: DocumentId) -> None:
        """Drop the object of a conversation; the next ``conversation`` makes another one."""
        with self._lock:
            self._conversations.pop(document, None)
            self._cores.pop(document, None)
            self._journals.pop(document, None)

    def delete(self, document: DocumentId) -> None:
        """A conversation was deleted: where it is open, every use says so from now on."""
        core = self.core(document)
        if core is not None:
            self.forget(document)
            core.delete()

    def close(self) -> None:
        for conversation in list(self._conversations.values()):
            conversation.close()
        self._conversations.clear()
        self._cores.clear()

    def _make(self, id_: DocumentId, journal: StoreJournal, on_close: Callable[[], None]) -> ConversationCore:
        from ..document.core import ConversationCore  # half of all modules: a list of conversations needs none of them
        from .conversation_host import RepoHost

        return ConversationCore(id_, RepoHost(id_, journal, self._resources, self, on_close))

    def _closed(self, id_: DocumentId) -> None:
        if presence := self.known_presence(id_):
            presence.present(None)
        self.forget(id_)

    def linked(self) -> bool:
        """Whether there is a link to a relay, connected or not."""
        return self._links.any_open()

    # ---------------------------------------------------------------- what came from elsewhere

    def touch(self, document: DocumentId, *, refresh: bool = False, acknowledged: bool = False) -> None:
        """The store holds more of a document, or knows more of it, than its object does."""
        with self._lock:
            if refresh:
                self.indexing.note_new()
            if document in self._journals:
                self._journals[document].touch()
            core = self.core(document)
            if refresh and document == self._resources.library:
                self._refresh_library()
            elif refresh and core is not None:
                core.document.refresh()
            if acknowledged and core is not None:
                core.decide_claims()
            if refresh and document != self._resources.library:
                self._links.note_news(document)

    def refresh(self) -> None:
        """Read what other processes wrote to conversations that are open."""
        for id_, core in list(self._cores.items()):
            listed = self._store.catalog.get(id_)
            if listed is not None and listed.deleted:
                self.delete(id_)
            else:
                core.document.refresh()

    def note_pushed(self, document: DocumentId, link: object, seq: int) -> None:
        """A link has sent a document's outbox up to ``seq``, on the connection that it has; 0: nothing."""
        with self._lock:
            self._links.note_pushed(document, link, seq)
            if document in self._journals:
                self._journals[document].note_pushed()

    def apply_pending(self, document: DocumentId) -> None:
        """Read what came for a conversation that is not loaded, and do what it asks (erase)."""
        with self._lock:
            core = self.core(document)
            if document != self._resources.library and (core is None or not core.document.loaded):
                self.indexing.refresh_one(document)

    def version(self, document: DocumentId) -> bytes:
        """The version of a conversation here."""
        core = self.core(document)
        if core is not None and core.document.loaded and self._journals[document].is_current():
            return core.replica.version()
        return self._resources.load_replica(document)[0].version()

    # ---------------------------------------------------------------- attachments

    def blobs_of(self, document: DocumentId) -> ConversationBlobs:
        """The contents of attachments, as a conversation uses them."""
        return ConversationBlobs(document, self.blobs, self._store.attachment_tasks, self._links.notify_attachments)

    def attachments_changed(self) -> None:
        """A relay is to be given an attachment."""
        self._links.notify_attachments()

    def attachments(self, document: DocumentId) -> dict[str, Blob | None]:
        """All that a conversation names, by their hashes; None for one that is not sound. Nothing of one that was
        deleted. It is loaded for that."""
        with self._lock:
            listed = self._store.catalog.get(document)
            if (listed is not None and listed.deleted) or not self._resources.can_read(document):
                return {}
            was_open = document in self._conversations
            from ..document.reader import ConversationReader  # as conversation does

            self.conversation(document)
            found = ConversationReader(self._cores[document]).attachments()
            if not was_open:
                self.forget(document)
            return found

    # ---------------------------------------------------------------- what is derived

    def named_blobs(self) -> set[str]:
        """The blobs that any conversation names that is not deleted."""
        found: set[str] = set()
        with self._lock:
            self._refresh_library()
            for document in self._store.catalog.documents("conversation"):
                id_ = DocumentId(document)
                listed = self._store.catalog.get(id_)
                if listed is None or not listed.deleted:
                    was_open = id_ in self._conversations
                    found |= self.conversation(id_).blobs()
                    if not was_open:
                        self.forget(id_)
        return found

    # ---------------------------------------------------------------- presence

    def presence(self, document: DocumentId) -> Presence:
        """The presence of people in a conversation."""
        with self._lock:
            if document not in self._presence:
                self._presence[document] = Presence(
                    self._resources.author,
                    random=self._resources.random,
                    changed=lambda: self._links.announce(document),
                    dispatch=self._resources.dispatcher.run,
                )
            return self._presence[document]

    def known_presence(self, document: DocumentId) -> Presence | None:
        """The same, where there is any."""
        with self._lock:
            return self._presence.get(document)

    def tick_presence(self) -> None:
        """Some time went by. Without the lock."""
        with self._lock:
            presences = tuple(self._presence.items())
        for document, presence in presences:
            kept = presence.tick()
            with self._lock:
                if not kept and document not in self._conversations:
                    self._presence.pop(document, None)
