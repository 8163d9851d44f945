"""Erase (O7): removes the words of an entry, here and whenever a merge brings them back.

An erase takes every version, live text and hidden field of the entry, the alternatives of the same content, and the
token logs of every generation that was computed on it: token ids spell the words. The entry's place and the hashes of
its versions stay, so frames can still be checked. Other entries that hold the words are listed, and stay.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

from ..crdt.backend import Edit, Replica
from ..ids import DocumentId, EntryId
from . import schema
from .blob import Blob
from .canonical import canonical_json
from .entry import TOKENS, Part, Reasoning, Text, ToolCall, ToolResult, part_to_json, visible_text
from .entry_fields import write_erased
from .entry_state import EntryState
from .nodes import Node
from .order import Order
from .view import ConversationView

CONTENT = ("version:", "live:", "hidden:")
_TOKENS_FIELD = f"hidden:{TOKENS}"
HeldHere = Literal["alternative", "summary", "entry"]


class Held(NamedTuple):
    """An entry that still holds words of an erased one. ``kind``: "alternative", one that stands for the same turn;
    "summary", one that covers it, whatever its words; "entry", any other one of the conversation; "copy", the same
    entry in another ``conversation``, as a fork has it."""

    conversation: DocumentId
    entry: EntryId
    kind: HeldHere | Literal["copy"]


@dataclass(frozen=True)
class Erased:
    """The result of ``conv.erase``. ``entries``: all that it erased, oldest first."""

    entries: tuple[EntryId, ...]
    _find_holders: Callable[[], Sequence[Held]] = field(repr=False, compare=False)

    @cached_property
    def still_held(self) -> tuple[Held, ...]:
        """The entries that still hold the words, as of the first time that this is asked; it reads the whole
        conversation. ``conv.erase(entry, also=...)`` takes entries of this list that are of the same conversation."""
        return tuple(self._find_holders())


def holding(order: Order, erased: Set[EntryId]) -> dict[EntryId, set[EntryId]]:
    """Generations whose frame holds an erased entry, and which of them it holds. Costs what stands after those."""
    found: dict[EntryId, set[EntryId]] = {}
    sound = order.sound()
    todo, after = {entry for entry in erased if entry in sound}, list[Node]()
    for node in reversed([*sound.values()]):  # what a frame holds comes before it
        if not todo:
            break
        todo.discard(node.id)
        after.append(node)
    for node in reversed(after):
        if node.frame is None:
            continue
        held = {entry for entry, _ in node.frame.pins if entry in erased}
        if node.frame.base:
            held |= found.get(node.frame.base[0], set())
        if held:
            found[node.id] = held
    return found


def with_copies(view: ConversationView, entry: EntryId) -> set[EntryId]:
    """The entry, and its alternatives of the same content."""
    said = _contents(view.states[entry])
    members = view.order.members(entry)
    return {entry, *(i for i in members if any(parts in said for parts in _contents(view.states[i])))}


def words_of(view: ConversationView, entries: Iterable[EntryId]) -> set[str]:
    """The words of entries, as ``holders`` looks for them. Signs alone are no words."""
    words = {word for entry in entries for word in _words(view.states[entry])}
    return {word for word in words if any(map(str.isalnum, word))}


def holders(view: ConversationView, erased: Collection[EntryId], words: Set[str]) -> Iterator[tuple[EntryId, HeldHere]]:
    """The entries that still hold words of erased ones, oldest first. A summary of them may say them in other words."""
    alternatives = {i for entry in erased for i in view.order.members(entry)}
    for node in sorted(view.order.sound().values(), key=lambda node: node.age):
        if node.id in view.erased:
            continue
        if node.covers and not set(view.order.frame_list(node.covers)[0]).isdisjoint(erased):
            yield node.id, "summary"
        elif any(word in text for text in _words(view.states[node.id]) for word in words):
            yield node.id, "alternative" if node.id in alternatives else "entry"


def erase(
    view: ConversationView, replica: Replica, edit: Edit, entries: set[EntryId], *, session: str, lamport: int
) -> None:
    """Write the erase of some entries, and remove what it takes."""
    for entry in sorted(entries):
        state, mark = view.states[entry], f"erased:{session}"
        if mark in (replica.node(schema.ENTRIES, entry) or ()):
            continue  # written over, the mark would be gone for a while where only half of that has arrived
        hashes = [*(version.hash for version in state.versions), *(state.erased or ())]
        seen = view.order.made_of(entry) - entries
        edit.put_field(schema.ENTRIES, entry, mark, write_erased(lamport, set(hashes), seen))
    _clean(view, replica, edit, entries, entries)


def clean(view: ConversationView, replica: Replica, edit: Edit) -> None:
    """Remove what stands beside an erase: content of erased entries, and token logs of frames that hold one."""
    _clean(view, replica, edit, view.erased, {entry for entry in view.erased if _has_words(view, replica, entry)})


def _clean(
    view: ConversationView, replica: Replica, edit: Edit, erased: Set[EntryId], dirty: Collection[EntryId]
) -> None:
    for entry in sorted(dirty):
        edit.erase_fields(schema.ENTRIES, entry, CONTENT)
    for entry, held in sorted(holding(view.order, erased).items()):
        if _tells_of(view, replica, entry, held):
            edit.erase_fields(schema.ENTRIES, entry, [_TOKENS_FIELD])


def _has_words(view: ConversationView, replica: Replica, entry: EntryId) -> bool:
    """Whether an erased entry still has content, or had some that is in the document's bytes."""
    return view.states[entry].leftover or replica.keeps_deleted(schema.ENTRIES, entry, CONTENT)


def is_clean(view: ConversationView, replica: Replica) -> bool:
    """Whether nothing stands beside an erase, of what was read since somebody asked last. Costs what that concerns."""
    read, view.read_since_clean = view.read_since_clean, set()
    if read is None:
        erased, generations = view.erased, set[EntryId]()
    else:
        sound = view.order.sound()
        view.read_since_clean.update(i for i in read if i not in sound)  # it may take part later
        erased, generations = view.erased & read, {i for i in read if i in sound} if view.erased else set()
    if any(_has_words(view, replica, entry) for entry in erased):
        return False
    holders = {**holding(view.order, erased)} if erased else {}
    for entry in generations:
        if held := _held_by(view, replica, entry):
            holders[entry] = held
    return not any(_tells_of(view, replica, entry, held) for entry, held in holders.items())


def _held_by(view: ConversationView, replica: Replica, entry: EntryId) -> set[EntryId]:
    """The erased entries in the frame of one with a token log."""
    sound, held = view.order.sound(), set[EntryId]()
    if _TOKENS_FIELD in (replica.node(schema.ENTRIES, entry) or ()):
        frame = sound[entry].frame
        while frame is not None:
            held.update(i for i, _ in frame.pins if i in view.erased)
            frame = sound[frame.base[0]].frame if frame.base else None
    return held


def _tells_of(view: ConversationView, replica: Replica, entry: EntryId, held: Set[EntryId]) -> bool:
    """Whether a generation has a token log with words of erased entries, all of which its frame holds."""
    has_log = _TOKENS_FIELD in (replica.node(schema.ENTRIES, entry) or ())
    return has_log and not held <= _known_erased(view.states[entry])


def _known_erased(state: EntryState) -> set[str]:
    """Entries that were erased before this generation's prompt was made: their words are not in its log."""
    field = state.hidden.get(TOKENS)
    binding: Mapping[str, object] = field.binding if field else {}
    names = binding.get("erased")
    return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()


def _contents(state: EntryState) -> list[tuple[Part, ...]]:
    """The parts of an entry in each version, and as it grows; without those that say nothing."""
    found = [*(version.parts for version in state.versions), state.live]
    return [parts for parts in found if any(map(_spelled, parts))]


def _words(state: EntryState) -> Iterator[str]:
    """Everything that an entry says, piece by piece and as people read it; upper case and white space don't count."""
    for parts in _contents(state):
        for text in (visible_text(parts), *map(_spelled, parts)):
            if text:
                yield " ".join(text.casefold().split())


def _spelled(part: Part) -> str:
    match part:
        case Text() | Reasoning() | ToolResult():
            return part.text
        case ToolCall():
            return part.arguments
        case Blob():
            return part.hash
        case _:
            return canonical_json(part_to_json(part))
