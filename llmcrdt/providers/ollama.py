"""Ollama's own chat, through the ``openai`` SDK's client, which sends any JSON to any path of a server."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar
from urllib.parse import urlsplit

from ..document.canonical import JSON
from .base import Settings, count
from .costs import Prices, Tokens
from .sdk import SDKProvider

_OPTIONS = {
    "max_tokens": "num_predict",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "seed": "seed",
}
_PORT = 11434


class Ollama(SDKProvider):
    """``model`` on a server of Ollama: at ``base_url``, $OLLAMA_HOST, or on this machine. It needs no key. ``think``:
    whether, or how much, the model shall think."""

    extra: ClassVar[str] = "openai"
    called: ClassVar[str] = "ollama"
    key_variable: ClassVar[str] = "OLLAMA_API_KEY"
    api = "ollama"

    def __init__(
        self,
        model: str,
        *,
        think: bool | str | None = None,
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
        self._think = think

    @property
    def supported(self) -> frozenset[str]:
        return frozenset({*_OPTIONS, "json_schema", "stop"})

    def body(self, request: Mapping[str, JSON], settings: Settings, *, stream: bool) -> dict[str, JSON]:
        made = dict(request)
        if not settings.tools:
            made.pop("tools", None)  # it has no other way to say that none may be called
        known = made.get("options")
        options = dict(known) if isinstance(known, Mapping) else {}
        options |= {
            key: getattr(settings, name) for name, key in _OPTIONS.items() if getattr(settings, name) is not None
        }
        options |= {"stop": list(settings.stop)} if settings.stop else {}
        if options:
            made["options"] = options
        if settings.json_schema is not None:
            made["format"] = dict(settings.json_schema)
        if self._think is not None:
            made["think"] = self._think
        return {**made, "stream": stream}

    def tokens(self, usage: Mapping[str, JSON]) -> Tokens:
        return Tokens(count(usage.get("prompt_eval_count")), count(usage.get("eval_count")))

    def _import(self) -> Any:
        import openai

        return openai

    def _client(self, sdk: Any) -> Any:
        key = os.environ.get(self.key_variable) or "none"
        address = address_of(os.environ.get("OLLAMA_HOST") or "127.0.0.1")
        options = {"base_url": address, "api_key": key, **self._options, **self._http(sdk), "max_retries": 0}
        return sdk.AsyncOpenAI(**options)

    @asynccontextmanager
    async def _create(self, client: Any, body: dict[str, Any]) -> AsyncGenerator[Any]:
        import httpx2

        response = await client.post("/api/chat", body=body, cast_to=httpx2.Response, stream=True)
        try:
            yield response
        finally:
            await response.aclose()

    def _iterate(self, response: Any) -> Any:
        return response.aiter_bytes()


def address_of(host: str) -> str:
    """The address of a server that $OLLAMA_HOST names: a URL, or a host with or without a port."""
    if "://" in host:
        return host
    parts = urlsplit(f"//{host}")
    name = parts.hostname or "127.0.0.1"
    return f"http://{f'[{name}]' if ':' in name else name}:{parts.port or _PORT}"
