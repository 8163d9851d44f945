"""Providers by one text, as commands take them: ``openai/NAME``, ``anthropic/NAME``, ``gemini/NAME``..."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from ..exceptions import InvalidContent
from .base import Provider
from .costs import read_prices

PRICES = "LLMCRDT_PRICES"
"""The variable of the environment that names the user's file of prices."""


def _made(module: str, name: str, **options: Any) -> Callable[..., Provider]:
    """Makes a provider of a model; its module is imported then."""

    def make(model: str, **more: Any) -> Provider:
        made: Provider = getattr(import_module(f".{module}", __package__), name)(model, **options, **more)
        return made

    return make


_KINDS: dict[str, Callable[..., Provider]] = {
    "anthropic": _made("anthropic", "Anthropic"),
    "deepseek": _made("compatible", "DeepSeek"),
    "gemini": _made("gemini", "Gemini"),
    "gemini-interactions": _made("gemini", "Gemini", api="interactions"),
    "moonshot": _made("compatible", "Moonshot"),
    "ollama": _made("ollama", "Ollama"),
    "openai": _made("openai", "OpenAI"),
    "openai-chat": _made("openai", "OpenAI", api="chat"),
    "openrouter": _made("compatible", "OpenRouter"),
}


def is_named(text: str) -> bool:
    """Whether a text names a model of a provider."""
    kind, _, model = text.partition("/")
    return kind in _KINDS and bool(model)


def named(text: str) -> Provider:
    """The provider and the model that a text names, with the prices of the file that $LLMCRDT_PRICES names. Raises
    InvalidContent, also for that file."""
    kind, _, model = text.partition("/")
    if not is_named(text):
        raise InvalidContent(
            f"{text!r} names no provider's model.", hint=f"Use {', '.join(f'{k}/NAME' for k in _KINDS)}."
        )
    file = os.environ.get(PRICES)
    return _KINDS[kind](model, prices=read_prices(Path(file), text) if file else None)
