"""Events that wait for a step of the rooms: each peer has a line of its own, and all lines have turns."""

from __future__ import annotations

from collections import deque

from llmcrdt.sync.messages import Push

from .core.events import Event, Greeted, Joined
from .core.limits import Limits
from .core.validation import Left, MergeRequest, Received

_TURN = 64 << 10
"""Cost of the messages that one line has in a row: about a millisecond of work."""
_STEP = 256 << 10
"""The same for all lines in one step."""
_OTHER = 2 << 10
"""The cost of an event that is no message."""
_TO_CHECK = 4
"""A message that goes to the check costs here so many times less than it weighs: the check has turns of its own."""


class EventQueue:
    """The messages of a peer, its coming and its leaving, stay in their order. All that is of no peer (answers of
    workers, bytes that have left) goes first, in its own order: the relay itself made it, so there is no more of it
    than what it answers."""

    def __init__(self, limits: Limits) -> None:
        self._most = limits.group
        self._first: deque[Event] = deque()
        self._lines: dict[int, deque[Joined | Greeted | Received | Left]] = {}

    def __bool__(self) -> bool:
        return bool(self._first or self._lines)

    def put(self, event: Event) -> None:
        if isinstance(event, (Received, Joined, Greeted, Left)):
            self._lines.setdefault(event.peer, deque()).append(event)
        else:
            self._first.append(event)

    def take(self) -> list[Event]:
        """The events of the next step."""
        events: list[Event] = []
        while self._first and len(events) < self._most:
            events.append(self._first.popleft())
        left = _STEP
        while self._lines and left > 0 and len(events) < self._most:
            peer = next(iter(self._lines))
            line = self._lines.pop(peer)
            turn = _TURN
            while line and turn > 0 and len(events) < self._most:
                event = line.popleft()
                events.append(event)
                turn -= _cost(event)
            if line:
                self._lines[peer] = line
            left -= _TURN - turn
        return events


def _cost(event: Event) -> int:
    if not isinstance(event, Received):
        return _OTHER
    return event.size // _TO_CHECK if isinstance(event.message, (Push, MergeRequest)) else event.size
