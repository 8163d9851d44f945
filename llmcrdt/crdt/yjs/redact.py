"""Updates that are to be sent, without content that the document has deleted since they were written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ...exceptions import MalformedUpdate
from .split import cut_structs, cut_update
from .update import Struct, less_ranges, read_structs, read_update, write_deletes

_CONTENTLESS = (0, 1)  # a struct that says only that there was something: collected, or deleted

Ranges = Mapping[int, Sequence[tuple[int, int]]]
"""Per client the (start, end) clocks."""


def redact_updates(whole: bytes, updates: Sequence[bytes]) -> list[bytes] | None:
    """Updates of at most ``RECORD`` bytes that say of the document ``whole`` what ``updates`` say, where one of these
    holds content that the document has deleted; None where none does. They may say more of it: a struct of the document
    stays as it is."""
    try:
        found = [read_structs(update) for update in updates]
    except MalformedUpdate:
        return cut_update(whole)
    structs, deletes = read_structs(whole, whole=True)
    gone = _deleted(deletes)
    held = _ranges(struct for own, _ in found for struct in own if struct.kind not in _CONTENTLESS)
    if not _common(held, gone):
        return None
    wanted = _ranges(struct for own, _ in found for struct in own)
    left = list(_overlapping(structs, wanted))
    said = [_deleted(own) for _, own in found]
    ranges = _union(*said, _common(gone, _ranges(left)))
    return cut_structs(whole, left, write_deletes(ranges))


def _deleted(deletes: bytes) -> Ranges:
    return _union(read_update(b"\x00" + deletes, whole=True).deletes)


def _ranges(structs: Iterable[Struct]) -> Ranges:
    found: dict[int, list[tuple[int, int]]] = {}
    for struct in structs:
        found.setdefault(struct.client, []).append((struct.clock, struct.end))
    return _union(found)


def _union(*all_ranges: Ranges) -> Ranges:
    """In order, none touching the next."""
    found: dict[int, list[tuple[int, int]]] = {}
    for ranges in all_ranges:
        for client, own in ranges.items():
            found.setdefault(client, []).extend(own)
    for client, own in found.items():
        joined: list[tuple[int, int]] = []
        for start, end in sorted(own):
            if joined and start <= joined[-1][1]:
                joined[-1] = joined[-1][0], max(end, joined[-1][1])
            else:
                joined.append((start, end))
        found[client] = joined
    return found


def _common(ranges: Ranges, others: Ranges) -> Ranges:
    return less_ranges(ranges, less_ranges(ranges, others))


def _overlapping(structs: Iterable[Struct], wanted: Ranges) -> Iterator[Struct]:
    """In an update the structs of a client stand in the order of their clocks, as its ranges do."""
    at = dict.fromkeys(wanted, 0)
    for struct in structs:
        ranges = wanted.get(struct.client, ())
        place = at.get(struct.client, 0)
        while place < len(ranges) and ranges[place][1] <= struct.clock:
            place += 1
        at[struct.client] = place
        if place < len(ranges) and ranges[place][0] < struct.end:
            yield struct
