"""Replicas of one conversation: how they hear of each other, and what must be the same on all of them."""

from __future__ import annotations

import llmcrdt
from llmcrdt.crdt.yjs.update import read_state_vector


def exchange(*conversations: llmcrdt.Conversation) -> None:
    """Each hears what the others have."""
    for a in conversations:
        for b in conversations:
            if a is not b:
                a.apply(b.diff(since=a.version()))


def stands(conversation: llmcrdt.Conversation) -> tuple[object, ...]:
    """The transcript, and all that it says of what is not in it."""
    t = conversation.transcript()
    elsewhere = {(e.entry.id, e.hidden_by, e.unseen, e.way) for e in t.elsewhere}
    return t.ids, t.hash, dict(t.malformed), elsewhere, t.elsewhere_hash


def version_of(conversation: llmcrdt.Conversation) -> dict[int, int]:
    """How far the replica is, by client: the core writes them in any order."""
    return dict(read_state_vector(conversation.version()))
