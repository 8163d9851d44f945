"""Repo: the conversations of one device, in one SQLite file. Wires documents, store and sync."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

from ..at_exit import end_at_exit
from ..crdt.backend import Applied
from ..crdt.yjs.redact import redact_updates
from ..crdt.yjs.replica import YjsReplica
from ..crdt.yjs.split import cut_update
from ..crdt.yjs.update import read_state_vector, read_update
from ..document import library as library_document
from ..document import schema
from ..document.conversation import Conversation, core_of
from ..document.core import ConversationCore
from ..document.entry import Entry
from ..document.fork_copy import copy_conversation
from ..document.library import Card, Library
from ..document.presence import Presence
from ..document.projection import RULES
from ..document.projector import entry_of_row
from ..exceptions import (
    ConversationNotFound,
    InvalidContent,
    KeyringUnusable,
    LibraryMismatch,
    LLMCRDTError,
    MalformedUpdate,
    RelayUnreachable,
    RepoClosed,
    StoreError,
)
from ..ids import DocumentId, EntryId, Random, document_bytes, new_document_id
from ..store.applying import Applying
from ..store.blobs import BlobStore
from ..store.keyring import Keyring
from ..store.relay_file import KnownRelay, RelayFile
from ..store.store import Listed, Store
from ..sync.address import relay_address
from .conversation_host import RepoHost
from .dispatcher import Dispatcher
from .invite import Invite, read_invite, write_invite
from .journal import StoreJournal
from .kv_caches import KVCaches
from .relay_tasks import RelayTasks
from .sync_source import SyncSource

if TYPE_CHECKING:
    from ssl import SSLContext

    from ..sync.link import Link
    from ..sync.link_control import LinkControl

_POLL = 0.3  # seconds between two looks for what other processes wrote to the file
_AGAIN = 16
"""Looks after which it is tried again to drop what could not be dropped."""


class Listing(NamedTuple):
    """One line of ``repo.list()``; ``created_at`` in seconds since 1970."""

    id: DocumentId
    title: str
    created_at: float
    archived: bool


class Hit(NamedTuple):
    """One entry that ``repo.search`` found; ``created_at`` in seconds since 1970. ``snippet``: some words around the
    match, which stands in [ ]. ``shown``: whether the transcript shows it."""

    conversation: DocumentId
    title: str
    entry: EntryId
    role: str
    created_at: float
    snippet: str
    shown: bool


def open(  # as llmcrdt.open
    path: str | os.PathLike[str],
    library: str | None = None,
    *,
    invite: str | None = None,
    author: str = "",
    clock: Callable[[], float] = time.time,
    random: Random = os.urandom,
) -> Repo:
    """Open a repo, or make one. ``library``: the id of another device's library, to join it. ``invite``: what
    ``invite()`` gave there: joins the library, and remembers relay and keys, so that ``connect()`` needs no address.

    ``author`` signs what this device writes. Raises NotADatabase, NewerDatabase, LibraryMismatch, InvalidContent,
    InvalidInvite, KeyringUnusable; where this device has another library already, nothing is changed.
    """
    if library is not None:
        document_bytes(library)
    invited = read_invite(invite) if invite is not None else None
    if invited is not None and library not in (None, invited.library):
        raise LibraryMismatch(f"The invite is for library {invited.library}.", hint="Give the invite alone.")
    repo = Repo(path, invited.library if invited else library, author=author, clock=clock, random=random)
    if invited is not None:
        try:
            repo.accept(invited)
        except BaseException:
            repo.close()
            raise
    return repo


class MarkedReplica(YjsReplica):
    """Notes the document while it applies what may have come from elsewhere."""

    def __init__(self, roots: Iterable[str], document: DocumentId, applying: Applying) -> None:
        super().__init__(roots)
        self._document, self._applying = document, applying

    def apply(self, update: bytes) -> Applied:
        self._applying.begin(self._document)
        try:
            return super().apply(update)
        finally:
            self._applying.end()

    def load(self, snapshot: bytes | None, updates: Iterable[bytes]) -> None:
        self._applying.begin(self._document)
        try:
            super().load(snapshot, updates)
        finally:
            self._applying.end()


class Repo:
    """Any method from any thread; a context manager. Made by ``open``."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        library: str | None,
        *,
        author: str,
        clock: Callable[[], float],
        random: Random,
    ) -> None:
        self.author = author
        self.random = random
        self._clock = clock
        self._lock = threading.RLock()
        self.store = Store(Path(path), lock=self._lock, random=random, cut=cut_update, redact=redact_updates)
        self._applying = Applying(self.store.path)
        self.keyring = Keyring(f"{self.store.path}.keys", clock=clock, random=random)
        self.blobs = BlobStore(f"{self.store.path}.blobs", self._named_blobs)
        self._relay = RelayFile(f"{self.store.path}.relay")
        self._caches = KVCaches(self.store)
        self._journals: dict[DocumentId, StoreJournal] = {}
        self._open: dict[DocumentId, Conversation] = {}
        self._links: list[LinkControl] = []
        self._presence: dict[DocumentId, Presence] = {}
        # For each document, up to which place of its outbox each link has sent it on its connection.
        self._pushed: dict[DocumentId, dict[SyncSource, int]] = {}
        self._callbacks = Dispatcher()
        self._watcher: threading.Thread | None = None
        self._closing = threading.Event()
        # Looks until what was deleted is dropped, because that failed; 0: nothing is to be dropped.
        self._drop_in = 0
        try:
            self.library = self._own_library(library)
            self.store.add_document(self.library, "library")
            for document in self._applying.left():
                self._examine(DocumentId(document))
            self._owed = RelayTasks(self.store, self.library)
            self._library = Library(
                self.library,
                self._journal(self.library),
                lambda: self._replica(self.library),
                lock=self._lock,
                clock=clock,
                random=random,
                changed=self._list_cards,
            )
            with suppress(StoreError):  # the disk is full: reading needs none of it
                self._drop_deleted()  # a crash may have come between
            end_at_exit(self, finish=Repo._end)
        except BaseException:
            self._applying.close()
            self.store.close()
            raise

    # conversations

    def create(self, title: str = "", *, fill: Callable[[Conversation], None] | None = None) -> Conversation:
        """A new conversation, listed in the library. ``fill`` writes its first entries: all of them are kept, or, if it
        raises, there is no conversation."""
        with self._lock:
            id_ = new_document_id(self.random)
            created_at = self._clock()
            conversation = self._conversation(id_)
            try:
                with self.store.transaction():  # a crash leaves both, or neither
                    with conversation.batch():
                        core_of(conversation).write_identity(created_at)
                        if fill is not None:
                            fill(conversation)
                    self.store.add_document(id_, "conversation")
                    self._library.put(id_, title=title, created_at=created_at)
            except BaseException:
                self.forget(id_)
                self._library.document.load_again()
                raise
            return conversation

    def fork(self, conversation: Conversation, *, at: Entry | EntryId, title: str | None = None) -> Conversation:
        """A new conversation that begins as this one stands at an entry of its transcript; ``forked_from`` says so.
        Its order is that of the rules for what it holds: where only a later frame had pinned another one, or a later
        entry had kept a rival answer in sight, that is not so there.

        A fork is a conversation of its own, and is not merged back. Entries keep their ids, frames and token logs, so
        an engine reuses all it has computed for them. Sealed hidden fields are sealed anew for the fork where their key
        is here; else they are left out, for they would not open.
        """
        name = conversation.title if title is None else title
        return self.create(name, fill=lambda other: copy_conversation(core_of(conversation), core_of(other), at))

    def get(self, id: str) -> Conversation:
        """The conversation with this id: one of this repo, or one that the library lists. Raises
        ConversationNotFound."""
        with self._lock:
            self._read_library()
            id_ = DocumentId(id)
            listed = self.store.listed(id_)
            known = self.store.document_kind(id_) == "conversation"
            if (listed and listed.deleted) or not (listed or known):
                raise ConversationNotFound(
                    f"There is no conversation {id!r} in {self.store.path}.",
                    hint="List them, or sync first; repo.join(id) makes a replica of one from elsewhere.",
                )
            if not known:
                self.store.add_document(id_, "conversation")
            return self._conversation(id_)

    def join(self, id: str) -> Conversation:
        """A replica of a conversation made elsewhere, empty until a relay or ``apply`` fills it. Lists it.
        Raises ConversationNotFound where the library says that it was deleted."""
        document_bytes(id)
        if id == self.library or self.store.document_kind(id) == "library":
            raise InvalidContent(
                f"{id} is a library, not a conversation.", hint="Join it with llmcrdt.open(path, library=ID)."
            )
        with self._lock:
            id_ = DocumentId(id)
            self._library.document.refresh()
            card = self._library.card(id_)
            if card is not None and card.deleted:
                raise ConversationNotFound(f"{id} was deleted from the library.", hint="A deleted id never comes back.")
            if card is None:
                self._library.put(id_, created_at=self._clock())
            self.store.add_document(id_, "conversation")
            return self._conversation(id_)

    def list(self, limit: int = 50, before: str | None = None) -> Sequence[Listing]:
        """Conversations, youngest first, without loading any. ``before``: the last id of the page before."""
        self._read_library()
        return [Listing(DocumentId(r.id), r.title, r.created_at, r.archived) for r in self.store.listing(limit, before)]

    def rename(self, id: str, title: str) -> None:
        """Give a conversation another title, on every device."""
        self._library.put(self.get(id).id, title=title)

    def archive(self, id: str, archived: bool = True) -> None:
        """Put a conversation away, or bring it back, on every device. ``list`` says which are."""
        self._library.put(self.get(id).id, archived=archived)

    def delete(self, id: str) -> None:
        """Take a conversation out of the library, on every device, for good.

        Where a relay refused to delete it for this device's token (``link.kept_there``), another call asks once more;
        else one of a deleted conversation raises ConversationNotFound."""
        with self._lock:
            self._read_library()
            listed = self.store.listed(id)
            if listed is not None and listed.deleted and self.store.owe_deletion_again(id):
                for link in self._links:
                    self._owed.ask_to_delete(link)
                return
            self._library.put(self.get(id).id, deleted=True)

    def search(self, text: str, limit: int = 20, *, elsewhere: bool = False) -> Sequence[Hit]:
        """Entries that hold all words of ``text`` in their visible text, the best first.

        Case and accents don't count; the last word may be the beginning of one; "words in quotes" stand together.
        Only entries of transcripts, unless ``elsewhere``. What was deleted, erased or hidden is never found.
        Conversations that were written or merged since the last look are read first.
        """
        self._read_library()
        self._settle_all()
        hits = []
        for found in self.store.tables.search(text, limit, elsewhere=elsewhere):
            entry = entry_of_row(found.entry, found.pin, found.fields)
            id_ = DocumentId(found.document)
            listed = self.store.listed(id_)
            shown = found.position is not None
            title = listed.title if listed else ""
            hits.append(Hit(id_, title, entry.id, entry.role, entry.created_at, found.snippet, shown))
        return hits

    # sync

    def connect(
        self,
        url: str | None = None,
        token: str | None = None,
        only: Sequence[str] | None = None,
        *,
        tls: SSLContext | str | os.PathLike[str] | None = None,
    ) -> Link:
        """Keep in step with a relay: the library and all in it, or ``only`` these documents. Returns at once; a context
        manager (``with`` or ``async with``). ``url``: None is the relay that an invite brought, or that one was made
        for. ``token``: None is the one that is known here for that relay. ``tls``, for wss://: a file with the
        certificates to trust (PEM) in place of the system's, or a context. Raises RelayUnreachable where there is none,
        and for what is no address."""
        from ..sync.link import Link, control_of  # websockets is loaded only where it is used

        if self._closing.is_set():
            raise RepoClosed(f"{self.store.path} is closed.", hint="Open the repo again.")
        if url is None:
            known = self.relay
            if known is None:
                raise RelayUnreachable("No relay is known here.", hint="Give its address, or join with an invite.")
            url, token = known.url, known.token if token is None else token
        elif token is None:
            with suppress(KeyringUnusable):  # an address is given: nothing else need be known
                token = self._own_token(url)

        ids = None
        if only is not None:
            ids = [DocumentId(i) for i in only]
            for id_ in ids:
                document_bytes(id_)
                if id_ != self.library:
                    self.store.add_document(id_, "conversation")
        link = Link(url, SyncSource(self, url, ids), token=token, tls=tls)
        with self._lock:
            self._links = [other for other in self._links if other.state != "closed"] + [control_of(link)]
            self._owed.linked(control_of(link), token)
        self._watch()
        return link

    @property
    def relay(self) -> KnownRelay | None:
        """The relay that this repo belongs to: an invite brought it, or was made for it. Raises KeyringUnusable."""
        return self._relay.read()

    def invite(self, relay: str | None = None, token: str | None = None, *, keys: bool = True) -> str:
        """All that a new device needs, as one string for its ``llmcrdt.open(path, invite=...)``: the relay's address, a
        token for it, the library, and the keys of sealed fields (unless ``keys`` is False). Whoever has the string can
        read and write all of the library: hand it over on a safe way, and make a token for each device.

        ``relay``: its address as the new device sees it; it is remembered here too. None: the one that is known here.
        ``token`` is for the new device. It is remembered here only where no token for this relay is known here.
        Raises RelayUnreachable, KeyringUnusable, InvalidInvite.
        """
        if relay is not None:
            known = KnownRelay(relay, token)
        elif (found := self.relay) is not None:
            known = KnownRelay(found.url, found.token if token is None else token)
        else:
            raise RelayUnreachable("No relay is known here.", hint="Give the relay's address.")
        made = Invite(known.url, self.library, known.token, tuple(self.keyring.everything()) if keys else ())
        text = write_invite(made)
        if relay is not None:
            own = self._own_token(relay)
            self._relay.write(known if own is None else KnownRelay(relay, own))
        return text

    def _own_token(self, relay: str) -> str | None:
        """The token that is known here for the relay at this address. Raises KeyringUnusable."""
        known = self.relay
        same = known is not None and relay_address(known.url) == relay_address(relay)
        return known.token if known is not None and same else None

    def accept(self, invite: Invite) -> None:
        """Remember what an invite for this library brought. ``open`` calls it; twice is harmless."""
        self.keyring.add_all(invite.keys)
        self._relay.write(KnownRelay(invite.relay, invite.token))

    def close(self) -> None:
        """Close links, conversations and the file. Twice is harmless."""
        self._closing.set()
        with self._lock:
            links, self._links = self._links, []
        for link in links:  # without the lock: a link's thread may be waiting for it
            link.close()
        with self._lock:
            self._note_listing()
            self._library.document.close()
            for conversation in list(self._open.values()):
                conversation.close()
            self._open.clear()
            self._callbacks.close()
            self._applying.close()
            self.store.close()

    def _end(self, seconds: float) -> None:
        """At the end of the process: close, and wait until no thread of this repo runs any more. Observers hear first
        of what was written, while they can still read it."""
        deadline = time.monotonic() + seconds
        self._callbacks.close()
        self._callbacks.join(max(0.0, deadline - time.monotonic()))
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return  # somebody is in the middle of something and doesn't end it: what they wrote is not kept
        self._lock.release()
        self.close()
        if self._watcher is not None:
            self._watcher.join(max(0.0, deadline - time.monotonic()))

    def __enter__(self) -> Repo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # what journals and links ask for

    def following(self) -> Sequence[DocumentId]:
        """The library, and every conversation in it that is not deleted."""
        cards = [card for card in self._library.cards() if not card.deleted]
        cards.sort(key=lambda card: (-card.created_at, card.id))
        return [self.library, *(card.id for card in cards)]

    def touch(self, document: DocumentId, *, refresh: bool = False, acknowledged: bool = False) -> None:
        """The store holds more of a document, or knows more of it, than whoever has it open."""
        with self._lock:
            if document in self._journals:
                self._journals[document].touch()
            in_use = self._core(document)
            if acknowledged and in_use is not None:
                in_use.decide_claims()
            if refresh:
                if document == self.library:
                    self._library.document.refresh()
                else:
                    self.store.add_document(document, "conversation")
                if in_use is not None:
                    in_use.document.refresh()

    def pushed(self, document: DocumentId, link: SyncSource, place: int) -> None:
        """A link has sent a document's outbox up to a place, on the connection that it has; 0: nothing."""
        with self._lock:
            sent = self._pushed.setdefault(document, {})
            sent[link] = place
            if not place:
                del sent[link]
            if not sent:
                del self._pushed[document]
            if document in self._journals:
                self._journals[document].sent()

    def take_in(self, document: DocumentId) -> None:
        """Read what came for a conversation that nobody has open, and do what it asks (erase)."""
        with self._lock:
            in_use = self._core(document)
            if document != self.library and (in_use is None or not in_use.document.loaded):
                self._settle(document)

    def repeats(self, document: DocumentId, updates: Sequence[bytes]) -> bool:
        """Whether any of these sound updates writes something that a conversation had already."""
        with self._lock:
            in_use = self._core(document)
            loaded = in_use is not None and in_use.document.loaded
            state = read_state_vector((in_use.document if in_use and loaded else self._kept(document)[0]).version())
            return any(read_update(update).repeats(state) for update in updates)

    def lacking(self, document: DocumentId, log: Sequence[bytes]) -> tuple[bytes | None, set[str], int]:
        """What a relay's log lacks of a document, deletes and waiting updates included, the keys that it touches, and
        the last place that was looked at; None if nothing is lacking."""
        with self._lock:
            theirs = self._replica(document)
            for update in log:
                try:
                    theirs.apply(update)
                except MalformedUpdate:
                    if theirs.broken:  # can't tell what it holds: then everything is sent
                        theirs = self._replica(document)
                        break
            kept, place = self._kept(document)
            missing = kept.diff(since=theirs.version())
            applied = theirs.apply(missing)
            return missing if applied.news else None, set().union(*applied.touched.keys.values()), place

    def ask_to_delete(self, relay: str) -> None:
        """This relay may have forgotten what was deleted."""
        with self._lock:
            for link in self._links:
                if link.url == relay:
                    self._owed.ask_to_delete(link)

    def forget(self, document: DocumentId) -> None:
        """Drop the open object of a conversation; the next ``get`` makes another one."""
        with self._lock:
            self._open.pop(document, None)
            self._journals.pop(document, None)

    def presence(self, document: DocumentId) -> Presence:
        """Who is present in a conversation."""
        with self._lock:
            if document not in self._presence:
                self._presence[document] = Presence(
                    self.author,
                    random=self.random,
                    changed=lambda: self._announce(document),
                    dispatch=self._callbacks.run,
                )
            return self._presence[document]

    def known_presence(self, document: DocumentId) -> Presence | None:
        """The same, where there is any."""
        with self._lock:
            return self._presence.get(document)

    # inside

    def _kept(self, document: DocumentId) -> tuple[YjsReplica, int]:
        """What the file has of a document, in a replica of its own, and the last place of it."""
        replica = self._replica(document)
        kept = self.store.since(document, 0)
        replica.load(kept.snapshot, kept.updates)
        return replica, kept.place

    def _replica(self, document: DocumentId) -> YjsReplica:
        return MarkedReplica(self._roots(document), document, self._applying)

    def _roots(self, document: DocumentId) -> Sequence[str]:
        return library_document.ROOTS if document == self.library else schema.ROOTS

    def _examine(self, document: DocumentId) -> None:
        """A process died while it applied something of this document. Where another one dies of that as well, it is set
        aside: nobody else has to."""
        from ..crdt.yjs.trial import SNAPSHOT, deadly  # most processes never need it

        while True:
            kept = self.store.since(document, 0)
            found = deadly(kept.snapshot, kept.updates, self._roots(document))
            if found is None or found == SNAPSHOT:
                return
            self.store.set_aside(document, kept.updates[found], "A process died when it was applied.")

    def _own_library(self, library: str | None) -> DocumentId:
        own = self.store.set_setting("library", library or new_document_id(self.random))
        if library is not None and own != library:
            raise LibraryMismatch(
                f"{self.store.path} belongs to library {own}, not {library}.",
                hint="Give a new file to join the other library; without an id or invite this one opens as it is.",
            )
        return DocumentId(own)

    def _conversation(self, id_: DocumentId) -> Conversation:
        if id_ not in self._open:
            made = self._make(id_, self._journal(id_), lambda: self._closed(id_))
            self._open[id_] = Conversation(made)
            if self.store.tables.erased(id_) > self.store.purged(id_):
                made.document.load()  # it crashed between an erase and the end of it: that is made up for now
        return self._open[id_]

    def _closed(self, id_: DocumentId) -> None:
        if presence := self.known_presence(id_):
            presence.present(None)
        self.forget(id_)

    def _core(self, id_: DocumentId) -> ConversationCore | None:
        """A conversation that is open."""
        found = self._open.get(id_)
        return core_of(found) if found is not None else None

    def _make(self, id_: DocumentId, journal: StoreJournal, closed: Callable[[], None]) -> ConversationCore:
        host = RepoHost(
            journal,
            self._lock,
            self.author,
            self.keyring,
            self.blobs,
            clock=self._clock,
            random=self.random,
            title=lambda: (self.store.listed(id_) or Listed(id_, "", 0.0, False, False)).title,
            presence=lambda: self.presence(id_),
            dispatch=self._callbacks.run,
            observed=self._watch,
            note_engine=self._caches.note,
            erased=lambda: self._erased(id_),
            closed=closed,
            make_replica=lambda: self._replica(id_),
        )
        return ConversationCore(id_, host)

    def _settle(self, id_: DocumentId) -> None:
        """Bring the tables of a conversation up to date. One that is not loaded is loaded for the moment only."""
        with self._lock:
            in_use = self._core(id_)
            if in_use is not None and in_use.document.loaded:
                in_use.refresh_index()
                return
            made = self._make(id_, StoreJournal(self.store, id_, self._notify), lambda: None)
            try:
                made.refresh_index()
            finally:
                made.close()
            self.touch(id_)

    def _settle_all(self) -> None:
        for id_ in self.store.tables.stale(RULES):
            self._settle(DocumentId(id_))

    def _journal(self, document: DocumentId) -> StoreJournal:
        self._journals[document] = StoreJournal(
            self.store,
            document,
            self._notify,
            lambda: max((0, *self._pushed.get(document, {}).values())),
            self._ask_to_fold,
            self._settle_all,
        )
        return self._journals[document]

    def _named_blobs(self) -> set[str]:
        """The blobs that any conversation names that is not deleted."""
        found: set[str] = set()
        with self._lock:
            self._library.document.refresh()
            for document in self.store.documents("conversation"):
                id_ = DocumentId(document)
                listed = self.store.listed(id_)
                if listed is None or not listed.deleted:
                    was_open = id_ in self._open
                    found |= self._conversation(id_).blobs()
                    if not was_open:
                        self.forget(id_)
        return found

    def _erased(self, id_: DocumentId) -> None:
        """Words were erased from a conversation, here or by a merge, and are to leave its files now."""
        self._caches.forget(id_)

    def _ask_to_fold(self) -> None:
        for link in self._links:
            self._owed.ask_to_fold(link)

    def _read_library(self) -> None:
        """Have the listing say what the library says. It is loaded only where the listing does not know all of it."""
        with self._lock:
            if not self._library.document.loaded and not self._journals[self.library].is_listed():
                self._library.document.load()
            self._library.document.refresh()

    def _note_listing(self) -> None:
        """The listing is true now: the next process need not load the library to use it."""
        if self._library.document.loaded and not self.store.closed:
            with suppress(LLMCRDTError):
                self._library.document.refresh()
                self._journals[self.library].note_listed()

    def _list_cards(self, cards: Sequence[Card]) -> None:
        known = self.store.listing_all() if len(cards) > 1 else set()
        rows = [Listed(c.id, c.title, c.created_at, c.archived, c.deleted) for c in cards]
        rows = [row for row in rows if row not in known]
        if rows:
            self.store.put_listing(rows)
        for card in cards:
            if card.deleted and card.id in self._open:
                core_of(self._open[card.id]).document.refuse("was deleted from the library")
                self.forget(card.id)
        if cards:
            with suppress(KeyringUnusable, OSError):  # tried again whenever the library is loaded
                self.keyring.forget(c.id for c in cards if c.deleted)
            self._drop_deleted(c.id for c in cards if c.deleted)

    def _drop_deleted(self, heard: Iterable[DocumentId] = ()) -> None:
        """Keep nothing of conversations that were deleted: no words, no attachments that nothing else names, no KV
        state; and have every relay that knows them do the same. ``heard``: those that the library says it of since now.
        Another process may have dropped them, and may have no link. Where the disk is full, or somebody reads the
        write-ahead log, it is tried again in a while."""
        done = False
        try:
            doomed = [DocumentId(id_) for id_ in self.store.doomed()]
            for id_ in doomed:
                blobs: set[str] = set()
                with suppress(LLMCRDTError):  # one that can't be read: ``collect`` finds them later
                    made = self._make(id_, StoreJournal(self.store, id_, self._notify), lambda: None)
                    blobs = Conversation(made).blobs()
                self.store.drop(id_)
                with suppress(LLMCRDTError, OSError):
                    self._caches.forget(id_)
                    if blobs:
                        self.blobs.release(blobs)
            done = self.store.scrub()
        finally:
            self._drop_in = 0 if done else _AGAIN
            if not done:
                self._watch()
        if to_ask := {*doomed, *heard}:
            for link in self._links:
                self._owed.ask_to_delete(link, to_ask)

    def _drop_again(self) -> None:
        """What could not be dropped before; and links ask for what they could not hear of then."""
        self._drop_in -= 1
        if self._drop_in == 0:
            self._drop_deleted()
            for link in self._links:
                self._owed.ask_to_delete(link)

    def _notify(self, document: DocumentId) -> None:
        for link in self._links:
            link.notify(document)

    def _announce(self, document: DocumentId) -> None:
        for link in self._links:
            link.announce(document)

    def _watch(self) -> None:
        """From now on look for what other processes write to the file."""
        with self._lock:
            if self._watcher is None:
                self._watcher = threading.Thread(target=self._poll, name="llmcrdt-watcher", daemon=True)
                self._watcher.start()

    def _tick_presence(self) -> None:
        with self._lock:
            presences = tuple(self._presence.items())
        for document, presence in presences:
            kept = presence.tick()
            with self._lock:
                if not kept and document not in self._open:
                    self._presence.pop(document, None)

    def _poll(self) -> None:
        version: int | None = None
        while not self._closing.wait(_POLL):
            self._tick_presence()
            with self._lock:
                if self._closing.is_set():
                    return
                with suppress(StoreError):  # the disk, for a moment: whoever reads or writes next is told
                    version = self._look(version)

    def _look(self, version: int | None) -> int:
        """Read what other processes wrote to the file since it had this version, and have links send it; the version
        that it has now."""
        if self._drop_in:
            self._drop_again()
        now = self.store.data_version()
        if now != version:
            self._library.document.refresh()
            for conversation in list(self._open.values()):
                core_of(conversation).document.refresh()
            for link in self._links:
                link.notify()
                for waiting in self.store.waiting(link.url):
                    link.notify(DocumentId(waiting))
        return now
