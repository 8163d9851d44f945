"""Erase (O7): what has to go where an entry is erased, here and whenever a merge brings it back.

An erase takes every version, live text and hidden field of the entry, the alternatives that hold its words, and the
token logs of every generation that was computed on it: token ids spell the words. The entry's place and the hashes of
its versions stay, so frames can still be checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set

from ..crdt.backend import Edit, Replica
from ..ids import EntryId
from . import schema
from .blob import Blob
from .entry import TOKENS, Reasoning, Text, ToolCall, ToolResult
from .order import Order
from .view import ConversationView, EntryState

CONTENT = ("version:", "live:", "hidden:")


def holding(order: Order, erased: Set[EntryId]) -> dict[EntryId, set[EntryId]]:
    """Generations whose frame holds an erased entry, and which of them it holds."""
    found: dict[EntryId, set[EntryId]] = {}
    for node in order.sound().values():  # oldest first: a frame's base comes before it
        if node.frame is None:
            continue
        held = {entry for entry, _ in node.frame.pins if entry in erased}
        if node.frame.base:
            held |= found.get(node.frame.base[0], set())
        if held:
            found[node.id] = held
    return found


def with_copies(doc: ConversationView, entry: EntryId) -> set[EntryId]:
    """The entry, and the alternatives made of it, or it of them, that hold its words whole."""
    words = list(_words(doc.readable[entry]))
    sound = doc.order.sound()
    found = {entry}
    for other in doc.order.members(entry):
        linked = sound[other].alternative_of is not None or sound[entry].alternative_of is not None
        if other != entry and linked and any(w and w in o for w in words for o in _words(doc.readable[other])):
            found.add(other)
    return found


def erase(
    doc: ConversationView, replica: Replica, edit: Edit, entries: set[EntryId], *, session: str, lamport: int
) -> None:
    """Write the erase of some entries, and remove what it takes."""
    for entry in sorted(entries):
        readable, mark = doc.readable[entry], f"erased:{session}"
        if mark in (replica.node(schema.ENTRIES, entry) or ()):
            continue  # written over, the mark would be gone for a while where only half of that has arrived
        hashes = [*(version.hash for version in readable.versions), *(readable.erased or ())]
        edit.put_field(schema.ENTRIES, entry, mark, schema.write_erased(lamport, set(hashes)))
    clean(doc, replica, edit, entries)


def clean(doc: ConversationView, replica: Replica, edit: Edit, more: Set[EntryId] = frozenset()) -> None:
    """Remove whatever stands beside an erase, and the token logs of frames that hold one."""
    erased = doc.erased | more
    for entry in sorted(erased):
        for name in list(replica.node(schema.ENTRIES, entry) or ()):
            if name.startswith(CONTENT):
                edit.delete_field(schema.ENTRIES, entry, name)
    for entry, held in sorted(holding(doc.order, erased).items()):
        if not held <= _known_erased(doc.readable[entry]):
            edit.delete_field(schema.ENTRIES, entry, f"hidden:{TOKENS}")


def is_clean(doc: ConversationView) -> bool:
    """Whether nothing stands beside an erase."""
    if not doc.erased:
        return True
    if any(doc.readable[entry].leftover for entry in doc.erased):
        return False
    return all(
        TOKENS not in doc.readable[entry].hidden or held <= _known_erased(doc.readable[entry])
        for entry, held in holding(doc.order, doc.erased).items()
    )


def _known_erased(readable: EntryState) -> set[str]:
    """Entries that were erased before this generation's prompt was made: their words are not in its log."""
    field = readable.hidden.get(TOKENS)
    binding: Mapping[str, object] = field.binding if field else {}
    names = binding.get("erased")
    return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()


def _words(readable: EntryState) -> Iterator[str]:
    for parts in (*(version.parts for version in readable.versions), readable.live):
        for part in parts:
            if isinstance(part, (Text, Reasoning, ToolResult)):
                yield part.text
            elif isinstance(part, ToolCall):
                yield part.arguments
            elif isinstance(part, Blob):
                yield part.hash
