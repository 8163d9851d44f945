"""Virtual time, and connections that break. Nothing here waits: what happens next is the next thing in time."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from typing import Protocol

SOCKET = 6_000
"""Bytes that are under way to a client before the relay has to wait for it."""


class Clock:
    """All that is to happen, in order of time; at one time, in the order it was asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self._next: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        self.at(self.now + seconds, call)

    def at(self, time: float, call: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._next, (time, self._count, call))

    def run(self, until: float) -> None:
        while self._next and self._next[0][0] <= until:
            self.now, _, call = heapq.heappop(self._next)
            call()
        self.now = until


class ClientEnd(Protocol):
    def arrived(self, frame: bytes) -> None: ...
    def closed(self, wire: Wire) -> None: ...


class RelayEnd(Protocol):
    def joined(self, wire: Wire) -> None: ...
    def readable(self, wire: Wire) -> None: ...
    def left(self, wire: Wire) -> None: ...
    def sent(self, wire: Wire, weight: int) -> None: ...


class Wire:
    """One WebSocket connection: in each direction frames arrive whole, in order, after a while; or not at all.

    When it breaks, a part of what is under way still arrives, and each end notices in its own time. A relay that sends
    faster than the client reads has to wait: then frames stand in ``queue``.
    """

    def __init__(self, clock: Clock, rng: random.Random, client: ClientEnd, relay: RelayEnd, path: str = "") -> None:
        """``path``: the request's, at another door than the native one."""
        self.clock, self.rng, self.client, self.relay, self.path = clock, rng, client, relay, path
        self.reason = 0
        self.latency = rng.choice((0.001, 0.02, 0.3))
        self.inbox: deque[bytes | str] = deque()
        self.queue: deque[tuple[bytes, int]] = deque()
        self.queued = 0
        self.client_open = self.relay_open = self.whole = True
        self._joined = False
        self._up = self._down = 0
        # How many frames of those under way are still to arrive, once it is broken.
        self._up_left = self._down_left = 0
        self._at = [0.0, 0.0]
        self._arrived: deque[bytes] = deque()
        self._sending = 0
        self._stalled_until = 0.0
        clock.at(self._when(0), self._join)

    def _join(self) -> None:
        if self.whole:
            self._joined = True
            self.relay.joined(self)

    def send_up(self, frame: bytes) -> None:
        """The client sends."""
        if self.whole:
            self._up += 1
            self.clock.at(self._when(0), lambda: self._arrive_up(frame))

    def send_down(self, frame: bytes, weight: int) -> None:
        """The relay sends."""
        if self.relay_open:
            self.queue.append((frame, weight))
            self.queued += len(frame)
            self.pump()

    def pump(self) -> None:
        while self.queue and self.relay_open and self._sending < SOCKET:
            frame, weight = self.queue.popleft()
            self.queued -= len(frame)
            self._sending += len(frame)
            if self.whole:
                self._down += 1
                self.clock.at(self._when(1), lambda frame=frame: self._arrive_down(frame))  # type: ignore[misc]
            self.relay.sent(self, weight)

    def stall(self, seconds: float) -> None:
        """The client reads nothing for a while."""
        self._stalled_until = self.clock.now + seconds
        self.clock.after(seconds, self._read)

    def cut(self, *, client_after: float, relay_after: float) -> None:
        """It breaks now; the ends notice later."""
        if self.whole:
            self.whole = False
            self._up_left, self._down_left = self.rng.randint(0, self._up), self.rng.randint(0, self._down)
            self.clock.after(client_after, self.close_client)
            self.clock.after(relay_after, self.close_relay)

    def close_client(self) -> None:
        if self.client_open:
            self.client_open = False
            self.client.closed(self)

    def close_relay(self) -> None:
        if self.relay_open:
            self.relay_open = False
            self.queue.clear()
            if self._joined:
                self.relay.left(self)

    def _when(self, way: int) -> float:
        at = max(self._at[way], self.clock.now + self.rng.uniform(0.5, 2) * self.latency)
        self._at[way] = at
        return at

    def _arrive_up(self, frame: bytes) -> None:
        self._up -= 1
        if self.relay_open and self._passes("_up_left"):
            self.inbox.append(frame)
            self.relay.readable(self)

    def _arrive_down(self, frame: bytes) -> None:
        self._down -= 1
        if self._passes("_down_left"):
            self._arrived.append(frame)
            self._read()

    def _read(self) -> None:
        while self._arrived and self.client_open and self.clock.now >= self._stalled_until:
            frame = self._arrived.popleft()
            self._sending -= len(frame)
            self.client.arrived(frame)
        self.pump()

    def _passes(self, left: str) -> bool:
        if self.whole:
            return True
        more = getattr(self, left)
        setattr(self, left, more - 1)
        return bool(more > 0)
