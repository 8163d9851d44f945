"""Whether to fetch stored state from a peer, or to evaluate its tokens here: by what both took so far. Pure.

::

    fetch, where  latency + bytes / bytes per second  <  tokens * seconds per token

So a fetch that is begun may last as long as evaluating would (``patience``), and then is given up: a prompt waits for
a peer that fails it for one chunk's evaluation at most, and all that was fetched before had saved time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

_REMEMBERED = 64 << 20  # bytes; what was measured before counts half
_STALE = 60.0  # seconds after which a rate that was too slow is tried again
_LEAST = 1e-9


@dataclass(frozen=True)
class Transfers:
    """How a peer's transfers went. ``latency``: seconds of an empty one. ``at``: when the last was measured."""

    latency: float = 0.0
    bytes: float = 0.0
    seconds: float = 0.0
    at: float = 0.0

    @property
    def rate(self) -> float | None:
        """Bytes per second; None where nothing was measured."""
        return self.bytes / max(self.seconds, _LEAST) if self.seconds else None

    def asked(self, seconds: float) -> Transfers:
        """A question and its answer took so long."""
        return replace(self, latency=seconds if not self.latency else (3 * self.latency + seconds) / 4)

    def moved(self, size: int, seconds: float, now: float) -> Transfers:
        """So many bytes took so long, the latency included."""
        old = 0.5 if self.bytes > _REMEMBERED else 1.0
        if self.seconds and now - self.at > _STALE:
            old = 0.0  # the line may be another one by now
        net = max(seconds - self.latency, _LEAST)
        return replace(self, bytes=old * self.bytes + size, seconds=old * self.seconds + net, at=now)

    def failed(self, now: float) -> Transfers:
        """One was given up, or broke off: nobody counts on it for a while."""
        return Transfers(self.latency, 0.0, 1.0, now)

    def estimate(self, size: int, now: float) -> float | None:
        """Seconds for so many bytes; None where nothing was measured, or that was long ago."""
        rate = self.rate if now - self.at <= _STALE else None
        return None if rate is None else self.latency + size / max(rate, _LEAST)


def patience(tokens: int, per_token: float | None) -> float:
    """Seconds that state of so many tokens is worth waiting for: evaluating takes so long. None where no speed was
    measured here: then one prompt is evaluated, which measures it."""
    return tokens * per_token if per_token is not None else 0.0


def worth(size: int, tokens: int, per_token: float | None, transfers: Transfers, now: float) -> bool:
    """Whether a chunk of so many bytes and tokens is fetched rather than evaluated. If the rate is not known it is:
    one chunk is tried, as long as its ``patience`` lasts."""
    seconds = transfers.estimate(size, now)
    limit = patience(tokens, per_token)
    return (transfers.latency if seconds is None else seconds) < limit
