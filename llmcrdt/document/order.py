"""The order of a conversation that grows: which entries are visible, and in which order (O1-O6 of docs/semantics.md).

Pure and incremental. The usual new entry (written on all tips of what is visible, younger than everything) is added in
O(new); anything else marks the order for a recount by the rules of ``order_rules.py``, which costs O(entries) and is
done at the next reading. Both ways must agree; the tests hold them against an independent statement of the rules.

Entries that an erase *withholds* (O7) take no part in the rest, nor do those that follow them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..ids import ContentHash, EntryId
from .frame import EMPTY_FRAME, Frame, extend_frame_hash
from .nodes import REACH, Erase, GroupId, Node, Selection, by_age, frame_list, group_of, way_to
from .order_rules import Hider, after_withheld, arrange, sound_nodes, visible_nodes, withheld_edits


@dataclass
class Arrangement:
    """The result of the rules for a document at one moment.

    ``head`` is frame(g) and g, for the latest visible generation g; ``tail`` the other visible entries, arranged.
    ``pins``: the version of each head entry that the frame holds. ``withheld``: alternatives that an erase keeps out of
    sight, each with the erased entry that it was made of.
    The lists and ``pins`` only grow in place: their lengths are a snapshot that costs nothing.
    """

    head: list[EntryId] = field(default_factory=list)
    tail: list[EntryId] = field(default_factory=list)
    visible: set[EntryId] = field(default_factory=set)
    tips: tuple[EntryId, ...] = ()
    malformed: dict[EntryId, str] = field(default_factory=dict)
    hidden_by: dict[EntryId, Hider] = field(default_factory=dict)
    withheld: Mapping[EntryId, EntryId] = field(default_factory=dict)
    pins: dict[EntryId, ContentHash] = field(default_factory=dict)
    generation: EntryId | None = None


class Order:
    """The order of a growing document. Not thread-safe."""

    def __init__(self) -> None:
        self._nodes: dict[EntryId, Node] = {}
        self._unreadable: dict[EntryId, str] = {}
        self._selections: dict[tuple[GroupId, str], Selection] = {}
        self._replaced: set[EntryId] = set()
        self._erases: dict[EntryId, tuple[Erase, ...]] = {}
        self._keeps: dict[str, EntryId] = {}
        self._sound: dict[EntryId, Node] = {}
        self._groups: dict[GroupId, list[EntryId]] = {}
        self._rivals = False  # whether several entries that stand for one turn are shown
        self._loose = False  # whether there is a result that was not written right after its call
        self._now = Arrangement()
        self._youngest = 0
        self._latest_act = 0
        self._stale = False

    def put(self, node: Node) -> None:
        """Add an entry, or replace what is known of it."""
        known = self._nodes.get(node.id)
        if known == node:
            return
        self._nodes[node.id] = node
        if node.alternative_of:
            self._replaced.add(node.alternative_of)
        was_bad = self._unreadable.pop(node.id, None) is not None
        if known is None and not was_bad and not self._stale and self._extends(node):
            self._extend(node)
        else:
            self._stale = True

    def put_unreadable(self, entry: EntryId, reason: str) -> None:
        """Note an entry whose own fields can't be read."""
        if self._unreadable.get(entry) != reason or entry in self._nodes:
            self._nodes.pop(entry, None)
            self._unreadable[entry] = reason
            self._stale = True

    def erase(self, entry: EntryId, marks: tuple[Erase, ...]) -> None:
        """Note the erases of an entry; () where it is not erased."""
        if marks != self._erases.get(entry, ()):
            self._erases[entry] = marks
            if not marks:
                del self._erases[entry]
            self._stale = self._stale or entry in self._replaced or entry in self._now.withheld

    def keep(self, act: str, entry: EntryId | None) -> None:
        """Note an act that keeps an entry; None where the act says nothing any more."""
        if self._keeps.get(act) != entry:
            self._stale = True
            if entry is None:
                del self._keeps[act]
            else:
                self._keeps[act] = entry

    def select(self, act: Selection) -> None:
        """Note a selection; of one session's, the latest counts."""
        self.note_lamport(act.lamport)
        known = self._selections.get((act.group, act.session))
        if known is None or (known.lamport, known.entry) < (act.lamport, act.entry):
            self._selections[act.group, act.session] = act
            self._stale = True

    def unselect(self, act: Selection) -> None:
        """Forget a selection: its key says something else now, or nothing."""
        if self._selections.get((act.group, act.session)) == act:
            del self._selections[act.group, act.session]
            self._stale = True

    def note_lamport(self, lamport: int) -> None:
        """Note an act's lamport: what is written from now on comes after it."""
        if lamport < self._youngest + REACH:
            self._latest_act = max(self._latest_act, lamport)

    def restore(
        self,
        nodes: Iterable[Node],
        unreadable: Mapping[EntryId, str],
        shown: Sequence[EntryId],
        pins: Mapping[EntryId, ContentHash],
    ) -> None:
        """Take over what an order of the same entries had found; this one must be new. ``shown``: its transcript.

        Where something is hidden or malformed, all is counted again."""
        self._nodes = {node.id: node for node in nodes}
        self._unreadable = dict(unreadable)
        self._replaced = {node.alternative_of for node in self._nodes.values() if node.alternative_of}
        if unreadable or len(shown) != len(self._nodes):
            self._stale = True
            return
        self._sound = {node.id: node for node in sorted(self._nodes.values(), key=lambda node: (node.lamport, node.id))}
        for i, node in self._sound.items():
            self._groups.setdefault(group_of(node, self._sound), []).append(i)
        self._rivals = len(self._groups) < len(self._sound)
        self._loose = any(_is_loose(node) for node in self._sound.values())
        covered = {parent for node in self._sound.values() for parent in node.parents}
        latest = next((i for i in reversed(self._sound) if self._sound[i].frame is not None), None)
        end = len(shown) - shown[::-1].index(latest) if latest else 0
        self._now = Arrangement(
            head=list(shown[:end]),
            tail=list(shown[end:]),
            visible=set(shown),
            tips=tuple(by_age(self._sound.keys() - covered, self._sound)),
            pins=dict(pins),
            generation=latest,
        )
        self._youngest = max((node.lamport for node in self._sound.values()), default=0)

    def knows(self, entry: EntryId) -> bool:
        """Whether an entry was put, sound or not, and could be read."""
        return entry in self._nodes

    def why_unreadable(self, entry: EntryId) -> str | None:
        """The reason why an entry's fields can't be read; None for any other."""
        return self._unreadable.get(entry)

    def everything(self) -> Iterator[Node | tuple[EntryId, str]]:
        """Every node, and for what can't be read its id and the reason."""
        yield from self._nodes.values()
        yield from self._unreadable.items()

    def now(self) -> Arrangement:
        """The arrangement as of now. Valid until the next ``put`` or ``select``; don't change it."""
        if self._stale:
            self._recount()
            self._stale = False
        return self._now

    def sound(self) -> Mapping[EntryId, Node]:
        """The entries that take part."""
        self.now()
        return self._sound

    def next_lamport(self, references: Iterable[EntryId] | None = None) -> int:
        """A lamport for what is written now: one more than the greatest of the sound entries and the acts; for what
        refers to entries, within reach of them."""
        sound = self.sound()
        above = self._youngest
        if references is not None:
            above = max((sound[entry].lamport for entry in references), default=0)
        return min(1 + max(self._youngest, self._latest_act), above + REACH)

    def newest(self) -> tuple[EntryId, ...]:
        """Every sound entry that nothing else follows, shown or not: what somebody who acts now has seen."""
        sound = self.sound()
        followed = {parent for node in sound.values() for parent in node.parents}
        return tuple(by_age(sound.keys() - followed, sound))

    def members(self, entry: EntryId) -> list[EntryId]:
        """All entries that stand for the same turn, oldest first."""
        sound = self.sound()
        return by_age(self._groups[group_of(sound[entry], sound)], sound)

    def made_of(self, entry: EntryId) -> frozenset[EntryId]:
        """The alternatives made of an entry, or of one that was made of it, but for those that are withheld."""
        found = {entry}
        for node in self.sound().values():
            if node.alternative_of in found:
                found.add(node.id)
        return frozenset(found - {entry} - self._now.withheld.keys())

    def erased_origins(self, entry: EntryId) -> tuple[EntryId, ...]:
        """Which of an entry and those that it was made of are erased."""
        sound, path = self.sound(), [entry]
        while origin := sound[path[-1]].alternative_of:
            path.append(origin)
        return tuple(i for i in path if i in self._erases)

    def forks_on_path(self, entry: EntryId) -> list[GroupId]:
        """The forks at or above an entry: where a selection must lead to it."""
        sound = self.sound()
        way = [i for i in way_to(entry, sound) if i == entry or not sound[i].system]
        return sorted({g for i in way if len(self._groups[g := group_of(sound[i], sound)]) > 1})

    def frame_list(self, frame: Frame | None) -> tuple[list[EntryId], dict[EntryId, ContentHash]]:
        """The whole list that a frame of a sound entry stands for, and its pins."""
        return frame_list(frame, self.sound())

    def _extends(self, node: Node) -> bool:
        """Whether a new entry simply comes last: nothing that was decided before can change through it."""
        now = self._now
        if now.malformed or node.alternative_of or node.covers or node.lamport <= self._youngest:
            return False
        if node.answers and (node.answers not in now.visible or node.frame is not None):
            return False
        after_all = set(node.parents) == set(now.tips) and len(node.parents) == len(now.tips)
        if (not after_all or (self._rivals and self._loose)) and (not node.answers or _is_loose(node)):
            return False
        if node.lamport > max((self._sound[parent].lamport for parent in node.parents), default=0) + REACH:
            return False
        if any(act.entry == node.id for act in self._selections.values()):
            return False
        if node.frame is not None:
            base = node.frame.base[0] if node.frame.base else None
            if base != now.generation or [entry for entry, _ in node.frame.appended] != now.tail:
                return False
            if not self._frame_hash_fits(node.frame):
                return False
        return group_of(node, self._nodes) not in self._groups

    def _extend(self, node: Node) -> None:
        now = self._now
        self._sound[node.id] = node
        self._groups[group_of(node, self._sound)] = [node.id]
        self._youngest = node.lamport
        self._loose = self._loose or _is_loose(node)
        now.visible.add(node.id)
        now.tips = (*(tip for tip in now.tips if tip not in node.parents), node.id)
        if node.frame is not None:
            now.pins.update(node.frame.pins)
            now.head += [*now.tail, node.id]
            now.tail = []
            now.generation = node.id
        elif node.answers:
            now.tail = arrange(now.generation, [*by_age(now.tail, self._sound), node.id], self._sound)
        else:
            now.tail.append(node.id)

    def _frame_hash_fits(self, frame: Frame) -> bool:
        base = self._sound[frame.base[0]].frame if frame.base else None
        return frame.hash == extend_frame_hash(base.hash if base else EMPTY_FRAME, frame.pins)

    def _recount(self) -> None:
        self._sound, malformed = sound_nodes(self._nodes)
        self._groups = {}
        for i, node in self._sound.items():
            self._groups.setdefault(group_of(node, self._sound), []).append(i)
        withheld = withheld_edits(self._sound, self._erases, set(self._keeps.values()))
        dark = after_withheld(self._sound, withheld)
        lit, groups = self._sound, self._groups
        if dark:
            lit = {i: node for i, node in self._sound.items() if i not in dark}
            groups = {group: [i for i in members if i in lit] for group, members in self._groups.items()}
        visible, hidden_by = visible_nodes(lit, groups, self._selections.values())
        generated = [i for i in visible if self._sound[i].frame is not None]
        latest = max(generated, key=lambda i: self._sound[i].age, default=None)
        head, pins = frame_list(self._sound[latest].frame, self._sound) if latest else ([], {})
        if latest:
            head.append(latest)
        self._rivals = any(len(visible.intersection(members)) > 1 for members in groups.values() if len(members) > 1)
        self._loose = any(_is_loose(node) for node in self._sound.values())
        rest = by_age(visible.difference(head), self._sound)
        covered = {parent for i in visible for parent in self._sound[i].parents}
        self._now = Arrangement(
            head=head,
            tail=arrange(latest, rest, self._sound),
            visible=visible,
            tips=tuple(by_age(visible - covered, self._sound)),
            malformed={**self._unreadable, **malformed},
            hidden_by={**hidden_by, **dark},
            withheld=withheld,
            pins=pins,
            generation=latest,
        )
        self._youngest = max((node.lamport for node in self._sound.values()), default=0)


def _is_loose(node: Node) -> bool:
    """Whether it is a result that was not written right after its call, but on the tips as older writers did."""
    return node.answers is not None and node.parents != (node.answers,)
