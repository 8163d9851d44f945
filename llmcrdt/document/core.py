"""A conversation in use: its document, the view of it, and all that depends on both."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from weakref import WeakValueDictionary

from ..crdt.backend import Edit, Replica, Touched
from ..exceptions import ConversationDeleted, KeyMissing, LLMCRDTError
from ..ids import DocumentId, EntryId, KeyId
from . import schema
from .acts import OwnClaim
from .document import Document, Use
from .encryption import FieldAddress, check_encrypts
from .entry import Entry, SyncState
from .erasure import clean, is_clean
from .host import ConversationHost
from .observers import ConversationObservers
from .projector import Projector, entry_of_row
from .turn import Turn
from .view import ConversationView


class ConversationCore:
    """One open conversation, for its repo, its writers and its streams; people use ``Conversation``.

    Any method from any thread. ``document``: its bytes, and whether it is loaded. ``view``: the document as it is read;
    valid under ``reading`` and ``editing``. ``turn``: who generates in this process, and in what order. ``streams``:
    the entries that are being written here, as long as somebody has them. ``claims``: the tool calls that this session
    claimed, by the key of the act.
    """

    kind = "Conversation"

    def __init__(self, id: DocumentId, host: ConversationHost) -> None:
        self.id = id
        self.host = host
        self.document = Document(
            id, host.journal, host.make_replica, self, lock=host.lock, clock=host.clock, random=host.random
        )
        self.observers = ConversationObservers(host.dispatch)
        self.turn = Turn()
        self.streams: WeakValueDictionary[EntryId, object] = WeakValueDictionary()
        self.claims: dict[str, OwnClaim] = {}
        self._view = self._new_view()
        self._passed_over: KeyId | None = None
        """The key that was the newest in the document when somebody here made another one on purpose."""
        self.stale_bytes = False
        """Whether the file may hold words of an erased entry: it was erased just now, or an update brought them."""

    # use

    @property
    def view(self) -> ConversationView:
        """The document as it is read."""
        return self._view

    @property
    def replica(self) -> Replica:
        """The document's replica."""
        return self.document.replica

    def reading(self) -> Use:
        """While it is open, ``view`` is up to date and nobody else changes it."""
        return self.document.reading()

    def editing(self) -> AbstractContextManager[Edit]:
        """A write: one update, durable at the end. One inside another is part of that one's update."""
        return self.document.editing()

    def write_identity(self, created_at: float) -> None:
        """Write the document's own facts; once, by whoever creates it."""
        with self.editing() as edit:
            schema.write_identity(edit, self.id, created_at)

    def address(self, entry: EntryId, name: str) -> FieldAddress:
        """The address of a hidden field, with the keys for it."""
        return FieldAddress(self.id, entry, name, self.host.keys)

    def check_encrypts(self) -> None:
        """Raises what encrypting a hidden field now would: KeyMissing, SealingMissing, KeyringUnusable."""
        with self.reading():
            self.check_key()
        check_encrypts(self.id, self.host.keys)

    def check_key(self) -> None:
        """Raises KeyMissing where the newest encrypted fields are under a key that is not here: what this device
        encrypts under another one, those who have that key may not be able to open."""
        newest, keys = self.view.newest_key(self.replica), self.host.keys
        if newest is None or keys is None or newest == self._passed_over:
            return
        if keys.find(self.id, newest) is None:
            raise KeyMissing(
                f"The newest encrypted fields of conversation {self.id} are under key {newest}, which is not here.",
                hint="Add it (repo.keyring.export there, repo.keyring.add here); or have this device encrypt under a"
                " key of its own from now on: conv.rotate_key().",
            )

    def rotate_key(self) -> KeyId:
        """Encrypt hidden fields under a new key from now on, even where the newest one is not here; returns its id.
        Raises KeyMissing where there are no keys."""
        keys = self.host.keys
        if keys is None:
            raise KeyMissing("This conversation has no keyring.", hint="Get it from a repo.")
        with self.reading():
            self._passed_over = self.view.newest_key(self.replica)
        return keys.rotate(self.id).id

    def decide_claims(self) -> None:
        """A relay has more of this document on disk; everything that stood before it in its log has been read."""
        with self.document.lock:
            for key, claim in self.claims.items():
                if self._sync_state(EntryId(key)) == "durable":
                    claim.decide()

    def close(self) -> None:
        """Stop using this object. The conversation stays where it is."""
        with self.document.lock:
            if not self.document.closed and self.document.loaded:
                with suppress(LLMCRDTError):  # the index can be made again at any time
                    self.refresh_index()
        self.document.close()
        self.observers.end(deleted=False)
        self.host.closed()

    def delete(self) -> None:
        """The conversation was deleted: every use says so from now on, and observers are told."""
        self.document.refuse(lambda: ConversationDeleted(self.id))
        self.observers.end(deleted=True)

    # the entry index

    def refresh_index(self) -> None:
        """Bring the entry index up to date with the document."""
        with self.document.lock:
            if self.host.index is not None and not self.document.in_edit:
                self.document.load()
                self.document.refresh()
                self.write_index()

    def write_index(self) -> None:
        """Have the entry index say what was read of the document."""
        if self.host.index is not None and not self.document.in_edit:
            self.host.index.refresh()

    def page(self, last: int, before: EntryId | None) -> tuple[Entry, ...] | None:
        """A page of the transcript from the index; None where the replica is loaded, or the index can't tell."""
        if self.document.loaded or self.document.closed or self.host.index is None:
            return None
        rows = self.host.index.page(last, before)
        if rows is None:
            return None
        return tuple(entry_of_row(*row, self._sync_state, self.address, self.host.blobs) for row in rows)

    # as the document's content

    def reset(self) -> None:
        """Forget everything that was read, then read the whole replica."""
        self.observers.note_visible(self._view)
        index = self.host.index
        self._view = self._new_view()
        self.document.check_schema()
        rows = index.nodes() if index is not None and self.document.newer is None else None
        if rows is not None:
            self._view.restore(self.replica, rows)
        else:
            self._view.read_all(self.replica)
        if index is not None:
            source = Projector(self._view, self.replica) if self.document.newer is None else None
            index.follow(source)
        self.observers.report(self._view, local=False)

    def absorb(self, touched: Touched, *, local: bool) -> None:
        """Read what a change touched."""
        self.observers.note_visible(self._view)
        if touched.of(schema.META):
            self.document.check_schema()
            if self.document.newer is not None and self.host.index is not None:
                self.host.index.follow(None)
        self.observers.note_changed(self._view.read(self.replica, touched))
        self.stale_bytes = self.stale_bytes or not self._view.erased.isdisjoint(touched.of(schema.ENTRIES))
        if not local:
            self.observers.report(self._view, local=False)

    def on_disk(self, *, local: bool) -> None:
        """The changes that were read last are on disk now."""
        self.observers.report(self._view, local=local)
        if local and self.stale_bytes:
            self._purge()

    def merged(self) -> None:
        """After a merge: remove what it brought back beside an erase."""
        dirty = self.document.newer is None and not is_clean(self._view, self.replica)
        if dirty:
            with self.editing() as edit:
                clean(self._view, self.replica, edit)
        if dirty or self.stale_bytes or len(self._view.erased) != self.document.journal.purged():
            self._purge()

    def forget(self) -> None:
        """Forget everything that was read: nothing asks for it any more."""
        self._view = self._new_view()
        if self.host.index is not None:
            self.host.index.follow(None)

    def _purge(self) -> None:
        """Remove erased words from the file, and from whatever else was derived from them."""
        with self.document.lock:
            self.host.erased()  # first: should it fail, the purge is still owed, and this with it
            while not self.document.journal.purge(self.replica.snapshot, len(self._view.erased)):
                self.document.apply_news()
            self.stale_bytes = False
        released, self._view.released = self._view.released, set()
        if released and self.host.blobs is not None:
            self.host.blobs.release(released)

    def _new_view(self) -> ConversationView:
        return ConversationView(self._sync_state, self.document.lock, self.address, self.host.blobs)

    def _sync_state(self, entry: EntryId) -> SyncState:
        """How far an entry has come. One that is being written just now has not even been queued."""
        return "local" if self.document.is_edited(entry) else self.host.sync_state(entry)
