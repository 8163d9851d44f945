"""The formats by name. A new one is a file, and one more line here. Names are known without loading any of them."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from ..exceptions import FormatError

if TYPE_CHECKING:
    from .format import Format, Survey

_HOMES = {
    "openai-chat": "openai_chat:OpenAIChat",
    "anthropic": "anthropic:Anthropic",
    "openai-responses": "openai_responses:OpenAIResponses",
    "gemini": "gemini:Gemini",
    "openrouter": "openrouter:OpenRouter",
    "reasoning-content": "reasoning_content:ReasoningContent",
    "gemini-interactions": "gemini_interactions:GeminiInteractions",
    "ollama": "ollama:Ollama",
    "ai-sdk": "ai_sdk:AISDK",
}
"""The class of each format, seen from here."""

DEFAULT = "openai-chat"
"""The format of what nothing else is said of."""

STREAMED = ("messages", "input", "contents")
"""The members of a file that are read an item at a time: one for each format's list."""


def names() -> tuple[str, ...]:
    """The names of all formats."""
    return tuple(_HOMES)


@cache
def format_of(name: str) -> Format:
    """The format of this name; loads it. Raises FormatError."""
    if name not in _HOMES:
        raise FormatError(f"There is no format {name!r}.", hint=f"Known formats: {', '.join(_HOMES)}.")
    module, _, class_ = _HOMES[name].partition(":")
    made: Format = getattr(import_module(f".{module}", __package__), class_)()
    return made


def detect(about: Survey) -> Format:
    """The format of a file: the one that is surest of it; of equals, the one that is named first. Raises FormatError
    where none is."""
    found = [(format_of(name).detect(about), -place, name) for place, name in enumerate(_HOMES)]
    sure, _, name = max(found)
    if not sure and about.listed and about.base in (None, "messages"):
        return format_of(DEFAULT)  # which tells what is wrong with it
    if not sure:
        raise FormatError(
            "The file is in no format that is known here.",
            hint=f"Say which one it is: --format {' | '.join(_HOMES)}.",
        )
    return format_of(name)
