"""The subjects of tokens: how fast each may send, how much of it may be in progress, and how often it may connect."""

from __future__ import annotations

from .auth.tokens import Tokens
from .connections import Connections
from .core.limits import Limits
from .core.rate import Rate
from .doors.base import Door
from .net.connection import Connection, SubjectWindow


class Subjects:
    """A relay without tokens knows no subjects: each connection stands for itself."""

    def __init__(self, limits: Limits, tokens: Tokens, connections: Connections) -> None:
        self._limits, self._tokens, self._connections = limits, tokens, connections
        self.rates: dict[str, Rate] = {}
        self._windows: dict[str, SubjectWindow] = {}

    def rate(self, connection: Connection) -> Rate:
        """The connection's own, or that of its token's subject."""
        grant = connection.door.grant
        if not self._tokens.on or grant is None:
            return connection.rate
        if grant.subject not in self.rates:
            self.rates[grant.subject] = Rate(self._limits.rate, self._limits.burst)
        return self.rates[grant.subject]

    def window(self, subject: str) -> SubjectWindow | None:
        """The bytes that all connections of a subject have in progress together; None without tokens."""
        if not self._tokens.on:
            return None
        return self._windows.setdefault(subject, SubjectWindow(self._limits.subject_window))

    def has_room(self, door: Door) -> bool:
        """Whether a subject may have this connection too, which is among the open ones already."""
        if not self._tokens.on or door.grant is None:
            return True
        grants = (c.door.grant for c in self._connections.by_peer.values())
        same = sum(1 for grant in grants if grant is not None and grant.subject == door.grant.subject)
        return same <= self._limits.subject_connections

    def forget(self, now: float) -> None:
        """Forget subjects that are not here, as soon as it makes no difference."""
        if not self._tokens.on:
            return
        here = {c.door.grant.subject for c in self._connections.by_peer.values() if c.door.grant}
        for subject in [s for s, rate in self.rates.items() if s not in here and rate.rested(now)]:
            del self.rates[subject]
        for subject in [s for s in self._windows if s not in here]:
            del self._windows[subject]
