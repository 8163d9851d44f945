"""Streamed answers of ``gemini`` keep the contract of streams."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmcrdt.exceptions import FormatError
from llmcrdt.interop.json_input import parse
from llmcrdt.interop.registry import format_of
from llmcrdt.testing.stream_suite import words_of

sys.path.insert(0, str(Path(__file__).parent))
import gemini_request
from recorded import RecordedStreams

VECTORS = Path(__file__).parents[1] / "vectors" / "interop" / "gemini"


def answer_of(parts: list[Any], **fields: Any) -> dict[str, Any]:
    content = {"role": "model", **fields, "parts": parts}
    candidate = {"index": 0, "content": content, "finishReason": "STOP", "safetyRatings": []}
    return {
        "candidates": [candidate], "usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 12},
        "modelVersion": "gemini-3-pro", "responseId": "r1",
    }  # fmt: skip


def is_plain(part: Any) -> bool:
    return isinstance(part.get("text"), str) and part.keys() <= {"text", "thought"}


def joined(parts: list[Any]) -> list[Any]:
    """Parts as a stream can say them: plain texts of a kind are one, and an empty one is none."""
    made: list[Any] = []
    for part in parts:
        if is_plain(part) and made and is_plain(made[-1]) and made[-1].get("thought") == part.get("thought"):
            made[-1] = {**made[-1], "text": made[-1]["text"] + part["text"]}
        elif not is_plain(part) or part["text"]:
            made.append(part)
    return made


def answers() -> list[Any]:
    nested = {"a": {"b": [1.10, "Ÿ😀", None, {"c d": True}], "e": ""}, "f": "x"}
    made = [answer_of([{"functionCall": {"name": "f", "args": nested}, "thoughtSignature": "OPAQUE-nested"}])]
    for path in sorted(VECTORS.glob("*.json")):
        value = parse(path.read_text("utf-8"))
        for content in value if isinstance(value, list) else value["contents"]:
            if content.get("role") == "model":
                rest = {key: inner for key, inner in content.items() if key not in ("parts", "role")}
                made.append(answer_of(joined(content["parts"]), **rest))
    return made


def leaves(value: Any, path: str, rng: random.Random) -> Iterator[Any]:
    """The pieces of arguments, each with its path. Raises LookupError for what they can't say."""
    items = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else None
    if items is None:
        yield from leaf(value, path, rng)
        return
    if not value:
        raise LookupError
    for key, inner in items:
        plain = isinstance(key, str) and key.isidentifier()
        step = f"[{key}]" if isinstance(key, int) else f".{key}" if plain else f"['{key}']"
        if isinstance(key, str) and ("'" in key or "\\" in key):
            raise LookupError
        yield from leaves(inner, path + step, rng)


def leaf(value: Any, path: str, rng: random.Random) -> Iterator[Any]:
    if isinstance(value, str):
        for word in [*words_of(value, rng), ""]:
            yield {"jsonPath": path, "stringValue": word, "willContinue": True}
    elif value is None:
        yield {"jsonPath": path, "nullValue": "NULL_VALUE"}
    else:
        yield {"jsonPath": path, "boolValue" if isinstance(value, bool) else "numberValue": value}


def part_pieces(part: Any, rng: random.Random) -> list[Any]:
    if is_plain(part):
        return [{**part, "text": word} for word in words_of(part["text"], rng)]
    call = part.get("functionCall")
    if isinstance(call, dict) and isinstance(call.get("args"), dict) and rng.random() < 0.5:
        try:
            pieces = list(leaves(call["args"], "$", rng))
        except LookupError:
            return [part]
        first = {key: value for key, value in call.items() if key != "args"}
        more = [{"functionCall": {"partialArgs": [piece], "willContinue": True}} for piece in pieces]
        return [{**part, "functionCall": {**first, "willContinue": True}}, *more, {"functionCall": {}}]
    return [part]


class TestGeminiStream(RecordedStreams):
    api = "gemini"

    @property
    def answers(self) -> Sequence[Any]:
        return answers()

    def events(self, answer: Any, rng: random.Random) -> list[Any]:
        (candidate,) = answer["candidates"]
        pieces = [piece for part in candidate["content"]["parts"] for piece in part_pieces(part, rng)]
        if rng.random() < 0.5:
            pieces.append({"text": ""})
        head = {"modelVersion": answer["modelVersion"], "responseId": answer["responseId"]}
        content = {key: value for key, value in candidate["content"].items() if key != "parts"}
        out: list[Any] = []
        while pieces:
            size = rng.choice((1, 1, 2, 3))
            parts, pieces = pieces[:size], pieces[size:]
            said = {"index": 0, "content": {**content, "parts": parts}, "safetyRatings": []}
            out.append({**head, "candidates": [said], "usageMetadata": {"promptTokenCount": 9}})
        if not out:
            empty = {"index": 0, "content": {**content, "parts": []}, "safetyRatings": []}
            out.append({**head, "candidates": [empty], "usageMetadata": {"promptTokenCount": 9}})
        last = {**head, "candidates": [{"index": 0, "finishReason": candidate["finishReason"]}]}
        return [*out, {**last, "usageMetadata": answer["usageMetadata"]}]

    def problems(self, body: Any) -> list[str]:
        return gemini_request.problems(body)

    def only_grows(self, event: Any) -> bool:
        parts = event["candidates"][0].get("content", {}).get("parts", [])
        return bool(parts) and all(is_plain(part) for part in parts)


@pytest.mark.parametrize("path", ["$", "a", "$.", "$[2]", "$.a[1]", "$..a", "$[*]", "$.a" * 60, "", 5, "$.a.b"])
def test_arguments_at_an_odd_path_are_told(path: Any) -> None:
    def event(piece: Any) -> Any:
        call = {"functionCall": {"partialArgs": [piece], "willContinue": True}}
        return {"candidates": [{"content": {"parts": [call]}}]}

    stream = format_of("gemini").stream()
    stream.feed({"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "willContinue": True}}]}}]})
    stream.feed(event({"jsonPath": "$.a[0]", "stringValue": "x"}))
    with pytest.raises(FormatError) as told:
        stream.feed(event({"jsonPath": path, "stringValue": "x"})) if path != "$.a[1]" else stream.feed(
            event({"jsonPath": path})
        )
    assert told.value.hint
