"""Many updates become one, or one many. It needs no names of roots, so whoever keeps a document need not know its
content."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from ...exceptions import MalformedUpdate
from .chunks import Whole, read_update
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


def cut_changes(update: bytes, limit: int, make: Make) -> Iterator[bytes]:
    """The changes of an update in pieces of at most ``limit`` bytes; one that is larger has one of its own. Raises
    MalformedUpdate."""
    chunks = read_update(update).structure
    if any(isinstance(chunk, Whole) for chunk in chunks):
        replica = make(())
        replica.load(None, [update])
        raws = [chunk.raw for chunk in replica.changes()]
    else:
        raws = [chunk.raw for chunk in chunks]
    piece, size = list[bytes](), 0
    for raw in raws:
        if piece and size + len(raw) > limit:
            yield b"".join(piece)
            piece, size = [], 0
        piece.append(raw)
        size += len(raw)
    if piece:
        yield b"".join(piece)
