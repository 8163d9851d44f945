"""The search for a waist: how little of a document is to be counted again after a change.

A *waist* is a visible entry that follows everything else that is visible, but for what follows it. Nothing that
stands above a waist decides anything below it, and the other way round. So the rules need to be applied only below the
last waist above all that changed.

Entries that an erase withholds, or no longer does (O7), are the exception: one of them may have decided a branch point
above it. Then the waist is sought above every branch point.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from heapq import heappop, heappush
from itertools import chain, islice

from ..ids import EntryId
from .arrangement import Arrangement
from .decisions import Decisions
from .entry_graph import EntryGraph
from .nodes import Node, groups_of
from .order_rules import withheld_edits


class WaistSearch:
    """Looks for the last waist above a change. ``now``: what was shown before it. Changes nothing."""

    def __init__(self, graph: EntryGraph, decisions: Decisions, now: Arrangement) -> None:
        self._graph = graph
        self._decisions = decisions
        self._now = now

    def find(
        self, added: Mapping[EntryId, Node], concerned: set[EntryId]
    ) -> tuple[dict[EntryId, Node], EntryId | None]:
        """The last waist above all that is added or concerned, and the entries below it, oldest first; None and all
        entries where there is no waist."""
        sound, children = self._graph.sound, self._graph.children
        below: set[EntryId] = set()
        todo = [*added, *concerned]
        if len(added) == len(sound) or self._graph.has_loose_results:
            return self._all()  # what is above a result on the tips is more than it stands on
        edge: set[EntryId] = set()  # the parents of what is below that are not below themselves
        youngest: list[tuple[int, EntryId]] = []  # the same, as a heap
        enough = 0  # entries below, before it is worth while to compare places once more
        decided = not concerned  # whether the branch points above stay as they are, or are below by now
        while True:
            while todo:
                i = todo.pop()
                if i in below:
                    continue
                node = sound[i]
                if not node.parents:
                    return self._all()
                below.add(i)
                edge.discard(i)
                for parent in node.parents:
                    if parent not in below and parent not in edge:
                        edge.add(parent)
                        heappush(youngest, (-sound[parent].lamport, parent))
                todo += self._tied_to(i)
            while youngest[0][1] not in edge:
                heappop(youngest)
            waist = youngest[0][1]
            if len(edge) == 1:
                todo += [child for child in children.get(waist, ()) if child not in below]
                if not todo and self._is_waist(waist, below) and len(below) >= enough:
                    if self._stands_last(below, waist):
                        low = {i: sound[i] for i in sorted(below, key=lambda i: sound[i].age)}
                        if not decided and self._withholds_otherwise(low, added):
                            todo += self._branches_beside(below)
                        if not todo:
                            return low, waist
                        decided = True
                    else:
                        enough = 2 * len(below)
            if not todo:
                todo.append(waist)

    def _all(self) -> tuple[dict[EntryId, Node], None]:
        return dict(sorted(self._graph.sound.items(), key=lambda item: item[1].age)), None

    def _tied_to(self, entry: EntryId) -> list[EntryId]:
        """The entries to be counted again where one is: all that follow it, and those it decides on with others."""
        graph = self._graph
        node = graph.sound[entry]
        tied = list(graph.children.get(entry, ()))
        if graph.has_alternatives(entry):
            tied += graph.alternatives_of(entry)
        if node.alternative_of:
            tied.append(node.alternative_of)
        if node.answers:
            tied.append(node.answers)
        if node.frame:
            visible = self._now.visible
            for other, _ in node.frame.pins:
                if (other not in visible and other not in node.parents) or graph.sound[other].system:
                    tied.append(other)
        group = graph.known_group(entry)
        if group is None:  # it takes part from now on
            groups = {*groups_of(node, graph.sound), *self._decisions.groups_naming(entry)}
            tied += [member for group in groups for member in graph.groups.get(group, ())]
        elif len(members := graph.groups[group]) > 1:
            tied += members
        return tied

    def _withholds_otherwise(self, low: Mapping[EntryId, Node], added: Mapping[EntryId, Node]) -> bool:
        """Whether one of the entries that took part before is withheld from now on, or no more."""
        withheld = withheld_edits(low, self._decisions.erases, self._decisions.kept())
        return withheld.keys() - added.keys() != self._now.withheld.keys() & low.keys()

    def _branches_beside(self, below: Set[EntryId]) -> list[EntryId]:
        """The members of the branch points that are not all below already."""
        return [i for _, members in self._graph.branch_points() for i in members if i not in below]

    def _is_waist(self, entry: EntryId, below: Set[EntryId]) -> bool:
        """Whether what is shown above ``below`` leads to ``entry``."""
        now = self._now
        return entry in now.visible and all(tip == entry or tip in below for tip in now.tips)

    def _stands_last(self, below: set[EntryId], waist: EntryId) -> bool:
        """Whether the entries that are shown of ``below`` stand at the end of the transcript, right after the waist."""
        shown = sum(1 for i in below if i in self._now.visible)
        *last, before = islice(chain(reversed(self._now.tail), reversed(self._now.head)), shown + 1)
        return before == waist and below.issuperset(last)
