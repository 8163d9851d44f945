"""Observers of the list of conversations, and the changes that are told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from contextlib import suppress
from typing import NamedTuple

from ..exceptions import StoreError
from ..ids import DocumentId
from ..observation import Observation, Observers
from ..store.base import Catalog, Listed
from .resources import Resources


class Listing(NamedTuple):
    """One line of ``repo.list()``; ``created_at`` in seconds since 1970. ``local``: it is on this device alone, and is
    never synced."""

    id: DocumentId
    title: str
    created_at: float
    archived: bool
    local: bool = False


class LibraryChange(NamedTuple):
    """The difference between the list of conversations before and now. One conversation may stand under more than one
    name. ``archived``: put away, or brought back, as ``archived`` of each says; ``deleted``: as they were listed
    last."""

    added: tuple[Listing, ...] = ()
    renamed: tuple[Listing, ...] = ()
    archived: tuple[Listing, ...] = ()
    deleted: tuple[Listing, ...] = ()


class LibraryObservers:
    """Compares the listing with what observers were told last. Any thread."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._observers: Observers[LibraryChange] = Observers(resources.dispatcher.run)
        self._told: dict[DocumentId, Listing] = {}

    def add(self, callback: Callable[[LibraryChange], None] | None) -> Observation[LibraryChange]:
        """Tell of every change from now on."""
        with self._resources.lock:
            if not self._observers:
                self._told = self._listed(None)
            return self._observers.add(callback)

    def look(self, only: Set[DocumentId] | None = None) -> None:
        """The listing of ``only`` these conversations may say something else; None: of all. The observers' thread
        looks, when the transaction is over that this is called in: what is not kept is not told."""
        if self._observers:
            self._resources.dispatcher.run(lambda: self._compare(only))

    def end(self) -> None:
        """The repo is closed: what was not told yet is told, and loops end."""
        self._compare(None)
        self._observers.end()

    def _compare(self, only: Set[DocumentId] | None) -> None:
        with self._resources.lock, suppress(StoreError):  # the disk, for a moment, or the repo was closed
            if not self._observers:
                return
            now = self._listed(only)
            before = {id_: self._told[id_] for id_ in (self._told if only is None else only) if id_ in self._told}
            change = difference(before, now)
            for id_ in before.keys() - now.keys():
                del self._told[id_]
            self._told.update(now)
            if any(change):
                self._observers.tell(change)

    def _listed(self, only: Set[DocumentId] | None) -> dict[DocumentId, Listing]:
        catalog = self._resources.store.catalog
        rows = catalog.everything() if only is None else filter(None, map(catalog.get, sorted(only)))
        return {line.id: line for line in listed((row for row in rows if not row.deleted), catalog)}


def listed(rows: Iterable[Listed], catalog: Catalog) -> Sequence[Listing]:
    """The lines of the list, of rows of the store."""
    local = catalog.locals()
    return [Listing(DocumentId(r.id), r.title, r.created_at, r.archived, r.id in local) for r in rows]


def difference(before: dict[DocumentId, Listing], now: dict[DocumentId, Listing]) -> LibraryChange:
    """The change from one list to another, each part youngest first."""
    both = [(before[id_], line) for id_, line in now.items() if id_ in before]
    parts = (
        [line for id_, line in now.items() if id_ not in before],
        [line for was, line in both if was.title != line.title],
        [line for was, line in both if was.archived != line.archived],
        [line for id_, line in before.items() if id_ not in now],
    )
    return LibraryChange(*(tuple(sorted(part, key=lambda line: (-line.created_at, line.id))) for part in parts))
