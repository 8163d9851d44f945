"""Streamed answers of ``ollama`` keep the contract of streams."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmcrdt.interop.json_input import parse
from llmcrdt.testing.stream_suite import as_lines, words_of

sys.path.insert(0, str(Path(__file__).parent))
import test_ollama
from recorded import RecordedStreams

VECTORS = Path(__file__).parents[1] / "vectors" / "interop" / "ollama"
ENDS = ("done", "done_reason", "prompt_eval_count", "eval_count", "total_duration")


def answer_of(message: Any) -> dict[str, Any]:
    return {
        "model": "qwen3", "created_at": "2026-11-30T09:00:00Z", "message": message, "done": True, "done_reason": "stop",
        "prompt_eval_count": 9, "eval_count": 4, "total_duration": 123456789012,
    }  # fmt: skip


def answers() -> list[Any]:
    made = [answer_of({"role": "assistant", "content": "Ÿes 😀\r\n"})]
    for path in sorted(VECTORS.glob("*.json")):
        value = parse(path.read_text("utf-8"))
        messages = value if isinstance(value, list) else value["messages"]
        made += [answer_of(message) for message in messages if message["role"] == "assistant"]
    return made


class TestOllamaStream(RecordedStreams):
    api = "ollama"

    @property
    def answers(self) -> Sequence[Any]:
        return answers()

    def encoded(self, events: Sequence[Any], rng: random.Random) -> bytes:
        return as_lines(events, rng)

    def events(self, answer: Any, rng: random.Random) -> list[Any]:
        message = answer["message"]
        has_content = {"content": ""} if "content" in message else {}
        said: list[Any] = []
        for key in ("thinking", "content"):
            if isinstance(message.get(key), str):
                said += [{**has_content, key: word} for word in words_of(message[key], rng)]
        if isinstance(message.get("thinking"), str):
            said.insert(0, {**has_content, "thinking": ""})
        calls = message.get("tool_calls")
        if isinstance(calls, list) and calls:
            cut = rng.randrange(len(calls) + 1)
            said += [{**has_content, "tool_calls": some} for some in (calls[:cut], calls[cut:]) if some]
        said_already = [key for key in ("content", "thinking") if isinstance(message.get(key), str)]
        rest = {key: value for key, value in message.items() if key not in ("role", *said_already)}
        if isinstance(calls, list) and calls:
            rest.pop("tool_calls")
        said.append({**has_content, **rest})
        head = {key: value for key, value in answer.items() if key not in (*ENDS, "message")}
        lines = [{**head, "message": {"role": message["role"], **one}, "done": False} for one in said]
        lines[-1] |= {key: answer[key] for key in ENDS if key in answer}
        return lines

    def problems(self, body: Any) -> list[str]:
        return test_ollama.problems(body)

    def only_grows(self, event: Any) -> bool:
        return not event["done"]
