"""The events of a generation, and what it counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypedDict

from ..document.canonical import JSON
from ..document.deltas import CallArguments, CallBegun, CallEnded, ReasoningDelta, TextDelta
from ..document.entry import Entry
from ..engine.base import Mode
from ..prompt.tool_calls import ToolFormat


@dataclass(frozen=True)
class Usage:
    """The tokens that were used, None where nobody said. ``cached_tokens``: those of the prompt whose state was at
    hand. ``raw``: what the entry keeps as its ``usage``."""

    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    raw: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """The answer is sealed; nothing follows. ``finish``: why it ended, as the entry's ``usage`` says it: with an engine
    end, stop, length or cancelled, with a provider in its own word."""

    entry: Entry
    finish: str = ""


GenerationEvent = TextDelta | ReasoningDelta | CallBegun | CallArguments | CallEnded | Usage | Ended
"""A report of a generation: deltas as those of a provider's stream (``document.deltas``), then ``Usage, Ended``. After
an error nothing follows; reading raises it."""


def calls_told(entry: Entry) -> Iterator[CallBegun | CallArguments | CallEnded]:
    """The calls of an answer that is whole, as deltas."""
    for index, call in enumerate(entry.tool_calls):
        yield from (CallBegun(index, call.id, call.name), CallArguments(index, call.arguments), CallEnded(index))


Report = Callable[..., None]
"""Hears each event of an answer; without one, that ``stats`` have changed."""


class GenerationStats(TypedDict, total=False):
    """Counts and seconds of a generation, filled in as it goes."""

    entry: str
    """The id of the answer's entry, once it was begun."""
    total: int
    """Tokens of the prompt: ``reused`` + ``evaluated``."""
    reused: int
    evaluated: int
    reused_from: dict[str, int]
    """The places of the reused ones: live, memory, disk."""
    mode: Mode
    prefill_seconds: float
    progress: tuple[int, int]
    """Of a long prefill: tokens evaluated so far, of so many."""
    time_to_first_token: float
    sampled: int
    """Tokens of the answer."""
    seconds: float
    seed: int
    finish: str
    """Why it ended: end, stop (a stop text), length, cancelled, failed; a provider's own word."""
    attempts: int
    """How many requests a provider was sent."""
    sent_again: list[str]
    """Why, for each request after the first."""
    left_out: list[str]
    """The hidden fields that did not go to a provider, each with the reason, in words."""
    tool_format: ToolFormat | None
    """How the answer is read for tool calls."""
    logprobs: list[tuple[int, float, tuple[tuple[int, float], ...]]]
    """If asked for: for each sampled token its id, its log probability, and those of the likeliest."""
