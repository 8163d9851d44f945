"""The words by which entries are told: what an entry visibly says, as one text. Pure.

Two entries say the same where a client that resends one could mean the other: role, words, calls and the call that a
result answers count. Reasoning, hidden fields, settings, authors and times do not, nor in how many pieces a text came.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...document.blob import Blob
from ...document.canonical import JSON, canonical_json, parse_json
from ...document.entry import Entry, Part, ToolCall, Unknown, part_to_json, visible_text
from ...exceptions import InvalidContent


def said(role: str, parts: Sequence[Part], answers: str | None) -> str | None:
    """The words of an entry as one text; None if it says nothing at all, as settings do. ``answers``:
    the id of the call that it answers."""
    text = visible_text(parts)
    calls = [[part.id, part.name, _arguments(part.arguments)] for part in parts if isinstance(part, ToolCall)]
    other = [part_to_json(part) for part in parts if isinstance(part, (Blob, Unknown)) and not _is_rest(part)]
    if role == "system" and not text and not other:
        return None
    return canonical_json([role, text, calls, other, answers])


def said_by(entry: Entry) -> str | None:
    """The same of an entry of a conversation; a summary says nothing that is not there beside it."""
    return None if entry.covers else said(entry.role, entry.parts, entry.answers[1] if entry.answers else None)


def other_than_text(parts: Sequence[Part]) -> Part | None:
    """A part that a model of texts can't be shown."""
    return next((part for part in parts if isinstance(part, (Blob, Unknown)) and not _is_rest(part)), None)


def _is_rest(part: Part) -> bool:
    """Whether a part is what a format keeps of a message as a whole, beside what it says."""
    return isinstance(part, Unknown) and part.type.endswith("/message")


def _arguments(text: str) -> JSON:
    """Arguments that are the same object are the same, however it was written."""
    try:
        return canonical_json(parse_json(text))
    except InvalidContent:
        return text
