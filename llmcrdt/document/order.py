"""The order of a conversation that grows: which entries are visible, and in which order (O1-O6 of docs/semantics.md).

Pure and incremental. The usual new entry (written on all tips of what is visible, younger than everything) is added in
O(new). Anything else is counted again by the rules of ``order_rules.py`` at the next reading, from the last *waist*
above all that it concerns: a visible entry that follows everything else that is visible, but for what follows it. What
stands above a waist decides nothing below it, and the other way round. So an edit costs what it moves. All ways must
agree; the tests hold them against an independent statement of the rules.

Entries that an erase *withholds* (O7) take no part in the rest, nor do those that follow them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from itertools import chain, islice

from ..ids import ContentHash, EntryId
from .frame import EMPTY_FRAME, Frame, Pin, extend_frame_hash
from .nodes import REACH, Erase, GroupId, Node, Selection, by_age, frame_list, group_of, way_to
from .order_rules import Hider, after_withheld, arrange, fault, visible_nodes, withheld_edits


@dataclass
class Arrangement:
    """The result of the rules for a document at one moment.

    ``head`` is frame(g) and g, for the latest visible generation g; ``tail`` the other visible entries, arranged.
    ``pins``: the version of each head entry that the frame holds. ``withheld``: alternatives that an erase keeps out of
    sight, each with the erased entry that it was made of.
    The lists and ``pins`` only grow in place: their lengths are a snapshot that costs nothing. ``visible`` is the same
    set from one arrangement to the next.
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
    """The order of a growing document. Not thread-safe.

    It has many methods: changes, questions and the count that makes both cost only what moves share one state.
    """

    def __init__(self) -> None:
        self._nodes: dict[EntryId, Node] = {}
        self._unreadable: dict[EntryId, str] = {}
        self._selections: dict[tuple[GroupId, str], Selection] = {}
        self._named: dict[EntryId, set[GroupId]] = {}  # the groups where a selection names an entry
        self._made_of: dict[EntryId, list[EntryId]] = {}  # the alternatives made of an entry, sound or not
        self._erases: dict[EntryId, tuple[Erase, ...]] = {}
        self._keeps: dict[str, EntryId] = {}
        self._sound: dict[EntryId, Node] = {}  # what is visible of it, oldest first
        self._children: dict[EntryId, list[EntryId]] = {}
        self._malformed: dict[EntryId, str] = {}
        self._awaited: dict[EntryId, set[EntryId]] = {}  # what malformed entries refer to and lack
        self._groups: dict[GroupId, list[EntryId]] = {}
        self._group_of: dict[EntryId, GroupId] = {}
        self._newest: set[EntryId] = set()
        self._loose = False  # whether there is a result that was not written right after its call
        self._now = Arrangement()
        self._youngest = 0
        self._latest_act = 0
        self._new: set[EntryId] = set()  # put since the last count
        self._concerned: set[EntryId] = set()  # sound entries that an act or a mark of that time concerns
        self._all = False  # whether all is to be counted
        self.steady = 0
        """Of the transcript: so many entries at its beginning have stood there, in these versions, since somebody set
        this."""

    def put(self, node: Node) -> None:
        """Add an entry, or replace what is known of it."""
        known = self._nodes.get(node.id)
        if known == node:
            return
        self._nodes[node.id] = node
        if node.alternative_of:
            self._made_of.setdefault(node.alternative_of, []).append(node.id)
        was_bad = self._unreadable.pop(node.id, None) is not None
        if known is not None or was_bad:
            self._all = True
        elif not self._stale and self._extends(node):
            self._extend(node)
        else:
            self._new.add(node.id)

    def put_unreadable(self, entry: EntryId, reason: str) -> None:
        """Note an entry whose own fields can't be read."""
        if self._unreadable.get(entry) != reason or entry in self._nodes:
            self._nodes.pop(entry, None)
            self._unreadable[entry] = reason
            self._all = True

    def erase(self, entry: EntryId, marks: tuple[Erase, ...]) -> None:
        """Note the erases of an entry; () where it is not erased."""
        if marks != self._erases.get(entry, ()):
            self._erases[entry] = marks
            if not marks:
                del self._erases[entry]
            if entry in self._made_of or entry in self._now.withheld:
                self._concerned.add(entry)

    def keep(self, act: str, entry: EntryId | None) -> None:
        """Note an act that keeps an entry; None where the act says nothing any more."""
        before = self._keeps.get(act)
        if before != entry:
            self._concerned |= {each for each in (before, entry) if each is not None}
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
            self._named.setdefault(act.entry, set()).add(act.group)
            self._concerned |= {act.entry, *self._groups.get(act.group, ())}

    def unselect(self, act: Selection) -> None:
        """Forget a selection: its key says something else now, or nothing."""
        if self._selections.get((act.group, act.session)) == act:
            del self._selections[act.group, act.session]
            self._concerned |= {act.entry, *self._groups.get(act.group, ())}

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

        If something is hidden or malformed, all is counted again."""
        self._nodes = {node.id: node for node in nodes}
        self._unreadable = dict(unreadable)
        for node in self._nodes.values():
            if node.alternative_of:
                self._made_of.setdefault(node.alternative_of, []).append(node.id)
        if unreadable or len(shown) != len(self._nodes):
            self._all = True
            return
        self._sound = {node.id: node for node in sorted(self._nodes.values(), key=lambda node: (node.lamport, node.id))}
        self._group(self._sound)
        latest = next((i for i in reversed(self._sound) if self._sound[i].frame is not None), None)
        end = len(shown) - shown[::-1].index(latest) if latest else 0
        covered = set[EntryId]()
        for i, node in self._sound.items():
            self._loose = self._loose or _is_loose(node)
            covered.update(node.parents)
            for other in node.follows:
                self._children.setdefault(other, []).append(i)
        self._now = Arrangement(
            head=list(shown[:end]),
            tail=list(shown[end:]),
            visible=set(shown),
            tips=tuple(by_age(self._sound.keys() - covered, self._sound)),
            pins=dict(pins),
            generation=latest,
        )
        self._newest = set(self._now.tips)
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
        return self._now

    def sound(self) -> Mapping[EntryId, Node]:
        """The entries that take part; each stands after those that it refers to."""
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
        return tuple(by_age(self._newest, sound))

    def members(self, entry: EntryId) -> list[EntryId]:
        """All entries that stand for the same turn, oldest first."""
        sound = self.sound()
        return by_age(self._groups[self._group_of[entry]], sound)

    def made_of(self, entry: EntryId) -> frozenset[EntryId]:
        """The alternatives made of an entry, or of one that was made of it, but for those that are withheld."""
        self.now()
        found, todo = set[EntryId](), [entry]
        while todo:
            new = [i for i in self._alternatives_of(todo.pop()) if i not in found]
            found.update(new)
            todo += new
        return frozenset(found - self._now.withheld.keys())

    def erased_origins(self, entry: EntryId) -> tuple[EntryId, ...]:
        """Which of an entry and those that it was made of are erased."""
        sound, path = self.sound(), [entry]
        while origin := sound[path[-1]].alternative_of:
            path.append(origin)
        return tuple(i for i in path if i in self._erases)

    def forks_on_path(self, entry: EntryId) -> list[GroupId]:
        """The forks at or above an entry: where a selection must lead to it."""
        sound = self.sound()
        forks = [(group, members) for group, members in self._groups.items() if len(members) > 1]
        oldest = min((sound[i].lamport for _, members in forks for i in members), default=0)
        path = {i for i in way_to(entry, sound, oldest) if i == entry or not sound[i].system} if forks else set()
        return sorted(group for group, members in forks if not path.isdisjoint(members))

    def frame_list(self, frame: Frame | None) -> tuple[list[EntryId], dict[EntryId, ContentHash]]:
        """The whole list that a frame of a sound entry stands for, and its pins."""
        return frame_list(frame, self.sound())

    @property
    def _stale(self) -> bool:
        return self._all or bool(self._new) or bool(self._concerned)

    def _extends(self, node: Node) -> bool:
        """Whether a new entry simply comes last: nothing that was decided before can change through it."""
        now = self._now
        if node.alternative_of or node.covers or node.lamport <= self._youngest:
            return False
        if node.answers and (node.answers not in now.visible or node.frame is not None):
            return False
        after_all = set(node.parents) == set(now.tips) and len(node.parents) == len(now.tips)
        if (not after_all or (self._loose and self._shows_rivals())) and (not node.answers or _is_loose(node)):
            return False
        if len(node.parents) > 1 and now.hidden_by:  # where rivals were joined, another one is said to have hidden it
            return False
        if node.lamport > max((self._sound[parent].lamport for parent in node.parents), default=0) + REACH:
            return False
        if node.id in self._named or node.id in self._awaited:
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
        self._add_sound(node)
        self._group([node.id])
        now.visible.add(node.id)
        now.tips = (*(tip for tip in now.tips if tip not in node.parents), node.id)
        if node.frame is not None or node.answers:
            self.steady = min(self.steady, max(0, len(now.head) - 1))
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

    def _group(self, entries: Iterable[EntryId]) -> None:
        for i in entries:
            group = self._group_of.get(i)
            if group is None:
                self._group_of[i] = group = group_of(self._sound[i], self._sound)
            self._groups.setdefault(group, []).append(i)

    def _add_sound(self, node: Node) -> None:
        self._sound[node.id] = node
        self._newest.difference_update(node.parents)
        self._newest.add(node.id)
        self._loose = self._loose or _is_loose(node)
        for other in node.follows:
            self._children.setdefault(other, []).append(node.id)
        self._youngest = max(self._youngest, node.lamport)

    def _shows_rivals(self) -> bool:
        """Whether several entries that stand for one turn are shown."""
        forks = (members for members in self._groups.values() if len(members) > 1)
        return any(len(self._now.visible.intersection(members)) > 1 for members in forks)

    # counting again

    def _recount(self) -> None:
        if self._all:
            self._begin_anew()
        added = self._find_sound()
        wanted = {i for i in self._concerned if i in self._sound}
        if added or wanted:
            self._count(*self._below_waist(added, wanted))
        self._now = replace(self._now, malformed={**self._unreadable, **self._malformed})
        self._all = False
        self._new.clear()
        self._concerned.clear()

    def _begin_anew(self) -> None:
        self._sound, self._malformed, self._awaited = {}, {}, {}
        self._groups, self._group_of, self._newest, self._children = {}, {}, set(), {}
        self._youngest, self._loose = 0, False
        self._new, self._concerned = set(self._nodes), set()
        self._now = Arrangement()
        self.steady = 0

    def _find_sound(self) -> dict[EntryId, Node]:
        """Of the new entries, and of those that wait for one, those that take part from now on, oldest first. They
        stand at the end of ``_sound``, until ``_count`` puts them in their places."""
        todo = [self._nodes[i].age for i in self._new]
        heapify(todo)
        added: dict[EntryId, Node] = {}
        while todo:
            i = EntryId(heappop(todo)[1])
            node = self._nodes[i]
            reason = fault(node, self._sound)
            if reason:
                self._malformed[i] = reason
                for reference in node.references:
                    if reference not in self._sound:
                        self._awaited.setdefault(reference, set()).add(i)
                continue
            self._malformed.pop(i, None)
            if i in added:
                continue
            self._add_sound(node)
            added[i] = node
            for waiting in self._awaited.pop(i, ()):
                if self._nodes[waiting].age > node.age and waiting in self._malformed:
                    heappush(todo, self._nodes[waiting].age)
        return added

    def _below_waist(
        self, added: Mapping[EntryId, Node], wanted: set[EntryId]
    ) -> tuple[dict[EntryId, Node], EntryId | None]:
        """The last waist above all that is added or wanted, and the entries below it, oldest first; None and all of
        them where there is no waist."""
        sound = self._sound
        below: set[EntryId] = set()
        todo = [*added, *wanted]
        if len(added) == len(sound) or self._loose:  # what is above a result on the tips is more than it stands on
            return dict(sorted(sound.items(), key=lambda item: item[1].age)), None
        edge: set[EntryId] = set()  # the parents of what is below that are not below themselves
        youngest: list[tuple[int, EntryId]] = []  # the same, as a heap
        enough = 0  # entries below, before it is worth while to compare places once more
        while True:
            while todo:
                i = todo.pop()
                if i in below:
                    continue
                node = sound[i]
                if not node.parents:
                    return dict(sorted(sound.items(), key=lambda item: item[1].age)), None
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
                todo += [child for child in self._children.get(waist, ()) if child not in below]
                if not todo and self._is_waist(waist, below) and len(below) >= enough:
                    if self._stands_last(below, waist):
                        return {i: sound[i] for i in sorted(below, key=lambda i: sound[i].age)}, waist
                    enough = 2 * len(below)
            if not todo:
                todo.append(waist)

    def _tied_to(self, entry: EntryId) -> list[EntryId]:
        """The entries to be counted again where one is: all that follow it, and those it decides on with others."""
        node = self._sound[entry]
        tied = list(self._children.get(entry, ()))
        if entry in self._made_of:
            tied += self._alternatives_of(entry)
        if node.alternative_of:
            tied.append(node.alternative_of)
        if node.answers:
            tied.append(node.answers)
        if node.frame:
            visible = self._now.visible
            for other, _ in node.frame.pins:
                if (other not in visible and other not in node.parents) or self._sound[other].system:
                    tied.append(other)
        group = self._group_of.get(entry)
        if group is None:  # it takes part from now on
            groups = {group_of(node, self._sound), *self._named.get(entry, ())}
            tied += [member for group in groups for member in self._groups.get(group, ())]
        elif len(members := self._groups[group]) > 1:
            tied += members
        return tied

    def _alternatives_of(self, entry: EntryId) -> Iterator[EntryId]:
        return (i for i in self._made_of.get(entry, ()) if i in self._sound)

    def _is_waist(self, entry: EntryId, below: Set[EntryId]) -> bool:
        """Whether what is shown above ``below`` leads to ``entry``."""
        now = self._now
        return entry in now.visible and all(tip == entry or tip in below for tip in now.tips)

    def _stands_last(self, below: set[EntryId], waist: EntryId) -> bool:
        """Whether the entries that are shown of ``below`` stand at the end of the transcript, right after the waist."""
        shown = sum(1 for i in below if i in self._now.visible)
        *last, before = islice(chain(reversed(self._now.tail), reversed(self._now.head)), shown + 1)
        return before == waist and below.issuperset(last)

    def _count(self, low: dict[EntryId, Node], waist: EntryId | None) -> None:
        """Apply the rules to the entries below the waist, and put what they say in the place of what was there."""
        then, sound = self._now, self._sound
        for i in low:  # to their places
            sound.pop(i, None)
        sound.update(low)
        for i in low:
            self._groups.pop(self._group_of.get(i, ""), None)
        self._group(low)
        groups: dict[GroupId, list[EntryId]] = {}
        for i in low:
            groups[self._group_of[i]] = self._groups[self._group_of[i]]
        withheld = withheld_edits(low, self._erases, set(self._keeps.values()))
        dark = after_withheld(low, withheld)
        lit = low
        if dark:
            lit = {i: node for i, node in low.items() if i not in dark}
            groups = {group: [i for i in members if i in lit] for group, members in groups.items()}
        acts = (act for act in self._selections.values() if act.group in groups)
        shown, hidden_by = visible_nodes(lit, groups, acts)

        cut = len(then.head) + len(then.tail) - sum(1 for i in low if i in then.visible)
        above = then.head[:cut] + then.tail[: max(0, cut - len(then.head))]
        visible = then.visible
        visible.difference_update(low)
        visible |= shown
        latest = max((i for i in shown if sound[i].frame is not None), key=lambda i: sound[i].age, default=None)
        if latest is None:
            if then.generation in visible:
                latest = then.generation
            else:
                older = (i for i in reversed(sound) if i in visible and sound[i].frame is not None)
                latest = next(older, None)
        head, pins, same = self._head(latest)
        ends = shown if waist is None else {*shown, waist}
        # If all that is shown below the waist goes on from it, it stands after all that is above.
        goes_on = all(not ends.isdisjoint(sound[i].parents) for i in shown)
        if latest == then.generation and latest not in low and goes_on:
            tail = above[len(head) :] + arrange(None, by_age(shown, sound), sound)
            same = cut
        else:
            rest = {*above[same:], *shown}.difference(islice(head, min(same, cut), None))
            tail = arrange(latest, by_age(rest, sound), sound)
        covered = {parent for i in shown for parent in sound[i].parents}
        self.steady = min(self.steady, same, cut)
        self._now = Arrangement(
            head=head,
            tail=tail,
            visible=visible,
            tips=tuple(by_age(ends - covered, sound)),
            hidden_by={i: hider for i, hider in then.hidden_by.items() if i not in low}
            | {i: hidden_by.get(i) or dark[i] for i in low if i not in shown},
            withheld={**{i: erased for i, erased in then.withheld.items() if i not in low}, **withheld},
            pins=pins,
            generation=latest,
        )

    def _head(self, latest: EntryId | None) -> tuple[list[EntryId], dict[EntryId, ContentHash], int]:
        """The latest generation and its frame; the pins; and how many of these stood at the beginning of the head
        before, with the same pins."""
        then = self._now
        if latest is None:
            return [], {}, 0
        if latest == then.generation:
            return then.head, then.pins, len(then.head)
        bases = self._bases(then.generation)
        pieces: list[Sequence[Pin]] = []
        base: EntryId | None = latest
        known = dict.fromkeys(islice(bases, 1))
        while base is not None and base not in known:
            frame = self._sound[base].frame
            assert frame is not None
            pieces.append(frame.pins)
            base = frame.base[0] if frame.base else None
            age = self._sound[base].age if base else (0, "")
            for older in bases:
                known[older] = None
                if self._sound[older].age <= age:
                    break
        new = [pin for piece in reversed(pieces) for pin in piece]
        same = 0
        if base is not None:
            same = len(then.head) - 1 - next(n for n, i in enumerate(reversed(then.head)) if i == base)
        pins = then.pins.copy()
        for i in then.head[same:]:
            pins.pop(i, None)
        pins.update(new)
        return [*then.head[:same], *(entry for entry, _ in new), latest], pins, same

    def _bases(self, generation: EntryId | None) -> Iterator[EntryId]:
        """A generation, and those that its frame stands on, youngest first."""
        while generation is not None:
            yield generation
            frame = self._sound[generation].frame
            generation = frame.base[0] if frame and frame.base else None


def _is_loose(node: Node) -> bool:
    """Whether it is a result that was not written right after its call, but on the tips as older writers did."""
    return node.answers is not None and node.parents != (node.answers,)
