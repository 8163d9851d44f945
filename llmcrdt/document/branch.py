"""The list that ends with an entry, shown or not: all that its author had before it, and itself. Pure.

The list of a generated entry is its frame. Any other entry was written on its parents: its list begins with the latest
generation among all that it follows, and that one's frame; the rest stands after it by age, as in a transcript (O3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..ids import ContentHash, EntryId
from .nodes import Node, by_age, frame_list


def branch_to(
    ends: Iterable[EntryId], sound: Mapping[EntryId, Node]
) -> tuple[list[EntryId], dict[EntryId, ContentHash], int | None]:
    """The list that ends with sound entries (several where none of them was written on the others, as results of calls
    made at once): its ids, the versions that frames in it pin, and the place of the latest generation in it, which
    everything before it is the frame of."""
    todo = list(ends)
    followed, generations = set(todo), list[EntryId]()
    while todo:
        node = sound[todo.pop()]
        if node.frame is not None:
            generations.append(node.id)
            continue
        new = [each for each in node.follows if each not in followed]
        followed.update(new)
        todo += new
    if not generations:
        return by_age(followed, sound), {}, None
    base = by_age(generations, sound)[-1]
    before, pins = frame_list(sound[base].frame, sound)
    rest = followed.difference(before)
    for other in generations:
        if other != base:
            more, more_pins = frame_list(sound[other].frame, sound)
            rest.update(each for each in more if each not in pins)
            pins = {**more_pins, **pins}
    rest -= {base, *before}
    return [*before, base, *by_age(rest, sound)], pins, len(before)
