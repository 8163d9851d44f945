"""When a log is compacted, and who waits for it. No threads: the compactor gets CompactRequest and answers
CompactResult.

A log is compacted when its tail outgrows the snapshot, and when a client asks for it because something was erased. The
client is answered when the records are gone from every file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable

from llmcrdt.crdt.registry import kinds
from llmcrdt.sync.messages import FOLD_DONE, FOLD_FAILED

from ..log.admin import Storage
from ..log.base import LogError, label
from .events import CompactRequest, CompactResult
from .limits import Limits
from .validation import Peer

logger = logging.getLogger(__name__)

COMPACTED_KINDS = kinds()
"""Kinds of documents whose logs can be compacted."""


class Compaction:
    """The compactions of one relay. ``random(n)`` makes the names of snapshots' records.

    A step calls ``handle_result``, ``ask``, ``start_requests``; then commits; then calls ``fail`` where that failed,
    ``sweep``, ``take_answers``.

    Left to take away (snapshots and deletions both leave records):

    ==========  =======================================  =======================================
    state       a step                                   then
    ==========  =======================================  =======================================
    sweeping    ``sweep`` takes some away                sweeping, or scrubbing after the last
    scrubbing   ``take_answers`` empties the files       clean, or scrubbing where a file is in use
    clean       stages a snapshot or a deletion          sweeping
    any         fails to write                           paused: a step with a Tick tries again
    ==========  =======================================  =======================================
    """

    def __init__(self, storage: Storage, limits: Limits, random: Callable[[int], bytes]) -> None:
        self._storage, self._limits, self._random = storage, limits, random
        self._under_way: set[bytes] = set()
        # Those who asked, and up to which position all has to be compacted; None in place of a peer: since a restart.
        self._asked: dict[bytes, list[tuple[Peer | None, int]]] = {}
        # Of this step: documents with a new snapshot, answers of failures, requests.
        self._staged: list[bytes] = []
        self._failed: list[tuple[Peer, bytes, int]] = []
        self._started: list[bytes] = []
        # Documents that could not be compacted, and the size of their tail then.
        self._given_up: dict[bytes, int] = {}
        self._sweeping = self._scrubbing = True
        self._paused = False
        for document in storage.snapshots.requested():
            self._asked[document] = [(None, self._end(document))]

    @property
    def busy(self) -> bool:
        """Whether the next step has work, even without an event."""
        if self._paused:
            return False
        return self._sweeping or any(d not in self._under_way and self._is_asked(d) for d in self._asked)

    @property
    def stuck(self) -> bool:
        """Whether something waits for a better moment: another step should try it, in a while."""
        return self._paused or self._scrubbing

    @property
    def clean(self) -> bool:
        """Whether no file holds anything of what was compacted or deleted."""
        return not (self._sweeping or self._scrubbing or self._paused)

    # ---------------------------------------------------------------- before the commit

    def sweep_again(self) -> None:
        """There is more to take away."""
        self._sweeping = self._scrubbing = True

    def ask(self, peer: Peer, document: bytes) -> None:
        """A peer wants all compacted that is there now."""
        end = self._end(document)
        self._asked.setdefault(document, []).append((peer, end))
        if self._is_asked(document):
            self._storage.snapshots.request(document)

    def handle_result(self, result: CompactResult) -> bool:
        """Whether the result staged a snapshot."""
        document = result.document
        self._under_way.discard(document)
        if self._storage.records.head(document) is None:
            return False  # deleted meanwhile, or the log is another one
        put, part = self._storage.snapshots.put, self._limits.batch
        if result.records is None or not put(document, result.upto, self._random(16), result.records, part):
            self._give_up(document)
            return False
        self._staged.append(document)
        self._given_up.pop(document, None)
        self.sweep_again()
        return True

    def start_requests(self, changed: Iterable[bytes]) -> list[CompactRequest]:
        """Requests for all that is to be compacted now. ``changed``: documents that this step appended to."""
        self._paused = False
        tail_start = self._storage.snapshots.tail_start
        asked = [d for d in self._asked if d not in self._under_way and self._is_asked(d)]
        todo = {document: tail_start(document, 0) for document in asked}
        for document in changed:
            if document not in self._under_way and document not in todo and self._has_outgrown(document):
                todo[document] = tail_start(document, self._limits.compaction_tail)
        self._started = [*todo]
        self._under_way.update(todo)
        return [CompactRequest(*item) for item in todo.items()]

    # ---------------------------------------------------------------- after the commit

    def fail(self, documents: Collection[bytes]) -> None:
        """The commit failed for these documents: they are as they were before the step."""
        self._paused = True
        self._under_way.difference_update(document for document in self._started if document in documents)
        for document in documents:
            if document in self._asked:
                # Records that were pushed in this step, and were to be compacted, are not there.
                end = self._end(document)
                self._asked[document] = [(peer, min(upto, end)) for peer, upto in self._asked[document]]
        for document in self._staged:
            if document in documents:
                self._give_up(document)

    def sweep(self) -> None:
        """Take away some of what was compacted or deleted."""
        if self._sweeping and not self._paused:
            try:
                self._sweeping = self._storage.sweeper.sweep(self._limits.sweep)
            except LogError as e:
                logger.error("compacted or deleted records can't be swept yet: %s", e)
                self._paused = True

    def take_answers(self) -> list[tuple[Peer, bytes, int]]:
        """(peer, document, outcome) for all who are to be answered now."""
        self._staged.clear()
        self._started.clear()
        answers, self._failed = self._failed, []
        if self._sweeping or self._paused:
            return answers
        if self._scrubbing:
            try:
                self._scrubbing = not self._storage.sweeper.scrub()
            except LogError as e:
                # A disk that is full hurts no reader. It is tried again in a while.
                logger.error("compacted or deleted records can't be scrubbed yet: %s", e)
        if not self._scrubbing:
            for document in tuple(self._asked):
                upto = self._compacted_to(document)
                met = [(peer, end) for peer, end in self._asked[document] if end <= upto]
                answers += ((peer, document, FOLD_DONE) for peer, _ in met if peer is not None)
                self._keep_asked(document, [a for a in self._asked[document] if a not in met])
        return answers

    # ---------------------------------------------------------------- those who wait

    def drop(self, document: bytes) -> None:
        """A document was deleted: nobody waits for its compaction any more."""
        self._asked.pop(document, None)
        self._given_up.pop(document, None)

    def leave(self, peer: Peer) -> None:
        """A peer is gone. Its requests are still met."""
        for document, asked in self._asked.items():
            self._asked[document] = [(None if who == peer else who, end) for who, end in asked]

    # ---------------------------------------------------------------- inside

    def _compacted_to(self, document: bytes) -> int:
        snapshot = self._storage.snapshots.get(document)
        return snapshot.position if snapshot else 0

    def _is_asked(self, document: bytes) -> bool:
        """Whether somebody waits for a snapshot that goes further than the one there is."""
        upto = self._compacted_to(document)
        return any(end > upto for _, end in self._asked.get(document, ()))

    def _has_outgrown(self, document: bytes) -> bool:
        """Whether the tail is so long that a snapshot pays."""
        head, size = self._storage.records.head(document), self._storage.snapshots.tail_size(document)
        if head is None or head.kind not in COMPACTED_KINDS:
            return False
        snapshot = self._storage.snapshots.get(document)
        least = max(
            self._limits.compaction_bytes, snapshot.size if snapshot else 0, 2 * self._given_up.get(document, 0)
        )
        return size > least + self._limits.compaction_tail

    def _give_up(self, document: bytes) -> None:
        logger.error("document %s could not be compacted; its log stays as it is", label(document))
        self._given_up[document] = self._storage.snapshots.tail_size(document)
        if len(self._given_up) > self._limits.cached:
            del self._given_up[next(iter(self._given_up))]
        waiting = self._asked.pop(document, [])
        self._failed += ((peer, document, FOLD_FAILED) for peer, _ in waiting if peer is not None)

    def _keep_asked(self, document: bytes, asked: list[tuple[Peer | None, int]]) -> None:
        if asked:
            self._asked[document] = asked
        else:
            del self._asked[document]

    def _end(self, document: bytes) -> int:
        head = self._storage.records.head(document)
        return head.cursor.position if head else 0
