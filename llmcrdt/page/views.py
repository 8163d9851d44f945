"""Conversations, entries and asks as the JSON that the page shows. Reads only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..document.ask import Ask
from ..document.binding import FieldReport, own_report
from ..document.blob import Blob
from ..document.conversation import Conversation
from ..document.entry import (
    Config,
    Entry,
    HiddenField,
    Part,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    part_to_json,
)
from ..document.transcript import Elsewhere
from ..exceptions import CannotOpen
from ..ids import EntryId
from .markdown import to_html

JSONObject = dict[str, Any]
LONGEST_WORDS = 80
"""Characters of an entry where only its beginning is shown."""
PICTURES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "image/avif"})
"""Media types that are shown as pictures: such as hold no script."""
_MARKS = re.compile(r"^[#>]+ |[*`]+|^-+ ", re.MULTILINE)  # of Markdown
PENDING = frozenset({"waiting", "taken", "streaming", "failed", "outdated"})
"""States of an ask that the page tells of."""


def first_words(entry: Entry) -> str:
    """The beginning of what an entry says, on one line."""
    words = " ".join(_MARKS.sub("", (entry.text or entry.reasoning)[: LONGEST_WORDS * 4]).split())
    if not words and entry.tool_calls:
        words = f"{entry.tool_calls[0].name}({entry.tool_calls[0].arguments})"
    if not words:
        words = next((f"[{part.name or part.media_type}]" for part in entry.parts if isinstance(part, Blob)), "")
    return words if len(words) <= LONGEST_WORDS else words[: LONGEST_WORDS - 1] + "…"


def part_json(part: Part) -> JSONObject:
    """One part, ready to be shown."""
    match part:
        case Text(text):
            return {"type": "text", "text": text, "html": to_html(text)}
        case Reasoning(text):
            return {"type": "reasoning", "text": text}
        case ToolCall():
            return {"type": "tool_call", "name": part.name, "arguments": part.arguments, "call": part.id}
        case ToolResult(text, error):
            return {"type": "tool_result", "text": text, "error": error}
        case Blob():
            return {
                "type": "blob",
                "hash": part.hash,
                "name": part.name,
                "media_type": part.media_type,
                "size": part.size,
                "picture": part.media_type in PICTURES,
                "here": part.present,
            }
        case Config(values):
            return {"type": "config", "json": dict(values)}
    return {"type": "other", "json": part_to_json(part)}


def turn_json(conversation: Conversation, entry: Entry) -> JSONObject:
    """One entry as a turn of the page, with its place among its alternatives."""
    alternatives = conversation.alternatives(entry)
    place = next((index for index, other in enumerate(alternatives) if other.id == entry.id), 0)
    return {
        "id": entry.id,
        "role": entry.role,
        "author": entry.author,
        "status": entry.status,
        "created_at": entry.created_at,
        "sync": entry.sync,
        "parts": [part_json(part) for part in entry.parts],
        "alternatives": [other.id for other in alternatives] if len(alternatives) > 1 else [],
        "place": place,
        "generated": entry.frame is not None,
        "summary": entry.covers is not None,
        "hidden": len(entry.hidden) + len(entry.missing),
        "model": _model_name(entry),
    }


def _model_name(entry: Entry) -> str:
    named = entry.model.get("name") or entry.model.get("model")
    return named if isinstance(named, str) else ""


def elsewhere_json(other: Elsewhere) -> JSONObject:
    """One entry that is not shown, and why."""
    entry = other.entry
    return {
        "id": entry.id,
        "role": entry.role,
        "author": entry.author,
        "created_at": entry.created_at,
        "words": first_words(entry),
        "way": other.way,
        "hidden_by": other.hidden_by,
        "unseen": other.unseen,
    }


def ask_json(ask: Ask) -> JSONObject:
    """One ask, and how far it has come."""
    status = ask.status()
    return {
        "id": ask.id,
        "state": status.state,
        "model": ask.model,
        "answer": status.answer.id if status.answer else None,
        "code": status.code,
        "text": status.text,
        "asked_at": ask.asked_at,
    }


def detail_json(conversation: Conversation, entry: Entry) -> JSONObject:
    """All that is known of one entry: its frame, hidden fields, alternatives, tokens, and the whole as JSON."""
    frame = entry.frame
    return {
        "id": entry.id,
        "hash": entry.hash,
        "session": entry.session,
        "lamport": entry.lamport,
        "parents": list(entry.parents),
        "answers": list(entry.answers) if entry.answers else None,
        "frame": None
        if frame is None
        else {
            "hash": frame.hash,
            "assumed": frame.assumed,
            "partial": frame.partial,
            "renderer": frame.renderer,
            "entries": [
                {"id": each.id, "role": each.role, "words": first_words(each)} for each in _frame(conversation, entry)
            ],
        },
        "model": dict(entry.model),
        "usage": dict(entry.usage),
        "hidden": [
            _hidden_json(name, field, own_report(conversation.hidden_report, entry, name))
            for name, field in sorted(entry.hidden.items())
        ],
        "missing": list(entry.missing),
        "alternatives": [
            {"id": each.id, "author": each.author, "words": first_words(each), "created_at": each.created_at}
            for each in conversation.alternatives(entry)
        ],
        "json": [part_to_json(part) for part in entry.parts],
    }


def _frame(conversation: Conversation, entry: Entry) -> Sequence[Entry]:
    return conversation.frame_entries(entry)[-50:]


def _hidden_json(name: str, field: HiddenField, report: FieldReport | None) -> JSONObject:
    try:
        size: int | None = len(field.data)
    except CannotOpen:
        size = None
    return {
        "name": name,
        "size": size,
        "sealed": field.sealed,
        "locked": field.locked,
        "binding": dict(field.binding),
        "holds": None if report is None else report.sent,
        "why": "" if report is None or report.sent else report.why,
        "by": None if report is None else report.by,
    }


def tree_json(conversation: Conversation, last: int) -> JSONObject:
    """The youngest entries, shown or not, with their parents: what the tree of branches is drawn from."""
    transcript = conversation.transcript()
    shown = list(transcript[-last:])
    others = [other for other in transcript.elsewhere[-last:] if other.way == "replaced"]
    nodes = [_node(entry, True) for entry in shown] + [_node(other.entry, False) for other in others]
    return {
        "nodes": nodes,
        "left_out": len(transcript) + len(transcript.elsewhere) - len(nodes),
        "tips": list(transcript.tips),
    }


def _node(entry: Entry, shown: bool) -> JSONObject:
    return {
        "id": entry.id,
        "role": entry.role,
        "words": first_words(entry),
        "parents": list(entry.parents),
        "alternative_of": entry.alternative_of,
        "lamport": entry.lamport,
        "shown": shown,
    }


def window_json(conversation: Conversation, last: int, before: EntryId | None = None) -> JSONObject:
    """A page of the transcript, with what is going on."""
    entries = conversation.entries(last=last + 1, before=before)
    more = len(entries) > last
    entries = entries[1:] if more else entries
    return {
        "id": conversation.id,
        "title": conversation.title,
        "forked_from": (conversation.forked_from or {}).get("conversation"),
        "turns": [turn_json(conversation, entry) for entry in entries],
        "more": more,
        "asks": [ask_json(ask) for ask in conversation.asks()[-20:] if ask.state in PENDING],
        "present": [
            {"author": other.author, "typing": other.typing, "generating": other.generating}
            for other in conversation.presence()
        ],
        "unsealed": [entry.id for entry in conversation.unsealed()],
    }
