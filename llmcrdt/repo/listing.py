"""The library of a repo, the listing that is made of it, and its observers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

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

    def following(self) -> Sequence[DocumentId]:
        """The library, and every conversation in it that is not deleted."""
        cards = [card for card in self.library.cards() if not card.deleted]
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
        for card in cards:
            self._resources.note_kind(card.id, card.crdt)
        known = catalog.everything() if len(cards) > 1 else set()
        rows = [Listed(c.id, c.title, c.created_at, c.archived, c.deleted) for c in cards]
        rows = [row for row in rows if row not in known]
        if rows:
            catalog.put(rows)
            self.observers.look({DocumentId(row.id) for row in rows})
        deleted = [card.id for card in cards if card.deleted]
        for id_ in deleted:
            self._refuse(id_)
        if cards:
            with suppress(KeyringUnusable, OSError):  # tried again whenever the library is loaded
                self._resources.keyring.forget(deleted)
            self._deleted(deleted)
