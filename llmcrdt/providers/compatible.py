"""Other providers' chat completions, through the ``openai`` SDK: each has an address, a key and fields of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

from ..document.canonical import JSON
from .base import Settings
from .costs import Cost, Prices
from .openai import OpenAI


class Compatible(OpenAI):
    """Chat completions of another provider than OpenAI. ``client_options``, and all else, as of ``OpenAI``; without a
    key it takes that of the environment, ``key_variable``, and never OpenAI's."""

    address: ClassVar[str]
    form: ClassVar[str]
    """The name of the format."""

    def __init__(
        self,
        model: str,
        *,
        provider: str | None = None,
        account: str | None = None,
        stream: bool = True,
        attempts: int = 3,
        prices: Prices | Mapping[str, JSON] | None = None,
        sealed: bool = False,
        **client_options: Any,
    ) -> None:
        super().__init__(
            model,
            api="chat",
            format=self.form,
            provider=provider,
            account=account,
            stream=stream,
            attempts=attempts,
            prices=prices,
            sealed=sealed,
            **{"base_url": self.address, **client_options},
        )

    def _client(self, sdk: Any) -> Any:
        key = self._options.get("api_key") or os.environ.get(self.key_variable)
        if not key:
            raise ValueError("no API key was given")
        return sdk.AsyncOpenAI(**{**self._options, **self._http(sdk), "api_key": key, "max_retries": 0})


class OpenRouter(Compatible):
    """OpenRouter, which asks models of many providers; ``model`` as "anthropic/claude-sonnet". It says what an answer
    costs."""

    called: ClassVar[str] = "openrouter"
    key_variable: ClassVar[str] = "OPENROUTER_API_KEY"
    address: ClassVar[str] = "https://openrouter.ai/api/v1"
    form: ClassVar[str] = "openrouter"

    def body(self, request: Mapping[str, JSON], settings: Settings, *, stream: bool) -> dict[str, JSON]:
        return {"usage": {"include": True}, **super().body(request, settings, stream=stream)}

    def told_cost(self, usage: Mapping[str, JSON]) -> Cost | None:
        """Its credits are US dollars."""
        amount = usage.get("cost")
        if not isinstance(amount, (int, float)) or isinstance(amount, bool):
            return None
        return {"amount": float(amount), "currency": "USD", "by": "provider"}


class DeepSeek(Compatible):
    """DeepSeek's own API."""

    called: ClassVar[str] = "deepseek"
    key_variable: ClassVar[str] = "DEEPSEEK_API_KEY"
    address: ClassVar[str] = "https://api.deepseek.com"
    form: ClassVar[str] = "reasoning-content"


class Moonshot(Compatible):
    """Moonshot's own API, of the Kimi models."""

    called: ClassVar[str] = "moonshot"
    key_variable: ClassVar[str] = "MOONSHOT_API_KEY"
    address: ClassVar[str] = "https://api.moonshot.ai/v1"
    form: ClassVar[str] = "reasoning-content"
