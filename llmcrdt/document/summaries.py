"""Which entries of a transcript take part in prompts, and which a summary stands for there (O10). Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..ids import EntryId
from .entry import Entry, Text
from .frame import Frame


def is_shown(entry: Entry) -> bool:
    """Whether an entry takes part in prompts with a message."""
    if not entry.sealed or entry.status in ("erased", "streaming"):
        return False
    if entry.role == "system":
        return any(isinstance(part, Text) for part in entry.parts)
    if entry.role == "assistant" and entry.status in ("failed", "stopped"):
        return bool(entry.text or entry.reasoning or entry.tool_calls)
    return True


def summaries(entries: Sequence[Entry]) -> dict[EntryId, set[EntryId]]:
    """The summaries that a prompt for ``entries`` prints, newest first, and what each stands for."""
    found: dict[EntryId, set[EntryId]] = {}
    covered: set[EntryId] = set()
    if not any(entry.covers for entry in entries):
        return found
    here = {entry.id: entry for entry in entries}
    for entry in reversed(entries):
        if entry.covers and is_shown(entry) and entry.id not in covered:
            found[entry.id] = {i for i in _listed(entry.covers, here) if here[i].role != "system"} - covered
            covered |= found[entry.id]
    return found


def with_summaries(entries: Sequence[Entry]) -> Iterator[Entry]:
    """The entries that are sent for a transcript, each summary in the place of what it covers."""
    printed = summaries(entries)
    by_covered = {covered: summary for summary, ids in printed.items() for covered in ids}
    here, done = {entry.id: entry for entry in entries}, set()
    for entry in entries:
        summary = by_covered.get(entry.id, entry.id)
        if summary not in done:
            yield here[summary]
        if summary != entry.id or summary in printed:
            done.add(summary)


def _listed(frame: Frame | None, here: Mapping[EntryId, Entry]) -> Iterator[EntryId]:
    """The entries of a frame's whole list, as far as they stand in this transcript."""
    while frame is not None:
        yield from (entry for entry, _ in frame.pins if entry in here)
        base = here.get(frame.base[0]) if frame.base else None
        frame = base.frame if base else None
