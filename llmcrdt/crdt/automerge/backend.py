"""Backend over the package automerge: Automerge documents, which any Automerge client can read.

An update is Automerge's own chunks, one after another: changes, or a whole document as ``save`` writes it; with names
and erasures between them (``chunks.py``). The history of a document holds all that was ever written in it, so it
``forgets`` nothing by itself: where something is erased, the history is written anew (decision 0059).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from ...exceptions import MalformedUpdate
from ..backend import NewField, NewNode, ParsedUpdate, Replica, Work
from .chunks import EMPTY, Change, read_update
from .derive import derive_update, is_root_change
from .foreign import find_foreign_key
from .version import parse_version
from .work import estimate_work

if TYPE_CHECKING:
    from .replica import AutomergeReplica

RECORD = 1 << 20
"""Bytes of an update that a device keeps, and sends, as one record."""
_WORDS = 1 << 10
"""Bytes of an update that may be some words of a streamed answer."""


class AutomergeBackend:
    """``replicas`` makes them: a simulation gives each a writer identity from its seed. The package is loaded with the
    first replica."""

    kind = "automerge"
    empty = EMPTY
    forgets = False

    def __init__(self, replicas: Callable[..., AutomergeReplica] | None = None) -> None:
        self._given = replicas

    @property
    def _replicas(self) -> Callable[..., AutomergeReplica]:
        from .replica import AutomergeReplica

        return self._given or AutomergeReplica

    def make_replica(self, roots: Iterable[str], applying: AbstractContextManager[None] | None = None) -> Replica:
        return self._replicas(roots) if applying is None else self._replicas(roots, applying=applying)

    def reply(self, replica: Replica, question: bytes) -> bytes:
        return _own(replica).reply(question)

    def mark(self, replica: Replica) -> bytes:
        return _own(replica).mark()

    def derive(self, groups: Iterable[Sequence[NewNode]], fields: Iterable[NewField] = ()) -> bytes:
        return derive_update(groups, fields)

    def read(self, update: bytes) -> ParsedUpdate:
        return read_update(update)

    def touches(self, update: ParsedUpdate, prefix: str) -> bool:
        return any(chunk.holds(prefix.encode()) for chunk in update.structure)

    def foreign_key(self, update: ParsedUpdate, root: str, prefix: str, own: str) -> str | None:
        return find_foreign_key(update, root, prefix, own)

    def repeats(self, updates: Iterable[ParsedUpdate], version: bytes) -> bool:
        seqs = parse_version(version).seqs
        for update in updates:
            for chunk in update.structure:
                if isinstance(chunk, Change):
                    if chunk.seq <= seqs.get(chunk.actor, 0) and not is_root_change(chunk):
                        return True
                elif any(seq <= seqs.get(actor, 0) for actor, seq in chunk.changes):
                    return True
        return False

    def estimate_work(self, update: bytes, blocks: int) -> Work:
        return estimate_work(update, blocks)

    def join(self, updates: Sequence[bytes], first: int, most: float) -> tuple[bytes, int]:
        joined: list[bytes] = []
        size = 0
        for update in updates[first:]:
            size += len(update)
            if len(update) > _WORDS or size > most:
                break
            try:
                read_update(update)
            except MalformedUpdate:
                break
            joined.append(update)
        return (b"".join(joined), len(joined)) if len(joined) > 1 else (updates[first], 1)

    def cut(self, update: bytes) -> list[bytes]:
        if len(update) <= RECORD:
            return [update]
        from .compact import cut_changes

        try:
            return list(cut_changes(update, RECORD, self._replicas))
        except MalformedUpdate:
            return [update]

    def locate(self, piece: bytes, root: str) -> dict[str, int]:
        """None is found: a document is stored by columns, so no part of it holds an entry."""
        return {}

    def split(self, update: bytes, limit: int) -> list[bytes]:
        if len(update) <= limit:
            return [update]
        from .compact import cut_changes

        pieces = list(cut_changes(update, limit, self._replicas))
        if any(len(piece) > limit for piece in pieces):
            raise MalformedUpdate("The update holds a change that is larger than a record may be.")
        return pieces

    def redact(self, whole: bytes, updates: Sequence[bytes]) -> list[bytes] | None:
        from .compact import redact_changes

        return redact_changes(whole, updates, RECORD, self._replicas)

    def compact(self, updates: Iterable[bytes]) -> list[bytes]:
        from .compact import compact_updates

        return compact_updates(updates, self._replicas)

    def catch_up(self, snapshot: Sequence[bytes], before: Sequence[bytes], tail: Sequence[bytes]) -> bytes:
        from .compact import catch_up_updates

        return catch_up_updates(snapshot, before, tail, self._replicas)

    def begin(self, first: bytes) -> Replica:
        replica = self._replicas(())
        replica.load(first, ())
        return replica

    def load_all(self, updates: Iterable[bytes]) -> tuple[Replica, list[bytes]]:
        from .compact import load_all

        return load_all(updates, self._replicas)


def _own(replica: Replica) -> AutomergeReplica:
    from .replica import AutomergeReplica

    assert isinstance(replica, AutomergeReplica)
    return replica
