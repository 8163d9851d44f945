"""Decisions: the acts and marks that decide between entries: selections (O6), erases and what is kept of them (O7)."""

from __future__ import annotations

from collections.abc import Container, Iterator

from ..ids import EntryId
from .nodes import REACH, Erase, GroupId, Selection


class Decisions:
    """The selections, erases and kept entries that hold now. Each change says whether it changed anything."""

    def __init__(self) -> None:
        self.erases: dict[EntryId, tuple[Erase, ...]] = {}
        self.latest = 0
        """The greatest lamport of an act within reach."""
        self._selections: dict[tuple[GroupId, str], Selection] = {}
        self._groups_of: dict[EntryId, set[GroupId]] = {}  # the groups where a selection names an entry, or did
        self._keeps: dict[str, EntryId] = {}

    def select(self, act: Selection) -> bool:
        """Note a selection; of one session's, the latest counts."""
        known = self._selections.get((act.group, act.session))
        if known is not None and (known.lamport, known.entry) >= (act.lamport, act.entry):
            return False
        self._selections[act.group, act.session] = act
        self._groups_of.setdefault(act.entry, set()).add(act.group)
        return True

    def unselect(self, act: Selection) -> bool:
        """Forget a selection."""
        if self._selections.get((act.group, act.session)) != act:
            return False
        del self._selections[act.group, act.session]
        return True

    def erase(self, entry: EntryId, marks: tuple[Erase, ...]) -> bool:
        """Note the erases of an entry; () where it is not erased."""
        if marks == self.erases.get(entry, ()):
            return False
        self.erases[entry] = marks
        if not marks:
            del self.erases[entry]
        return True

    def keep(self, act: str, entry: EntryId | None) -> set[EntryId]:
        """Note the entry that an act keeps; None where it keeps none any more. Returns the entries that it now keeps
        or kept before, if these differ."""
        before = self._keeps.get(act)
        if before == entry:
            return set()
        if entry is None:
            del self._keeps[act]
        else:
            self._keeps[act] = entry
        return {each for each in (before, entry) if each is not None}

    def note_lamport(self, lamport: int, youngest: int) -> None:
        """Note the lamport of an act, unless it lies out of reach of the youngest entry."""
        if lamport < youngest + REACH:
            self.latest = max(self.latest, lamport)

    def selections(self, groups: Container[GroupId]) -> Iterator[Selection]:
        """The selections in these groups."""
        return (act for act in self._selections.values() if act.group in groups)

    def groups_naming(self, entry: EntryId) -> set[GroupId]:
        """The groups where a selection names an entry, or did once."""
        return self._groups_of.get(entry, set())

    def kept(self) -> set[EntryId]:
        """The entries that an act keeps."""
        return set(self._keeps.values())
