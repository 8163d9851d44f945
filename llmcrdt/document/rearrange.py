"""The two ways to change an arrangement: an entry that simply comes last, and the rules from a waist on.

Both must give the arrangement that the rules state for the whole document. The first is for the usual new entry, and
costs O(new); the second is for everything else, and costs what stands below the waist.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from ..ids import EntryId
from .arrangement import Arrangement
from .decisions import Decisions
from .entry_graph import EntryGraph, is_loose
from .frame import EMPTY_FRAME, Frame, extend_frame_hash
from .nodes import REACH, Node, by_age, group_of
from .order_rules import after_withheld, arrange, visible_nodes, withheld_edits


def comes_last(node: Node, graph: EntryGraph, decisions: Decisions, now: Arrangement) -> bool:
    """Whether a new entry simply comes last: nothing that was decided before can change through it."""
    if node.alternative_of or node.covers or node.lamport <= graph.youngest:
        return False
    if node.answers and (node.answers not in now.visible or node.frame is not None):
        return False
    after_all = set(node.parents) == set(now.tips) and len(node.parents) == len(now.tips)
    if (not after_all or (graph.has_loose_results and _shows_rivals(graph, now))) and (
        not node.answers or is_loose(node)
    ):
        return False
    if len(node.parents) > 1 and now.hidden_by:  # where rivals were joined, another one is said to have hidden it
        return False
    if node.lamport > max((graph.sound[parent].lamport for parent in node.parents), default=0) + REACH:
        return False
    if decisions.groups_naming(node.id) or node.id in graph.awaited:
        return False
    if node.frame is not None:
        base = node.frame.base[0] if node.frame.base else None
        if base != now.generation or [entry for entry, _ in node.frame.appended] != now.tail:
            return False
        if not _frame_hash_fits(node.frame, graph):
            return False
    return group_of(node, graph.nodes, graph.groups) not in graph.groups


def _shows_rivals(graph: EntryGraph, now: Arrangement) -> bool:
    """Whether several entries that stand for one turn are shown."""
    return any(len(now.visible.intersection(members)) > 1 for _, members in graph.branch_points())


def _frame_hash_fits(frame: Frame, graph: EntryGraph) -> bool:
    base = graph.sound[frame.base[0]].frame if frame.base else None
    return frame.hash == extend_frame_hash(base.hash if base else EMPTY_FRAME, frame.pins)


def append_last(node: Node, graph: EntryGraph, now: Arrangement) -> int | None:
    """Add an entry that ``comes_last`` to the graph and, in place, to the arrangement. Returns how many entries at the
    beginning of the transcript certainly stand as before; None for all of them."""
    graph.add(node)
    now.visible.add(node.id)
    now.tips = (*(tip for tip in now.tips if tip not in node.parents), node.id)
    # Entries that it follows may stand before those of another branch: a run stands together.
    moves = node.answers is not None or (bool(now.tail) and now.tail[-1] not in node.parents)
    steady = max(0, len(now.head) - 1) if node.frame is not None or moves else None
    if node.frame is not None:
        now.pins.update(node.frame.pins)
        now.head += [*now.tail, node.id]
        now.tail = []
        now.generation = node.id
    elif moves:
        now.tail = arrange(now.generation, [*by_age(now.tail, graph.sound), node.id], graph.sound)
    else:
        now.tail.append(node.id)
    return steady


def recount(
    low: Mapping[EntryId, Node], waist: EntryId | None, graph: EntryGraph, decisions: Decisions, then: Arrangement
) -> tuple[Arrangement, int]:
    """Apply the rules to the entries below a waist, ``low``, oldest first, and put what they say in the place of what
    was there. ``then``: the arrangement before, which is used up. Returns the new one, and how many entries at the
    beginning of the transcript certainly stand as before."""
    sound, groups = graph.sound, graph.move(low)
    withheld = withheld_edits(low, decisions.erases, decisions.kept())
    dark = after_withheld(low, withheld)
    lit = low
    if dark:
        lit = {i: node for i, node in low.items() if i not in dark}
        groups = {group: [i for i in members if i in lit] for group, members in groups.items()}
    shown, hidden_by = visible_nodes(lit, groups, decisions.selections(groups))

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
    head, pins, same = then.head_at(latest, sound)
    beneath = [i for i in low if i in shown]
    ends = shown if waist is None else {*shown, waist}
    # If all that is shown below the waist goes on from it, it stands after all that is above.
    goes_on = all(not ends.isdisjoint(sound[i].parents) for i in shown)
    if latest == then.generation and latest not in low and goes_on:
        tail = above[len(head) :] + arrange(None, beneath, sound)
        same = cut
    else:
        framed = {*islice(head, min(same, cut), None)}
        rest = [i for i in (*above[same:], *beneath) if i not in framed]
        tail = arrange(latest, by_age(rest, sound), sound)
    covered = {parent for i in shown for parent in sound[i].parents}
    now = Arrangement(
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
    return now, min(same, cut)
