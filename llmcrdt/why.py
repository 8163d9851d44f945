"""Why a prompt can't reuse all of the last generation's: the first token that differs, whose it is, and the cause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .document.conversation import Conversation
from .document.entry import TOKENS, Entry
from .ids import EntryId
from .prompt.generation_log import logged_generations
from .prompt.token_log import Prompt, sources
from .prompt.tokenizer import Tokenizer

Cause = Literal["first", "extends", "edited", "other branch", "order", "settings", "rendered"]


@dataclass(frozen=True)
class Why:
    """``position``: the first token that differs from the last generation's prompt and answer; None where that is
    extended. ``entry``: whose token it is now, where that can be told. ``str()`` says it in words.

    Causes: "first" (nothing to build on), "extends", "edited", "other branch" (chosen or written on), "order" (another
    device's input comes first now), "settings" (tools, date, template arguments), "rendered" (the same entries, printed
    or tokenized otherwise).
    """

    cause: Cause
    position: int | None
    entry: EntryId | None
    text: str

    def __str__(self) -> str:
        return self.text


def explain(
    conversation: Conversation,
    tokenizer: Tokenizer,
    entries: Sequence[Entry],
    prompt: Prompt,
    *,
    reused: int,
    chunk: int,
) -> Why:
    """Hold the prompt for ``entries`` against the last generation's. ``chunk``: only whole chunks can be reused."""
    last = _last_generation(conversation, tokenizer)
    if last is None:
        return Why("first", 0, None, "Nothing was generated with this tokenizer yet.")
    entry, before = last
    same = next(
        (i for i, (a, b) in enumerate(zip(before, prompt.ids, strict=False)) if a != b),
        min(len(before), len(prompt.ids)),
    )
    reusable = chunk * (min(same, max(len(prompt.ids) - 2, 0)) // chunk)
    evicted = f" {reusable - reused} tokens that could be reused are not in the cache." if reused < reusable else ""
    if same == len(before):
        return Why("extends", None, None, f"It extends the last generation.{evicted}")
    cause, whose, text = _cause(conversation, tokenizer, entry, entries, prompt, same)
    return Why(cause, same, whose, f"{text} The first {same} tokens are those of the last generation.{evicted}")


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
    at: int,
) -> tuple[Cause, EntryId | None, str]:
    """Compare the two lists of entries: where they part is the cause of where the tokens part."""
    before = [*conversation.frame_entries(last), last]
    parted = next(
        (i for i, (a, b) in enumerate(zip(before, entries, strict=False)) if (a.id, a.hash) != (b.id, b.hash)), None
    )
    whose = next((name for name, start, stop in sources(prompt, entries, tokenizer) if start <= at < stop), None)
    if parted is None:
        if any(entry.config for entry in entries[len(before) :]):
            return "settings", whose, "Settings changed since, and the template prints them early."
        return "rendered", whose, "The same entries are printed or tokenized otherwise."
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
