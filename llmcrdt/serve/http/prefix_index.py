"""PrefixIndex: which conversations begin with a list of messages, and where in them that list ends.

It is derived from what the documents say, in memory, and made anew with each start: nothing is stored, so no copy of a
word that was erased is left in it. A list is found by a keyed hash of each of its beginnings. A hash only finds
candidates; whoever uses one compares the words (``placing.py``).

=====================  ==================================================================
an entry               its list
=====================  ==================================================================
generated              its frame, and itself; every beginning of that is found as well
any other              all that it was written on, and itself (``ConversationView.transcript``)
says nothing visible   the same list as without it: settings, summaries
streaming, erased      none
=====================  ==================================================================
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from ...document.branch import branch_to
from ...document.core import ConversationCore
from ...document.entry import Entry
from ...document.nodes import Node, by_age
from ...document.view import ConversationView
from ...exceptions import LLMCRDTError
from ...ids import DocumentId, EntryId
from ...repo.core import RepoCore
from .said import said_by

_MOST = 1 << 20  # places that are remembered; a list that is not found becomes a conversation of its own


class Place(NamedTuple):
    """The end of a list in a conversation. ``owner``: who said the first of a user's words in it."""

    document: DocumentId
    ends: tuple[EntryId, ...]
    owner: str | None


class _List(NamedTuple):
    """A list that was read: the hash of what it says, the entries that it ends with, and its owner."""

    digest: bytes
    ends: tuple[EntryId, ...]
    owner: str | None


class PrefixIndex:
    """One thread at a time. ``find`` sees all that this process wrote, and all that came from elsewhere by then."""

    def __init__(self, core: RepoCore) -> None:
        self._core = core
        self._key = os.urandom(32)
        self._start = _List(self._hash(b"", ""), (), None)
        self._places: dict[bytes, dict[Place, None]] = {}
        self._lists: dict[DocumentId, dict[EntryId, _List | None]] = {}
        self._seq: int | None = None

    def find(
        self, says: Sequence[str], only: DocumentId | None = None, owner: str | None = None
    ) -> list[tuple[int, Place]]:
        """Candidates for the longest beginning of a list: how many of ``says`` it has, and where it ends; the longest
        first, of those the one that was noted last. ``only``: in this conversation; ``owner``: of this one."""
        digests = list(accumulate(says, self._hash, initial=self._start.digest))
        self.read()
        return [
            (count, place)
            for count in range(len(says), 0, -1)
            for place in reversed(self._places.get(digests[count], {}))
            if only in (None, place.document) and owner in (None, place.owner)
        ]

    def note(self, says: Sequence[str], place: Place) -> None:
        """A list ends there now."""
        digest = self._start.digest
        for words in says:
            digest = self._hash(digest, words)
        self._put(digest, place)

    def _hash(self, before: bytes, words: str) -> bytes:
        return hashlib.blake2b(before + words.encode("utf-8", "surrogatepass"), key=self._key, digest_size=16).digest()

    def _put(self, digest: bytes, place: Place) -> None:
        places = self._places.setdefault(digest, {})
        places.pop(place, None)
        places[place] = None
        while len(self._places) > _MOST:
            self._places.pop(next(iter(self._places)))

    # reading documents

    def read(self) -> None:
        """Read what was written since the last time; all of it the first time."""
        store, changed = self._core.store, list[DocumentId]()
        if self._seq is None:
            self._seq = store.updates.last()
            changed = [each for each in reversed(self._core.following()) if each != self._core.library_id]
        else:
            news, self._seq = store.updates.news(self._seq)
            changed = [DocumentId(each) for each, _ in news if each != self._core.library_id]
        for document in dict.fromkeys(changed):
            try:
                self._read_document(document)
            except LLMCRDTError:  # deleted, or of a newer version: nobody goes on from there
                self._lists.pop(document, None)

    def _read_document(self, document: DocumentId) -> None:
        open_core = self._core.documents.core(document)
        if open_core is not None:
            self._read_lists(document, open_core)
            return
        with self._core.lock:
            lone = self._core.documents.lone_core(document)
            try:
                self._read_lists(document, lone)
            finally:
                lone.document.close()
                self._core.documents.touch(document)

    def _read_lists(self, document: DocumentId, core: ConversationCore) -> None:
        known = self._lists.setdefault(document, {})
        with core.reading():
            view = core.view
            sound = view.order.sound()
            for entry in by_age((i for i in sound if known.get(i) is None), sound):
                before = self._before(document, view, known, sound[entry])
                known[entry] = self._after(document, before, view.shown(entry), sound[entry].follows)

    def _before(
        self, document: DocumentId, view: ConversationView, known: Mapping[EntryId, _List | None], node: Node
    ) -> _List | None:
        """The list that an entry was written on; None where nobody can resend it."""
        sound, frame = view.order.sound(), node.frame
        if frame is not None:
            at = known.get(frame.base[0]) if frame.base else self._start
            for entry, pin in frame.appended:
                at = self._after(document, at, view.entry(entry, pin), sound[entry].follows)
            return at
        followed = set(node.follows)
        if len(followed) < 2:
            return known.get(followed.pop()) if followed else self._start
        ids, _, base = branch_to(followed, sound)
        at = known.get(ids[base]) if base is not None else self._start
        for entry in ids[0 if base is None else base + 1 :]:
            at = self._after(document, at, view.shown(entry), sound[entry].follows)
        return at

    def _after(
        self, document: DocumentId, before: _List | None, entry: Entry, follows: Collection[EntryId]
    ) -> _List | None:
        """The list with one entry more, which can be found from now on."""
        if before is None or not entry.sealed or entry.status == "erased":
            return None
        words = said_by(entry)
        ends = (*(each for each in before.ends if each not in follows), entry.id)
        owner = entry.author if before.owner is None and entry.role == "user" else before.owner
        made = _List(before.digest if words is None else self._hash(before.digest, words), ends, owner)
        self._put(made.digest, Place(document, ends, owner))
        return made
