"""Providers with an official SDK. Those of OpenAI and Anthropic have the same clients and the same errors."""

from __future__ import annotations

import asyncio
import os
from abc import abstractmethod
from collections.abc import AsyncGenerator, Mapping
from functools import lru_cache
from typing import Any, ClassVar

from ..document.canonical import JSON
from ..exceptions import (
    InvalidContent,
    LLMCRDTError,
    ProviderError,
    ProviderMissing,
    ProviderRefused,
    ProviderUnreachable,
)
from .base import Exchange, Provider
from .costs import Prices, prices_of

_NOT_CONNECTED = ("ConnectError", "ConnectTimeout")
"""The SDKs' HTTP client says so where no connection was made."""


def trusted() -> Any:
    """The TLS context of the SDKs' HTTP clients. Each client would make its own, and there is one for each request: it
    took 20 ms of processor time to read all certificates that are trusted."""
    return _trusted(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@lru_cache(maxsize=4)
def _trusted(file: str | None, folder: str | None) -> Any:
    import httpx2

    return httpx2.create_ssl_context()


class SDKProvider(Provider):
    """``stream``: whether answers come word by word. ``attempts``: how often a request may be sent until it is
    answered. ``prices``: those of a million tokens. ``client_options``: those of the SDK's client, such as ``api_key``,
    ``base_url``, ``timeout`` or ``default_headers``; without a key it takes the one of the environment,
    ``key_variable``."""

    extra: ClassVar[str]
    """The extra of this package that installs the SDK."""
    called: ClassVar[str]
    """The provider as bindings name it."""
    key_variable: ClassVar[str]

    def __init__(
        self,
        model: str,
        *,
        account: str | None,
        provider: str | None,
        stream: bool,
        attempts: int,
        prices: Prices | Mapping[str, JSON] | None,
        sealed: bool,
        client_options: Mapping[str, Any],
    ) -> None:
        if not isinstance(model, str) or not model:
            raise InvalidContent(f"{model!r} is no name of a model.", hint="Pass the name that the provider gives it.")
        if not isinstance(attempts, int) or attempts < 1:
            raise InvalidContent(f"attempts={attempts!r} sends nothing.", hint="Pass 1 or more.")
        self.model, self.account, self.stream, self.attempts = model, account, stream, attempts
        self.name = provider or self.called
        self.prices = prices if prices is None or isinstance(prices, Prices) else prices_of(prices)
        self.sealed = sealed
        self._options = dict(client_options)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r}, api={self.api!r})"

    def exchange(self, body: Mapping[str, JSON]) -> Exchange:
        sdk = self._load()
        return Exchange(lambda: self._send(sdk, dict(body)))

    def _load(self) -> Any:
        try:
            return self._import()
        except ModuleNotFoundError as error:
            raise ProviderMissing(
                f"{self.called} can't be asked: {error}.", hint=f'Install its SDK: pip install "llmcrdt[{self.extra}]"'
            ) from None

    @abstractmethod
    def _import(self) -> Any:
        """The SDK's module."""

    @abstractmethod
    def _client(self, sdk: Any) -> Any:
        """A client of the SDK, to be entered, which repeats nothing by itself."""

    def _http(self, sdk: Any) -> dict[str, Any]:
        """The HTTP client, as an option of a client of OpenAI's or Anthropic's; none where the user has one."""
        return (
            {} if self._options.get("http_client") else {"http_client": sdk.DefaultAsyncHttpxClient(verify=trusted())}
        )

    @abstractmethod
    def _create(self, client: Any, body: dict[str, Any]) -> Any:
        """The request as a streaming response of the SDK, to be entered."""

    def _iterate(self, response: Any) -> Any:
        """The body of a response, in pieces of bytes."""
        return response.iter_bytes()

    async def _send(self, sdk: Any, body: dict[str, Any]) -> AsyncGenerator[bytes]:
        try:
            client = self._client(sdk)
        except Exception as error:  # each SDK has its own for a key that is nowhere
            raise self._not_made(error) from error
        async with client:
            try:
                async with self._create(client, body) as response:
                    async for piece in self._iterate(response):
                        yield piece
            except (LLMCRDTError, asyncio.CancelledError, GeneratorExit):
                raise
            except TypeError as error:  # the SDK's, for a key that is nowhere, too
                raise self._not_made(error) from error
            except Exception as error:  # whatever the SDK's HTTP client raises when it can't connect, or breaks off
                if isinstance(error, getattr(sdk, "APIStatusError", ())):
                    raise self._refused(error) from error
                sent = type(error.__cause__ or error).__name__ not in _NOT_CONNECTED
                text = f"{self.name} did not answer: {type(error).__name__}: {error}"
                raise ProviderUnreachable(text, sent=sent, hint="Try again later.") from error

    def _not_made(self, error: Exception) -> ProviderError:
        return ProviderError(
            f"The request to {self.name} could not be made: {error}.",
            hint=f"Set ${self.key_variable}, or pass api_key=...",
        )

    def _refused(self, error: Any) -> ProviderRefused:
        body: Mapping[str, Any] = error.body if isinstance(error.body, Mapping) else {}
        nested = body.get("error")
        inner = nested if isinstance(nested, Mapping) else body
        said = {key: value for key in ("message", "code", "type") if isinstance(value := inner.get(key), str)}
        message, code = said.get("message", error.message), said.get("code") or said.get("type", "")
        return self.refused(error.status_code, message, code, error.body, error.response.headers.get("retry-after"))

    def refused(self, status: int, message: str, code: str, body: Any, wait: str | None) -> ProviderRefused:
        """The error for a refusal. ``wait``: the seconds that the provider asks to wait, as it says them."""
        text = f"{self.name} refused the request ({status}): {message[:500]}"
        return ProviderRefused(text, status=status, code=code, body=body, retry_after=_seconds(wait))


def _seconds(header: str | None) -> float | None:
    try:
        return max(0.0, float(header)) if header else None
    except ValueError:
        return None
