"""The rules of order, O1-O7 of docs/semantics.md, over bare nodes: which take part, which are visible, and where they
stand. Pure functions; ``order.py`` applies them to a document that grows.

Words: a *group* is all that stands for the same turn (an entry and its edits; generations on one frame). A group with
several members is a *branch point*. A selection *rules out* the members that are not younger than it, and to which it
doesn't lead. The *way* of a branch point is the entry that decides which of the others is shown: the one written last
on their branches, where a selection counts as written on its entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import count
from typing import NamedTuple

from ..ids import EntryId
from .frame import EMPTY_FRAME, extend_frame_hash
from .nodes import REACH, Erase, GroupId, Node, Selection, ancestors


class Hider(NamedTuple):
    """The reason why an entry is hidden: ``way`` is the entry that was selected, else the youngest alternative that is
    shown; ``after`` is what the writer of that had seen, if it was a selection or an erase. ``withheld``: the entry, or
    one that it follows, was made of an erased one by somebody who had not seen the erase."""

    way: EntryId
    after: tuple[EntryId, ...] | None
    withheld: bool = False


def fault(node: Node, sound: Mapping[EntryId, Node]) -> str:
    """O1: why an entry can't take part; "" if it can. ``sound`` holds every older entry that can; what it holds beside
    those makes no difference."""
    above = 0
    for reference in node.references:
        other = sound.get(reference)
        if other is None or (other.lamport >= node.lamport and other.age >= node.age):
            return f"refers to {reference}, which is missing or malformed"
        above = max(above, other.lamport)
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


def withheld_edits(
    sound: Mapping[EntryId, Node], erases: Mapping[EntryId, Sequence[Erase]], kept: Set[EntryId]
) -> dict[EntryId, EntryId]:
    """O7: each alternative of an erased entry where neither its author knew of the erase nor the eraser of it, and that
    nobody kept; with the erased entry."""
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


def after_withheld(sound: Mapping[EntryId, Node], withheld: Mapping[EntryId, EntryId]) -> dict[EntryId, Hider]:
    """The withheld entries and all that follow them, each with the reason."""
    dark: dict[EntryId, Hider] = {}
    for i, node in sound.items() if withheld else ():
        if i in withheld:
            dark[i] = Hider(withheld[i], (), withheld=True)
        elif above := [i for i in node.stands_on if i in dark]:
            dark[i] = Hider(above[0], (), withheld=True) if above[0] in withheld else dark[above[0]]
    return dark


def visible_nodes(
    sound: Mapping[EntryId, Node], groups: Mapping[GroupId, list[EntryId]], selections: Iterable[Selection]
) -> tuple[set[EntryId], dict[EntryId, Hider]]:
    """O6: the entries that are shown, and for each other one the entry that decided so.

    Only branch points can hide. One bit per member of one; each entry carries the bits of the members it is or stands
    on, but for system entries: who edits one says what holds from now on, and takes nothing back. One that the frame of
    a generation holds goes on being shown. ``sound`` may be all that follows one entry, with that left out.
    """
    branching = {group: members for group, members in groups.items() if len(members) > 1}
    bits = dict(zip((m for members in branching.values() for m in members), (1 << n for n in count()), strict=False))
    masks = {group: sum(bits[m] for m in members) for group, members in branching.items()}
    above: dict[EntryId, int] = {}
    for i, node in sound.items():  # oldest first
        over = 0
        for parent in node.stands_on:
            if parent in above:
                over |= above[parent] | (0 if sound[parent].system else bits.get(parent, 0))
        above[i] = over
    chosen: dict[GroupId, Selection] = {}
    for act in selections:
        best = chosen.get(act.group)
        if act.group not in branching or act.entry not in sound or act.lamport > sound[act.entry].lamport + REACH:
            continue
        leads_there = (above[act.entry] | bits.get(act.entry, 0)) & masks[act.group]
        if leads_there and (best is None or (act.lamport, act.session) > (best.lamport, best.session)):
            chosen[act.group] = act
    closed = 0
    decided: dict[int, Hider] = {}
    for group, act in chosen.items():
        leads_to = above[act.entry] | bits.get(act.entry, 0)
        for m in branching[group]:
            if sound[m].lamport <= act.lamport and not leads_to & bits[m]:
                closed |= bits[m]
                decided[bits[m]] = Hider(act.entry, act.after)
        branching[group] = [m for m in branching[group] if not closed & bits[m]]
        masks[group] = sum(bits[m] for m in branching[group])
    written: dict[GroupId, EntryId] = {}  # the entry written last on any branch of the group that is not ruled out
    followed, open_members = 0, sum(masks.values())
    group_of_bit = {bits[m]: group for group, members in branching.items() for m in members}
    for i, node in reversed(list(sound.items())):
        followed |= above[i]
        on = 0 if node.answers else above[i]  # a tool ends when it ends: its result says nothing of which branch lives
        while hit := (on | bits.get(i, 0)) & open_members:
            group = group_of_bit[hit & -hit]
            written[group] = i
            open_members &= ~masks[group]
    for group, members in branching.items():
        way = written[group]
        if group in chosen and sound[way].lamport <= chosen[group].lamport:
            way = chosen[group].entry
        replaced = {sound[m].alternative_of for m in members}
        shown: list[EntryId] = []
        for m in members:
            rival = sound[m].alternative_of is None and m not in replaced
            if m == way or above[way] & bits[m] or (rival and followed & bits[m]):
                shown.append(m)
        # not the way itself: on a branch that grows it would be another one with each entry
        hider = Hider(shown[-1], None)
        for m in members:
            if m not in shown:
                closed |= bits[m]
                decided[bits[m]] = hider
    hidden_by: dict[EntryId, Hider] = {}
    visible: set[EntryId] = set()
    for i in sound:
        shut = (above[i] | bits.get(i, 0)) & closed
        if shut:
            hidden_by[i] = decided[shut & -shut]
        else:
            visible.add(i)
    for i in [i for i in visible if sound[i].frame and hidden_by]:
        held = hidden_by.keys() & set(sound[i].stands_on)
        visible |= held
        for entry in held:
            del hidden_by[entry]
    return visible, hidden_by


def arrange(last: EntryId | None, rest: Sequence[EntryId], nodes: Mapping[EntryId, Node]) -> list[EntryId]:
    """O3 and O5: ``rest``, which is given by age, run by run, each entry followed by the results of its calls. ``last``
    is the generation before them.

    Next is, of the entries whose parents all stand, the one whose last parent stands latest; of several a system entry,
    then the oldest.
    """
    here = {*rest, last}
    results: dict[EntryId, list[EntryId]] = {}
    for i in rest:
        call = nodes[i].answers
        if call is not None and call in here:
            results.setdefault(call, []).append(i)
    attached = {i for answers in results.values() for i in answers}
    waits: dict[EntryId, list[EntryId]] = {}  # for each entry, those of the rest that have to stand before it
    children: dict[EntryId, list[EntryId]] = {}
    missing: dict[EntryId, int] = {}
    for i in rest:
        before = [parent for parent in nodes[i].parents if parent in waits]
        if not attached.isdisjoint(before):  # those stand by their calls, and don't wait themselves
            before = [*{*before, *(each for parent in before if parent in attached for each in waits[parent])}]
        waits[i] = before
        if i not in attached:
            missing[i] = len(before)
            for parent in before:
                children.setdefault(parent, []).append(i)
    out: list[EntryId] = []
    todo: list[EntryId] = []
    ready = [i for i in missing if not missing[i]]
    place = {i: int(last in nodes[i].parents) for i in ready}  # where the last parent stands
    youth = {i: -n for n, i in enumerate(rest)}
    block = [] if last is None else [last]
    while True:
        while block:  # an entry, and the results of its calls
            i = block.pop()
            if i != last:
                out.append(i)
            for child in children.get(i, ()):
                missing[child] -= 1
                if not missing[child]:
                    place[child] = 1 + len(out)
                    ready.append(child)
            if i in results:
                block += reversed(results[i])
        if len(ready) > 1:
            ready.sort(key=lambda i: (place[i], nodes[i].system, youth[i]))
        todo += ready
        if not todo:
            return out
        block, ready = [todo.pop()], []
