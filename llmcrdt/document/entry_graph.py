"""EntryGraph: the entries of a document as bare nodes, which of them take part (O1), and what refers to what.

It decides nothing about what is shown. Entries may come in any order: one that refers to an entry that is not here
waits for it among the malformed ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from heapq import heappop, heappush

from ..ids import EntryId
from .nodes import GroupId, Node, by_age, group_of
from .order_rules import fault


class EntryGraph:
    """The entries that were put, and of the sound ones their order by age, children, groups and newest.

    An entry that was put takes part from ``add`` on, where it is known to be sound, or from ``add_sound``, which finds
    out. Not thread-safe.

    - Each sound entry stands in ``sound`` after those that it refers to.
    - Each sound entry is in exactly one of ``groups``, from ``add`` or ``move`` on: all that stand for the same turn,
      oldest first. After ``add_all`` they are made when somebody asks: who only reads a document never does.
    - A malformed entry waits in ``awaited`` for each reference of its that is not sound.
    """

    def __init__(self) -> None:
        self.nodes: dict[EntryId, Node] = {}
        self.unreadable: dict[EntryId, str] = {}
        self._made_of: dict[EntryId, list[EntryId]] = {}  # the alternatives made of an entry, sound or not
        self.forget_sound()

    def forget_sound(self) -> None:
        """Forget which entries take part, and all that follows from it; what was put stays."""
        self.sound: dict[EntryId, Node] = {}
        self.malformed: dict[EntryId, str] = {}
        self.children: dict[EntryId, list[EntryId]] = {}
        self._groups: dict[GroupId, list[EntryId]] = {}
        self._ungrouped: list[EntryId] = []
        self.newest: set[EntryId] = set()
        """The sound entries that nothing else follows."""
        self.youngest = 0
        """The greatest lamport of the sound entries."""
        self.has_loose_results = False
        """Whether a result was not written right after its call."""
        self.awaited: dict[EntryId, set[EntryId]] = {}
        """For each entry that is missing or malformed, the malformed ones that refer to it."""
        self._group_of: dict[EntryId, GroupId] = {}

    @property
    def groups(self) -> dict[GroupId, list[EntryId]]:
        """The sound entries by the turn that they stand for."""
        if self._ungrouped:
            first, self._ungrouped = self._ungrouped, []
            self.group(first)
        return self._groups

    def put(self, node: Node) -> bool:
        """Note an entry. Returns whether something else was known of it: then nothing that was found holds any more."""
        known = node.id in self.nodes
        self.nodes[node.id] = node
        if node.alternative_of:
            self._made_of.setdefault(node.alternative_of, []).append(node.id)
        return (self.unreadable.pop(node.id, None) is not None) or known

    def fill(self, nodes: Iterable[Node], unreadable: Mapping[EntryId, str]) -> None:
        """Note all entries of a document at once; nothing was known yet."""
        self.nodes = {node.id: node for node in nodes}
        self.unreadable = dict(unreadable)
        for node in self.nodes.values():
            if node.alternative_of:
                self._made_of.setdefault(node.alternative_of, []).append(node.id)

    def put_unreadable(self, entry: EntryId, reason: str) -> bool:
        """Note an entry whose own fields can't be read. Returns whether that is news."""
        if self.unreadable.get(entry) == reason and entry not in self.nodes:
            return False
        self.nodes.pop(entry, None)
        self.unreadable[entry] = reason
        return True

    def add(self, node: Node) -> None:
        """Let a sound entry that is younger than those that it refers to take part."""
        self._add(node)
        self.group([node.id])

    def add_all(self) -> None:
        """Let all entries take part, known to be sound; none does yet."""
        nodes = sorted(self.nodes.values(), key=lambda node: (node.lamport, node.id))
        self.sound.update([(node.id, node) for node in nodes])
        children = self.children
        for node in nodes:
            for other in node.follows if node.answers else node.parents:
                if other in children:
                    children[other].append(node.id)
                else:
                    children[other] = [node.id]
        self.newest.update(self.sound.keys() - {parent for node in nodes for parent in node.parents})
        self.has_loose_results = any(node.answers is not None and is_loose(node) for node in nodes)
        self.youngest = nodes[-1].lamport if nodes else 0
        self._ungrouped = [*self.sound]

    def add_sound(self, new: Iterable[EntryId]) -> dict[EntryId, Node]:
        """Let those of the new entries, and of those that wait for one, take part that are sound (O1). Returns them,
        oldest first. They stand at the end of ``sound`` and in no group, until ``move`` puts them in their places."""
        todo = sorted([self.nodes[i].age for i in new], reverse=True)
        freed: list[tuple[int, str]] = []  # a heap: those that waited, and need not any more
        added: dict[EntryId, Node] = {}
        while todo or freed:
            i = EntryId((heappop(freed) if freed and (not todo or freed[0] < todo[-1]) else todo.pop())[1])
            node = self.nodes[i]
            reason = fault(node, self.sound)
            if reason:
                self.malformed[i] = reason
                for reference in node.references:
                    if reference not in self.sound:
                        self.awaited.setdefault(reference, set()).add(i)
                continue
            self.malformed.pop(i, None)
            if i in added:
                continue
            self._add(node)
            added[i] = node
            for waiting in self.awaited.pop(i, ()):
                if self.nodes[waiting].age > node.age and waiting in self.malformed:
                    heappush(freed, self.nodes[waiting].age)
        return added

    def move(self, low: Mapping[EntryId, Node]) -> dict[GroupId, list[EntryId]]:
        """Move sound entries to the end, in the order given: by age, with all that follow them. Returns their groups,
        which must hold no other entry."""
        for i in low:
            self.sound.pop(i, None)
        self.sound.update(low)
        groups = self.groups
        for i in low:
            groups.pop(self._group_of.get(i, ""), None)
        self.group(low)
        return {self._group_of[i]: groups[self._group_of[i]] for i in low}

    def group(self, entries: Iterable[EntryId]) -> None:
        """Append sound entries to their groups."""
        groups = self.groups
        for i in entries:
            group = self._group_of.get(i)
            if group is None:
                self._group_of[i] = group = group_of(self.sound[i], self.sound, groups)
            groups.setdefault(group, []).append(i)

    def members(self, entry: EntryId) -> list[EntryId]:
        """All sound entries that stand for the same turn as this one, oldest first."""
        groups = self.groups
        return by_age(groups[self._group_of[entry]], self.sound)

    def known_group(self, entry: EntryId) -> GroupId | None:
        """The group of a sound entry; None before it has one."""
        return self._group_of.get(entry) if self.groups else None

    def branch_points(self) -> Iterator[tuple[GroupId, list[EntryId]]]:
        """The groups with several members: branches part there."""
        return ((group, members) for group, members in self.groups.items() if len(members) > 1)

    def has_alternatives(self, entry: EntryId) -> bool:
        """Whether an alternative was made of an entry, sound or not."""
        return entry in self._made_of

    def is_alternative(self, entry: EntryId) -> bool:
        """Whether an entry, sound or not, is an alternative of another one."""
        return entry in self.nodes and self.nodes[entry].alternative_of is not None

    def alternatives_of(self, entry: EntryId) -> Iterator[EntryId]:
        """The sound alternatives made of an entry."""
        return (i for i in self._made_of.get(entry, ()) if i in self.sound)

    def made_of(self, entry: EntryId) -> set[EntryId]:
        """The sound alternatives made of an entry, or of one that was made of it, and so on."""
        found, todo = set[EntryId](), [entry]
        while todo:
            new = [i for i in self.alternatives_of(todo.pop()) if i not in found]
            found.update(new)
            todo += new
        return found

    def origins(self, entry: EntryId) -> list[EntryId]:
        """A sound entry, the one that it was made of, and so on."""
        path = [entry]
        while origin := self.sound[path[-1]].alternative_of:
            path.append(origin)
        return path

    def _add(self, node: Node) -> None:
        self.sound[node.id] = node
        self.newest.difference_update(node.parents)
        self.newest.add(node.id)
        self.has_loose_results = self.has_loose_results or is_loose(node)
        for other in node.follows:
            self.children.setdefault(other, []).append(node.id)
        self.youngest = max(self.youngest, node.lamport)


def is_loose(node: Node) -> bool:
    """Whether it is a result that was not written right after its call, but on the tips as older writers did."""
    return node.answers is not None and node.parents != (node.answers,)
