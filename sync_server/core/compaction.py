"""When a log is folded, and who waits for it. No threads: whoever folds gets CompactRequest and answers Folded.

A log is folded when the records behind its snapshot outgrow it, and when a client asks for it because something was
erased. One who asked is answered when the records are gone from every file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from llmcrdt.sync.messages import FOLD_DONE, FOLD_FAILED, Cursor

from ..log.base import LogError, RecordLog, label
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

    def __init__(self, log: RecordLog, limits: Limits, random: Callable[[int], bytes]) -> None:
        self._log, self._limits, self._random = log, limits, random
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
        for document in log.wanted():
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
        """Inside a transaction: there is more to take away."""
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
            self._log.want_fold(document)

    def leave(self, peer: int) -> None:
        """A peer is gone. What it asked for is still done."""
        for document, asked in self._asked.items():
            self._asked[document] = [(None if who == peer else who, end) for who, end in asked]

    def take(self, answer: CompactResult) -> bool:
        """Inside a transaction: whether the answer changed the log."""
        document = answer.document
        self._under_way.discard(document)
        if self._log.head(document) is None:
            return False  # deleted meanwhile, or the log is another one
        if answer.records is None:
            self._give_up(document)
            return False
        session = self._random(16)
        if not self._log.put_fold(document, answer.upto, session, answer.records, self._limits.batch):
            self._give_up(document)
            return False
        self._folded.append(document)
        self._given_up.pop(document, None)
        self._sweeping = self._scrubbing = True
        return True

    def work(self, changed: Iterable[bytes]) -> list[CompactRequest]:
        """Inside a transaction: take some of what was folded away, and say what is to be folded now."""
        self._paused = False
        if self._sweeping:
            self._sweeping = self._log.sweep(self._limits.sweep)
        todo = [
            CompactRequest(d, self._log.tail(d, 0)) for d in self._asked if d not in self._under_way and self._short(d)
        ]
        self._under_way.update(document for document, _ in todo)
        for document in changed:
            if document not in self._under_way and self._outgrown(document):
                todo.append(CompactRequest(document, self._log.tail(document, self._limits.fold_tail)))
                self._under_way.add(document)
        self._started = [document for document, _ in todo]
        return todo

    def settle(self) -> list[tuple[int, bytes, int]]:
        """After the transaction: (peer, document, outcome) for all who are to be answered now."""
        self._folded.clear()
        self._started.clear()
        answers, self._failed = self._failed, []
        if self._sweeping or self._paused:
            return answers
        if self._scrubbing:
            try:
                self._scrubbing = not self._log.scrub()
            except LogError as e:
                # A disk that is full hurts no reader. It is tried again in a while.
                logger.error("what was folded can't be scrubbed yet: %s", e)
        if not self._scrubbing:
            for document in tuple(self._asked):
                fold = self._log.fold(document)
                upto = fold.position if fold else 0
                met = [(peer, end) for peer, end in self._asked[document] if end <= upto]
                answers += ((peer, document, FOLD_DONE) for peer, _ in met if peer is not None)
                self._keep(document, [a for a in self._asked[document] if a not in met])
        return answers

    def undo(self) -> list[bytes]:
        """The transaction failed: which documents are as they were before."""
        # What it swept is there again.
        self._paused = self._sweeping = self._scrubbing = True
        self._under_way.difference_update(self._started)
        for document, asked in self._asked.items():
            # What was pushed in this step, and was to be folded, is not there.
            self._asked[document] = [(peer, min(end, self._end(document))) for peer, end in asked]
        folded, self._folded = self._folded, []
        for document in folded:
            self._give_up(document)
        return folded

    # ---------------------------------------------------------------- inside

    def _short(self, document: bytes) -> bool:
        """Whether somebody waits for a fold that goes further than the one there is."""
        fold = self._log.fold(document)
        return any(end > (fold.position if fold else 0) for _, end in self._asked.get(document, ()))

    def _outgrown(self, document: bytes) -> bool:
        head, size = self._log.head(document), self._log.size(document)
        if head is None or head.kind not in FOLDED_KINDS:
            return False
        fold = self._log.fold(document)
        least = max(self._limits.fold, fold.size if fold else 0, 2 * self._given_up.get(document, 0))
        return size > least + self._limits.fold_tail

    def _give_up(self, document: bytes) -> None:
        logger.error("document %s could not be folded; its log stays as it is", label(document))
        self._given_up[document] = self._log.size(document)
        if len(self._given_up) > self._limits.cached:
            del self._given_up[next(iter(self._given_up))]
        waiting = self._asked.pop(document, [])
        self._failed += ((peer, document, FOLD_FAILED) for peer, _ in waiting if peer is not None)

    def _keep(self, document: bytes, asked: list[tuple[int | None, int]]) -> None:
        if asked:
            self._asked[document] = asked
        else:
            del self._asked[document]

    def _end(self, document: bytes) -> int:
        head = self._log.head(document)
        return head.cursor.position if head else 0
