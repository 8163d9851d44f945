"""The entry index of a conversation that holds an imported history and nothing else, made as the history is read.

It says what ``projector.py`` would make of the whole document, without a replica in memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from .entry_state import EntryState
from .imported import ImportedEntry
from .order_rules import arrange
from .projection import IndexRow
from .projector import row_of


class ImportedRows:
    """``add`` each entry in the order of the history; what stands before a generation is settled when that comes. The
    rows come in the order of the transcript, each with one version."""

    def __init__(self) -> None:
        self._generation: ImportedEntry | None = None
        self._open: list[ImportedEntry] = []

    def add(self, entry: ImportedEntry) -> list[IndexRow]:
        """The rows that are settled by now."""
        if entry.head.frame is None:
            self._open.append(entry)
            return []
        settled = [*([self._generation] if self._generation else []), *self._open]
        self._generation, self._open = entry, []
        return [row_of_imported(each) for each in settled]

    def finish(self, beside: Sequence[ImportedEntry]) -> list[IndexRow]:
        """All other rows. ``beside``: entries that stand beside the history."""
        tail = {each.id: each for each in [*self._open, *beside]}
        last = self._generation
        nodes = {each.id: each.head.node(each.id) for each in [*tail.values(), *([last] if last else [])]}
        ids = arrange(last.id if last else None, sorted(tail, key=lambda i: nodes[i].age), nodes)
        return [row_of_imported(each) for each in [*([last] if last else []), *(tail[i] for i in ids)]]


def row_of_imported(entry: ImportedEntry) -> IndexRow:
    """The row of an entry. It has one version, so no pin changes what it says."""
    return row_of(entry.id, EntryState(entry.head, (entry.version,), (), {}), entry.fields, None)
