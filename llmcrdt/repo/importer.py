"""Conversations from elsewhere become ours: one update, so that all of it is kept or none."""

from __future__ import annotations

from ..document.conversation import Conversation
from ..document.entry import Entry, ToolCall
from ..exceptions import FormatError
from ..interop import openai_chat
from .repo import Repo


def import_openai_chat(repo: Repo, text: str, *, title: str | None = None, default_title: str = "") -> Conversation:
    """Make a conversation from OpenAI chat-completions JSON. ``title`` wins over the file's own, that over the default.

    An assistant's turn gets the frame of all before it, marked ``assumed``: nobody knows what was really sent. Raises
    FormatError, and makes nothing.
    """
    value = openai_chat.parse(text)
    drafts = openai_chat.read(value)
    if not drafts:
        raise FormatError("There is no message in it.", hint='Give {"messages": [...]} with at least one.')
    name = title if title is not None else openai_chat.title_of(value) or default_title
    return repo.create(name, fill=lambda conversation: _append(conversation, drafts))


def _append(conversation: Conversation, drafts: list[openai_chat.Draft]) -> None:
    made: list[Entry] = []
    for draft in drafts:
        # A call of a kind we don't know is no ToolCall, and may be answered all the same.
        call = ToolCall(draft.answers[1], "", "", entry=made[draft.answers[0]].id) if draft.answers else None
        generated = draft.role == "assistant"
        made.append(
            conversation.append(
                draft.role,
                draft.parts,
                call=call,
                frame=conversation.transcript() if generated else None,
                assumed=generated,
                hidden=draft.hidden,
                author=draft.author,
            )
        )
