"""StatusLine: how the relay is reached, who else is here, and the tokens of the last prompt."""

from __future__ import annotations

from textual.widgets import Static

from ..document.conversation import Conversation
from ..exceptions import LLMCRDTError
from ..sync.link import Link
from ..terminal_text import safe


class StatusLine(Static):
    """One line at the bottom."""

    def __init__(self) -> None:
        super().__init__(id="status", markup=False)

    def show(self, link: Link | None, conversation: Conversation | None, note: str) -> None:
        """This is how things stand."""
        parts = ["no relay"]
        if link is not None:
            progress = link.progress
            waiting = progress.of_sent - progress.sent
            parts = [link.state + (f", {waiting} to send" if waiting else "")]
        if conversation is not None:
            parts += _others(conversation)
        self.update(" │ ".join([*parts, note] if note else parts))


def _others(conversation: Conversation) -> list[str]:
    try:
        present = conversation.presence()
    except LLMCRDTError:  # it was deleted a moment ago
        return []
    found = []
    for other in present:
        does = f" answers with {safe(other.generating)}" if other.generating else ""
        found.append((safe(other.author) or "somebody") + (" is writing" if other.typing else does))
    return found
