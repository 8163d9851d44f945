"""Catch-up snapshots: records that stand for the part of a log that a device missed, without what was deleted again. No
threads: the compactor gets CatchUpRequest and answers CatchUpResult.

A device that comes back gets the records after its cursor as SNAPSHOT, where that pays: the pieces of an answer that
was streamed, and then sealed, come to nothing then. It waits for that no longer than ``Limits.catch_up_wait``, twice at
most, and otherwise gets the records as they are. A catch-up snapshot is kept for others with the same cursor, and so is
the fact that there is none.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Generic, NamedTuple, TypeVar

from ..log.admin import Part, Storage, StoredSnapshot, cut
from .compaction import COMPACTED_KINDS
from .events import CatchUpRequest, CatchUpResult
from .limits import Limits

W = TypeVar("W")

_EACH = 1 << 10
"""The cost of a result in ``catch_up_kept``, beside its bytes."""
_TRIES = 3
"""Times that a catch-up snapshot is tried at one position; then again when more has come."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class CatchUpSnapshot:
    """It stands for records like a stored snapshot, for those whose cursor is at one position. It is in memory only, as
    long as it is kept for others or somebody is still to get some of it."""

    snapshot: StoredSnapshot
    parts: Sequence[Part]


class _Kept(NamedTuple):
    """The outcome at a position: up to where a catch-up snapshot was tried, and the snapshot; None where the records
    are sent as they are. ``failures``: how often it was tried in vain; 0 where it is known that none is shorter."""

    upto: int
    found: CatchUpSnapshot | None
    failures: int = 0

    @property
    def weight(self) -> int:
        return _EACH + (self.found.snapshot.size if self.found else 0)


class CatchUp(Generic[W]):
    """``random(n)`` makes the names of records. ``W``: whoever waits. ``available`` False: nobody answers.

    Invariants:

    1. Each request has one result, and then nobody waits for it any more.
    2. All catch-up snapshots in memory, kept or still to be sent, have at most ``Limits.catch_up_kept`` bytes.
    3. Once a document was compacted or deleted, no older catch-up snapshot of it is found.
    """

    def __init__(self, storage: Storage, limits: Limits, random: Callable[[int], bytes], available: bool) -> None:
        self._storage, self._limits, self._random, self._available = storage, limits, random, available
        self._under_way: dict[tuple[bytes, int], list[W]] = {}
        self._kept: OrderedDict[tuple[bytes, int], _Kept] = OrderedDict()
        self._size = 0
        # Bytes of all that is in memory: also those that are not kept, but that somebody still gets.
        self._held = 0

    def find(
        self, who: W, document: bytes, kind: str, after: int, upto: int
    ) -> CatchUpSnapshot | CatchUpRequest | bool:
        """A catch-up snapshot for the records after ``after``, up to ``upto`` or about there. False: they are to be
        sent as they are. CatchUpRequest, to be handed out, or True: it is still to come, and ``handle_result`` names
        who waits."""
        limits = self._limits
        if not self._available or kind not in COMPACTED_KINDS or upto - after < limits.catch_up_records:
            return False
        key = (document, after)
        upto = min(upto, after + limits.catch_up_most)
        kept = self._kept.get(key)
        if kept and upto - kept.upto < limits.catch_up_records and not 0 < kept.failures < _TRIES:
            self._kept.move_to_end(key)
            return kept.found or False
        if key in self._under_way:
            self._under_way[key].append(who)
            return True
        if len(self._under_way) >= limits.catch_up_jobs or not self._pays(document, after, upto):
            return False
        self._under_way[key] = [who]
        return CatchUpRequest(document, after, upto)

    def handle_result(self, result: CatchUpResult) -> tuple[list[W], CatchUpSnapshot | None]:
        """Those who waited for a result, and the catch-up snapshot, if there is one. The log is read only where the
        result has records. Raises LogError."""
        key = (result.document, result.after)
        found = None
        if result.records is None:
            self._keep_failure(key, result.upto)
        elif self._is_in_tail(*key):
            found = self._make(result, result.records)
        return self._under_way.pop(key, []), found

    def forget(self, document: bytes) -> None:
        """A document was compacted or deleted: what it says no longer must not stay here."""
        for key in [key for key in self._kept if key[0] == document]:
            self._drop(key)

    # ---------------------------------------------------------------- inside

    def _pays(self, document: bytes, after: int, upto: int) -> bool:
        """Whether so much was missed that it is worth loading the document for it."""
        limits, snapshots = self._limits, self._storage.snapshots
        snapshot = snapshots.get(document)
        whole = snapshots.tail_size(document) + (snapshot.size if snapshot else 0)
        if whole > limits.catch_up_document:
            return False
        enough: float = limits.catch_up_bytes
        if whole > limits.catch_up_free:
            enough = max(enough, whole / limits.catch_up_ratio) if limits.catch_up_ratio else inf
        return snapshots.bytes_between(document, after, upto, enough) >= enough

    def _is_in_tail(self, document: bytes, after: int) -> bool:
        snapshot = self._storage.snapshots.get(document)
        return self._storage.records.head(document) is not None and after >= (snapshot.position if snapshot else 0)

    def _keep_failure(self, key: tuple[bytes, int], upto: int) -> None:
        """The next one may try again, but not for ever: it may take too long each time."""
        kept = self._kept.get(key)
        self._keep(key, _Kept(upto, None, 1 + (kept.failures if kept else 0)))

    def _make(self, result: CatchUpResult, records: Sequence[bytes]) -> CatchUpSnapshot | None:
        """The catch-up snapshot that a result makes, which is kept for others; None where it is not worth it."""
        document, after, upto, _ = result
        key, size = (document, after), sum(map(len, records))
        chain = self._storage.records.chain_at(document, upto) if records else None
        share = self._limits.catch_up_share
        if chain is None or size > share * self._storage.snapshots.bytes_between(document, after, upto):
            self._keep(key, _Kept(upto, None))
            return None
        if not self._make_room(size):
            self._keep_failure(key, upto)
            return None
        parts = list(cut(records, self._limits.batch))
        found = CatchUpSnapshot(StoredSnapshot(upto, chain, self._random(16), len(parts), size), parts)
        self._hold(size)
        weakref.finalize(found, self._hold, -size).atexit = False
        self._keep(key, _Kept(upto, found))
        return found

    def _hold(self, size: int) -> None:
        self._held += size

    def _make_room(self, size: int) -> bool:
        """Whether so many bytes more may be held, where need be in place of some that are only kept."""
        most = self._limits.catch_up_kept
        if size <= most < self._held + size:
            for key in [key for key, kept in self._kept.items() if kept.found]:
                if self._held + size > most:
                    self._drop(key)
        return self._held + size <= most

    def _keep(self, key: tuple[bytes, int], kept: _Kept) -> None:
        self._drop(key)
        self._kept[key] = kept
        self._size += kept.weight
        while self._size > self._limits.catch_up_kept:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: tuple[bytes, int]) -> None:
        kept = self._kept.pop(key, None)
        self._size -= kept.weight if kept else 0
