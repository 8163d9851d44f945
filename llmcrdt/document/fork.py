"""Fork: a new conversation that begins as another one stood at an entry.

Entries keep their ids, their versions and their frames, so token logs and hidden fields stay valid, and a later reader
can compare the two. The transcript up to the entry is copied, and all that those entries refer to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple

from ..crdt.backend import Other, Replica, Scalar, SharedText
from ..exceptions import InvalidContent, NotSealed
from ..ids import DocumentId, EntryId, is_entry_id
from . import schema
from .acts import Keep, read_act, read_selection
from .canonical import JSON, canonical_json, parse_json
from .encryption import is_encrypted
from .nodes import Node, Selection, by_age
from .view import ConversationView


class Copied(NamedTuple):
    """The fields of an entry that can be copied as they are. ``encrypted``: the names of hidden fields that can't, for
    they are bound to their conversation. ``whole``: whether these are all fields."""

    fields: dict[str, Scalar]
    encrypted: tuple[str, ...]
    whole: bool


def copy_until(view: ConversationView, replica: Replica, entry: EntryId) -> dict[EntryId, Copied]:
    """Every entry that the fork at ``entry`` begins with, oldest first. Raises NotSealed."""
    return {each: _copied(view, replica, each) for each in by_age(until(view, entry), view.order.sound())}


def until(view: ConversationView, entry: EntryId) -> set[EntryId]:
    """The transcript up to an entry of it, and all that those entries refer to."""
    ids = view.ids()
    todo, wanted = ids[: ids.from_end(entry) + 1], set[EntryId]()
    sound = view.order.sound()
    while todo:
        each = todo.pop()
        if each not in wanted:
            wanted.add(each)
            todo += sound[each].references
    return wanted


def copy_acts(view: ConversationView, replica: Replica, entries: Mapping[EntryId, object]) -> dict[str, Scalar]:
    """The selections that lead to a copied entry, and the acts that keep one."""
    found: dict[str, Scalar] = {}
    for key in replica.keys(schema.ACTS):
        text = replica.get(schema.ACTS, key)
        act = read_selection(key, text) or read_act(key, text)
        if isinstance(act, (Selection, Keep)) and act.entry in entries and isinstance(text, str):
            found[key] = text
    return found


def provenance(
    conversation: DocumentId,
    entry: EntryId,
    hash_: str,
    copies: Set[EntryId],
    nodes: Mapping[EntryId, Node],
    left_out: Sequence[tuple[EntryId, str]],
) -> str:
    """The origin of a fork, for ``meta/forked_from``. ``tips``: the copied entries that no other one refers to.
    ``left_out``: hidden fields, by entry and name."""
    referred = {other for each in copies for other in nodes[each].references}
    origin: dict[str, JSON] = {"conversation": conversation, "entry": entry, "transcript": hash_}
    origin["tips"] = sorted(copies - referred)
    if left_out:
        origin["left_out"] = [list(field) for field in left_out]
    return canonical_json(origin)


def copied(view: ConversationView, origin: Mapping[str, JSON]) -> set[EntryId] | None:
    """The entries that a fork began with, some of which may not have arrived; None where its document doesn't say."""
    tips = origin.get("tips")
    if not isinstance(tips, list):
        return None
    sound, found = view.order.sound(), set[EntryId]()
    todo = [EntryId(i) for i in tips if is_entry_id(i)]
    while todo:
        each = todo.pop()
        if each not in found:
            found.add(each)
            todo += sound[each].references if each in sound else ()
    return found


def origin_of(replica: Replica) -> Mapping[str, JSON] | None:
    """The origin of a fork, as its document says; None for any other conversation."""
    try:
        value = parse_json(replica.get(schema.META, "forked_from"))
    except InvalidContent:
        return None
    return value if isinstance(value, dict) else None


def left_out_of(replica: Replica) -> list[tuple[EntryId, str]]:
    """The hidden fields that a fork says it could not take along, by entry and name."""
    found = (origin_of(replica) or {}).get("left_out")
    pairs = [tuple(pair) for pair in found if isinstance(pair, list)] if isinstance(found, list) else []
    return [(EntryId(pair[0]), pair[1]) for pair in pairs if len(pair) == 2 and all(isinstance(i, str) for i in pair)]


def _copied(view: ConversationView, replica: Replica, entry: EntryId) -> Copied:
    if view.only_version(entry) is None and not (view.states[entry].versions or view.states[entry].erased):
        raise NotSealed(f"Entry {entry} is still being written.", hint="Wait for it, or call conv.seal(entry).")
    found = replica.node(schema.ENTRIES, entry) or {}
    fields: dict[str, Scalar] = {}
    encrypted: list[str] = []
    for name, value in found.items():
        if isinstance(value, (SharedText, Other)):  # a stranger's; only an erase mark counts whatever it holds
            if name.startswith("erased:"):
                fields[name] = b""
        elif name.startswith("hidden:") and is_encrypted(value):
            encrypted.append(name.removeprefix("hidden:"))
        else:
            fields[name] = value
    return Copied(fields, tuple(sorted(encrypted)), all(fields.get(name) is found[name] for name in found))
