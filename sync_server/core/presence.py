"""Presence in documents, in memory only: the announcements of peers, and which of them each reader still has to hear.

An entry is named by a client's number. It takes the place of another where its clock is greater, or equal and it is
gone (the awareness protocol of y-protocols). A reader that can't take more is passed over: it gets the newest later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import NamedTuple, TypeAlias

from llmcrdt.sync.messages import MAX_PRESENCE, MAX_PRESENT, Announcement

from .limits import Limits
from .validation import Peer

Update: TypeAlias = tuple[Sequence[Peer], bytes, tuple[Announcement, ...]]
"""Readers, the document, and the announcements that are news to them."""


class _Entry(NamedTuple):
    """``by``: the peer that announced it; None where it has left. ``stamp`` grows with every change."""

    clock: int
    state: str
    by: Peer | None
    stamp: int


@dataclass(slots=True)
class _Document:
    """``entries`` stand in the order of their stamps; ``heard``: the last stamp that each reader was told;
    ``gone``: how many entries are kept only for their clocks."""

    entries: dict[int, _Entry] = field(default_factory=dict)
    heard: dict[Peer, int] = field(default_factory=dict)
    gone: int = 0


class Presence:
    """All presence of one relay. Use it from one thread."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._documents: dict[bytes, _Document] = {}
        self._owned: dict[Peer, dict[tuple[bytes, int], int]] = {}
        self._stamp = 0
        self._changed: set[bytes] = set()
        self._passed_over: dict[Peer, set[bytes]] = {}

    @property
    def waiting(self) -> bool:
        """Whether there is something to tell with the next tick."""
        return bool(self._changed)

    def watch(self, peer: Peer, document: bytes) -> None:
        """A peer reads a document from now on: it is told all with the next tick."""
        found = self._documents.setdefault(document, _Document())
        found.heard[peer] = 0
        if found.entries:
            self._changed.add(document)

    def unwatch(self, peer: Peer, document: bytes) -> None:
        """A peer reads a document no longer. Its entries there are gone."""
        found = self._documents.get(document)
        if found is None or peer not in found.heard:
            return
        del found.heard[peer]
        for key in [key for key in self._owned.get(peer, ()) if key[0] == document]:
            self._put(found, document, key[1], found.entries[key[1]].clock, "", None)
        if passed_over := self._passed_over.get(peer):
            passed_over.discard(document)
        if not found.heard:
            del self._documents[document]
            self._changed.discard(document)

    def leave(self, peer: Peer) -> None:
        """A peer that reads nothing any more is gone."""
        self._owned.pop(peer, None)
        self._passed_over.pop(peer, None)

    def announce(self, peer: Peer, document: bytes, entries: Iterable[Announcement]) -> str:
        """Take over a peer's announcements; the reason why the rest was refused, or nothing. Ignored where the peer
        doesn't read the document."""
        found = self._documents.get(document)
        if found is None or peer not in found.heard:
            return ""
        for client, clock, state in entries:
            known = found.entries.get(client)
            if known is None and not state:
                continue
            if known and (clock < known.clock or (clock == known.clock and (state or not known.state))):
                continue
            if state and (why := self._refused(peer, found, document, client, state)):
                return why
            self._put(found, document, client, clock, state, peer)
        return ""

    def drained(self, peer: Peer) -> None:
        """A peer can take more."""
        if peer in self._passed_over:
            self._changed |= self._passed_over.pop(peer)

    def tick(self, full: Callable[[Peer], bool]) -> Iterator[Update]:
        """All that is to be told now. ``full`` says which peers can't take more."""
        changed, self._changed = self._changed, set()
        for document in changed:
            found = self._documents[document]
            speakers = {entry.by for entry in found.entries.values()}
            together: dict[int, list[Peer]] = {}
            for peer, heard in found.heard.items():
                if heard == self._newest(found):
                    continue
                if full(peer):
                    self._passed_over.setdefault(peer, set()).add(document)
                    continue
                found.heard[peer] = self._newest(found)
                if peer in speakers:
                    yield from self._updates([peer], document, found, heard)
                else:
                    together.setdefault(heard, []).append(peer)
            for heard, peers in together.items():
                yield from self._updates(peers, document, found, heard)

    # ---------------------------------------------------------------- inside

    def _updates(self, peers: Sequence[Peer], document: bytes, found: _Document, heard: int) -> Iterator[Update]:
        """All that is newer than a stamp, but for a peer's own entries. A newcomer is spared those that are gone."""
        newer = takewhile(lambda item: item[1].stamp > heard, reversed(found.entries.items()))
        entries = [
            Announcement(client, entry.clock, entry.state)
            for client, entry in newer
            if entry.by != peers[0] and (entry.state or heard)
        ]
        entries.reverse()
        start = size = 0
        for end, entry in enumerate(entries):
            more = len(entry.state.encode())
            if end - start == MAX_PRESENT or size + more > MAX_PRESENCE:
                yield peers, document, tuple(entries[start:end])
                start, size = end, 0
            size += more
        if entries:
            yield peers, document, tuple(entries[start:])

    def _newest(self, found: _Document) -> int:
        return next(reversed(found.entries.values())).stamp if found.entries else 0

    def _put(self, found: _Document, document: bytes, client: int, clock: int, state: str, by: Peer | None) -> None:
        before = found.entries.pop(client, None)
        if before is not None and before.by is not None and before.state:
            del self._owned[before.by][document, client]
        found.gone += (not state) - (before is not None and not before.state)
        self._stamp += 1
        found.entries[client] = _Entry(clock, state, by, self._stamp)
        if by is not None and state:
            self._owned.setdefault(by, {})[document, client] = len(state.encode())
        if found.gone > self._limits.presence_document:
            oldest = next(client for client, entry in found.entries.items() if not entry.state)
            del found.entries[oldest]
            found.gone -= 1
        self._changed.add(document)

    def _refused(self, peer: Peer, found: _Document, document: bytes, client: int, state: str) -> str:
        limits, owned = self._limits, self._owned.get(peer, {})
        known = found.entries.get(client)
        new = (document, client) not in owned
        if new and len(owned) >= limits.presence_entries:
            return f"At most {limits.presence_entries} presence entries of one connection."
        if sum(owned.values()) - owned.get((document, client), 0) + len(state.encode()) > limits.presence_bytes:
            return f"At most {limits.presence_bytes} bytes of presence of one connection."
        if (known is None or not known.state) and len(found.entries) - found.gone >= limits.presence_document:
            return f"At most {limits.presence_document} presence entries of one document."
        return ""
