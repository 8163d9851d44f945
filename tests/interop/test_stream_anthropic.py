"""Streamed answers of ``anthropic`` keep the contract of streams."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmcrdt.document.canonical import exact_json
from llmcrdt.interop.json_input import parse
from llmcrdt.testing.stream_suite import words_of

sys.path.insert(0, str(Path(__file__).parent))
import anthropic_request
from recorded import RecordedStreams

VECTORS = Path(__file__).parents[1] / "vectors" / "interop" / "anthropic"
USAGE = {"input_tokens": 30, "output_tokens": 7, "cache_read_input_tokens": 0, "service_tier": "standard"}
TEXTS = {"text": "text", "thinking": "thinking"}


def answer_of(blocks: Any, reason: str = "end_turn") -> dict[str, Any]:
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-1", "content": blocks,
        "stop_reason": reason, "stop_sequence": None, "usage": USAGE,
    }  # fmt: skip


def answers() -> list[Any]:
    made = [answer_of([{"type": "text", "text": "Ÿes 😀\r\n"}]), answer_of([], "refusal")]
    for path in sorted(VECTORS.glob("*.json")):
        value = parse(path.read_text("utf-8"))
        for message in value if isinstance(value, list) else value["messages"]:
            if message["role"] == "assistant":
                content = message["content"]
                blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
                made.append(answer_of(blocks, "tool_use" if blocks[-1]["type"] == "tool_use" else "end_turn"))
    return made


def block_events(index: int, block: Any, rng: random.Random) -> list[Any]:
    kind, start, deltas = block["type"], dict(block), []
    if kind in TEXTS:
        key = TEXTS[kind]
        words = words_of(block[key], rng)
        start[key] = words.pop(0) if words and rng.random() < 0.2 else ""
        deltas += [{"type": f"{kind}_delta", key: word} for word in words]
    if kind == "thinking" and "signature" in block:
        start["signature"] = ""
        deltas[-1:] = [*deltas[-1:], {"type": "signature_delta", "signature": block["signature"]}]
    if isinstance(block.get("citations"), list) and block["citations"]:
        start["citations"] = rng.choice(([], None))
        deltas += [{"type": "citations_delta", "citation": one} for one in block["citations"]]
    if isinstance(block.get("input"), dict) and rng.random() < 0.8:
        text = exact_json(block["input"]) if block["input"] or rng.random() < 0.5 else ""
        start["input"] = {}
        deltas += [{"type": "input_json_delta", "partial_json": word} for word in ["", *words_of(text, rng)]]
    if kind == "compaction":
        whole = {key: start.pop(key) for key in ("content", "encrypted_content") if key in start}
        start["content"] = None
        deltas.append({"type": "compaction_delta", **whole})
    events: list[Any] = [{"type": "content_block_start", "index": index, "content_block": start}]
    events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
    return [*events, {"type": "content_block_stop", "index": index}]


class TestAnthropicStream(RecordedStreams):
    api = "anthropic"

    @property
    def answers(self) -> Sequence[Any]:
        return answers()

    def events(self, answer: Any, rng: random.Random) -> list[Any]:
        begun = {**answer["usage"], "output_tokens": 1}
        begun.pop("cache_read_input_tokens", None)
        first = {**answer, "content": [], "stop_reason": None, "usage": begun}
        out: list[Any] = [{"type": "message_start", "message": first}, {"type": "ping"}]
        for index, block in enumerate(answer["content"]):
            made = block_events(index, block, rng)
            calls = block["type"] == "tool_use" and out[-1].get("type") == "content_block_stop"
            if calls and answer["content"][index - 1]["type"] == "tool_use" and rng.random() < 0.5:
                out.insert(-1, made.pop(0))  # two that grow at the same time
            out += made
        ended = {"stop_reason": answer["stop_reason"], "stop_sequence": None}
        usage = {**answer["usage"], "input_tokens": None}
        return [*out, {"type": "message_delta", "delta": ended, "usage": usage}, {"type": "message_stop"}]

    def problems(self, body: Any) -> list[str]:
        return anthropic_request.problems(body)

    def only_grows(self, event: Any) -> bool:
        kind = event.get("delta", {}).get("type")
        return event["type"] == "content_block_delta" and kind not in ("signature_delta", "compaction_delta")
