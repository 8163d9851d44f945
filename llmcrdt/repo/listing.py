"""The library of a repo, the listing that is made of it, and its observers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from ..document.canonical import JSON
from ..document.library import Card, Library
from ..exceptions import KeyringUnusable, LLMCRDTError
from ..ids import DocumentId
from ..store.base import Listed
from .journal import StoreJournal
from .library_changes import LibraryObservers
from .resources import Resources


class Listing:
    """``library``: the document. ``observers``: whoever wants to know when the listing says something else. ``refuse``
    is called with each conversation that turns out to be deleted, ``deleted`` with all of them at the end."""

    def __init__(
        self,
        resources: Resources,
        journal: StoreJournal,
        refuse: Callable[[DocumentId], None],
        deleted: Callable[[Iterable[DocumentId]], None],
    ) -> None:
        self._resources, self._journal = resources, journal
        self._refuse, self._deleted = refuse, deleted
        self.observers = LibraryObservers(resources)
        self.library = Library(
            resources.library,
            journal,
            lambda: resources.make_replica(resources.library),
            lock=resources.lock,
            clock=resources.clock,
            random=resources.random,
            changed=self._list_cards,
        )

    def refresh(self) -> None:
        """Have the listing say what the library says. It is loaded only where the listing does not know all of it."""
        with self._resources.lock:
            if not self.library.document.loaded and not self._journal.is_listed():
                self.library.document.load()
            self.library.document.refresh()

    def put(self, conversation: DocumentId, **facts: JSON) -> None:
        """Say something of a conversation, as ``Library.put``; of a local one in the listing alone."""
        catalog = self._resources.store.catalog
        if not catalog.is_local(conversation):
            self.library.put(conversation, **facts)
            return
        with self._resources.lock, self._resources.store.transaction():
            row = catalog.get(conversation) or Listed(conversation, "", 0.0, False, False)
            catalog.put([row._replace(**{name: facts[name] for name in Listed._fields if name in facts})])
        self.observers.look({conversation})
        if facts.get("deleted"):
            self._tell_deleted([conversation])

    def card(self, conversation: DocumentId) -> Card | None:
        """The facts that the library has of a conversation; of a local one, those of the listing."""
        catalog = self._resources.store.catalog
        if not catalog.is_local(conversation):
            return self.library.card(conversation)
        row = catalog.get(conversation)
        kind = self._resources.kind(conversation)
        return None if row is None else Card(conversation, row.title, row.created_at, row.archived, row.deleted, kind)

    def share(self, conversation: DocumentId) -> None:
        """Have a local conversation be one of the library from now on."""
        card, catalog = self.card(conversation), self._resources.store.catalog
        if card is None or not catalog.is_local(conversation):
            return
        own = card.crdt == self._resources.crdt.kind
        try:
            with self._resources.store.transaction():
                self._resources.check_library()
                catalog.set_local(conversation, False)
                facts = {} if own else {"crdt": card.crdt}
                created = card.created_at
                self.library.put(conversation, title=card.title, created_at=created, archived=card.archived, **facts)
        except BaseException:
            self.library.document.load_again()
            raise

    def following(self) -> Sequence[DocumentId]:
        """The library, and every conversation in it that is not deleted. A local one is never among them, whatever the
        library says: another device may have imported the same."""
        local = self._resources.store.catalog.locals()
        cards = [card for card in self.library.cards() if not card.deleted and card.id not in local]
        cards.sort(key=lambda card: (-card.created_at, card.id))
        return [self._resources.library, *(card.id for card in cards)]

    def close(self) -> None:
        """Note that the listing is true now, so that the next process need not load the library to use it."""
        if self.library.document.loaded and not self._resources.store.closed:
            with suppress(LLMCRDTError):
                self.library.document.refresh()
                self._journal.note_listed()
        self.library.document.close()
        self.observers.end()

    def _list_cards(self, cards: Sequence[Card]) -> None:
        catalog = self._resources.store.catalog
        local = catalog.locals()
        cards = [card for card in cards if card.id not in local]
        for card in cards:
            self._resources.note_kind(card.id, card.crdt)
        known = catalog.everything() if len(cards) > 1 else set()
        rows = [Listed(c.id, c.title, c.created_at, c.archived, c.deleted) for c in cards]
        rows = [row for row in rows if row not in known]
        if rows:
            catalog.put(rows)
            self.observers.look({DocumentId(row.id) for row in rows})
        if cards:
            self._tell_deleted([card.id for card in cards if card.deleted])

    def _tell_deleted(self, deleted: Sequence[DocumentId]) -> None:
        for id_ in deleted:
            self._refuse(id_)
        with suppress(KeyringUnusable, OSError):  # tried again whenever the library is loaded
            self._resources.keyring.forget(deleted)
        self._deleted(deleted)
