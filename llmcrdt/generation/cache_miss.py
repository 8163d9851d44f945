"""Why a prompt can't reuse all of the last generation's: the first token that differs, whose it is, and the cause."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from ..document.conversation import Conversation
from ..document.entry import TOKENS, Entry
from ..engine.base import Missing
from ..ids import EntryId
from ..prompt.generation_log import logged_generations
from ..prompt.messages import settings
from ..prompt.token_log import Prompt, sources
from ..tokenizer import Tokenizer

_LOOK = 32  # tokens

Cause = Literal[
    "first",
    "extends",
    "edited",
    "other branch",
    "order",
    "tools",
    "date",
    "settings",
    "reasoning",
    "retokenized",
    "rendered",
]


@dataclass(frozen=True)
class CacheMiss:
    """``position``: the first token that differs from the last generation's prompt and answer; None where that is
    extended. ``entry``: whose token it is now, where that can be told. ``str()`` says it in words.

    Causes: "first" (nothing to build on), "extends", "edited", "other branch" (chosen or written on), "order" (another
    device's concurrent input comes first now), "tools", "date", "settings" (template arguments), "reasoning" (the
    template strips or rewrites what a model thought), "retokenized" (the same text in other tokens), "rendered" (the
    same entries, printed otherwise).

    ``missing``: of what could be reused, why ``missing_tokens`` are not at hand: "not exact" (sampled, and not settled
    yet), "fingerprint" (kept for another model, or other settings), "evicted" (or never on this device); "": all is.
    """

    cause: Cause
    position: int | None
    entry: EntryId | None
    text: str
    missing: Missing | Literal[""] = ""
    missing_tokens: int = 0

    def __str__(self) -> str:
        return self.text


_MISSING: dict[Missing, str] = {
    "not exact": "{n} tokens that could be reused were sampled and are not settled yet.",
    "fingerprint": "{n} tokens that could be reused were computed for another model, or with other settings.",
    "evicted": "{n} tokens that could be reused are not in the cache.",
}


def explain(
    conversation: Conversation,
    tokenizer: Tokenizer,
    entries: Sequence[Entry],
    prompt: Prompt,
    *,
    reused: int,
    chunk: int,
    missing: Callable[[], Missing] = lambda: "evicted",
) -> CacheMiss:
    """Hold the prompt for ``entries`` against the last generation's. ``chunk``: only whole chunks can be reused.

    ``missing`` is asked why, if less is ``reused`` than could be.
    """
    last = _last_generation(conversation, tokenizer)
    if last is None:
        return CacheMiss("first", 0, None, "Nothing was generated with this tokenizer yet.")
    entry, before = last
    same = next(
        (i for i, (a, b) in enumerate(zip(before, prompt.ids, strict=False)) if a != b),
        min(len(before), len(prompt.ids)),
    )
    lacking = chunk * (min(same, max(len(prompt.ids) - 2, 0)) // chunk) - reused
    reason = missing() if lacking > 0 else ""
    words = [_MISSING[reason].format(n=lacking)] if reason else []
    if same == len(before):
        if prompt.template_rewrites:
            words.append("The template would print earlier turns otherwise; what the model saw is kept.")
        text = " ".join(["It extends the last generation.", *words])
        return CacheMiss("extends", None, None, text, reason, max(lacking, 0))
    cause, whose, text = _cause(conversation, tokenizer, entry, entries, prompt, before, same)
    text = " ".join([text, f"The first {same} tokens are those of the last generation.", *words])
    return CacheMiss(cause, same, whose, text, reason, max(lacking, 0))


def _last_generation(conversation: Conversation, tokenizer: Tokenizer) -> tuple[Entry, list[int]] | None:
    """The youngest generation with a token log that holds, and all ids that its model has seen."""
    for entry in conversation.generations():
        if TOKENS not in entry.hidden:
            continue  # its frame may be long, and would be read for nothing
        logged = logged_generations([*conversation.frame_entries(entry), entry], tokenizer)
        if logged and logged[-1].entry.id == entry.id:
            return entry, [token for link in logged[-1].chain() for token in (*link.log.prompt, *link.log.sampled)]
    return None


def _cause(
    conversation: Conversation,
    tokenizer: Tokenizer,
    last: Entry,
    entries: Sequence[Entry],
    prompt: Prompt,
    ids: Sequence[int],
    at: int,
) -> tuple[Cause, EntryId | None, str]:
    """Compare the two lists of entries: where they part is the cause of where the tokens part. ``ids``: of then."""
    before = [*conversation.frame_entries(last), last]
    parted = next(
        (i for i, (a, b) in enumerate(zip(before, entries, strict=False)) if (a.id, a.hash) != (b.id, b.hash)), None
    )
    whose = next((name for name, start, stop in sources(prompt, entries, tokenizer) if start <= at < stop), None)
    if parted is None:
        return _same_entries(tokenizer, before, entries, prompt, ids, at, whose)
    old, new = before[parted], entries[parted]
    alike = {entry.id for entry in conversation.alternatives(new)}
    if old.id in alike and new.lamport < old.lamport:
        return "other branch", new.id, f"Entry {new.id} is shown again, in place of {old.id}."
    if old.id in alike:
        word = "was edited" if new.frame is None else "has another answer"
        return "edited", new.id, f"Entry {old.id} {word}: {new.id} stands in its place."
    if old.id in {entry.id for entry in entries}:
        return "order", new.id, f"Entry {new.id} by {new.author or 'another device'} stands before {old.id} now."
    return "other branch", new.id, f"Another branch is shown from entry {new.id} on."


def _same_entries(
    tokenizer: Tokenizer,
    before: Sequence[Entry],
    entries: Sequence[Entry],
    prompt: Prompt,
    ids: Sequence[int],
    at: int,
    whose: EntryId | None,
) -> tuple[Cause, EntryId | None, str]:
    """Nothing was put between: then settings came, or the same words are printed or tokenized otherwise."""
    then, now = settings(before), settings(entries)
    if then.tools != now.tools:
        return "tools", whose, "The tools changed since, and the template prints them early."
    if then.date != now.date:
        return "date", whose, "The date changed since, and the template prints it early."
    if then != now:
        return "settings", whose, "Settings changed since, and the template prints them early."
    if _same_text(tokenizer, ids[at:], prompt.ids[at:]):
        return "retokenized", whose, "The same text was tokenized otherwise."
    thoughts = [entry for entry in before if entry.reasoning]
    if thoughts:
        return "reasoning", thoughts[-1].id, "The template prints what a model thought otherwise, or not at all."
    return "rendered", whose, "The same entries are printed otherwise."


def _same_text(tokenizer: Tokenizer, a: Sequence[int], b: Sequence[int]) -> bool:
    """Whether two runs of tokens, the first of which differ, spell the same words there."""
    one, two = ("".join(map(tokenizer.token_text, run[:_LOOK])) for run in (a, b))
    length = max((len(tokenizer.token_text(run[0])) for run in (a, b) if run), default=0)
    return bool(a and b and length) and one[:length] == two[:length]
