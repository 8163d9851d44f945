"""What the next prompt will begin with, whatever is said next. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

from ..document.entry import Entry, Text
from ..exceptions import TemplateFailed
from ..ids import ContentHash, EntryId
from .token_log import prompt_ids
from .tokenizer import Tokenizer

_SOMETHING = Text("Qzj: anything at all")


def stable_prefix(entries: Sequence[Entry], tokenizer: Tokenizer, *, created_at: float) -> tuple[int, ...]:
    """The ids that two prompts share: the one for an answer now, and the one after a user has said something more.

    As ``prompt_ids``: ``entries`` are a whole transcript in order. Empty where there are none. Raises TemplateFailed.
    """
    if not entries:
        return ()
    now = prompt_ids(entries, tokenizer, created_at=created_at).ids
    said = replace(
        entries[-1], id=EntryId("~"), role="user", parts=(_SOMETHING,), status="complete", hash=ContentHash("~"),
        frame=None, covers=None, answers=None, alternative_of=None, hidden={}, model={}, usage={},
    )  # fmt: skip
    try:
        later = prompt_ids([*entries, said], tokenizer, created_at=created_at).ids
    except TemplateFailed:
        return now
    return tuple(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(now, later, strict=False)))
