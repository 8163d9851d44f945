"""Streamed answers of ``openai-chat``, ``openrouter`` and ``reasoning-content`` keep the contract of streams."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import chat_request
from chat_stream import answers, chunks
from recorded import RecordedStreams


class ChatStreams(RecordedStreams):
    """All that the three share; ``api``: which one."""

    api = ""

    @property
    def answers(self) -> Sequence[Any]:
        return answers(self.api)

    def events(self, answer: Any, rng: random.Random) -> list[Any]:
        return chunks(answer, rng)

    def problems(self, body: Any) -> list[str]:
        return chat_request.problems(body)

    def only_grows(self, event: Any) -> bool:
        return any(
            key in choice["delta"] for choice in event["choices"] for key in ("content", "reasoning", "tool_calls")
        )


class TestOpenAIChatStream(ChatStreams):
    api = "openai-chat"


class TestOpenRouterStream(ChatStreams):
    api = "openrouter"


class TestReasoningContentStream(ChatStreams):
    api = "reasoning-content"
