"""A provider that asks a stand-in in the same process, without a socket: the same requests, the same bytes back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from llmcrdt.exceptions import ProviderError, ProviderRefused
from llmcrdt.providers import Anthropic, Exchange, Gemini, OpenAI, Provider, Settings
from llmcrdt.providers.base import Tokens

from .anthropic_stand_in import AnthropicStandIn
from .gemini_stand_in import GeminiStandIn, InteractionsStandIn
from .openai_stand_in import ChatStandIn
from .stand_in import Cut, Fault, GiveUp, Hang, Refusal, StandIn


class Direct(Provider):
    """As the real provider for the API of ``stand_in``; ``fault``: what goes wrong with the next request."""

    def __init__(self, stand_in: StandIn, model: str, key: str = "key-1", *, keep: bool = False) -> None:
        if isinstance(stand_in, AnthropicStandIn):
            self._real: Provider = Anthropic(model)
        elif isinstance(stand_in, GeminiStandIn):
            self._real = Gemini(model)
        elif isinstance(stand_in, InteractionsStandIn):
            self._real = Gemini(model, api="interactions", keep=keep)
        else:
            chat = isinstance(stand_in, ChatStandIn)
            self._real = OpenAI(model, api="chat" if chat else "responses", base_url="x", keep=keep and not chat)
        self.name, self.api, self.model = self._real.name, self._real.api, model
        self.attempts, self.keep = 2, self._real.keep
        self.fault: Fault | None = None
        self._stand_in, self._key = stand_in, key

    @property
    def supported(self) -> frozenset[str]:
        return self._real.supported

    def body(self, request: Mapping[str, Any], settings: Settings, *, stream: bool) -> dict[str, Any]:
        return self._real.body(request, settings, stream=stream)

    def tokens(self, usage: Mapping[str, Any]) -> Tokens:
        return self._real.tokens(usage)

    def exchange(self, body: Mapping[str, Any]) -> Exchange:
        return Exchange(lambda: self._pieces(json.loads(json.dumps(body))))

    async def _pieces(self, body: Any) -> AsyncIterator[bytes]:
        fault, self.fault = self.fault, None
        try:
            asked = {**body, "model": self.model, "stream": self.stream}
            answer = self._stand_in.reply(body, self._key, fault, asked)
        except Refusal as refusal:
            told = self._stand_in.error(refusal)
            code = refusal.code or refusal.kind
            raise ProviderRefused(refusal.message, status=refusal.status, code=code, body=told) from None
        if not self.stream:
            if isinstance(fault, Cut | GiveUp | Hang):
                raise ProviderError("The connection broke off.")
            yield json.dumps(answer).encode()
            return
        for piece in self._stand_in.stream(answer, fault):
            yield piece
        if isinstance(fault, Cut | Hang):
            raise ProviderError("The connection broke off.")
