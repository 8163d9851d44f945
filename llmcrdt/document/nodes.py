"""An entry as the order of a conversation sees it: bare nodes, and the acts and marks that decide between them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..ids import ContentHash, EntryId, FrameHash, SessionId, tagged_hash
from .frame import Frame, Pin

GroupId = str

REACH = 1 << 32
"""How far a lamport may lie above those that it refers to. Honest counters stay far below. Without a bound a single
entry with the greatest lamport there is would leave none for anybody else."""


@dataclass(slots=True)  # nobody changes one; to be told so would take four times as long for each of ten thousand
class Node:
    """An entry without its content. ``session`` and ``saw_erased`` are those of alternatives only: the session that
    wrote it, and the erased entries, of those it was made of, that its author knew to be erased. ``system``: whether
    it is a system entry, and no generation. Another one in its place hides it alone, and not what follows it.
    ``turn``: of a generation, the group that it stands in, where that is not the one of its own list."""

    id: EntryId
    parents: tuple[EntryId, ...]
    lamport: int
    alternative_of: EntryId | None = None
    answers: EntryId | None = None
    frame: Frame | None = None
    covers: Frame | None = None
    session: SessionId | None = None
    saw_erased: tuple[EntryId, ...] = ()
    system: bool = False
    turn: GroupId | None = None

    @property
    def age(self) -> tuple[int, str]:
        return (self.lamport, self.id)

    @property
    def references(self) -> list[EntryId]:
        """The entries that it names."""
        found = [*self.parents]
        for frame in (self.frame, self.covers):
            if frame:
                found += [entry for entry, _ in frame.pins]
        if self.alternative_of:
            found.append(self.alternative_of)
        if self.answers:
            found.append(self.answers)
        return found

    @property
    def stands_on(self) -> Sequence[EntryId]:
        """The entries that have to be shown for this one to be: for a tool result its call alone, wherever the
        tips were; for any other entry its parents and its frame."""
        found = self.parents
        if self.answers:
            found = (self.answers,)
        if self.frame:
            return [*found, *(entry for entry, _ in self.frame.pins)]
        return found

    @property
    def follows(self) -> tuple[EntryId, ...]:
        """The entries that stand right above this one."""
        return (*self.parents, self.answers) if self.answers else self.parents


@dataclass(frozen=True, slots=True)
class Selection:
    """A person chose ``entry`` in a group. The greatest (lamport, session) of a group's selections wins."""

    group: GroupId
    session: str
    lamport: int
    entry: EntryId
    after: tuple[EntryId, ...] = ()  # the newest entries that person had seen


@dataclass(frozen=True, slots=True)
class Erase:
    """One mark of an erased entry. ``seen``: the alternatives made of it that the eraser knew, and left; None
    for a mark of an older version, which does not say. Then those count as known that are older than the mark, and
    those of its own session."""

    session: str
    lamport: int
    seen: frozenset[EntryId] | None

    def knew(self, node: Node) -> bool:
        """Whether the eraser knew this alternative."""
        if self.seen is None:
            return node.lamport < self.lamport or node.session == self.session
        return node.id in self.seen


def turn_after(frame: FrameHash, parents: Iterable[EntryId]) -> GroupId:
    """The group of generations on a list: the turn that comes after it."""
    return tagged_hash("llmcrdt/group/1", frame.encode(), *(parent.encode() for parent in parents))


def group_of(node: Node, nodes: Mapping[EntryId, Node], groups: Mapping[GroupId, Collection[EntryId]]) -> GroupId:
    """The group of entries that stand for the same turn. A person's edit of a generated answer belongs to the answer's
    group. ``groups`` has the older entries: a generation that was computed on a member of the group that it names
    comes after that one, and is in the group of its own list."""
    named, own = groups_of(node, nodes)
    if named != own and not _holds_any(_generation(node, nodes).frame, groups.get(named, ()), nodes):
        return named
    return own


def groups_of(node: Node, nodes: Mapping[EntryId, Node]) -> tuple[GroupId, GroupId]:
    """The groups that an entry may be in: the one that its head names, and that of its own list; most often one."""
    node = _generation(node, nodes)
    if node.frame is None:
        return node.id, node.id
    own = turn_after(node.frame.hash, node.parents)
    return node.turn or own, own


def _generation(node: Node, nodes: Mapping[EntryId, Node]) -> Node:
    """The generation that an entry is an edit of, or itself; if there is none, the first of those it was made of."""
    while node.frame is None and node.alternative_of is not None:
        node = nodes[node.alternative_of]
    return node


def _holds_any(frame: Frame | None, entries: Collection[EntryId], nodes: Mapping[EntryId, Node]) -> bool:
    oldest = min((nodes[i].lamport for i in entries), default=0)
    while frame is not None and entries:
        if any(entry in entries for entry, _ in frame.pins):
            return True
        base = nodes[frame.base[0]] if frame.base else None
        frame = base.frame if base is not None and base.lamport > oldest else None
    return False


def by_age(entries: Iterable[EntryId], nodes: Mapping[EntryId, Node]) -> list[EntryId]:
    return sorted(entries, key=lambda i: nodes[i].age)


def ancestors(node: Node, nodes: Mapping[EntryId, Node], down_to: int = 0) -> set[EntryId]:
    """All entries above one; with ``down_to``, only those whose lamport is at least that."""
    return with_ancestors(node.follows, nodes, down_to)


def with_ancestors(entries: Iterable[EntryId], nodes: Mapping[EntryId, Node], down_to: int = 0) -> set[EntryId]:
    """Entries and all above them, of those that ``nodes`` has; as ``ancestors``."""
    seen: set[EntryId] = set()
    todo = [i for i in entries if i in nodes]
    while todo:
        i = todo.pop()
        if i not in seen and nodes[i].lamport >= down_to:
            seen.add(i)
            todo.extend(nodes[i].follows)
    return seen


def way_to(entry: EntryId, nodes: Mapping[EntryId, Node], down_to: int = 0) -> set[EntryId]:
    """The entries that have to be shown for one to be, and that one; with ``down_to``, only those whose lamport is at
    least that."""
    seen = {entry}
    todo = [entry]
    while todo:
        for i in nodes[todo.pop()].stands_on:
            if i not in seen and nodes[i].lamport >= down_to:
                seen.add(i)
                todo.append(i)
    return seen


def frame_list(frame: Frame | None, nodes: Mapping[EntryId, Node]) -> tuple[list[EntryId], dict[EntryId, ContentHash]]:
    """frame(base), base, appended: the list, and which version of each."""
    pieces: list[Sequence[Pin]] = []
    while frame is not None:
        pieces.append(frame.pins)
        frame = nodes[frame.base[0]].frame if frame.base else None
    pins = [pin for piece in reversed(pieces) for pin in piece]
    return [entry for entry, _ in pins], dict(pins)
