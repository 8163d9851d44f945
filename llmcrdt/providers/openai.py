"""OpenAI's Responses and chat completions, and servers that speak either, through the ``openai`` SDK."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from ..document.canonical import JSON
from ..exceptions import InvalidContent
from .base import Settings, count
from .costs import Prices, Tokens
from .sdk import SDKProvider

API = Literal["responses", "chat"]
_COMMON = frozenset({"max_tokens", "temperature", "top_p", "json_schema", "top_logprobs"})
_CHAT = _COMMON | {"presence_penalty", "frequency_penalty", "logit_bias", "seed", "stop"}


class OpenAI(SDKProvider):
    """``model`` by OpenAI's Responses, or by chat completions, which many other servers speak (``base_url``).

    ``api_key``, ``base_url`` and other ``client_options`` are the SDK's; without them it takes $OPENAI_API_KEY and
    $OPENAI_BASE_URL. ``format``: the format of a server whose chat completions have fields of their own: "openrouter",
    "reasoning-content". ``provider``: whom hidden fields are for, where that is not OpenAI. ``account``: the account
    that they are bound to. The whole conversation is sent each time, and Responses are asked not to keep it; with
    ``keep`` they keep it for 30 days, and are sent only what is new where that says the same.
    """

    extra: ClassVar[str] = "openai"
    called: ClassVar[str] = "openai"
    key_variable: ClassVar[str] = "OPENAI_API_KEY"

    def __init__(
        self,
        model: str,
        *,
        api: API = "responses",
        format: str | None = None,
        provider: str | None = None,
        account: str | None = None,
        keep: bool = False,
        stream: bool = True,
        attempts: int = 3,
        prices: Prices | Mapping[str, JSON] | None = None,
        sealed: bool = False,
        **client_options: Any,
    ) -> None:
        if api not in ("responses", "chat"):
            raise InvalidContent(f"OpenAI has no API {api!r}.", hint='Pass api="responses" or api="chat".')
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
        if keep and api == "chat":
            raise InvalidContent(
                "Chat completions keep nothing that a request could go on from.", hint="Leave keep out."
            )
        self._chat, self.keep = api == "chat", keep
        self.api = format or ("openai-chat" if self._chat else "openai-responses")

    @property
    def supported(self) -> frozenset[str]:
        return _CHAT if self._chat else _COMMON

    def body(self, request: Mapping[str, JSON], settings: Settings, *, stream: bool) -> dict[str, JSON]:
        kept = dict(request)
        own = self._chat_settings(settings) if self._chat else self._responses_settings(settings)
        if not settings.tools and "tools" in kept:
            own["tool_choice"] = "none"
        if stream:
            own["stream"] = True
            if self._chat:
                own["stream_options"] = {"include_usage": True}
        if not self._chat:
            kept["store"] = True if self.keep else kept.get("store", False)
            kept.setdefault("include", ["reasoning.encrypted_content"])
        return {**kept, **own}

    def _chat_settings(self, settings: Settings) -> dict[str, JSON]:
        own: dict[str, JSON] = {
            name: getattr(settings, name)
            for name in ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed")
            if getattr(settings, name) is not None
        }
        if settings.max_tokens is not None:
            theirs = self.name == "openai" and "base_url" not in self._options
            own["max_completion_tokens" if theirs else "max_tokens"] = settings.max_tokens
        if settings.logit_bias:
            own["logit_bias"] = {str(token): bias for token, bias in settings.logit_bias.items()}
        if settings.json_schema is not None:
            own["response_format"] = {"type": "json_schema", "json_schema": _schema(settings.json_schema)}
        if settings.top_logprobs:
            own |= {"logprobs": True, "top_logprobs": settings.top_logprobs}
        if settings.stop:
            own["stop"] = list(settings.stop)
        return own

    def _responses_settings(self, settings: Settings) -> dict[str, JSON]:
        own: dict[str, JSON] = {
            name: getattr(settings, name) for name in ("temperature", "top_p") if getattr(settings, name) is not None
        }
        if settings.max_tokens is not None:
            own["max_output_tokens"] = settings.max_tokens
        if settings.json_schema is not None:
            own["text"] = {"format": {"type": "json_schema", **_schema(settings.json_schema)}}
        if settings.top_logprobs:
            own["top_logprobs"] = settings.top_logprobs
        return own

    def tokens(self, usage: Mapping[str, JSON]) -> Tokens:
        asked, said = ("prompt", "completion") if self._chat else ("input", "output")
        details = usage.get(f"{asked}_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, Mapping) else None
        return Tokens(count(usage.get(f"{asked}_tokens")), count(usage.get(f"{said}_tokens")), count(cached))

    def _import(self) -> Any:
        import openai

        return openai

    def _client(self, sdk: Any) -> Any:
        return sdk.AsyncOpenAI(**{**self._options, **self._http(sdk), "max_retries": 0})

    def _create(self, client: Any, body: dict[str, Any]) -> Any:
        """The SDK takes the members that it knows as arguments, and all others as they are."""
        resource, member = (client.chat.completions, "messages") if self._chat else (client.responses, "input")
        taken = {key: body.pop(key) for key in ("model", member, "stream") if key in body}
        return resource.with_streaming_response.create(**taken, extra_body=body)


def _schema(schema: Mapping[str, JSON]) -> dict[str, JSON]:
    return {"name": "answer", "schema": dict(schema), "strict": True}
