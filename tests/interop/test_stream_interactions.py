"""Streamed answers of ``gemini-interactions`` keep the contract of streams."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from llmcrdt.document.canonical import exact_json
from llmcrdt.interop.json_input import parse
from llmcrdt.testing.stream_suite import words_of

sys.path.insert(0, str(Path(__file__).parent))
import interactions_request
from recorded import RecordedStreams

VECTORS = Path(__file__).parents[1] / "vectors" / "interop" / "gemini-interactions"
CONTENTS = ("text", "image", "document", "audio", "video")


def answer_of(steps: list[Any]) -> dict[str, Any]:
    return {"id": "int_1", "status": "completed", "model": "gemini-x", "steps": steps, "usage": {"total_tokens": 9}}


def answers() -> list[Any]:
    made: list[Any] = []
    for path in sorted(VECTORS.glob("*.json")):
        value = parse(path.read_text("utf-8"))
        items = value if isinstance(value, list) else value["input"]
        run: list[Any] = []
        for step in [*(items if isinstance(items, list) else []), {"type": "user_input"}]:
            if step["type"] not in ("user_input", "function_result", *CONTENTS):
                run.append(step)
            elif run:
                made.append(answer_of(run))
                run = []
    return made


def text_deltas(content: Any, wrap: Any, rng: random.Random) -> list[Any]:
    rest = {key: value for key, value in content.items() if key not in ("type", "text", "annotations")}
    deltas = [wrap({"type": "text", "text": word}) for word in words_of(content["text"], rng) or [""]]
    deltas[-1] = (
        wrap({"type": "text", "text": words_of(content["text"], rng)[-1] if False else "", **rest})
        if rest
        else deltas[-1]
    )
    if rest:
        deltas = [wrap({"type": "text", "text": word}) for word in words_of(content["text"], rng)] + deltas[-1:]
    if content.get("annotations"):
        deltas.append({"type": "text_annotation_delta", "annotations": content["annotations"]})
    return deltas


def step_events(index: int, step: Any, rng: random.Random) -> list[Any]:
    kind, start, deltas = step["type"], dict(step), []
    listed = "summary" if kind == "thought" else "content"
    contents = step.get(listed)
    if kind in ("thought", "model_output") and isinstance(contents, list) and contents:
        texts = [one["type"] == "text" for one in contents]
        odd = any(one.get("annotations") == [] or not isinstance(one.get("text", ""), str) for one in contents)
        if not odd and not any(a and b for a, b in pairwise(texts)):  # two texts in a row stand there from the start
            del start[listed]
            for one in contents:
                wrap = (
                    (lambda said: {"type": "thought_summary", "content": said})
                    if kind == "thought"
                    else (lambda said: said)
                )
                known = one["type"] in CONTENTS and one["type"] != "text"
                if one["type"] == "text":
                    deltas += text_deltas(one, wrap, rng)
                elif kind == "thought" or known:
                    deltas.append(wrap(one))
                else:
                    return whole(index, step)
    if kind == "function_call" and isinstance(step.get("arguments"), dict):
        del start["arguments"]
        text = exact_json(step["arguments"]) if step["arguments"] or rng.random() < 0.5 else ""
        deltas += [{"type": "arguments_delta", "arguments": word} for word in words_of(text, rng)]
    elif kind.endswith(("_call", "_result")) and kind != "function_call":
        taken = {key: start.pop(key) for key in ("arguments", "result", "signature", "is_error") if key in start}
        deltas.append({"type": kind, **taken})
    if kind == "thought" and "signature" in start:
        deltas.append({"type": "thought_signature", "signature": start.pop("signature")})
    return [
        {"event_type": "step.start", "index": index, "step": start},
        *({"event_type": "step.delta", "index": index, "delta": delta} for delta in deltas),
        {"event_type": "step.stop", "index": index},
    ]


def whole(index: int, step: Any) -> list[Any]:
    return [{"event_type": "step.start", "index": index, "step": step}, {"event_type": "step.stop", "index": index}]


class TestInteractionsStream(RecordedStreams):
    api = "gemini-interactions"

    @property
    def answers(self) -> Sequence[Any]:
        return answers()

    def events(self, answer: Any, rng: random.Random) -> list[Any]:
        begun = {"id": answer["id"], "status": "in_progress", "model": answer["model"]}
        out: list[Any] = [{"event_type": "interaction.created", "interaction": begun}]
        for index, step in enumerate(answer["steps"]):
            out += step_events(index, step, rng)
        ended = {key: value for key, value in answer.items() if key not in ("steps", "model")}
        out.append({"event_type": "interaction.completed", "interaction": ended})
        return [{**event, "event_id": f"e{i}"} for i, event in enumerate(out)]

    def problems(self, body: Any) -> list[str]:
        return interactions_request.problems(body)

    def only_grows(self, event: Any) -> bool:
        return event.get("delta", {}).get("type") in ("text", "thought_summary", "arguments_delta")
