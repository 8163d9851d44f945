"""What a device missed, without what was deleted again: records that stand for a part of a log. No threads: whoever
condenses gets CatchUpRequest and answers Condensed.

Who comes back gets the records behind its cursor as SNAPSHOT, where that pays: the pieces of an answer that was
streamed, and then sealed, are nothing then. It waits for that no longer than ``Limits.condense_wait``, twice at most,
and otherwise gets the records as they are. What was condensed is kept for others who stand at the same place, and so is
that there is nothing shorter.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Generic, NamedTuple, TypeVar

from ..log.admin import Part, Storage, StoredSnapshot, cut
from .compaction import FOLDED_KINDS
from .limits import Limits

W = TypeVar("W")

_EACH = 1 << 10
"""What an answer counts in ``condense_kept`` beside its bytes."""
_TRIES = 3
"""Times that it is tried to condense what stands behind a place; then again when more has come."""


class CatchUpRequest(NamedTuple):
    """Somebody who knows what is in a document is to condense the records behind ``after``, up to ``upto``. Condensed
    is the answer."""

    document: bytes
    after: int
    upto: int


class CatchUpResult(NamedTuple):
    """The answer to CatchUpRequest: records that say what the others add to those before them, none where that can't be
    said; None where it was too late or failed, which may be otherwise the next time."""

    document: bytes
    after: int
    upto: int
    records: Sequence[bytes] | None


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class CatchUpSnapshot:
    """What stands for records: like the snapshot of a fold, for those who stand at one place. It is in memory only, as
    long as it is kept for others or somebody is still to get some of it."""

    fold: StoredSnapshot
    parts: Sequence[Part]


class _Kept(NamedTuple):
    """Of a place: up to where it was condensed, and what came of it; None where the records are sent as they are.
    ``failures``: how often that was tried in vain; 0 where it is known that there is nothing shorter."""

    upto: int
    short: CatchUpSnapshot | None
    failures: int = 0

    @property
    def weight(self) -> int:
        return _EACH + (self.short.fold.size if self.short else 0)


class CatchUp(Generic[W]):
    """``random(n)`` makes the names of records. ``W``: whoever waits. ``available`` False: nobody condenses."""

    def __init__(self, storage: Storage, limits: Limits, random: Callable[[int], bytes], available: bool) -> None:
        self._storage, self._limits, self._random, self._available = storage, limits, random, available
        self._under_way: dict[tuple[bytes, int], list[W]] = {}
        self._kept: OrderedDict[tuple[bytes, int], _Kept] = OrderedDict()
        self._size = 0
        # Bytes of all that is in memory: also what is not kept, but somebody still gets.
        self._held = 0

    def find(
        self, who: W, document: bytes, kind: str, after: int, upto: int
    ) -> CatchUpSnapshot | CatchUpRequest | bool:
        """What stands for the records behind ``after``, up to ``upto`` or about there. False: they are to be sent as
        they are. CatchUpRequest, to be handed out, or True: it is still to come, and ``take`` names who waits."""
        limits = self._limits
        if not self._available or kind not in FOLDED_KINDS or upto - after < limits.condense_records:
            return False
        place = (document, after)
        upto = min(upto, after + limits.condense_most)
        kept = self._kept.get(place)
        if kept and upto - kept.upto < limits.condense_records and not 0 < kept.failures < _TRIES:
            self._kept.move_to_end(place)
            return kept.short or False
        if place in self._under_way:
            self._under_way[place].append(who)
            return True
        if len(self._under_way) >= limits.condense_jobs or not self._pays(document, after, upto):
            return False
        self._under_way[place] = [who]
        return CatchUpRequest(document, after, upto)

    def take(self, answer: CatchUpResult) -> tuple[list[W], CatchUpSnapshot | None]:
        """Who waited for an answer, and what stands for the records. The log is read only where there are some."""
        place = (answer.document, answer.after)
        short = None
        if answer.records is None:
            self._failed(place, answer.upto)
        elif self._is_behind_the_fold(*place):
            short = self._short(answer, answer.records)
        return self._under_way.pop(place, []), short

    def forget(self, document: bytes) -> None:
        """A document was folded, or deleted: what it says no longer must not stay here."""
        for place in [place for place in self._kept if place[0] == document]:
            self._drop(place)

    # ---------------------------------------------------------------- inside

    def _pays(self, document: bytes, after: int, upto: int) -> bool:
        """Whether so much is missed that loading the document for it is worth while."""
        limits, fold = self._limits, self._storage.snapshots.get(document)
        whole = self._storage.snapshots.tail_size(document) + (fold.size if fold else 0)
        if whole > limits.condense_document:
            return False
        enough: float = limits.condense_bytes
        if whole > limits.condense_free:
            enough = max(enough, whole / limits.condense_ratio) if limits.condense_ratio else inf
        return self._storage.snapshots.bytes_between(document, after, upto, enough) >= enough

    def _is_behind_the_fold(self, document: bytes, after: int) -> bool:
        fold = self._storage.snapshots.get(document)
        return self._storage.records.head(document) is not None and after >= (fold.position if fold else 0)

    def _failed(self, place: tuple[bytes, int], upto: int) -> None:
        """Who comes next may try again, but not for ever: it may take too long each time."""
        kept = self._kept.get(place)
        self._keep(place, _Kept(upto, None, 1 + (kept.failures if kept else 0)))

    def _short(self, answer: CatchUpResult, records: Sequence[bytes]) -> CatchUpSnapshot | None:
        """What is made of an answer, which is kept for others."""
        document, after, upto, _ = answer
        place, size = (document, after), sum(map(len, records))
        chain = self._storage.records.chain_at(document, upto) if records else None
        if chain is None or size > self._limits.condense_share * self._storage.snapshots.bytes_between(
            document, after, upto
        ):
            self._keep(place, _Kept(upto, None))
            return None
        if not self._make_room(size):
            self._failed(place, upto)
            return None
        parts = list(cut(records, self._limits.batch))
        short = CatchUpSnapshot(StoredSnapshot(upto, chain, self._random(16), len(parts), size), parts)
        self._hold(size)
        weakref.finalize(short, self._hold, -size).atexit = False
        self._keep(place, _Kept(upto, short))
        return short

    def _hold(self, size: int) -> None:
        self._held += size

    def _make_room(self, size: int) -> bool:
        """Whether so many bytes more may be held, where need be in place of what is only kept."""
        most = self._limits.condense_kept
        if size <= most < self._held + size:
            for place in [place for place, kept in self._kept.items() if kept.short]:
                if self._held + size > most:
                    self._drop(place)
        return self._held + size <= most

    def _keep(self, place: tuple[bytes, int], kept: _Kept) -> None:
        self._drop(place)
        self._kept[place] = kept
        self._size += kept.weight
        while self._size > self._limits.condense_kept:
            self._drop(next(iter(self._kept)))

    def _drop(self, place: tuple[bytes, int]) -> None:
        kept = self._kept.pop(place, None)
        self._size -= kept.weight if kept else 0
