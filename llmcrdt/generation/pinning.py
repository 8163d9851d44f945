"""Conversations whose KV state stays in the cache, however long nobody asks."""

from __future__ import annotations

from ..document.conversation import Conversation, core_of
from ..engine.base import Engine
from ..prompt.stable import stable_prefix
from ..repo.kv_caches import forget_erased


def pin(conversation: Conversation, engine: Engine) -> None:
    """Keep what the next prompt of ``conversation`` begins with, as of now: it is not evicted, in memory and on disk,
    until ``unpin``; what of it is not stored yet is evaluated in the background. A later call pins what is there then.

    It counts against the budgets: pins as large as one leave room for nothing else. Raises EngineError where the cache
    can't keep it, ContextOverflow where it is too long.
    """
    entries = [entry for entry in conversation.transcript() if entry.sealed]
    ids, marks = stable_prefix(entries, engine.tokenizer, created_at=conversation.created_at)
    core_of(conversation).host.note_engine(engine)
    try:
        engine.pin(ids, owner=conversation.id, marks=marks)
    finally:
        forget_erased(conversation, engine, entries)


def unpin(conversation: Conversation, engine: Engine) -> None:
    """End the pin: its state may be evicted again. Harmless where nothing is pinned."""
    engine.unpin(conversation.id)
