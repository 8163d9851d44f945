"""The format ``openai-chat`` keeps the contract of formats."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmcrdt.interop.format import Format
from llmcrdt.interop.registry import format_of
from llmcrdt.testing.format_suite import FormatSuite

sys.path.insert(0, str(Path(__file__).parent))
import chat_request


class TestOpenAIChat(FormatSuite):
    @property
    def format(self) -> Format:
        return format_of("openai-chat")

    @property
    def vectors(self) -> Path:
        return Path(__file__).parents[1] / "vectors" / "interop"

    def problems(self, body: Any) -> list[str]:
        return chat_request.problems(body)

    @property
    def broken(self) -> Mapping[str, Any]:
        return chat_request.BROKEN
