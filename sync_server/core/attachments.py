"""The attachments of documents: devices bring them, ask for them by name, and have them taken away.

All that comes is staged as records are, and acknowledged when it is on disk. One whose name is its hash is checked
before it is whole: nobody is sent anything of it earlier. Answers go as their reader takes them.

state     enters with                             and goes on with
BEGUN     OFFER of what isn't there               the pieces, in order: each DATA is answered with HELD
FULL      the last piece, or OFFER of such a one  it is checked, some pieces in a step; WHOLE, or it is taken away
WHOLE     the check                               FETCH is answered; DISCARD takes it away
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from llmcrdt.sync.messages import PLAIN, AttachmentName, Data, Discard, ErrorCode, Fetch, Held, Offer, Outcome

from ..log.admin import PIECE, Storage, StoredAttachment
from ..log.base import label
from .deletion import Deletions
from .delivery import Delivery
from .events import CONTROL_WEIGHT, Send
from .limits import Limits
from .subscriptions import Subscriptions
from .validation import Peer, Received
from .writes import DELETED

logger = logging.getLogger(__name__)

_CHECKED = 8
"""Pieces that are checked in one step."""

_Which = tuple[bytes, AttachmentName]


@dataclass(slots=True)
class _Check:
    """The check of one that is full: who waits for it, and how far it has come."""

    waiting: list[Peer] = field(default_factory=list)
    done: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    def is_over(self, found: StoredAttachment) -> bool:
        """Whether there is nothing left to look at. The bytes of a sealed one are what they are."""
        return found.name.form != PLAIN or self.done * PIECE >= found.size


class Attachments:
    """Invariants:

    1. HELD says what is on disk, once the step is committed; where it says that all is held, the attachment is whole.
    2. A reader whose queue is full is sent no DATA; what it asked for counts as being in progress until it is answered.
    3. An attachment is found under its document alone: who may use that one (``Access``) may use it, and nobody else.

    ``removed`` is called where something is to be swept from now on.
    """

    def __init__(
        self,
        storage: Storage,
        limits: Limits,
        subscriptions: Subscriptions,
        delivery: Delivery,
        deletions: Deletions,
        removed: Callable[[], None],
    ) -> None:
        self._storage, self._kept, self._limits = storage, storage.attachments, limits
        self._subscriptions, self._delivery, self._deletions = subscriptions, delivery, deletions
        self._removed = removed
        self._checks: dict[_Which, _Check] = {}
        self._asked: dict[Peer, deque[Received]] = {}
        self._discarded: list[tuple[Peer, bytes, AttachmentName]] = []

    @property
    def busy(self) -> bool:
        """Whether another step has work, even without an event."""
        full = self._delivery.is_full
        return bool(self._checks) or any(not full(peer) for peer in self._asked)

    # ---------------------------------------------------------------- what peers ask for

    def obey(self, peer: Peer, message: Offer | Data | Discard) -> None:
        """Do what a peer asks for. Raises LogError."""
        document, name = message.document, message.name
        if self._deletions.is_deleted(document):
            self._delivery.refuse(peer, ErrorCode.GONE, DELETED, document)
        elif not self._subscriptions.is_there(document):
            self._say(peer, document, name, Outcome.NOT_BEGUN)
        elif isinstance(message, Offer):
            self._offer(peer, message)
        elif isinstance(message, Data):
            self._take(peer, message)
        else:
            if self._kept.get(document, name) is not None:
                self._remove(document, name)
            self._discarded.append((peer, document, name))

    def ask(self, event: Received) -> None:
        """A peer asks for a piece. It is answered in its turn, when there is room in its queue."""
        self._asked.setdefault(event.peer, deque()).append(event)

    def _offer(self, peer: Peer, message: Offer) -> None:
        document, name, size = message.document, message.name, message.size
        found = self._kept.get(document, name)
        if found is not None and not found.whole and found.size != size:
            self._remove(document, name)
            found = None
        if found is None:
            unfinished = self._kept.unfinished(document)
            for other in unfinished[: max(0, len(unfinished) + 1 - self._limits.attachments_unfinished)]:
                self._remove(document, other.name)
            outcome = self._room(document, size)
            if outcome is not Outcome.HELD:
                return self._say(peer, document, name, outcome)
            self._kept.begin(document, name, size)
            found = StoredAttachment(name, size, 0, False)
        self._answer(peer, document, found)

    def _room(self, document: bytes, size: int) -> Outcome:
        """Whether there is room for one more of so many bytes."""
        count, there = self._kept.count(document)
        if size > self._limits.attachment:
            return Outcome.TOO_LARGE
        if count >= self._limits.attachments or there + size > self._limits.attachment_bytes:
            return Outcome.DOCUMENT_FULL
        owner = self._storage.quotas.owner(document)
        if owner and self._storage.quotas.used(owner) + size > self._limits.subject_log:
            return Outcome.SUBJECT_FULL
        return Outcome.HELD

    def _take(self, peer: Peer, message: Data) -> None:
        document, name, size = message.document, message.name, message.size
        offset, data = message.offset, message.data
        found = self._kept.get(document, name)
        if found is None or found.size != size:
            return self._say(peer, document, name, Outcome.MISSING)
        next_one = not found.whole and offset == found.held and len(data) == min(PIECE, size - offset)
        if next_one and data:
            self._kept.append(document, name, data)
            found = found._replace(held=offset + len(data))
        elif offset >= found.held and offset < size:
            return self._say(peer, document, name, Outcome.GAP, found)
        self._answer(peer, document, found)

    def _answer(self, peer: Peer, document: bytes, found: StoredAttachment) -> None:
        """Say how much is held; of one that is full, when it is checked."""
        if found.held < found.size or found.whole:
            return self._say(peer, document, found.name, Outcome.HELD, found)
        check = self._checks.setdefault((document, found.name), _Check())
        if peer not in check.waiting:
            check.waiting.append(peer)

    def _remove(self, document: bytes, name: AttachmentName) -> None:
        self._kept.remove(document, name)
        self._removed()
        if check := self._checks.pop((document, name), None):
            self._end(check, document, name, Outcome.MISSING)

    def _end(
        self,
        check: _Check,
        document: bytes,
        name: AttachmentName,
        outcome: Outcome,
        found: StoredAttachment | None = None,
    ) -> None:
        """Tell those who wait how a check ended."""
        for peer in check.waiting:
            if self._deletions.is_deleted(document):
                self._delivery.refuse(peer, ErrorCode.GONE, DELETED, document)
            else:
                self._say(peer, document, name, outcome, found)

    # ---------------------------------------------------------------- within a step

    def check(self) -> None:
        """Check some of what is full. Before the commit. Raises LogError."""
        left = _CHECKED
        for (document, name), check in tuple(self._checks.items()):
            found = self._kept.get(document, name)
            if found is None or found.whole or found.held < found.size:
                del self._checks[document, name]
                self._end(check, document, name, Outcome.HELD if found else Outcome.MISSING, found)
                continue
            while left > 0 and not check.is_over(found):
                check.digest.update(self._kept.piece(document, name, check.done))
                check.done, left = check.done + 1, left - 1
            if not check.is_over(found):
                break
            if name.form != PLAIN or check.digest.digest() == name.hash:
                del self._checks[document, name]
                self._kept.finish(document, name)
                self._end(check, document, name, Outcome.HELD, found)
            else:
                logger.warning("document %s: an attachment is not what its name says", label(document))
                del self._checks[document, name]
                self._remove(document, name)
                self._end(check, document, name, Outcome.DAMAGED)

    def give_up(self) -> list[Peer]:
        """The log can't be read: nothing is checked any more. A peer that waited for that has to come again."""
        checks, self._checks = self._checks, {}
        return [peer for check in checks.values() for peer in check.waiting]

    def fail(self, documents: Collection[bytes]) -> None:
        """The commit failed for these documents: who waits is dropped, and comes again."""
        self._checks = {which: check for which, check in self._checks.items() if which[0] not in documents}
        self._discarded = [each for each in self._discarded if each[1] not in documents]

    def serve(self) -> list[tuple[Peer, int]]:
        """One piece to each peer that asked for some and has room. The sizes of the messages that were dealt with.
        Raises LogError."""
        taken = []
        for peer in tuple(self._asked):
            if self._delivery.is_full(peer):
                continue
            waiting = self._asked.pop(peer)
            event = waiting.popleft()
            if waiting:
                self._asked[peer] = waiting  # to the end of the line
            assert isinstance(event.message, Fetch)
            self._send(peer, event.message)
            taken.append((peer, event.size))
        return taken

    def _send(self, peer: Peer, message: Fetch) -> None:
        document, name, offset = message.document, message.name, message.offset
        if self._deletions.is_deleted(document):
            return self._delivery.refuse(peer, ErrorCode.GONE, DELETED, document)
        if not self._subscriptions.may_use(peer, document):
            return self._delivery.refuse(peer, ErrorCode.FORBIDDEN, "The token is not for this document.", document)
        found = self._kept.get(document, name)
        if found is None or not found.whole or offset > found.size:
            return self._say(peer, document, name, Outcome.MISSING, found)
        index, skip = divmod(offset, PIECE)
        data = self._kept.piece(document, name, index)[skip : skip + message.length]
        output = Send((peer,), Data(document, name, found.size, offset, data), CONTROL_WEIGHT + len(data))
        self._delivery.send_heavy((peer,), output)

    def answer_discards(self) -> None:
        """No file holds anything of what was removed: tell those who asked for that."""
        discarded, self._discarded = self._discarded, []
        for peer, document, name in discarded:
            if peer in self._subscriptions.peers:
                self._say(peer, document, name, Outcome.MISSING)

    def leave(self, peer: Peer) -> None:
        """A peer is gone. All that it brought is kept."""
        self._asked.pop(peer, None)
        for check in self._checks.values():
            if peer in check.waiting:
                check.waiting.remove(peer)

    def _say(
        self,
        peer: Peer,
        document: bytes,
        name: AttachmentName,
        outcome: Outcome,
        found: StoredAttachment | None = None,
    ) -> None:
        size, held = (found.size, found.held) if found else (0, 0)
        self._delivery.send(peer, Held(document, name, outcome, size, held))
