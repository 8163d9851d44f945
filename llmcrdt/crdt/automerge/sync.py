"""Answers in Automerge's sync protocol, from what a document's history says. Nothing of a message reaches the core but
changes, which come another way, and hashes of changes that are here.

The protocol's own peers remember each other. Here nothing is: each answer follows from the question and the document.
So the answer to one question is that to all who ask it, and no document is held for anybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...automerge_sync import (
    NOTHING,
    Have,
    SyncMessage,
    make_filter,
    read_message,
    write_message,
    write_question,
)
from ...exceptions import MalformedFrame, MalformedUpdate
from .core import Core
from .history import History

LOAD_ANEW = b""
"""The answer to somebody whose document holds what was erased: his core can take no change of the history as it is
now."""
_MOST_HEADS = 32
"""Heads of a document above which nobody is told them with each update: some member may make as many as he likes."""
_MOST_WANTED, _MOST_TOLD = 1_024, 16
"""Changes that are asked for by name, in an answer and with each update."""
_MUCH = 3
"""A document is sent as a whole where somebody lacks more than this part of its changes."""


def tell(core: Core) -> bytes:
    """``Backend.mark``: heads, the changes that others wait for, and that all up to the heads is here. So whoever has
    these heads sends what comes after them."""
    history = core.history.all()
    if len(history.heads) > _MOST_HEADS:
        return b""
    heads = sorted(history.heads)
    return write_question(heads, history.wanted(_MOST_TOLD), [Have(heads, NOTHING)])


def answer(core: Core, question: bytes) -> bytes:
    """``Backend.reply``: the changes that somebody lacks, and what is wanted of his. LOAD_ANEW for one who holds the
    history of before an erase."""
    try:
        asked = read_message(question)
    except MalformedFrame as e:
        raise MalformedUpdate(e.message) from None
    history = core.history.all()
    heads = sorted(history.heads)
    news = [hash_ for hash_ in asked.heads if hash_ not in history and not history.waits(hash_)]
    wanted = [*dict.fromkeys((*news, *history.wanted(_MOST_WANTED)))][:_MOST_WANTED]
    if not history.older.keys().isdisjoint(asked.heads):
        return LOAD_ANEW
    with core.guarded("The CRDT core can't tell its changes."):
        if not all(hash_ in history for hash_ in asked.heads):
            return _answer_both_ways(core, history, asked, heads, wanted)
        # All that he has is here, so what he lacks is known without his filter.
        changes = core.doc.get_changes(list(asked.heads))
        if len(changes) * _MUCH > len(history):
            chunks = [bytes(core.doc.save())] if changes else []
        else:
            chunks = [change.raw_bytes for change in changes]
    return write_message(heads, wanted, [Have(heads, NOTHING)], chunks)


def _answer_both_ways(
    core: Core, history: History, asked: SyncMessage, heads: Sequence[bytes], wanted: Sequence[bytes]
) -> bytes:
    """To somebody who has changes that are not here: those that he lacks as far as his filters say, and a filter."""
    said = (*asked.heads, *(hash_ for have in asked.have for hash_ in have.last_sync))
    common = sorted({hash_ for hash_ in said if hash_ in history})
    changes = core.doc.get_changes(common)
    own = Have(common, make_filter([change.hash for change in changes]))
    # His unknown changes may come after others that were written anew. He is shown nothing before his are here: that
    # tells it, keeps what he wrote, and his core could not take ours beside his.
    lacking = [] if core.erasures and not asked.need else _lacking(core, asked, changes)
    return write_message(heads, wanted, [own], lacking)


def _lacking(core: Core, asked: SyncMessage, changes: Sequence[Any]) -> list[bytes]:
    """The changes that no filter holds, and those that follow one of them; and those that are asked for by name."""
    filters = [have.filter for have in asked.have]
    lacked = set[bytes]()
    for change in changes:  # each comes after those that it follows
        if any(dep in lacked for dep in change.deps) or not any(change.hash in each for each in filters):
            lacked.add(change.hash)
    named = set(asked.need) - lacked
    extra = [change.raw_bytes for change in core.doc.get_changes([]) if change.hash in named] if named else []
    return [*extra, *(change.raw_bytes for change in changes if change.hash in lacked)]
