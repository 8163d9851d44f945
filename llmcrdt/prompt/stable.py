"""The tokens that the next prompt will begin with, whatever is said next. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from typing import NamedTuple

from ..document.entry import Entry, Text
from ..exceptions import TemplateFailed
from ..ids import ContentHash, EntryId
from ..tokenizer import Tokenizer
from .token_log import entry_ends, prompt_ids

_SOMETHING = Text("Qzj: anything at all")


class Prefix(NamedTuple):
    """Ids that a prompt begins with, and after how many of them an entry ends, ascending (``entry_ends``)."""

    ids: tuple[int, ...]
    marks: tuple[int, ...]


def stable_prefix(entries: Sequence[Entry], tokenizer: Tokenizer, *, created_at: float, use_log: bool = True) -> Prefix:
    """The tokens that two prompts share: the one for an answer now, and the one after a user has said something more.

    As ``prompt_ids``: ``entries`` are a whole transcript in order. Empty where there are none. Raises TemplateFailed.
    """
    if not entries:
        return Prefix((), ())
    now = prompt_ids(entries, tokenizer, created_at=created_at, use_log=use_log)
    said = replace(
        entries[-1], id=EntryId("~"), role="user", parts=(_SOMETHING,), status="complete", hash=ContentHash("~"),
        frame=None, covers=None, answers=None, alternative_of=None, hidden={}, model={}, usage={},
    )  # fmt: skip
    try:
        later = prompt_ids([*entries, said], tokenizer, created_at=created_at, use_log=use_log).ids
    except TemplateFailed:
        later = now.ids
    ids = tuple(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(now.ids, later, strict=False)))
    return Prefix(ids, tuple(mark for mark in entry_ends(now, entries, tokenizer) if mark <= len(ids)))
