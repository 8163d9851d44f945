"""Repo: the conversations of one device, in one SQLite file. Wires documents, store and sync."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import NoneType, TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from ..arguments import check_callback, check_type
from ..at_exit import end_at_exit
from ..crdt.registry import DEFAULT, backend
from ..exceptions import (
    ConversationDeleted,
    ConversationNotFound,
    InvalidContent,
    KeyringUnusable,
    LibraryMismatch,
    NeverSyncs,
    RelayUnreachable,
    StoreError,
)
from ..ids import DocumentId, EntryId, Random, document_bytes, is_document_id, new_document_id
from ..store.blobs import BlobStore
from ..store.keyring import Keyring
from ..store.relay_file import KnownRelay
from .attachments import Attachments
from .core import RepoCore
from .invite import Invite, read_invite, write_invite
from .library_changes import LibraryChange, Listing, listed

if TYPE_CHECKING:
    from ssl import SSLContext

    from ..document.conversation import Conversation
    from ..document.entry import Entry
    from ..observation import Observation
    from ..sync.link import Link
    from ..sync.token import TokenProvider


Progress: TypeAlias = Callable[[int, int], None]
"""Told how much is done, of how much."""

_MAY_SYNC = 'repo.never_syncs = False, or "llmcrdt syncing on", lets it.'

_PROVIDED = "a provider's"
"""In place of tokens that come and go: what a relay refused one of them is not asked with the next."""


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


class Hits(list[Hit]):
    """The entries that ``repo.search`` found. ``unread``: conversations that were not searched, for what came to them
    was not read yet."""

    unread = 0


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

    A library of one's own in which nothing was ever written gives way to the one that is joined.
    ``author`` signs what this device writes. Raises NotADatabase, NewerDatabase, CRDTMismatch, LibraryMismatch,
    InvalidContent, InvalidInvite, KeyringUnusable; where this device has another library already, nothing is changed.
    """
    if library is not None:
        document_bytes(library)
    invited = read_invite(invite) if invite is not None else None
    if invited is not None and library not in (None, invited.library):
        raise LibraryMismatch(f"The invite is for library {invited.library}.", hint="Give the invite alone.")
    joined = invited.library if invited else library
    core = RepoCore(Path(path), joined, author=author, clock=clock, random=random, crdt=backend(DEFAULT))
    if invited is not None:
        try:
            core.resources.keyring.add_all(invited.keys)
            core.resources.relay_file.write(KnownRelay(invited.relay, invited.token))
        except BaseException:
            core.close()
            raise
    return Repo(core)


class Repo:
    """Any method from any thread; a context manager. Made by ``open``.

    Attributes:
        keyring: the keys of encrypted hidden fields.
        blobs: the contents of attachments.
        attachments: those on their way to relays and from them.
    """

    def __init__(self, core: RepoCore) -> None:
        self._core = core
        self._lock, self._store = core.lock, core.store
        self.keyring: Final[Keyring] = core.resources.keyring
        self.blobs: Final[BlobStore] = core.documents.blobs
        self.attachments: Final[Attachments] = core.attachments
        end_at_exit(core, finish=RepoCore.end)

    @property
    def library(self) -> DocumentId:
        """The id of the library document."""
        return self._core.library_id

    # conversations

    def create(
        self,
        title: str = "",
        *,
        crdt: str | None = None,
        fill: Callable[[Conversation], None] | None = None,
        local: bool = False,
    ) -> Conversation:
        """A new conversation, listed in the library. ``local``: it stays on this device, it and its line in the list,
        and no relay hears of it; ``share`` ends that. ``crdt``: the kind of its document (``llmcrdt.crdt.registry``);
        None: that of the file. ``fill`` writes its first entries: all of them are kept, or, if it raises, there is no
        conversation. Raises InvalidContent for a kind that nobody knows, CRDTMissing for one that is not installed."""
        from ..document.conversation import core_of

        def write(conversation: Conversation, created_at: float) -> None:
            with conversation.batch():
                core_of(conversation).write_identity(created_at)
                if fill is not None:
                    fill(conversation)

        return _create(self._core, title, write, crdt, local)

    def fork(
        self,
        conversation: Conversation,
        *,
        at: Entry | EntryId,
        title: str | None = None,
        local: bool | None = None,
        progress: Progress | None = None,
    ) -> Conversation:
        """A new conversation that begins as this one stands at an entry of its transcript; ``forked_from`` says so.
        Its order is that of the rules for what it holds: where only a later frame had pinned another one, or a later
        entry had kept a rival answer in sight, that is not so there.

        A fork is a conversation of its own, and is not merged back; ``conv.adopt(fork)`` takes in what is new in it.
        Entries keep their ids, frames and token logs, so an engine reuses all it has computed for them. Sealed hidden
        fields are sealed anew for the fork where their key is here; else they are left out, for they would not open:
        ``forked_from["left_out"]`` lists them. ``local``, as of ``create``; None: as this one is. ``progress`` is
        told how many entries are written, of how many; what it raises ends the fork, and leaves none.
        """
        from ..document.conversation import core_of
        from ..document.fork_copy import copy_conversation

        source = core_of(conversation)
        name = conversation.title if title is None else title

        def write(fork: Conversation, created_at: float) -> None:
            copy_conversation(source, core_of(fork), at, created_at, progress or (lambda done, of: None))

        is_local = self._store.catalog.is_local(source.id) if local is None else local
        fork = _create(self._core, name, write, self._core.kind(source.id), is_local)
        core = core_of(fork)
        with core.reading():
            core.document.journal.compact(core.replica.snapshot)  # its first words needn't wait for that
        return fork

    def convert(self, conversation: Conversation, crdt: str, *, progress: Progress | None = None) -> Conversation:
        """The same conversation as a new one whose document is of another kind: entries keep their ids, the transcript
        its hash. The old one stays as it is, and the two are never merged. Raises InvalidContent for a kind that nobody
        knows, CRDTMissing for one that is not installed, KeyMissing for an encrypted field whose key is not here.
        ``progress``: as of ``fork``."""
        from ..document.conversation import core_of
        from ..document.whole_copy import copy_whole

        source = core_of(conversation)

        def write(made: Conversation, created_at: float) -> None:
            copy_whole(source, core_of(made), progress or (lambda done, of: None))
            if made.transcript().hash != conversation.transcript().hash:
                raise StoreError("The copy would show another conversation.", hint="Nothing was kept; please report.")

        local = self._store.catalog.is_local(source.id)
        return _create(self._core, conversation.title, write, crdt, local)

    def get(self, id: str) -> Conversation:
        """The conversation with this id: one of this repo, or one that the library lists. Raises
        ConversationNotFound, or ConversationDeleted where the library says that it was deleted."""
        with self._lock:
            self._core.listing.refresh()
            id_ = DocumentId(id)
            listed = self._store.catalog.get(id_) if is_document_id(id) else None
            known = is_document_id(id) and self._store.catalog.kind(id_) == "conversation"
            if listed and listed.deleted:
                raise ConversationDeleted(id)
            if not (listed or known):
                raise ConversationNotFound(
                    f"There is no conversation {id!r} in {self._store.path}.",
                    hint="List them, or sync first; repo.join(id) makes a replica of one from elsewhere.",
                )
            if not known:
                self._store.catalog.add(id_, "conversation")
            return self._core.documents.conversation(id_)

    def join(self, id: str, *, crdt: str | None = None) -> Conversation:
        """A replica of a conversation made elsewhere, empty until a relay or ``apply`` fills it. Lists it. ``crdt``:
        the kind of its document, where the library doesn't say it; None: that of the file.
        Raises ConversationDeleted where the library says that it was deleted."""
        document_bytes(id)
        if id == self.library or self._store.catalog.kind(id) == "library":
            raise InvalidContent(
                f"{id} is a library, not a conversation.", hint="Join it with llmcrdt.open(path, library=ID)."
            )
        with self._lock:
            id_ = DocumentId(id)
            self._core.library.document.refresh()
            card = self._core.listing.card(id_)
            if card is not None and card.deleted:
                raise ConversationDeleted(id)
            with self._store.transaction():
                self._core.resources.check_library()
                self._core.resources.note_kind(id_, crdt or "")
                if card is None:
                    kind = self._core.kind(id_)
                    facts = {} if kind == self._core.resources.crdt.kind else {"crdt": kind}
                    self._core.library.put(id_, created_at=self._core.resources.clock(), **facts)
                self._store.catalog.add(id_, "conversation")
            return self._core.documents.conversation(id_)

    def list(self, limit: int = 50, before: str | None = None) -> Sequence[Listing]:
        """Conversations, youngest first, without loading any. ``before``: the last id of the page before."""
        check_type(limit, int, name="limit", hint="Give a number of conversations.")
        check_type(before, str, NoneType, name="before", hint="Give the last id of the page before.")
        self._core.listing.refresh()
        return listed(self._store.catalog.page(limit, before), self._store.catalog)

    def observe(self, callback: Callable[[LibraryChange], None] | None = None) -> Observation[LibraryChange]:
        """Call back whenever the list of conversations says something else, on whatever device it was changed: some
        were added, renamed, archived or brought back, deleted. From one thread, in order. Without ``callback``, the
        result is read in a loop: ``async for change in repo.observe()``, or ``for`` in a thread; it ends with the repo.
        Call the result to stop it."""
        check_callback(callback)
        self._core.check_open()
        self._core.listing.refresh()
        observation = self._core.listing.observers.add(callback)
        self._core.watcher.start()
        return observation

    def rename(self, id: str, title: str) -> None:
        """Give a conversation another title, on every device."""
        check_type(title, str, name="title", hint="Give the title as text; '' is none.")
        self._core.listing.put(self.get(id).id, title=title)

    def archive(self, id: str, archived: bool = True) -> None:
        """Put a conversation away, or bring it back, on every device. ``list`` says which are."""
        self._core.listing.put(self.get(id).id, archived=archived)

    def share(self, id: str) -> None:
        """Have a conversation that is local on this device (``create(local=True)``) be synced from now on, all of it
        and its line in the list, with every device of the library. There is no way back: what was shared can only be
        deleted. Nothing happens where it is shared already."""
        with self._lock:
            self._core.listing.share(self.get(id).id)
            self._core.links.notify_waiting()

    @property
    def never_syncs(self) -> bool:
        """Whether this database never syncs: ``connect`` raises NeverSyncs, in every process. Set it to True, and links
        that there are end; to False, and ``connect`` works again. It is kept in the file."""
        return self._core.never_syncs

    @never_syncs.setter
    def never_syncs(self, never: bool) -> None:
        check_type(never, bool, name="never_syncs", hint="True keeps this database from every relay.")
        self._core.set_never_syncs(never)

    def delete(self, id: str) -> None:
        """Take a conversation out of the library, on every device, for good.

        If a relay refused to delete it for this device's token (``link.kept_there``), another call asks once more;
        else one of a deleted conversation raises ConversationDeleted."""
        with self._lock:
            self._core.listing.refresh()
            listed = self._store.catalog.get(id) if is_document_id(id) else None
            if listed is not None and listed.deleted and self._store.relay_tasks.ask_again(id):
                self._core.links.request_deletions()
                return
            self._core.listing.put(self.get(id).id, deleted=True)

    def search(self, text: str, limit: int = 20, *, elsewhere: bool = False, wait: float | None = 0.3) -> Hits:
        """Entries that hold all words of ``text`` in their visible text, the best first.

        Case and accents don't count; the last word may be the beginning of one; "words in quotes" stand together.
        Only entries of transcripts, unless ``elsewhere``. Deleted, erased or hidden words are never found.
        Conversations into which something was merged since the last look are read first, for ``wait`` seconds where
        there are many (None: all of them); the rest is read in the background, and nothing of it is found before.
        ``unread`` of the result says how many these are: after a first sync there may be thousands. Raises
        InvalidContent.
        """
        from ..document.projector import origin_of_row

        check_type(text, str, name="text", hint="Give the words to find.")
        check_type(limit, int, name="limit", hint="Give a number of hits.")
        self._core.listing.refresh()
        unread = self._core.documents.indexing.refresh(wait)
        hits = Hits()
        hits.unread = len(unread)
        titles: dict[DocumentId, str] = {}
        for found in self._store.entries.search(text, limit, elsewhere=elsewhere, without=unread):
            id_ = DocumentId(found.document)
            if id_ not in titles:
                listed = self._store.catalog.get(id_)
                titles[id_] = listed.title if listed else ""
            role, created_at = origin_of_row(found.fields)
            shown = found.position is not None
            hits.append(Hit(id_, titles[id_], EntryId(found.entry), role, created_at, found.snippet, shown))
        return hits

    # sync

    def connect(
        self,
        url: str | None = None,
        token: str | TokenProvider | None = None,
        only: Sequence[str] | None = None,
        *,
        tls: SSLContext | str | os.PathLike[str] | None = None,
    ) -> Link:
        """Keep in step with a relay: the library and all in it, or ``only`` these documents. Returns at once; a context
        manager (``with`` or ``async with``). ``url``: None is the relay that an invite brought, or that one was made
        for. ``token``: None is the one that is known here for that relay. A function, plain or async, gives one
        whenever one is needed: with the first connection, and when the relay doesn't take the one in use any more, as
        it has expired perhaps; its argument is the relay's refusal, None at first. A plain one runs on a thread of its
        own, and may take a minute. If it fails the link is offline, and tries again; where the relay refuses a new
        token as well, the link gives up. ``tls``, for wss://: a file with the certificates to trust (PEM) in place of
        the system's, or a context. Raises RelayUnreachable where there is none, and for what is no address."""
        from ..sync.link import Link, control_of  # websockets is loaded only where it is used
        from .sync_source import SyncSource

        self._core.check_open()
        if self._core.never_syncs:
            raise NeverSyncs(f"{self._store.path} is set never to sync.", hint=_MAY_SYNC)
        if not callable(token):
            hint = "Give the token as text, or a function that gives it."
            check_type(token, str, NoneType, name="token", hint=hint)
        check_type(
            url, str, NoneType, name="url", hint="Give an address such as ws://127.0.0.1:8765.", error=RelayUnreachable
        )
        if url is None:
            known = self.relay
            if known is None:
                raise RelayUnreachable("No relay is known here.", hint="Give its address, or join with an invite.")
            url, token = known.url, known.token if token is None else token
        elif token is None:
            with suppress(KeyringUnusable):  # an address is given: nothing else need be known
                token = _own_token(self._core, url)

        ids = None
        if only is not None:
            ids = [DocumentId(i) for i in only]
            for id_ in ids:
                document_bytes(id_)
                if self._store.catalog.is_local(id_):
                    hint = f"repo.share({id_!r}) has it synced, for good."
                    raise NeverSyncs(f"Conversation {id_} is on this device alone.", hint=hint)
                if id_ != self.library:
                    self._store.catalog.add(id_, "conversation")
        link = Link(url, SyncSource(self._core, url, ids), token=token, tls=tls)
        self._core.links.add(control_of(link), token if token is None or isinstance(token, str) else _PROVIDED)
        self._core.attachments.linked(control_of(link), tls, ids)
        self._core.watcher.start()
        return link

    @property
    def relay(self) -> KnownRelay | None:
        """The relay that this repo belongs to: an invite brought it, or was made for it. Raises KeyringUnusable."""
        return self._core.resources.relay_file.read()

    def invite(self, relay: str | None = None, token: str | None = None, *, keys: bool = True) -> str:
        """All that a new device needs, as one string for its ``llmcrdt.open(path, invite=...)``: the relay's address, a
        token for it, the library, and the keys of sealed fields (unless ``keys`` is False). Its holder can
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
        made = Invite(known.url, self.library, known.token, _shared_keys(self._core) if keys else ())
        text = write_invite(made)
        if relay is not None:
            own = _own_token(self._core, relay)
            self._core.resources.relay_file.write(known if own is None else KnownRelay(relay, own))
        return text

    def backup(
        self,
        path: str | os.PathLike[str],
        *,
        secrets: bool = True,
        on_bytes: Callable[[int, int], None] = lambda done, of: None,
    ) -> None:
        """Copy the repo as it stands now to a new file, with its attachments, keys and the relay's token (``secrets``)
        beside it as they are here; others may write meanwhile. ``llmcrdt.open(path)`` opens the copy. All of it is on
        disk when this returns. ``on_bytes``: told how many bytes are done, of about how many; what it raises ends the
        backup, and leaves no database. Raises StoreError, also where a file is there already; NotADatabase where this
        one is damaged."""
        from ..store.backup import copy_repo

        self._core.check_open()
        copy_repo(self._store.path, Path(path), secrets=secrets, on_bytes=on_bytes)

    def close(self) -> None:
        """Close links, conversations and the file. Twice is harmless."""
        self._core.close()

    def __enter__(self) -> Repo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _create(
    core: RepoCore,
    title: str,
    write: Callable[[Conversation, float], None],
    crdt: str | None,
    local: bool,
) -> Conversation:
    """A new conversation, whose document ``write`` writes; it is told when the conversation was created."""
    check_type(title, str, name="title", hint="Give the title as text; '' is none.")
    check_type(local, bool, name="local", hint="True keeps it on this device.")
    with core.lock:
        resources = core.resources
        id_ = new_document_id(resources.random)
        created_at = resources.clock()
        try:
            with core.store.transaction():  # a crash leaves both, or neither
                resources.check_library()
                facts = {} if crdt in (None, resources.crdt.kind) else {"crdt": crdt}
                resources.set_kind(id_, crdt or resources.crdt.kind)
                if local:
                    core.store.catalog.set_local(id_, True)
                conversation = core.documents.conversation(id_)
                write(conversation, created_at)
                core.store.catalog.add(id_, "conversation")
                core.listing.put(id_, title=title, created_at=created_at, **facts)
        except BaseException:
            core.documents.forget(id_)
            core.library.document.load_again()
            raise
        return conversation


def _shared_keys(core: RepoCore) -> tuple[tuple[DocumentId, int, bytes], ...]:
    """The keys that another device may need: those of local conversations are not among them."""
    local = core.store.catalog.locals()
    return tuple(key for key in core.resources.keyring.everything() if key[0] not in local)


def _own_token(core: RepoCore, relay: str) -> str | None:
    """The token that is known here for the relay at this address. Raises KeyringUnusable."""
    from ..sync.address import relay_address

    known = core.resources.relay_file.read()
    same = known is not None and relay_address(known.url) == relay_address(relay)
    return known.token if known is not None and same else None


def repo_core(repo: Repo) -> RepoCore:
    """The object that commands and tests reach inside with; programs don't need it."""
    return repo._core
