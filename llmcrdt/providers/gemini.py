"""Google's generateContent and Interactions, through the ``google-genai`` SDK."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, ClassVar, Literal

from ..document.canonical import JSON
from ..exceptions import InvalidContent, ProviderRefused
from .base import Settings, count
from .costs import Prices, Tokens
from .sdk import SDKProvider, trusted

API = Literal["generateContent", "interactions"]
_GENERATE = {
    "max_tokens": "maxOutputTokens",
    "temperature": "temperature",
    "top_k": "topK",
    "top_p": "topP",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "seed": "seed",
}
_INTERACT = {"max_tokens": "max_output_tokens", "temperature": "temperature", "top_p": "top_p", "seed": "seed"}


class Gemini(SDKProvider):
    """``model`` by Google's generateContent, or by its Interactions (``api="interactions"``).

    ``client_options`` are those of the SDK's client: ``api_key``, ``http_options``, or ``vertexai``, ``project`` and
    ``location``; without a key it takes $GEMINI_API_KEY or $GOOGLE_API_KEY. ``base_url``: another address than
    Google's, else $GOOGLE_GEMINI_BASE_URL. ``timeout``: in seconds. ``provider``: whom hidden fields are for, where
    that is not Google. ``account``: the account that they are bound to. ``thinking``: the ``thinkingConfig`` of
    generateContent, for example ``{"includeThoughts": True}``, or members of an interaction's ``generation_config``.
    Interactions are asked not to keep what they are sent; with ``keep`` they keep it, and are sent only what is new
    where that says the same.
    """

    extra: ClassVar[str] = "gemini"
    called: ClassVar[str] = "google"
    key_variable: ClassVar[str] = "GEMINI_API_KEY"

    def __init__(
        self,
        model: str,
        *,
        api: API = "generateContent",
        thinking: Mapping[str, JSON] | None = None,
        base_url: str | None = None,
        timeout: float | None = None,
        provider: str | None = None,
        account: str | None = None,
        keep: bool = False,
        stream: bool = True,
        attempts: int = 3,
        prices: Prices | Mapping[str, JSON] | None = None,
        sealed: bool = False,
        **client_options: Any,
    ) -> None:
        if api not in ("generateContent", "interactions"):
            raise InvalidContent(
                f"Google has no API {api!r}.", hint='Pass api="generateContent" or api="interactions".'
            )
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
        self._steps = api == "interactions"
        if keep and not self._steps:
            raise InvalidContent("generateContent keeps nothing that a request could go on from.", hint="Leave it out.")
        self.keep = keep
        self.api = "gemini-interactions" if self._steps else "gemini"
        self._thinking, self._base_url, self._timeout = thinking, base_url, timeout

    @property
    def supported(self) -> frozenset[str]:
        return frozenset({*(_INTERACT if self._steps else {**_GENERATE, "top_logprobs": ""}), "json_schema", "stop"})

    def body(self, request: Mapping[str, JSON], settings: Settings, *, stream: bool) -> dict[str, JSON]:
        made = dict(request)
        names = _INTERACT if self._steps else _GENERATE
        own: dict[str, JSON] = {
            key: getattr(settings, name) for name, key in names.items() if getattr(settings, name) is not None
        }
        if settings.stop:
            own["stop_sequences" if self._steps else "stopSequences"] = list(settings.stop)
        offered = not settings.tools and "tools" in made
        if self._steps:
            return self._interaction(made, own, settings, offered=offered, stream=stream)
        made.pop("model", None)  # the address names it
        if "generation_config" in made:
            made["generationConfig"] = made.pop("generation_config")
        if settings.json_schema is not None:
            own |= {"responseMimeType": "application/json", "responseJsonSchema": dict(settings.json_schema)}
        if settings.top_logprobs:
            own |= {"responseLogprobs": True, "logprobs": settings.top_logprobs}
        if self._thinking is not None:
            own["thinkingConfig"] = dict(self._thinking)
        if offered:
            made["toolConfig"] = {"functionCallingConfig": {"mode": "NONE"}}
        return _with(made, "generationConfig", own)  # the SDK sends one, if only {}

    def _interaction(
        self, made: dict[str, JSON], own: dict[str, JSON], settings: Settings, *, offered: bool, stream: bool
    ) -> dict[str, JSON]:
        if offered:
            own["tool_choice"] = "none"
        if settings.json_schema is not None:
            made["response_format"] = {
                "type": "text", "mime_type": "application/json", "schema": dict(settings.json_schema)
            }  # fmt: skip
        made["store"] = True if self.keep else made.get("store", False)
        if stream:
            made["stream"] = True
        own = {**(self._thinking or {}), **own}
        return _with(made, "generation_config", own) if own else made

    def tokens(self, usage: Mapping[str, JSON]) -> Tokens:
        if self._steps:
            prompt, output, cached = "total_input_tokens", "total_output_tokens", "total_cached_tokens"
            said = count(usage.get(output), usage.get("total_thought_tokens"))
        else:
            prompt, output, cached = "promptTokenCount", "candidatesTokenCount", "cachedContentTokenCount"
            said = count(usage.get(output), usage.get("thoughtsTokenCount"))
        return Tokens(count(usage.get(prompt)), said, count(usage.get(cached)))

    def _import(self) -> Any:
        import google.genai

        return google.genai

    def _client(self, sdk: Any) -> Any:
        options = dict(self._options)
        given = options.pop("http_options", None)
        http = dict(given) if isinstance(given, Mapping) else given.model_dump(exclude_none=True) if given else {}
        http |= {"base_url": self._base_url} if self._base_url is not None else {}
        http |= {"timeout": int(self._timeout * 1000)} if self._timeout is not None else {}
        return _Client(sdk, options, http)

    @asynccontextmanager
    async def _create(self, client: Any, body: dict[str, Any]) -> AsyncGenerator[Any]:
        """The SDK makes the request: its address, its headers, the key; it is stopped when the response is there."""
        if self._steps:
            members = {"model": self.model, "input": "", **({"stream": True} if body.get("stream") else {})}
            sending = client.genai.interactions.create(**members, extra_body=body)
        else:
            config = {
                "http_options": {"extra_body": body},
                "automatic_function_calling": {"disable": True},
                "automatic_continuation": False,
            }
            models = client.genai.models
            ask = models.generate_content_stream if self.stream else models.generate_content
            sending = ask(model=self.model, contents="", config=config)
        response = await client.response(sending)
        try:
            if response.status_code != 200:
                await response.aread()
                raise self._refusal(response)
            yield response
        finally:
            await response.aclose()

    def _iterate(self, response: Any) -> Any:
        return response.aiter_bytes()

    def _refusal(self, response: Any) -> ProviderRefused:
        body: Any = None
        with suppress(ValueError):
            body = response.json()
        body = body[0] if isinstance(body, list) and len(body) == 1 else body
        error = body.get("error") if isinstance(body, Mapping) else None
        told: Mapping[str, Any] = error if isinstance(error, Mapping) else {}
        code = told.get("status", told.get("code"))
        return self.refused(
            response.status_code,
            told.get("message") or response.text,
            code if isinstance(code, str) else "",
            body,
            _delay(told) or response.headers.get("retry-after"),
        )


class _Client:
    """A client of the SDK, while an ``async with`` block lasts, whose requests are each sent once, and whose responses
    are read here: the SDK by itself would send some again, and read them into types that drop what they don't know."""

    def __init__(self, sdk: Any, options: dict[str, Any], http: dict[str, Any]) -> None:
        import httpx2

        client = self

        class Once(httpx2.AsyncClient):  # type: ignore[misc]  # unknown where the extra is not installed
            async def send(self, request: Any, **more: Any) -> Any:
                try:
                    client._outcome = await super().send(request, stream=True)
                except Exception as error:
                    client._outcome = error
                raise _Sent

        self._outcome: Any = None
        self._http = Once(timeout=None, verify=trusted())
        self._sdk = sdk.Client(**options, http_options={**http, "httpx_async_client": self._http})
        self.genai = self._sdk.aio

    async def __aenter__(self) -> _Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()
        self._sdk.close()

    async def response(self, sending: Any) -> Any:
        """The response to a request of the SDK's, to be read. Raises whatever the HTTP client raises."""
        with suppress(_Sent):
            begun = await sending
            await anext(begun)  # of a stream nothing is sent before
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


class _Sent(BaseException):
    """The response is there; no ``except Exception`` of the SDK's sees it."""


def _with(made: dict[str, JSON], member: str, own: Mapping[str, JSON]) -> dict[str, JSON]:
    """A request with settings in the member that has them."""
    known = made.get(member)
    return {**made, member: {**(known if isinstance(known, dict) else {}), **own}}


def _delay(error: Mapping[str, Any]) -> str | None:
    """The time to wait that an error of Google's names: "12.5s"."""
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        told = detail.get("retryDelay") if isinstance(detail, Mapping) else None
        if isinstance(told, str) and told.endswith("s"):
            return told[:-1]
    return None
