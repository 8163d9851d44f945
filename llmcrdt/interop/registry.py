"""The formats and sources by name. A new one is a file, and one more line here. Names are known without loading any of
them."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..exceptions import FormatError

if TYPE_CHECKING:
    from .format import Format, Survey
    from .source import File, Source

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

_SOURCES = {
    "claude-code": "claude_code:ClaudeCode",
    "codex": "codex:Codex",
    "llm": "llm_logs:LLMLogs",
    "chatgpt": "chatgpt:ChatGPT",
    "claude": "claude_account:ClaudeAccount",
}
"""The class of each source, likewise."""

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
    made: Format = _load(_HOMES[name])
    return made


def sources() -> tuple[str, ...]:
    """The names of all sources: files that other programs keep, which are only imported."""
    return tuple(_SOURCES)


@cache
def source_of(name: str) -> Source:
    """The source of this name; loads it. Raises FormatError."""
    if name not in _SOURCES:
        raise FormatError(f"There is no source {name!r}.", hint=f"Known sources: {', '.join(_SOURCES)}.")
    made: Source = _load(_SOURCES[name])
    return made


def _load(home: str) -> Any:
    module, _, class_ = home.partition(":")
    return getattr(import_module(f".{module}", __package__), class_)()


def detect_source(file: File) -> Source | None:
    """The source that a file is of: the one that is surest of it; None where it is in a format, or of none. May raise
    OSError."""
    sure, _, name = max((source_of(name).detect(file), -place, name) for place, name in enumerate(_SOURCES))
    return source_of(name) if sure else None


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
            hint=f"Say which one it is: --format {' | '.join([*_HOMES, *_SOURCES])}.",
        )
    return format_of(name)
