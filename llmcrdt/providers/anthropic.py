"""Anthropic's Messages, through the ``anthropic`` SDK."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..document.canonical import JSON
from .base import Settings, count
from .costs import Prices, Tokens
from .sdk import SDKProvider

_NAMES = {"max_tokens": "max_tokens", "temperature": "temperature", "top_k": "top_k", "top_p": "top_p"}


class Anthropic(SDKProvider):
    """``model`` by Anthropic's Messages.

    ``api_key``, ``base_url`` and other ``client_options`` are the SDK's; without them it takes $ANTHROPIC_API_KEY and
    $ANTHROPIC_BASE_URL. ``provider``: whom hidden fields are for, where that is not Anthropic ("bedrock"). ``account``:
    the account that they are bound to. ``thinking``: that member of the request, for example
    ``{"type": "enabled", "budget_tokens": 2000}``.
    """

    extra: ClassVar[str] = "anthropic"
    called: ClassVar[str] = "anthropic"
    key_variable: ClassVar[str] = "ANTHROPIC_API_KEY"
    api = "anthropic"

    def __init__(
        self,
        model: str,
        *,
        thinking: Mapping[str, JSON] | None = None,
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
            account=account,
            provider=provider,
            stream=stream,
            attempts=attempts,
            prices=prices,
            sealed=sealed,
            client_options=client_options,
        )
        self._thinking = thinking

    @property
    def supported(self) -> frozenset[str]:
        return frozenset({*_NAMES, "json_schema", "stop"})

    def body(self, request: Mapping[str, JSON], settings: Settings, *, stream: bool) -> dict[str, JSON]:
        made = dict(request)
        if not settings.tools and "tools" in made:
            made["tool_choice"] = {"type": "none"}
        if self._thinking is not None:
            made.setdefault("thinking", dict(self._thinking))  # a request that must not think says so
        made |= {key: getattr(settings, name) for name, key in _NAMES.items() if getattr(settings, name) is not None}
        if settings.stop:
            made["stop_sequences"] = list(settings.stop)
        if settings.json_schema is not None:
            form: JSON = {"type": "json_schema", "schema": dict(settings.json_schema)}
            known = made.get("output_config")
            made["output_config"] = {**(known if isinstance(known, dict) else {}), "format": form}
        return {**made, "stream": True} if stream else made

    def tokens(self, usage: Mapping[str, JSON]) -> Tokens:
        cached = usage.get("cache_read_input_tokens")
        written = usage.get("cache_creation_input_tokens")
        prompt = count(usage.get("input_tokens"), written, cached)
        return Tokens(prompt, count(usage.get("output_tokens")), count(cached), count(written))

    def _import(self) -> Any:
        import anthropic

        return anthropic

    def _client(self, sdk: Any) -> Any:
        return sdk.AsyncAnthropic(**{**self._options, **self._http(sdk), "max_retries": 0})

    def _create(self, client: Any, body: dict[str, Any]) -> Any:
        """The SDK takes the members that it knows as arguments, and all others as they are."""
        taken = {key: body.pop(key) for key in ("model", "messages", "max_tokens", "stream") if key in body}
        return client.messages.with_streaming_response.create(**taken, extra_body=body)
