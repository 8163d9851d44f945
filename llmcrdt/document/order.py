"""The order of a conversation that grows: which entries are visible, and in which order (O1-O6 of docs/semantics.md).

Pure and incremental. The usual new entry (written on all tips of what is visible, younger than everything) is added in
O(new). Anything else is counted again by the rules of ``order_rules.py`` at the next reading, from the last *waist*
above all that it concerns (``waist.py``). So an edit costs what it moves. All ways must agree; the tests hold them
against an independent statement of the rules.

Entries that an erase *withholds* (O7) take no part in the rest, nor do those that follow them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from ..ids import ContentHash, EntryId
from .arrangement import Arrangement
from .decisions import Decisions
from .entry_graph import EntryGraph
from .frame import Frame
from .nodes import REACH, Erase, GroupId, Node, Selection, by_age, frame_list, way_to
from .rearrange import append_last, comes_last, recount
from .waist import WaistSearch


class Order:
    """The order of a growing document. Not thread-safe.

    Changes are noted as they come (``put``, ``erase``, ``keep``, ``select``); a question counts first what they leave
    open. The entries stand in an ``EntryGraph``, what decides between them in ``Decisions``, the result in an
    ``Arrangement``.
    """

    def __init__(self) -> None:
        self._graph = EntryGraph()
        self._decisions = Decisions()
        self._now = Arrangement()
        self._new: set[EntryId] = set()  # put since the last count
        self._concerned: set[EntryId] = set()  # sound entries that an act or a mark of that time concerns
        self._all = False  # whether all is to be counted
        self.steady = 0
        """Of the transcript: so many entries at its beginning have stood there, in these versions, since somebody set
        this."""

    # changes

    def put(self, node: Node) -> None:
        """Add an entry, or replace what is known of it."""
        graph = self._graph
        if graph.nodes.get(node.id) == node:
            return
        if graph.put(node):
            self._all = True
        elif not self._stale and comes_last(node, graph, self._decisions, self._now):
            steady = append_last(node, graph, self._now)
            if steady is not None:
                self.steady = min(self.steady, steady)
        else:
            self._new.add(node.id)

    def put_unreadable(self, entry: EntryId, reason: str) -> None:
        """Note an entry whose own fields can't be read."""
        if self._graph.put_unreadable(entry, reason):
            self._all = True

    def erase(self, entry: EntryId, marks: tuple[Erase, ...]) -> None:
        """Note the erases of an entry; () where it is not erased."""
        if not self._decisions.erase(entry, marks):
            return
        let_go = not marks and self._graph.is_alternative(entry)  # it may be withheld itself from now on
        if self._graph.has_alternatives(entry) or entry in self._now.withheld or let_go:
            self._concerned.add(entry)

    def keep(self, act: str, entry: EntryId | None) -> None:
        """Note an act that keeps an entry; None where the act says nothing any more."""
        self._concerned |= self._decisions.keep(act, entry)

    def select(self, act: Selection) -> None:
        """Note a selection; of one session's, the latest counts."""
        self.note_lamport(act.lamport)
        if self._decisions.select(act):
            self._concerned |= {act.entry, *self._graph.groups.get(act.group, ())}

    def unselect(self, act: Selection) -> None:
        """Forget a selection: its key says something else now, or nothing."""
        if self._decisions.unselect(act):
            self._concerned |= {act.entry, *self._graph.groups.get(act.group, ())}

    def note_lamport(self, lamport: int) -> None:
        """Note an act's lamport: what is written from now on comes after it."""
        self._decisions.note_lamport(lamport, self._graph.youngest)

    def restore(self, nodes: Iterable[Node], unreadable: Mapping[EntryId, str], shown: Sequence[EntryId]) -> None:
        """Take over what an order of the same entries had found; this one must be new. ``shown``: its transcript.

        If something is hidden or malformed, all is counted again."""
        graph = self._graph
        graph.fill(nodes, unreadable)
        if unreadable or len(shown) != len(graph.nodes):
            self._all = True
            return
        graph.add_all()
        latest = next((i for i in reversed(graph.sound) if graph.sound[i].frame is not None), None)
        end = len(shown) - shown[::-1].index(latest) if latest else 0
        self._now = Arrangement(
            head=list(shown[:end]),
            tail=list(shown[end:]),
            visible=set(shown),
            tips=tuple(by_age(graph.newest, graph.sound)),
            pins=frame_list(graph.sound[latest].frame, graph.sound)[1] if latest else {},
            generation=latest,
        )

    # questions

    def knows(self, entry: EntryId) -> bool:
        """Whether an entry was put, sound or not, and could be read."""
        return entry in self._graph.nodes

    def why_unreadable(self, entry: EntryId) -> str | None:
        """The reason why an entry's fields can't be read; None for any other."""
        return self._graph.unreadable.get(entry)

    def everything(self) -> Iterator[Node | tuple[EntryId, str]]:
        """Every node, and for what can't be read its id and the reason."""
        yield from self._graph.nodes.values()
        yield from self._graph.unreadable.items()

    def now(self) -> Arrangement:
        """The arrangement as of now. Valid until the next ``put`` or ``select``; don't change it."""
        if self._all or self._new or self._concerned:  # as ``_stale`` says, for those who ask all the time
            self._recount()
        return self._now

    def sound(self) -> Mapping[EntryId, Node]:
        """The entries that take part; each stands after those that it refers to."""
        self.now()
        return self._graph.sound

    def next_lamport(self, references: Iterable[EntryId] | None = None) -> int:
        """A lamport for what is written now: one more than the greatest of the sound entries and the acts; for what
        refers to entries, within reach of them."""
        sound, youngest = self.sound(), self._graph.youngest
        above = youngest
        if references is not None:
            above = max((sound[entry].lamport for entry in references), default=0)
        return min(1 + max(youngest, self._decisions.latest), above + REACH)

    def newest(self) -> tuple[EntryId, ...]:
        """Every sound entry that nothing else follows, shown or not: what somebody who acts now has seen."""
        sound = self.sound()
        return tuple(by_age(self._graph.newest, sound))

    def members(self, entry: EntryId) -> list[EntryId]:
        """All entries that stand for the same turn, oldest first."""
        self.now()
        return self._graph.members(entry)

    def group(self, entry: EntryId) -> GroupId:
        """The group of a sound entry: one for all that stand for the same turn."""
        self.now()
        group = self._graph.known_group(entry)
        assert group is not None, "sound entries have groups"
        return group

    def made_of(self, entry: EntryId) -> frozenset[EntryId]:
        """The alternatives made of an entry, or of one that was made of it, but for those that are withheld."""
        self.now()
        return frozenset(self._graph.made_of(entry) - self._now.withheld.keys())

    def erased_origins(self, entry: EntryId) -> tuple[EntryId, ...]:
        """Which of an entry and those that it was made of are erased."""
        self.now()
        return tuple(i for i in self._graph.origins(entry) if i in self._decisions.erases)

    def branch_points_on_path(self, entry: EntryId) -> list[GroupId]:
        """The branch points at or above an entry: where a selection must lead to it."""
        sound = self.sound()
        branching = list(self._graph.branch_points())
        oldest = min((sound[i].lamport for _, members in branching for i in members), default=0)
        path = {i for i in way_to(entry, sound, oldest) if i == entry or not sound[i].system} if branching else set()
        return sorted(group for group, members in branching if not path.isdisjoint(members))

    def frame_list(self, frame: Frame | None) -> tuple[list[EntryId], dict[EntryId, ContentHash]]:
        """The whole list that a frame of a sound entry stands for, and its pins."""
        return frame_list(frame, self.sound())

    # counting again

    @property
    def _stale(self) -> bool:
        return self._all or bool(self._new) or bool(self._concerned)

    def _recount(self) -> None:
        graph = self._graph
        if self._all:
            self._begin_anew()
        added = graph.add_sound(self._new)
        concerned = {i for i in self._concerned if i in graph.sound}
        if added or concerned:
            low, waist = WaistSearch(graph, self._decisions, self._now).find(added, concerned)
            self._now, steady = recount(low, waist, graph, self._decisions, self._now)
            self.steady = min(self.steady, steady)
        self._now = replace(self._now, malformed={**graph.unreadable, **graph.malformed})
        self._all = False
        self._new.clear()
        self._concerned.clear()

    def _begin_anew(self) -> None:
        self._graph.forget_sound()
        self._new, self._concerned = set(self._graph.nodes), set()
        self._now = Arrangement()
        self.steady = 0
