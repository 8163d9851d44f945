"""The records that a peer pushed to a document and was not acknowledged."""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter
from typing import NamedTuple


class Run(NamedTuple):
    """``length`` records of one session, from ``n`` on, at ``position`` and those after it."""

    position: int
    session: bytes
    n: int
    length: int

    def goes_on(self, other: Run) -> bool:
        """Whether the other is what comes right after this."""
        return (
            self.position + self.length == other.position
            and self.n + self.length == other.n
            and self.session == other.session
        )


_position = attrgetter("position")


class OwnRecords:
    """By position, as few runs as can be: a stream is one, so it costs nothing for each of its records."""

    def __init__(self) -> None:
        self._runs: list[Run] = []
        self.count = 0
        """How many records there are."""

    def __len__(self) -> int:
        return self.count

    def add(self, run: Run) -> None:
        """Records that were pushed; those that are there already change nothing."""
        last = self._runs[-1] if self._runs else None
        if last is None or run.position >= last.position + last.length:
            self._place(len(self._runs), run)
        else:
            for i in range(run.length):
                self._insert(Run(run.position + i, run.session, run.n + i, 1))

    def take(self, start: int, stop: int) -> list[Run]:
        """Take away the records at positions from ``start`` to before ``stop``, in order."""
        runs, found, rest = self._runs, list[Run](), list[Run]()
        first = at = max(0, bisect_right(runs, start, key=_position) - 1)
        while at < len(runs) and runs[at].position < stop:
            position, session, n, count = runs[at]
            low, high = max(position, start), min(position + count, stop)
            if low < high:
                found.append(Run(low, session, n + low - position, high - low))
                if position < low:
                    rest.append(Run(position, session, n, low - position))
                if high < position + count:
                    rest.append(Run(high, session, n + high - position, position + count - high))
            else:
                rest.append(runs[at])
            at += 1
        runs[first:at] = rest
        self.count -= sum(run.length for run in found)
        return found

    def _insert(self, run: Run) -> None:
        """One record."""
        at = bisect_right(self._runs, run.position, key=_position)
        before = self._runs[at - 1] if at else None
        if before is None or before.position + before.length <= run.position:
            self._place(at, run)

    def _place(self, at: int, run: Run) -> None:
        runs = self._runs
        self.count += run.length
        if at < len(runs) and run.goes_on(runs[at]):
            run = run._replace(length=run.length + runs.pop(at).length)
        if at and runs[at - 1].goes_on(run):
            runs[at - 1] = runs[at - 1]._replace(length=runs[at - 1].length + run.length)
        else:
            runs.insert(at, run)
