"""Leftovers: entries that somebody began to write and does not end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..document.conversation import Conversation
from ..exceptions import LLMCRDTError
from ..ids import DocumentId, EntryId

logger = logging.getLogger("llmcrdt.serve")

UNCHANGED = 20
"""Times the patience: so long whoever says that they are at work, and shows nothing, counts as living."""


@dataclass
class _Unfinished:
    """Entries of a conversation that others are writing, as far as they have come, and since when."""

    conversation: Conversation
    grown: tuple[tuple[EntryId, str], ...]
    since: float


class Leftovers:
    """Of the conversations that were noted. ``patience``: seconds without a word after which a writer is considered
    dead. Belongs to the worker's thread."""

    def __init__(self, patience: float, clock: Callable[[], float]) -> None:
        self._patience, self._clock = patience, clock
        self._found: dict[DocumentId, _Unfinished] = {}

    def note(self, conversation: Conversation) -> None:
        """Look at what others are writing there."""
        grown = tuple((entry.id, entry.text) for entry in conversation.unsealed())
        before = self._found.get(conversation.id)
        if not grown:
            self._found.pop(conversation.id, None)
        elif before is None or before.grown != grown:
            self._found[conversation.id] = _Unfinished(conversation, grown, self._clock())

    def end(self, conversations: Iterable[Conversation]) -> None:
        """Seal as stopped what nobody writes any more, there and where something was found before. If its writer lives
        after all, its own seal is another version."""
        found = {each.id: each for each in conversations} | {id: each.conversation for id, each in self._found.items()}
        for id, conversation in found.items():
            try:
                self.note(conversation)
                each = self._found.get(id)
                if each is not None and self._clock() - each.since > self._patience * _longer(each):
                    for entry, _ in each.grown:
                        conversation.seal(entry)
            except LLMCRDTError as error:  # deleted or sealed meanwhile
                logger.info("%s: %s", id, error)
                self._found.pop(id, None)


def _longer(unfinished: _Unfinished) -> int:
    """How many times the patience it gets: more where somebody says that they write it."""
    conversation = unfinished.conversation
    writers = {conversation.entry(entry).session for entry, _ in unfinished.grown}
    present = conversation.presence()
    return UNCHANGED if any(each.generating or each.state.get("worker") in writers for each in present) else 1
