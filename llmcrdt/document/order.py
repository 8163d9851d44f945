"""Which entries are visible, and in which order: rules O1-O6 of docs/semantics.md, over bare nodes.

Pure and incremental. The usual new entry (written on all tips of what is visible, younger than everything) is added in
O(new); anything else marks the order for a recount, which costs O(entries) and is done at the next reading. Both ways
must agree; the tests hold them against an independent statement of the rules.

What an erase *withholds* (O7) takes no part in the rest: nor does what follows it.

Words: a *group* is what stands for the same turn (an entry and its edits; generations on one frame). A group with
several members is a *fork*. Its *way* is the entry that decides which member is shown: the selected one, else the one
written last on any of its branches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from ..ids import ContentHash, EntryId, SessionId, tagged_hash
from .entry import EMPTY_FRAME, Frame, Pin, extend_frame_hash

GroupId = str

REACH = 1 << 32
"""How far a lamport may lie above those that it refers to. Whoever counts stays far below. Without a bound one entry of
a stranger, with the greatest lamport there is, would leave none for anybody else."""


@dataclass(frozen=True)
class Node:
    """What order needs to know of an entry. ``session`` and ``saw_erased``: of alternatives only, who wrote it, and
    which of the entries it was made of its author knew to be erased."""

    id: EntryId
    parents: tuple[EntryId, ...]
    lamport: int
    alternative_of: EntryId | None = None
    answers: EntryId | None = None
    frame: Frame | None = None
    covers: Frame | None = None
    session: SessionId | None = None
    saw_erased: tuple[EntryId, ...] = ()

    @property
    def age(self) -> tuple[int, str]:
        return (self.lamport, self.id)

    @property
    def references(self) -> Iterator[EntryId]:
        yield from self.parents
        for frame in (self.frame, self.covers):
            if frame:
                yield from (entry for entry, _ in frame.pins)
        if self.alternative_of:
            yield self.alternative_of
        if self.answers:
            yield self.answers


@dataclass(frozen=True)
class Selection:
    """A person chose ``entry`` in a group. The greatest (lamport, session) of a group's selections wins."""

    group: GroupId
    session: str
    lamport: int
    entry: EntryId
    after: tuple[EntryId, ...] = ()  # the newest entries that person had seen


@dataclass(frozen=True)
class Erase:
    """One mark of an erased entry. ``seen``: the alternatives made of it that whoever erased it knew, and left; None
    where the mark doesn't say: it was written before marks did. Then those count as known that are older than it, and
    those of its own session."""

    session: str
    lamport: int
    seen: frozenset[EntryId] | None

    def knew(self, node: Node) -> bool:
        """Whether whoever erased knew this alternative."""
        if self.seen is None:
            return node.lamport < self.lamport or node.session == self.session
        return node.id in self.seen


class Hider(NamedTuple):
    """Why an entry is hidden: ``way`` decided; ``after`` is what the one who decided had seen, if it was a selection or
    an erase. ``withheld``: the entry, or what it follows, was made of an erased one by somebody who had not seen
    that."""

    way: EntryId
    after: tuple[EntryId, ...] | None
    withheld: bool = False


@dataclass
class Arrangement:
    """What the rules make of a document at one moment.

    ``head`` is frame(g) and g, for the latest visible generation g; ``tail`` the other visible entries, arranged.
    ``pins``: the version of each head entry that the frame holds. ``withheld``: alternatives that an erase keeps out of
    sight, each with the erased entry that it was made of.
    The lists only grow in place, and ``pins`` too: who remembers their lengths has a snapshot for nothing.
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


def group_of(node: Node, nodes: Mapping[EntryId, Node]) -> GroupId:
    """What stands for the same turn. A person's edit of a generated answer belongs to the answer's group."""
    while node.frame is None and node.alternative_of is not None:
        node = nodes[node.alternative_of]
    if node.frame is None:
        return node.id
    return tagged_hash("llmcrdt/group/1", node.frame.hash.encode(), *(parent.encode() for parent in node.parents))


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
        self.saw(act.lamport)
        known = self._selections.get((act.group, act.session))
        if known is None or (known.lamport, known.entry) < (act.lamport, act.entry):
            self._selections[act.group, act.session] = act
            self._stale = True

    def saw(self, lamport: int) -> None:
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
        latest = next((i for i in reversed(self._sound) if self._sound[i].frame is not None), None)
        end = len(shown) - shown[::-1].index(latest) if latest else 0
        covered = {parent for node in self._sound.values() for parent in node.parents}
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
        """What was noted of an entry whose fields can't be read; None of any other."""
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
        path = {entry, *ancestors(sound[entry], sound)}
        return sorted({g for i in path if len(self._groups[g := group_of(sound[i], sound)]) > 1})

    def frame_list(self, frame: Frame | None) -> tuple[list[EntryId], dict[EntryId, ContentHash]]:
        """The whole list that a frame of a sound entry stands for, and its pins."""
        return frame_list(frame, self.sound())

    def _extends(self, node: Node) -> bool:
        """Whether a new entry simply comes last: nothing that was decided before can change through it."""
        now = self._now
        if now.malformed or node.alternative_of or node.covers or node.lamport <= self._youngest:
            return False
        if set(node.parents) != set(now.tips) or len(node.parents) != len(now.tips):
            return False
        if node.lamport > max((self._sound[parent].lamport for parent in node.parents), default=0) + REACH:
            return False
        if any(act.entry == node.id for act in self._selections.values()):
            return False
        if node.answers and node.answers not in now.visible:
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
        now.visible.add(node.id)
        now.tips = (node.id,)
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
        self._sound, malformed = _sound(self._nodes)
        self._groups = {}
        for i, node in self._sound.items():
            self._groups.setdefault(group_of(node, self._sound), []).append(i)
        withheld = _withheld(self._sound, self._erases, set(self._keeps.values()))
        dark = _dark(self._sound, withheld)
        lit, groups = self._sound, self._groups
        if dark:
            lit = {i: node for i, node in self._sound.items() if i not in dark}
            groups = {group: [i for i in members if i in lit] for group, members in self._groups.items()}
        visible, hidden_by = _visible(lit, groups, self._selections.values())
        generated = [i for i in visible if self._sound[i].frame is not None]
        latest = max(generated, key=lambda i: self._sound[i].age, default=None)
        head, pins = frame_list(self._sound[latest].frame, self._sound) if latest else ([], {})
        if latest:
            head.append(latest)
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


def by_age(entries: Iterable[EntryId], nodes: Mapping[EntryId, Node]) -> list[EntryId]:
    return sorted(entries, key=lambda i: nodes[i].age)


def ancestors(node: Node, nodes: Mapping[EntryId, Node], down_to: int = 0) -> set[EntryId]:
    """All entries above one; with ``down_to``, only those whose lamport is at least that."""
    seen: set[EntryId] = set()
    todo = list(node.parents)
    while todo:
        i = todo.pop()
        if i not in seen and nodes[i].lamport >= down_to:
            seen.add(i)
            todo.extend(nodes[i].parents)
    return seen


def frame_list(frame: Frame | None, nodes: Mapping[EntryId, Node]) -> tuple[list[EntryId], dict[EntryId, ContentHash]]:
    """frame(base), base, appended: the list, and which version of each."""
    pieces: list[Sequence[Pin]] = []
    while frame is not None:
        pieces.append(frame.pins)
        frame = nodes[frame.base[0]].frame if frame.base else None
    pins = [pin for piece in reversed(pieces) for pin in piece]
    return [entry for entry, _ in pins], dict(pins)


def arrange(last: EntryId | None, rest: Sequence[EntryId], nodes: Mapping[EntryId, Node]) -> list[EntryId]:
    """O5: entries by age, each followed by the results of its calls. ``last`` is the generation before them."""
    here = {*rest, last}
    results: dict[EntryId, list[EntryId]] = {}
    for i in rest:
        call = nodes[i].answers
        if call is not None and call in here:
            results.setdefault(call, []).append(i)
    placed = {i for answers in results.values() for i in answers}
    out: list[EntryId] = []
    todo = [i for i in reversed(rest) if i not in placed]
    if last is not None:
        todo += reversed(results.get(last, []))
    while todo:
        i = todo.pop()
        out.append(i)
        todo += reversed(results.get(i, []))
    return out


def _sound(nodes: Mapping[EntryId, Node]) -> tuple[dict[EntryId, Node], dict[EntryId, str]]:
    """O1: the entries that take part, oldest first, and why each other one does not."""
    sound: dict[EntryId, Node] = {}
    malformed: dict[EntryId, str] = {}
    for node in sorted(nodes.values(), key=lambda node: node.age):
        reason = _fault(node, sound)
        if reason:
            malformed[node.id] = reason
        else:
            sound[node.id] = node
    return sound, malformed


def _fault(node: Node, sound: Mapping[EntryId, Node]) -> str:
    """Why an entry can't take part; "" if it can. ``sound`` holds every older entry that can."""
    above = 0
    for reference in node.references:
        if reference not in sound:
            return f"refers to {reference}, which is missing or malformed"
        above = max(above, sound[reference].lamport)
        if above >= node.lamport:
            return f"is not younger than {reference}, to which it refers"
    if node.lamport > above + REACH:
        return "has a lamport out of reach of what it refers to"
    target = node.alternative_of
    if target and target in ancestors(node, sound, sound[target].lamport):
        return "is an alternative of an entry that it follows"
    if node.covers and not _follows(node, sound, [entry for entry, _ in node.covers.pins]):
        return "covers entries that it doesn't follow"
    return _frame_fault(node, sound) if node.frame else ""


def _follows(node: Node, sound: Mapping[EntryId, Node], entries: Sequence[EntryId]) -> bool:
    """Whether all of these stand above an entry."""
    oldest = min((sound[entry].lamport for entry in entries), default=0)
    return ancestors(node, sound, oldest).issuperset(entries)


def _frame_fault(node: Node, sound: Mapping[EntryId, Node]) -> str:
    """A frame must be a list without repeats, above its entry, with the hash it says."""
    assert node.frame is not None
    frame = node.frame
    base = sound[frame.base[0]].frame if frame.base else None
    if frame.base and base is None:
        return "has a frame whose base is not a generation"
    if frame.hash != extend_frame_hash(base.hash if base else EMPTY_FRAME, frame.pins):
        return "has a frame whose hash is not that of its list"
    named = [entry for entry, _ in frame.pins]
    if not named:
        return ""
    if not _follows(node, sound, named):
        return "has a frame with entries that it doesn't follow"
    oldest = min(sound[entry].lamport for entry in named)
    appended, walk = {entry for entry, _ in frame.appended}, frame.base
    if len(set(named)) != len(named):
        return "has a frame that holds an entry twice"
    while walk and sound[walk[0]].lamport > oldest:
        inner = sound[walk[0]].frame
        assert inner is not None
        if any(entry in appended for entry, _ in inner.pins):
            return "has a frame that holds an entry twice"
        walk = inner.base
    return ""


def _withheld(
    sound: Mapping[EntryId, Node], erases: Mapping[EntryId, Sequence[Erase]], kept: Set[EntryId]
) -> dict[EntryId, EntryId]:
    """O7: each alternative made of an erased entry by somebody who had not seen the erase, nor its author that
    alternative, and that nobody kept; with the erased entry."""
    found: dict[EntryId, EntryId] = {}
    made_of: dict[EntryId, tuple[EntryId, ...]] = {}  # the erased entries that an alternative was made of
    for i, node in sound.items() if erases else ():
        origin = node.alternative_of
        if origin is None:
            continue
        made_of[i] = ((origin,) if origin in erases else ()) + made_of.get(origin, ())
        for erased in made_of[i] if i not in kept and i not in erases else ():
            if erased not in node.saw_erased and not any(mark.knew(node) for mark in erases[erased]):
                found.setdefault(i, erased)
    return found


def _dark(sound: Mapping[EntryId, Node], withheld: Mapping[EntryId, EntryId]) -> dict[EntryId, Hider]:
    """What is withheld, and what follows that."""
    dark: dict[EntryId, Hider] = {}
    for i, node in sound.items() if withheld else ():
        if i in withheld:
            dark[i] = Hider(withheld[i], (), withheld=True)
        elif above := [parent for parent in node.parents if parent in dark]:
            dark[i] = Hider(above[0], (), withheld=True) if above[0] in withheld else dark[above[0]]
    return dark


def _visible(
    sound: Mapping[EntryId, Node], groups: Mapping[GroupId, list[EntryId]], selections: Iterable[Selection]
) -> tuple[set[EntryId], dict[EntryId, Hider]]:
    """O6: what is shown, and for each entry that is not, the one that decided so.

    Only forks can hide. One bit per member of a fork; each entry carries the bits of the members it is or follows.
    """
    forks = {group: members for group, members in groups.items() if len(members) > 1}
    bits = dict(zip((m for members in forks.values() for m in members), (1 << n for n in count()), strict=False))
    masks = {group: sum(bits[m] for m in members) for group, members in forks.items()}
    above: dict[EntryId, int] = {}
    for i, node in sound.items():  # oldest first
        over = 0
        for parent in node.parents:
            over |= above[parent] | bits.get(parent, 0)
        above[i] = over
    chosen: dict[GroupId, Selection] = {}
    for act in selections:
        best = chosen.get(act.group)
        if act.group not in forks or act.entry not in sound or act.lamport > sound[act.entry].lamport + REACH:
            continue
        leads_there = (above[act.entry] | bits.get(act.entry, 0)) & masks[act.group]
        if leads_there and (best is None or (act.lamport, act.session) > (best.lamport, best.session)):
            chosen[act.group] = act
    written: dict[GroupId, EntryId] = {}  # the entry written last on any branch of the fork
    followed, open_forks = 0, sum(masks.values())
    fork_of = {bits[m]: group for group, members in forks.items() for m in members}
    for i in reversed(list(sound)):
        followed |= above[i]
        while hit := (above[i] | bits.get(i, 0)) & open_forks:
            group = fork_of[hit & -hit]
            written[group] = i
            open_forks &= ~masks[group]
    closed = 0
    decided: dict[int, Hider] = {}
    for group, members in forks.items():
        act_here = chosen.get(group)
        way = act_here.entry if act_here else written[group]
        replaced = {sound[m].alternative_of for m in members}
        for m in members:
            rival = act_here is None and sound[m].alternative_of is None and m not in replaced
            if m != way and not above[way] & bits[m] and not (rival and followed & bits[m]):
                closed |= bits[m]
                decided[bits[m]] = Hider(way, act_here.after if act_here else None)
    hidden_by: dict[EntryId, Hider] = {}
    visible: set[EntryId] = set()
    for i in sound:
        shut = (above[i] | bits.get(i, 0)) & closed
        if shut:
            hidden_by[i] = decided[shut & -shut]
        else:
            visible.add(i)
    return visible, hidden_by
