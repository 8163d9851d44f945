"""Models that answer elsewhere, through their providers' own SDKs: ``llmcrdt.generate(conversation, provider)``.

``OpenAI``, ``Anthropic`` and ``Gemini`` are imported on first use, and their SDKs with the first request.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .anthropic import Anthropic as Anthropic
    from .base import Exchange as Exchange
    from .base import Provider as Provider
    from .base import Settings as Settings
    from .gemini import Gemini as Gemini
    from .names import is_named as is_named
    from .names import named as named
    from .openai import OpenAI as OpenAI

_HOMES = {
    "Anthropic": "anthropic",
    "Exchange": "base",
    "Gemini": "gemini",
    "OpenAI": "openai",
    "Provider": "base",
    "Settings": "base",
    "is_named": "names",
    "named": "names",
}

__all__ = ["Anthropic", "Exchange", "Gemini", "OpenAI", "Provider", "Settings", "is_named", "named"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
