"""Many updates become one, or one many. It needs no names of roots, so whoever keeps a document need not know its
content."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from ...exceptions import MalformedUpdate
from .chunks import Change, Chunk, read_update, write_names
from .erasures import erasures_of, last_of
from .replica import AutomergeReplica

Make = Callable[..., AutomergeReplica]


def compact_updates(updates: Iterable[bytes], make: Make) -> list[bytes]:
    """``Backend.compact``."""
    replica, aside = load_all(updates, make)
    whole, waiting = replica.snapshot()
    return [*([whole] if replica.has_changes else []), *waiting, *aside]


def catch_up_updates(snapshot: Sequence[bytes], before: Sequence[bytes], tail: Sequence[bytes], make: Make) -> bytes:
    """``Backend.catch_up``."""
    replica = make(())
    replica.load(snapshot[0] if snapshot else None, [*snapshot[1:], *before])
    version = replica.version()
    if replica.waits:
        raise MalformedUpdate("Updates wait for others.")
    replica.load(None, tail)
    if replica.waits:
        raise MalformedUpdate("Updates wait for others.")
    return replica.diff(version)


def load_all(updates: Iterable[bytes], make: Make) -> tuple[AutomergeReplica, list[bytes]]:
    """``Backend.load_all``."""
    good, aside = [], list[bytes]()
    for update in updates:
        try:
            good.append(read_update(update))
        except MalformedUpdate:
            aside.append(update)
    replica = make(())
    try:
        replica.apply_together(good)
    except MalformedUpdate:
        pass
    else:
        return replica, aside
    # One of them passes for an update and can't be applied: find it.
    replica, applied = make(()), list[bytes]()
    for parsed in good:
        try:
            replica.apply_together([parsed])
            applied.append(parsed.data)
        except MalformedUpdate:
            aside.append(parsed.data)
            if replica.broken:
                replica = make(())
                replica.load(None, applied)
    return replica, aside


def redact_changes(whole: bytes, updates: Sequence[bytes], limit: int, make: Make) -> list[bytes] | None:
    """``Backend.redact``. Changes that come after others under older hashes, and don't say which, are told anew too:
    nobody else could tell."""
    erasures = erasures_of(read_update(whole).structure.erased)
    if not erasures or not updates:
        return None
    parsed = [read_update(update) for update in updates]
    changes = [change for update in parsed for change in _changes(update.structure, make)]
    here = {change.hash for change in changes}
    named = (not change.deps or change.names or here.issuperset(change.deps) for change in changes)
    if all(named) and not any(erasures.blank(change) is not change for change in changes):
        return None
    replica = make(())
    replica.load(whole, ())
    known = {change.name for change in replica.changes()}
    told = replica.tell({change.name for change in changes})
    waits = [erasures.blank(change) for change in changes if change.name not in known]
    update = b"".join((told, *(change.told for change in waits), erasures.write()))
    return list(cut_changes(update, limit, make))


def cut_changes(update: bytes, limit: int, make: Make) -> Iterator[bytes]:
    """The changes of an update in pieces of at most ``limit`` bytes; one that is larger has one of its own. Raises
    MalformedUpdate."""
    parsed = read_update(update).structure
    changes = _changes(parsed, make)
    names = {change.hash: change.name for change in changes}
    piece, size, told = list[bytes](), 0, set[bytes]()
    for change in changes:
        known = change.names or [None] * len(change.deps)
        told_names = [
            None if dep in told else name or names.get(dep) for dep, name in zip(change.deps, known, strict=True)
        ]
        raw = write_names(told_names, *change.name) + change.raw
        if piece and size + len(raw) > limit:
            yield b"".join(piece)
            piece, size, told = [], 0, set()
            told_names = [name or names.get(dep) for dep, name in zip(change.deps, known, strict=True)]
            raw = write_names(told_names, *change.name) + change.raw
        piece.append(raw)
        size += len(raw)
        told.add(change.hash)
    if piece:
        yield b"".join(piece)
    after = last_of(changes)
    for erased in parsed.erased:
        yield from erasures_of([erased]).pieces({*erased.after, *after})


def _changes(structure: Iterable[Chunk], make: Make) -> list[Change]:
    """The changes of an update, in an order in which they can be applied."""
    found: list[Change] = []
    for chunk in structure:
        if isinstance(chunk, Change):
            found.append(chunk)
        else:
            replica = make(())
            replica.load(None, [chunk.raw])
            found += replica.changes()
    return found
