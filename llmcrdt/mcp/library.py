"""All that agents may do with a repo, as functions from plain values to plain values. Knows no protocol.

Hidden fields, reasoning and whatever is erased or withheld are never told. Words of a transcript are told as they are:
an agent that reads them reads what others wrote, and its client should treat them so.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..document.blob import Blob
from ..document.conversation import Conversation
from ..document.entry import Entry
from ..exceptions import EntryNotFound, InvalidContent
from ..repo.repo import Repo

ALL = "all"
LONGEST = 20_000
"""Characters of an entry that are told at once."""
MOST = 200
"""Conversations, entries or hits that are told at once."""


@dataclass(frozen=True)
class ConversationLine:
    """One conversation of the library. ``created_at``: seconds since 1970."""

    id: str
    title: str
    created_at: float
    archived: bool


@dataclass(frozen=True)
class SearchHit:
    """One entry that a search found; the match stands in [ ]."""

    conversation: str
    title: str
    entry: str
    role: str
    snippet: str


@dataclass(frozen=True)
class TranscriptEntry:
    """One entry of a transcript. ``cut``: how many of its characters are left out at the end."""

    id: str
    role: str
    author: str
    created_at: float
    status: str
    text: str
    tool_calls: list[str]
    attachments: list[str]
    cut: int


@dataclass(frozen=True)
class TranscriptPage:
    """Some entries of a conversation, oldest first. ``before`` names those before them; None: there are none."""

    id: str
    title: str
    entries: list[TranscriptEntry]
    before: str | None


class AgentLibrary:
    """A repo as agents see it. ``writable``: ids of the conversations that they may write to; ``"all"``: any, and new
    ones. ``author`` signs what they write."""

    def __init__(self, repo: Repo, *, writable: Collection[str] = (), author: str = "agent") -> None:
        self._repo, self._writable, self._author = repo, frozenset(writable), author

    @property
    def writes(self) -> bool:
        """Whether anything may be written."""
        return bool(self._writable)

    def conversations(self, limit: int, before: str | None) -> list[ConversationLine]:
        """Conversations, youngest first."""
        rows = self._repo.list(_checked(limit), before)
        return [ConversationLine(row.id, row.title, row.created_at, row.archived) for row in rows]

    def search(self, text: str, limit: int) -> list[SearchHit]:
        """Entries that hold all these words, the best first."""
        hits = self._repo.search(text, _checked(limit), wait=5)
        return [SearchHit(hit.conversation, hit.title, hit.entry, hit.role, hit.snippet) for hit in hits]

    def read(self, conversation: str, last: int, before: str | None) -> TranscriptPage:
        """The last entries of a conversation, or those before one of them."""
        found = self._repo.get(conversation)
        wanted = _checked(last)
        entries = found.entries(last=wanted + 1, before=found.entry(before).id if before else None)  # type: ignore[arg-type]
        page = entries[-wanted:]
        more = len(entries) > wanted
        return TranscriptPage(found.id, found.title, [_said(entry) for entry in page], page[0].id if more else None)

    def entry(self, conversation: str, entry: str, start: int) -> TranscriptEntry:
        """One entry that the transcript shows, from one of its characters on."""
        found = self._repo.get(conversation)
        shown = found.entry(entry)  # type: ignore[arg-type]
        if shown.id not in set(found.transcript().ids):
            raise EntryNotFound(f"Entry {entry!r} is not shown.", hint="Read the conversation to see which are.")
        return _said(shown, max(0, start))

    def append(self, conversation: str, text: str) -> TranscriptEntry:
        """Say something at the end of a conversation, as a user. Raises InvalidContent where that is not allowed."""
        found = self._repo.get(conversation)
        self._check(found)
        if not text.strip():
            raise InvalidContent("There is nothing to say.", hint="Give some text.")
        return _said(found.append("user", text, author=self._author))

    def create(self, title: str) -> ConversationLine:
        """A new conversation."""
        if ALL not in self._writable:
            raise InvalidContent(
                "New conversations are not allowed here.", hint='A person allows it: "llmcrdt mcp --write all".'
            )
        made = self._repo.create(title)
        return ConversationLine(made.id, title, made.created_at, False)

    def _check(self, conversation: Conversation) -> None:
        if ALL not in self._writable and conversation.id not in self._writable:
            raise InvalidContent(
                f"Conversation {conversation.id} is read only here.",
                hint=f'A person allows it: "llmcrdt mcp --write {conversation.id}".',
            )


def _checked(limit: int) -> int:
    if not 1 <= limit <= MOST:
        raise InvalidContent(f"{limit} is no number from 1 to {MOST}.", hint="Ask for fewer, and for more afterwards.")
    return limit


def _said(entry: Entry, start: int = 0) -> TranscriptEntry:
    text = entry.text[start : start + LONGEST]
    return TranscriptEntry(
        id=entry.id,
        role=entry.role,
        author=entry.author,
        created_at=entry.created_at,
        status=entry.status,
        text=text,
        tool_calls=[f"{call.name}({call.arguments[:LONGEST]})" for call in entry.tool_calls],
        attachments=[part.name or part.media_type for part in entry.parts if isinstance(part, Blob)],
        cut=max(0, len(entry.text) - start - len(text)),
    )
