"""The content of a provider's answer while it comes in, a step at a time. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .canonical import JSON


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the visible text."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of the reasoning that people may read."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegun:
    """A tool call begins. ``call``: its number among the calls of the answer, from 0."""

    call: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """More of a call's arguments, as text."""

    call: int
    text: str


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A call is whole."""

    call: int


@dataclass(frozen=True, slots=True)
class UsageDelta:
    """Counts of the answer so far, in the provider's words."""

    usage: Mapping[str, JSON]


@dataclass(frozen=True, slots=True)
class AnswerEnded:
    """The answer is whole. ``finish``: why it ended, in the provider's word. Usage may still come."""

    finish: str | None


@dataclass(frozen=True, slots=True)
class AnswerFailed:
    """The provider gave up in the middle. ``message``: in its words. ``error``: all that it said about it."""

    message: str
    error: JSON


Delta = TextDelta | ReasoningDelta | CallBegun | CallArguments | CallEnded | UsageDelta | AnswerEnded | AnswerFailed
