"""Writes a fork: one conversation up to an entry, copied into another one that is empty."""

from __future__ import annotations

from ..ids import EntryId
from . import schema
from .act_writer import ActWriter
from .core import ConversationCore
from .encryption import EncryptedField
from .entry import Entry
from .entry_fields import hidden_key
from .fork import copy_acts, copy_until, provenance


def copy_conversation(source: ConversationCore, target: ConversationCore, entry: Entry | EntryId) -> None:
    """Write ``source`` up to an entry of its transcript into ``target``, which is empty. Raises EntryNotFound,
    NotSealed."""
    with source.reading():
        view = source.view
        chosen = view.find(entry, shown=True)
        transcript = view.transcript()
        entries = copy_until(view, source.replica, chosen)
        acts = copy_acts(view, source.replica, entries)
        encrypted = {each: _encrypted_anew(source, target, each) for each in entries}
        left_out = [
            (each, name)
            for each in entries
            for name in _encrypted(source, each)
            if hidden_key(name) not in encrypted[each]
        ]
        origin = provenance(source.id, chosen, transcript.hash, entries.keys(), view.order.sound(), left_out)
    with target.editing() as edit:
        edit.put(schema.META, "forked_from", origin)
        for each, fields in entries.items():
            edit.put_node(schema.ENTRIES, each, {**fields, **encrypted[each]}, copied=True)
        for key, text in acts.items():
            edit.put(schema.ACTS, key, text)
    with target.reading():
        shown = chosen in target.view.order.now().visible
    if not shown:  # what was written on it, and so kept it beside a rival, is not in the fork
        ActWriter(target).select(chosen)


def _encrypted_anew(source: ConversationCore, target: ConversationCore, entry: EntryId) -> dict[str, bytes]:
    """The encrypted fields of an entry that open in ``source``, encrypted for its copy in ``target``."""
    return {
        hidden_key(name): field.encrypted_for(target.address(entry, name), target.document.random)
        for name, field in _encrypted(source, entry).items()
        if not field.locked
    }


def _encrypted(source: ConversationCore, entry: EntryId) -> dict[str, EncryptedField]:
    hidden = source.view.states[entry].hidden
    return {name: field for name, field in sorted(hidden.items()) if isinstance(field, EncryptedField)}
