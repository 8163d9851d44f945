"""The tokens of each entry in the next prompt, and how many of them need no evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..document.conversation import Conversation
from ..engine.base import Engine
from ..ids import EntryId
from ..prompt.token_log import prompt_ids, sources
from .plan import basis


@dataclass(frozen=True)
class Covered:
    """One stretch of the next prompt. ``entry``: None for the template's own tokens. ``cached``: how many of its
    ``tokens`` have KV state at hand."""

    entry: EntryId | None
    tokens: int
    cached: int


def coverage(conversation: Conversation, engine: Engine) -> Sequence[Covered]:
    """The next prompt, stretch by stretch. Nothing is computed or written. Raises TemplateFailed."""
    _, entries, _ = basis(conversation, None, beside_unfinished=True)
    prompt = prompt_ids(entries, engine.tokenizer, created_at=conversation.created_at)
    reused = engine.plan(prompt.ids).reused
    return [
        Covered(entry, stop - start, max(0, min(stop, reused) - start))
        for entry, start, stop in sources(prompt, entries, engine.tokenizer)
    ]
