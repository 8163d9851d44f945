"""Replicas of one conversation: how they hear of each other, and what must be the same on all of them."""

from __future__ import annotations

import llmcrdt
from llmcrdt.crdt import registry
from llmcrdt.crdt.backend import Replica
from llmcrdt.crdt.yjs.update import read_state_vector
from llmcrdt.document import schema
from llmcrdt.document.conversation import core_of


def plain_replica() -> Replica:
    """A document of the kind that tests make, for somebody who knows no conversation."""
    return registry.backend(registry.DEFAULT).make_replica(schema.ROOTS)


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


def version_of(conversation: llmcrdt.Conversation) -> dict[int, int] | bytes:
    """How far the replica is; of Yjs by client, for the core writes them in any order."""
    version = conversation.version()
    return version if core_of(conversation).replica.kind == "automerge" else dict(read_state_vector(version))
