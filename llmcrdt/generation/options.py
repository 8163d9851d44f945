"""The settings of a generation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from ..document.ask import Ask
from ..document.canonical import JSON
from ..document.entry import Entry
from ..engine.base import Sampling
from ..exceptions import InvalidContent
from ..ids import EntryId
from ..prompt.tool_calls import TOOL_FORMATS, ToolFormat

DEFAULT_MAX_TOKENS = 512
Busy = Literal["enqueue", "restart", "branch"]
_COMMON = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "repeat_last_n", "seed")


@dataclass(frozen=True)
class GenerationOptions:
    """The settings that ``generate`` was given; its docstring explains each. ``prefetch`` is called ``warm`` there."""

    sampling: Sampling
    max_tokens: int
    stop: tuple[str, ...]
    tools: ToolFormat | Literal["auto", "off"]
    instead_of: Entry | EntryId | None
    author: str | None
    interval: float | None
    busy: Busy
    prefetch: bool
    token_log: bool
    ask: Ask | None = None


def check_tools(tools: str) -> None:
    """Raises InvalidContent for what is no format of tool calls."""
    if tools not in ("auto", "off", *TOOL_FORMATS):
        raise InvalidContent(
            f"{tools!r} is no format of tool calls.",
            hint=f"Use auto, off, or one of {', '.join(TOOL_FORMATS)}. Tools themselves travel in the conversation:"
            ' append("system", ..., tools=[...]).',
        )


def recorded(sampling: Sampling) -> dict[str, JSON]:
    """The settings that decided the answer, for the record: the common ones, and others where they are not as usual."""
    usual = Sampling()
    chosen = {
        name: value for name, value in asdict(sampling).items() if name in _COMMON or value != getattr(usual, name)
    }
    if sampling.logit_bias:
        chosen["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
    return {name: value for name, value in chosen.items() if name != "top_logprobs"}
