"""The list of what a transcript does not show (O4): why an entry is hidden, and whether whoever hid it had seen it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import cache

from ..ids import EntryId
from .arrangement import Arrangement
from .entry import Entry
from .nodes import Node, by_age, with_ancestors
from .order import Order
from .order_rules import Hider
from .transcript import Elsewhere, EntryReader, ListedElsewhere


def list_elsewhere(
    order: Order, now: Arrangement, reader: EntryReader, lock: threading.RLock
) -> Callable[[], ListedElsewhere]:
    """The list for a transcript of ``now``, whose entries ``reader`` reads. Called later, it takes the lock itself."""
    hidden_by = now.hidden_by

    def elsewhere() -> ListedElsewhere:
        with lock:
            ids = by_age(hidden_by, order.sound())
        unseen = cache(lambda: _unseen(hidden_by, order.sound(), reader))
        return ListedElsewhere(ids, lambda i: _listed(reader.read(i), hidden_by[i], i in unseen()), lock)

    return elsewhere


def _unseen(hidden_by: Mapping[EntryId, Hider], sound: Mapping[EntryId, Node], reader: EntryReader) -> set[EntryId]:
    """The hidden entries that whoever decided had not seen: they are nowhere above what that one had seen, which is
    what a selection names; else the alternative that is shown, what its author had seen, and the same of the entry
    that it was made of, and so on."""
    hidden: dict[tuple[EntryId, int], tuple[Hider, set[EntryId]]] = {}
    for i, hider in hidden_by.items():
        hidden.setdefault((hider.way, id(hider.after)), (hider, set()))[1].add(i)
    unseen = set[EntryId]()
    for hider, entries in hidden.values():
        seen = hider.after if hider.after is not None else _origins(hider.way, sound)
        left = entries.difference(seen)
        if left and hider.after is None:
            seen = (*seen, *(i for entry in seen for i in reader.read(entry).after))
        down_to = min((sound[i].lamport for i in left if i in sound), default=0)
        unseen |= left - with_ancestors(seen, sound, down_to) if left else left
    return unseen


def _origins(entry: EntryId, sound: Mapping[EntryId, Node]) -> tuple[EntryId, ...]:
    """An entry, the one that it is an alternative of, and so on; it may be gone since."""
    path = [entry]
    while path[-1] in sound and (origin := sound[path[-1]].alternative_of):
        path.append(origin)
    return tuple(path)


def _listed(entry: Entry, hider: Hider, unseen: bool) -> Elsewhere:
    return Elsewhere(entry, hider.way, unseen, "withheld" if hider.withheld else "replaced")
