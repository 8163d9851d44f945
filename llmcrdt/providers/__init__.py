"""Models that answer elsewhere, through their providers' own SDKs: ``llmcrdt.generate(conversation, provider)``.

They are imported on first use, and their SDKs with the first request.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .anthropic import Anthropic as Anthropic
    from .base import Exchange as Exchange
    from .base import Provider as Provider
    from .base import Settings as Settings
    from .compatible import DeepSeek as DeepSeek
    from .compatible import Moonshot as Moonshot
    from .compatible import OpenRouter as OpenRouter
    from .costs import Cost as Cost
    from .costs import Prices as Prices
    from .gemini import Gemini as Gemini
    from .names import is_named as is_named
    from .names import named as named
    from .ollama import Ollama as Ollama
    from .openai import OpenAI as OpenAI

_HOMES = {
    "Anthropic": "anthropic",
    "Cost": "costs",
    "DeepSeek": "compatible",
    "Exchange": "base",
    "Gemini": "gemini",
    "Moonshot": "compatible",
    "Ollama": "ollama",
    "OpenAI": "openai",
    "OpenRouter": "compatible",
    "Prices": "costs",
    "Provider": "base",
    "Settings": "base",
    "is_named": "names",
    "named": "names",
}

__all__ = [
    "Anthropic",
    "Cost",
    "DeepSeek",
    "Exchange",
    "Gemini",
    "Moonshot",
    "Ollama",
    "OpenAI",
    "OpenRouter",
    "Prices",
    "Provider",
    "Settings",
    "is_named",
    "named",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
