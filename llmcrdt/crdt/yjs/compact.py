"""Many updates become one. It needs no names of roots, so whoever keeps a document need not know its content."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ...exceptions import MalformedUpdate
from .replica import YjsReplica
from .split import cut_document
from .update import read_update

_EMPTY = b"\x00\x00"


def compact_updates(updates: Iterable[bytes]) -> list[bytes]:
    """The document that the updates make, as one update, or as several where others take no such update; after it those
    that still wait for others, and those that can't be applied, as they came. Content that the document has deleted is
    in none of the first."""
    replica, aside = load_all(updates)
    whole, waiting = replica.snapshot()
    return [*(cut_document(whole) if whole != _EMPTY else []), *waiting, *aside]


def catch_up_updates(snapshot: Sequence[bytes], before: Sequence[bytes], tail: Sequence[bytes]) -> bytes:
    """All that ``tail`` adds to the document that ``snapshot`` (records of ``compact_updates``) and ``before`` make,
    without what it says and deletes again. Raises MalformedUpdate where one of them can't be applied, or waits for
    others before or after the tail."""
    replica = begin(snapshot[0]) if snapshot else YjsReplica(())
    replica.load(None, [*snapshot[1:], *before])
    place = replica.place()
    replica.load(None, tail)
    return replica.since(place)


def begin(first: bytes, make: Callable[..., YjsReplica] = YjsReplica) -> YjsReplica:
    """A document with the first record of a log. If the log is compacted that is the document, word for word; it
    waits for nothing, and isn't read again. Of any other record some may wait, and the core doesn't tell."""
    replica = make(())
    replica.load(first, ())
    if replica.diff() != first:
        replica = make(())
        replica.load(None, [first])
    return replica


def load_all(updates: Iterable[bytes]) -> tuple[YjsReplica, list[bytes]]:
    """The document that the updates make, and those that can't be applied."""
    good: list[bytes] = []
    aside: list[bytes] = []
    for update in updates:
        try:
            read_update(update)
            good.append(update)
        except MalformedUpdate:
            aside.append(update)
    try:
        replica = _loaded(good)
        replica.snapshot()
    except MalformedUpdate:
        # One of them passes for an update and harms the core: find it.
        replica, harmful = _one_by_one(good)
        aside += harmful
    return replica, aside


def _loaded(updates: Sequence[bytes]) -> YjsReplica:
    replica = YjsReplica(())
    replica.load(None, updates)
    return replica


def _one_by_one(updates: Sequence[bytes]) -> tuple[YjsReplica, list[bytes]]:
    replica, applied, harmful = YjsReplica(()), list[bytes](), list[bytes]()
    for update in updates:
        try:
            replica.apply(update)
            applied.append(update)
        except MalformedUpdate:
            harmful.append(update)
            if replica.broken:
                replica = _loaded(applied)
    return replica, harmful
