"""Streamed answers of ``openai-responses`` keep the contract of streams."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmcrdt.interop.json_input import parse
from llmcrdt.testing.stream_suite import words_of

sys.path.insert(0, str(Path(__file__).parent))
import responses_request
from recorded import RecordedStreams

VECTORS = Path(__file__).parents[1] / "vectors" / "interop" / "openai-responses"
OUTPUT = ("reasoning", "compaction", "mcp_list_tools", "mcp_approval_request", "program", "program_output")
WORDS = {
    "function_call": ("arguments", "function_call_arguments"),
    "custom_tool_call": ("input", "custom_tool_call_input"),
}
TEXTS = {"output_text": ("text", "output_text"), "refusal": ("refusal", "refusal")}


def answer_of(output: list[Any]) -> dict[str, Any]:
    return {
        "id": "resp_1", "object": "response", "status": "completed", "model": "gpt-5.6", "output": output,
        "error": None, "incomplete_details": None, "usage": {"input_tokens": 9, "output_tokens": 4},
    }  # fmt: skip


def is_output(item: Any) -> bool:
    kind = item.get("type", "message")
    return item.get("role") == "assistant" if kind == "message" else kind in OUTPUT or kind.endswith("_call")


def answers() -> list[Any]:
    made: list[Any] = []
    for path in sorted(VECTORS.glob("*.json")):
        value = parse(path.read_text("utf-8"))
        run: list[Any] = []
        items = value if isinstance(value, list) else value["input"]
        for item in [*(items if isinstance(items, list) else []), {"role": "user"}]:
            if is_output(item):
                if isinstance(item.get("content"), str):
                    item["content"] = [{"type": "output_text", "text": item["content"], "annotations": []}]
                run.append(item)
            elif run:
                made.append(answer_of(run))
                run = []
    return made


def piece_events(at: dict[str, Any], piece: Any, rng: random.Random) -> list[Any]:
    if piece["type"] not in TEXTS:
        return [{"type": "response.content_part.added", **at, "part": piece}]
    key, name = TEXTS[piece["type"]]
    start = {**piece, key: "", **({"annotations": []} if "annotations" in piece else {})}
    out: list[Any] = [{"type": "response.content_part.added", **at, "part": start}]
    out += [{"type": f"response.{name}.delta", **at, "delta": word} for word in words_of(piece[key], rng)]
    for i, one in enumerate(piece.get("annotations") or []):
        out.append({"type": "response.output_text.annotation.added", **at, "annotation_index": i, "annotation": one})
    done = {"type": f"response.{name}.done", **at, key: piece[key]}
    return [*out, done, {"type": "response.content_part.done", **at, "part": piece}]


def item_events(index: int, item: Any, rng: random.Random) -> list[Any]:
    kind, at, out = item.get("type", "message"), {"output_index": index}, []
    start = {**item, "status": "in_progress"} if "status" in item else dict(item)
    if kind == "message":
        start["content"] = []
        for i, piece in enumerate(item["content"]):
            out += piece_events({**at, "item_id": item.get("id"), "content_index": i}, piece, rng)
    elif kind == "reasoning":
        start["summary"] = []
        if item.get("encrypted_content"):
            start["encrypted_content"] = item["encrypted_content"][:9]  # "may be incomplete"
        for listed, key in (("summary", "summary_index"), ("content", "content_index")):
            name = "reasoning_summary_text" if listed == "summary" else "reasoning_text"
            if listed == "content":
                start.pop("content", None)
            for i, piece in enumerate(item.get(listed) or []):
                place = {**at, key: i}
                if listed == "summary":
                    part = {"type": "summary_text", "text": ""}
                    out.append({"type": "response.reasoning_summary_part.added", **place, "part": part})
                words = words_of(piece["text"], rng)
                out += [{"type": f"response.{name}.delta", **place, "delta": word} for word in words]
    elif kind in WORDS:
        key, name = WORDS[kind]
        start[key] = ""
        out += [{"type": f"response.{name}.delta", **at, "delta": word} for word in words_of(item[key], rng)]
        out.append({"type": f"response.{name}.done", **at, key: item[key]})
    events: list[Any] = [{"type": "response.output_item.added", **at, "item": start}, *out]
    return [*events, {"type": "response.output_item.done", **at, "item": item}]


class TestResponsesStream(RecordedStreams):
    api = "openai-responses"

    @property
    def answers(self) -> Sequence[Any]:
        return answers()

    def events(self, answer: Any, rng: random.Random) -> list[Any]:
        begun = {**answer, "status": "in_progress", "output": [], "usage": None}
        out: list[Any] = [{"type": f"response.{name}", "response": begun} for name in ("created", "in_progress")]
        for index, item in enumerate(answer["output"]):
            out += item_events(index, item, rng)
        ended = {**answer, "output": []} if rng.random() < 0.2 else answer  # some servers don't say it twice
        out.append({"type": "response.completed", "response": ended})
        return [{**event, "sequence_number": i} for i, event in enumerate(out)]

    def problems(self, body: Any) -> list[str]:
        return responses_request.problems(body)

    def only_grows(self, event: Any) -> bool:
        return event["type"].endswith(".delta")
