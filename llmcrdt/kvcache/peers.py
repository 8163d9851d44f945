"""Other processes that hand chunks over: what they say that they have, and fetching it where that beats evaluating.

A peer is no ChunkCache: nothing is put there, nothing forgotten, and no budget kept. An engine asks (``seek``) before
it plans, counts what is ``offered``, and fetches a chunk at a time, on its own thread, after it has claimed the chunk
for its owner; then the chunk is stored as if it had been evaluated here. A peer's word for what it has costs time
alone where it is wrong. A chunk is checked as a file from disk is, to the last bit, and must carry the MAC of somebody
who has the key; a peer whose chunk fails is asked nothing more, and that is told in the log.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .chunk_file import BadChunk, Chunk, decode
from .chunk_hash import ChunkKey
from .fetch_choice import Transfers, patience, worth
from .handover import MOST_KEYS, HandoverKey

_LOG = logging.getLogger("llmcrdt.kv")
_LONGEST_ASK = 1.0  # seconds
_HAS, _HASNT = 60.0, 5.0  # seconds that an answer is believed: of what is there, and of what isn't
_REMEMBERED = 65_536  # keys
_LARGEST = 1 << 30  # bytes of one file


class PeerFailed(Exception):
    """It did not answer, or not in time, or refused. ``received``: the bytes that came."""

    def __init__(self, why: str, received: int = 0) -> None:
        super().__init__(why)
        self.received = received


class Peer(Protocol):
    """One process that offers chunks, as one engine sees it. Each call returns or raises PeerFailed within about
    ``seconds``."""

    @property
    def name(self) -> str:
        """Its name in the log."""
        ...

    @property
    def key(self) -> HandoverKey: ...

    def have(self, keys: Sequence[ChunkKey], seconds: float) -> list[int]:
        """The bytes of each of these files; 0 for what isn't there."""
        ...

    def read(self, key: ChunkKey, size: int, seconds: float) -> tuple[bytes, bytes]:
        """The file of this key, at most ``size`` bytes, and its MAC. Nothing of either is proved."""
        ...

    def close(self) -> None:
        """End the call that is under way, from another thread, and let go of the connection; a later call makes one
        anew."""
        ...


@dataclass
class _Known:
    """All that is known of one peer. ``said``: the bytes of a file, and until when that counts. ``sent``: chunks that
    it sent and that were right as far as could be seen."""

    peer: Peer
    transfers: Transfers = field(default_factory=Transfers)
    trusted: bool = True
    said: OrderedDict[ChunkKey, tuple[int, float]] = field(default_factory=OrderedDict)
    sent: set[ChunkKey] = field(default_factory=set)


class Peers:
    """The peers of an engine, the first that has a chunk first. Any thread; one asks at a time.

    ``per_token``: seconds to evaluate one token here, None where that was not measured: then nothing is fetched.
    """

    def __init__(
        self,
        peers: Sequence[Peer],
        per_token: Callable[[], float | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._known, self._per_token, self._clock = [_Known(peer) for peer in peers], per_token, clock
        self._wire, self._lock = threading.Lock(), threading.Lock()
        self._closed = False
        self._count = dict.fromkeys(("asked", "fetched", "fetched_bytes", "failed", "refused"), 0)

    def seek(self, keys: Sequence[ChunkKey], tokens: int) -> None:
        """Ask who has what of these, which save evaluating ``tokens`` tokens in all. Takes at most a second, and a
        quarter of the time that evaluating them takes; nothing where that was asked just now, or another thread is at
        it."""
        if not keys or self._closed or not self._wire.acquire(blocking=False):
            return
        try:
            limit = min(_LONGEST_ASK, patience(tokens, self._per_token()) / 4) / max(1, len(self._known))
            for known in self._known:
                unknown = [key for key in keys if not self._is_fresh(known, key)][:MOST_KEYS]
                if unknown and limit > 0 and self._is_worth_asking(known, tokens):
                    self._ask(known, unknown, limit)
        finally:
            self._wire.release()

    def offered(self, keys: Sequence[ChunkKey], tokens: int) -> int:
        """How many of these, from the first on, are to be fetched: somebody has said to have them, and fetching one
        takes less time than evaluating ``tokens`` tokens."""
        count = 0
        for key in keys:
            if self._holder(key, tokens) is None:
                break
            count += 1
        return count

    def fetch(self, key: ChunkKey, tokens: int) -> Chunk | None:
        """A chunk, whole and verified, or None: after as long as evaluating it would take, at the latest."""
        limit = patience(tokens, self._per_token())
        began = self._clock()
        if limit <= 0 or not self._wire.acquire(timeout=limit):
            return None
        try:
            while (found := self._holder(key, tokens)) is not None:
                left = limit - (self._clock() - began)
                if left <= 0:
                    return None
                known, size = found
                chunk = self._fetch_from(known, key, size, left)
                if chunk is not None:
                    return chunk
                with self._lock:
                    known.said[key] = (0, self._clock() + _HASNT)
            return None
        finally:
            self._wire.release()

    def distrust(self, key: ChunkKey) -> None:
        """The chunk of this key, which was fetched, is none that an engine can load."""
        for known in self._known:
            if key in known.sent:
                self._refuse(known, "a chunk that the model doesn't take")

    def stats(self) -> dict[str, int]:
        """Counters since this was made."""
        with self._lock:
            return dict(self._count)

    def close(self) -> None:
        """End what is being asked for, and ask for nothing more."""
        self._closed = True
        for known in self._known:
            known.peer.close()

    def _is_worth_asking(self, known: _Known, tokens: int) -> bool:
        with self._lock:
            return worth(1, tokens, self._per_token(), known.transfers, self._clock())

    def _is_fresh(self, known: _Known, key: ChunkKey) -> bool:
        with self._lock:
            return not known.trusted or known.said.get(key, (0, 0.0))[1] > self._clock()

    def _holder(self, key: ChunkKey, tokens: int) -> tuple[_Known, int] | None:
        """The first peer that has this, and is worth fetching it from; and the bytes of the file."""
        now, per_token = self._clock(), self._per_token()
        with self._lock:
            for known in () if self._closed else self._known:
                size, until = known.said.get(key, (0, 0.0))
                has = known.trusted and size and until > now
                if has and worth(size, tokens, per_token, known.transfers, now):
                    return known, size
        return None

    def _ask(self, known: _Known, keys: Sequence[ChunkKey], seconds: float) -> None:
        began = self._clock()
        try:
            sizes = known.peer.have(keys, seconds)
        except PeerFailed as failure:
            self._note_failure(known, failure)
            return
        now = self._clock()
        with self._lock:
            self._count["asked"] += 1
            known.transfers = known.transfers.asked(now - began)
            for key, size in zip(keys, sizes, strict=False):
                size = size if 0 < size <= _LARGEST else 0
                known.said[key] = (size, now + (_HAS if size else _HASNT))
                known.said.move_to_end(key)
            while len(known.said) > _REMEMBERED:
                known.said.popitem(last=False)

    def _fetch_from(self, known: _Known, key: ChunkKey, size: int, seconds: float) -> Chunk | None:
        began = self._clock()
        try:
            data, mac = known.peer.read(key, size, seconds)
        except PeerFailed as failure:
            self._note_failure(known, failure)
            return None
        now = self._clock()
        with self._lock:
            known.transfers = known.transfers.moved(len(data), now - began, now)
        try:
            chunk = decode(data)
        except (BadChunk, MemoryError) as fault:
            self._refuse(known, f"a file that is no chunk ({fault})")
            return None
        if chunk.key != key:
            self._refuse(known, "another chunk")
        elif not known.peer.key.vouches(key, chunk.digest, mac):
            self._refuse(known, "a chunk that nobody with the key vouches for")
        else:
            with self._lock:
                self._count["fetched"] += 1
                self._count["fetched_bytes"] += len(data)
                if len(known.sent) >= _REMEMBERED:
                    known.sent.clear()
                known.sent.add(key)
            return chunk
        return None

    def _note_failure(self, known: _Known, failure: PeerFailed) -> None:
        with self._lock:
            self._count["failed"] += 1
            known.transfers = known.transfers.failed(self._clock())
        _LOG.info("%s hands nothing over: %s", known.peer.name, failure)

    def _refuse(self, known: _Known, what: str) -> None:
        with self._lock:
            self._count["refused"] += 1
            known.trusted = False
        _LOG.warning("%s sent %s. It is asked for nothing more.", known.peer.name, what)
