"""When a log is folded, and who waits for it. No threads: whoever folds gets CompactRequest and answers Folded.

A log is folded when the records behind its snapshot outgrow it, and when a client asks for it because something was
erased. One who asked is answered when the records are gone from every file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from llmcrdt.sync import wire
from llmcrdt.sync.wire import Cursor

from ..log.admin import Storage
from ..log.base import LogError, label
from .limits import Limits

logger = logging.getLogger(__name__)

FOLDED_KINDS = frozenset({"yjs"})
"""Kinds of documents whose records can be folded."""


class CompactRequest(NamedTuple):
    """Somebody who knows what is in a document is to fold its log up to a place. Folded is the answer."""

    document: bytes
    upto: Cursor


class CompactResult(NamedTuple):
    """The answer to CompactRequest: what all up to a place folds to; None where that failed."""

    document: bytes
    upto: Cursor
    records: Sequence[bytes] | None


class Compaction:
    """The folds of one relay. ``random(n)`` makes the names of snapshots' records."""

    def __init__(self, storage: Storage, limits: Limits, random: Callable[[int], bytes]) -> None:
        self._storage, self._limits, self._random = storage, limits, random
        self._under_way: set[bytes] = set()
        # Who asked, and up to which position everything has to be folded; None in place of a peer: since a restart.
        self._asked: dict[bytes, list[tuple[int | None, int]]] = {}
        self._folded: list[bytes] = []
        self._failed: list[tuple[int, bytes, int]] = []
        # Documents that could not be folded, and their size then.
        self._given_up: dict[bytes, int] = {}
        self._started: list[bytes] = []
        self._sweeping = self._scrubbing = True
        self._paused = False
        for document in storage.snapshots.requested():
            self._asked[document] = [(None, self._end(document))]

    @property
    def busy(self) -> bool:
        """Whether the next step has work, even without an event."""
        if self._paused:
            return False
        return self._sweeping or any(d not in self._under_way and self._short(d) for d in self._asked)

    @property
    def stuck(self) -> bool:
        """Whether something waits for a better moment: another step should try it, in a while."""
        return self._paused or self._scrubbing

    @property
    def clean(self) -> bool:
        """Whether nothing of what was folded or deleted is in any file."""
        return not (self._sweeping or self._scrubbing or self._paused)

    def sweep_again(self) -> None:
        """There is more to take away."""
        self._sweeping = self._scrubbing = True

    def drop(self, document: bytes) -> None:
        """A document was deleted: nobody waits for its fold any more."""
        self._asked.pop(document, None)
        self._given_up.pop(document, None)

    def ask(self, peer: int, document: bytes) -> None:
        """A peer wants all folded that is there now."""
        end = self._end(document)
        self._asked.setdefault(document, []).append((peer, end))
        if self._short(document):
            self._storage.snapshots.request(document)

    def leave(self, peer: int) -> None:
        """A peer is gone. What it asked for is still done."""
        for document, asked in self._asked.items():
            self._asked[document] = [(None if who == peer else who, end) for who, end in asked]

    def take(self, answer: CompactResult) -> bool:
        """Whether the answer staged a snapshot."""
        document = answer.document
        self._under_way.discard(document)
        if self._storage.records.head(document) is None:
            return False  # deleted meanwhile, or the log is another one
        if answer.records is None:
            self._give_up(document)
            return False
        session = self._random(16)
        if not self._storage.snapshots.put(document, answer.upto, session, answer.records, self._limits.batch):
            self._give_up(document)
            return False
        self._folded.append(document)
        self._given_up.pop(document, None)
        self._sweeping = self._scrubbing = True
        return True

    def requests(self, changed: Iterable[bytes]) -> list[CompactRequest]:
        """Before the commit of a step: what is to be compacted now; ``changed``: documents that the step appended
        to."""
        self._paused = False
        snapshots = self._storage.snapshots
        todo = {
            document: snapshots.tail_start(document, 0)
            for document in self._asked
            if document not in self._under_way and self._short(document)
        }
        for document in changed:
            if document not in self._under_way and document not in todo and self._outgrown(document):
                todo[document] = snapshots.tail_start(document, self._limits.fold_tail)
        self._started = [*todo]
        self._under_way.update(todo)
        return [CompactRequest(*item) for item in todo.items()]

    def fail(self, documents: Collection[bytes]) -> None:
        """The commit of a step failed for these documents: they are as they were before it."""
        self._paused = True
        self._under_way.difference_update(document for document in self._started if document in documents)
        for document in documents:
            if document in self._asked:
                # What was pushed in this step, and was to be compacted, is not there.
                end = self._end(document)
                self._asked[document] = [(peer, min(upto, end)) for peer, upto in self._asked[document]]
        for document in self._folded:
            if document in documents:
                self._give_up(document)

    def sweep(self) -> None:
        """After the commit: take some of what was compacted or deleted away."""
        if self._sweeping and not self._paused:
            try:
                self._sweeping = self._storage.sweeper.sweep(self._limits.sweep)
            except LogError as e:
                logger.error("what was compacted or deleted can't be swept yet: %s", e)
                self._paused = True

    def settle(self) -> list[tuple[int, bytes, int]]:
        """After the commit: (peer, document, outcome) for all who are to be answered now."""
        self._folded.clear()
        self._started.clear()
        answers, self._failed = self._failed, []
        if self._sweeping or self._paused:
            return answers
        if self._scrubbing:
            try:
                self._scrubbing = not self._storage.sweeper.scrub()
            except LogError as e:
                # A disk that is full hurts no reader. It is tried again in a while.
                logger.error("what was folded can't be scrubbed yet: %s", e)
        if not self._scrubbing:
            for document in tuple(self._asked):
                snapshot = self._storage.snapshots.get(document)
                upto = snapshot.position if snapshot else 0
                met = [(peer, end) for peer, end in self._asked[document] if end <= upto]
                answers += ((peer, document, wire.FOLD_DONE) for peer, _ in met if peer is not None)
                self._keep(document, [a for a in self._asked[document] if a not in met])
        return answers

    # ---------------------------------------------------------------- inside

    def _short(self, document: bytes) -> bool:
        """Whether somebody waits for a fold that goes further than the one there is."""
        fold = self._storage.snapshots.get(document)
        return any(end > (fold.position if fold else 0) for _, end in self._asked.get(document, ()))

    def _outgrown(self, document: bytes) -> bool:
        head, size = self._storage.records.head(document), self._storage.snapshots.tail_size(document)
        if head is None or head.kind not in FOLDED_KINDS:
            return False
        fold = self._storage.snapshots.get(document)
        least = max(self._limits.fold, fold.size if fold else 0, 2 * self._given_up.get(document, 0))
        return size > least + self._limits.fold_tail

    def _give_up(self, document: bytes) -> None:
        logger.error("document %s could not be folded; its log stays as it is", label(document))
        self._given_up[document] = self._storage.snapshots.tail_size(document)
        if len(self._given_up) > self._limits.cached:
            del self._given_up[next(iter(self._given_up))]
        waiting = self._asked.pop(document, [])
        self._failed += ((peer, document, wire.FOLD_FAILED) for peer, _ in waiting if peer is not None)

    def _keep(self, document: bytes, asked: list[tuple[int | None, int]]) -> None:
        if asked:
            self._asked[document] = asked
        else:
            del self._asked[document]

    def _end(self, document: bytes) -> int:
        head = self._storage.records.head(document)
        return head.cursor.position if head else 0
