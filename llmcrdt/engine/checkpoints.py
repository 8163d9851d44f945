"""The places where recurrent state is kept: the ends of entries, and a few between ends that are far apart. Pure.

Recurrent state can't be shortened, so a prompt is resumed at a boundary where it was stored, or not at all; and each
costs as much as a whole conversation's (up to 150 MB), so it can't be kept at every chunk. Kept are the newest few ends
of entries, and of the older ones so many that the way back from any place to the next boundary at most doubles.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

DENSE = 4
"""So many of the newest boundaries are all kept."""
_STRIDE = 512
"""Tokens between boundaries where no entry ends."""


def wanted(end: int, marks: Iterable[int], chunk: int, most: int) -> frozenset[int]:
    """At which multiples of ``chunk`` up to ``end`` (one itself) state is kept. ``marks``: token counts after which an
    entry ends; state stands at the chunk's end before. ``most``: how many there may be, at least 1: ``end`` is."""
    ends = sorted({mark // chunk * chunk for mark in marks if chunk <= mark <= end} | {end} - {0})
    step = max(chunk, _STRIDE // chunk * chunk)
    places: list[int] = []
    before = 0
    for place in ends:
        places += [at for at in range(step * (before // step + 1), place, step) if min(at - before, place - at) >= step]
        places.append(place)
        before = place
    return frozenset(places) - frozenset(superseded(places, end, most))


def superseded(places: Sequence[int], end: int, most: int) -> list[int]:
    """Which of the boundaries ``places`` (ascending, none beyond ``end``) need not be kept.

    The newest ``DENSE`` stay, and the oldest. One between goes where the older neighbour that stays is at most twice as
    far from ``end`` as the newer one; where more than ``most`` would be left, four times as far, and so on.
    """
    far = 2
    kept = _thinned(places, end, far)
    while len(kept) > max(1, most):
        if far > max(2, end):
            kept = kept[: max(1, most)]
            break
        far *= 2
        kept = _thinned(places, end, far)
    return [place for place in places if place not in set(kept)]


def _thinned(places: Sequence[int], end: int, far: int) -> list[int]:
    """Those that stay, the newest first."""
    old = list(reversed(places))
    kept, rest = old[:DENSE], old[DENSE:]
    for i, place in enumerate(rest):
        older = rest[i + 1] if i + 1 < len(rest) else None
        if older is None or end - older > far * (end - kept[-1]):
            kept.append(place)
    return kept
