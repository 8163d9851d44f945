"""Whole files of chat completions <-> drafts, for whoever has one in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ...document.canonical import JSON
from ...document.entry import Entry
from ..format import Draft, ReadBlob, survey
from ..hiding import restore
from ..json_input import bad, check_json, members_of, parse
from ..native import mapping
from .format import OpenAIChat
from .parts import EXTRA, MEMBER, configs, is_config, role_as_type
from .writing import calls_of, sent_tools, settings_after, whole_of, write_message


def read_text(text: str) -> list[Draft]:
    """The drafts of a JSON file's text. Raises FormatError, with line and column where the text is not JSON."""
    return read(parse(text))


def title_of(value: JSON) -> str | None:
    """The title that a file gives its conversation. Raises FormatError if it is not text."""
    title = value.get("title") if isinstance(value, dict) else None
    if title is not None and not isinstance(title, str):
        raise bad("title", "is not text", "Leave it out, or write it in quotes.")
    return title


def read(value: JSON) -> list[Draft]:
    """The drafts of a conversation, in order.

    Tools and unknown fields of the whole become a config part of the first system entry, or of a system entry of their
    own. Raises FormatError, with the path of the bad value, for what is not such a conversation.
    """
    check_json(value)
    chat = OpenAIChat()
    outline = chat.outline(survey(members_of(value, (MEMBER,))))
    config = {**outline.config, **({EXTRA: outline.extra} if outline.extra else {})}
    return list(chat.drafts(replace(outline, config=config), members_of(value, (MEMBER,))))


def write(drafts: Sequence[Draft | Entry], *, title: str | None = None, bare: bool = False) -> JSON:
    """The JSON that ``read`` made these drafts of; of entries, without their hidden fields. ``bare``: only the list of
    messages, without tools and title."""
    tools: JSON = None
    whole: dict[str, JSON] = {}
    for part in configs(drafts):
        tools = part.values["tools"] if isinstance(part.values.get("tools"), list) else tools
        whole |= mapping(part.values.get(EXTRA))
    out: list[JSON] = []
    for draft in drafts:
        if not is_config(draft):
            message: JSON = write_message(draft, calls_of(draft), lambda blob: None)
            message |= {"tool_call_id": draft.answers[1]} if draft.answers else {}
            if isinstance(draft, Draft):
                (message,) = restore([message], draft.hidden, OpenAIChat().places, role_as_type)
            out.append(message)
    return whole_of(out, title, whole, tools, bare)


def export(
    entries: Iterable[Entry],
    *,
    title: str | None = None,
    bare: bool = False,
    read_blob: ReadBlob = lambda blob: None,
) -> JSON:
    """A transcript as a request that is valid, whatever was merged. ``bare``: only the list of messages, without tools
    and title. No hidden field goes out; ``interop.export`` sends those that hold.

    Every call gets one result, right after it, as in prompts (``document/repairs.py``); results that can't stand as one
    become messages of the user's. Calls that a crash left without a name are left out, and so are bindings and
    branches, for which OpenAI's format has no place, and unsealed and erased entries. Otherwise it is the JSON that an
    imported conversation was made of.

    ``read_blob`` gives the content of an attachment, None where it is missing. A user's picture becomes a data: URI;
    any other attachment, and one that is missing, becomes a note about it.
    """
    chat = OpenAIChat()
    kept = [replace(entry, hidden={}) if entry.hidden else entry for entry in entries]
    tools, whole = settings_after(kept)
    messages = chat.messages(kept, read_blob)
    return whole_of(messages, title, whole, sent_tools(tools)[0] or None, bare)
