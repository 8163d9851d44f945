"""Providers by one text, as commands take them: ``openai/NAME``, ``anthropic/NAME``, ``gemini/NAME``..."""

from __future__ import annotations

from collections.abc import Callable

from ..exceptions import InvalidContent
from .base import Provider


def _openai(model: str) -> Provider:
    from .openai import OpenAI

    return OpenAI(model)


def _openai_chat(model: str) -> Provider:
    from .openai import OpenAI

    return OpenAI(model, api="chat")


def _anthropic(model: str) -> Provider:
    from .anthropic import Anthropic

    return Anthropic(model)


def _gemini(model: str) -> Provider:
    from .gemini import Gemini

    return Gemini(model)


def _interactions(model: str) -> Provider:
    from .gemini import Gemini

    return Gemini(model, api="interactions")


_KINDS: dict[str, Callable[[str], Provider]] = {
    "openai": _openai,
    "openai-chat": _openai_chat,
    "anthropic": _anthropic,
    "gemini": _gemini,
    "gemini-interactions": _interactions,
}


def is_named(text: str) -> bool:
    """Whether a text names a model of a provider."""
    kind, _, model = text.partition("/")
    return kind in _KINDS and bool(model)


def named(text: str) -> Provider:
    """The provider and the model that a text names. Raises InvalidContent."""
    kind, _, model = text.partition("/")
    if not is_named(text):
        raise InvalidContent(
            f"{text!r} names no provider's model.", hint=f"Use {', '.join(f'{k}/NAME' for k in _KINDS)}."
        )
    return _KINDS[kind](model)
