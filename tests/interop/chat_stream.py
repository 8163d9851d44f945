"""Chat completions as their servers stream them; written from their references, not from the readers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from llmcrdt.interop.json_input import parse
from llmcrdt.testing.stream_suite import words_of

VECTORS = Path(__file__).parents[1] / "vectors" / "interop"
IN_PIECES = ("content", "refusal", "reasoning_content", "reasoning")
ARGUMENTS = {"function": "arguments", "custom": "input"}
USAGE = {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}


def answer_of(message: Any, reason: str = "stop") -> dict[str, Any]:
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1764500000, "model": "m-1", "choices": [choice],
        "system_fingerprint": None, "usage": USAGE,
    }  # fmt: skip


def answers(api: str) -> list[Any]:
    """The answers of a format's vectors, as responses. Their calls have no index: in a stream it says which call grows,
    so nobody can tell."""
    made = [
        answer_of({"role": "assistant", "content": "Ÿes 😀\r\n", "refusal": None}),
        answer_of({"role": "assistant"}),
    ]
    for path in sorted((VECTORS / api).glob("*.json")):
        value = parse(path.read_text("utf-8"))
        for message in value if isinstance(value, list) else value["messages"]:
            if message["role"] == "assistant":
                for call in message.get("tool_calls") or []:
                    call.pop("index", None)
                made.append(answer_of(message, "tool_calls" if message.get("tool_calls") else "stop"))
    return made


def call_deltas(index: int, call: Any, rng: random.Random) -> list[Any]:
    kind = call["type"]
    if kind not in ARGUMENTS:
        return [{"index": index, **call}]
    key = ARGUMENTS[kind]
    words = words_of(call[kind][key], rng)
    deltas = [{"index": index, **call, kind: {**call[kind], key: words.pop(0) if rng.random() < 0.3 and words else ""}}]
    more = [{"index": index, kind: {key: word}} for word in words]
    if rng.random() < 0.2:  # as some servers repeat it
        more = [{**one, "id": call["id"], "type": kind} for one in more]
    return deltas + more


def detail_deltas(detail: Any, rng: random.Random) -> list[Any]:
    key = {"reasoning.text": "text", "reasoning.summary": "summary", "thinking": "thinking"}.get(detail.get("type"))
    grows = key in detail and isinstance(detail[key], str)
    if not grows or not ("index" in detail or "signature" in detail):
        return [detail]
    rest = {name: value for name, value in detail.items() if name not in (key, "signature")}
    deltas = [{**rest, key: word} for word in words_of(detail[key], rng)] or [{**rest, key: ""}]
    return [*deltas, {**rest, "signature": detail["signature"]}] if "signature" in detail else deltas


def chunks(answer: Any, rng: random.Random) -> list[Any]:
    """The chunks of an answer, and the text that ends them."""
    (choice,) = answer["choices"]
    message = choice["message"]
    deltas: list[Any] = [{"role": "assistant"}]
    if message.get("content") == "" or (isinstance(message.get("content"), str) and rng.random() < 0.7):
        deltas[0]["content"] = ""
    for key in ("reasoning_details", "thinking_blocks"):
        if isinstance(message.get(key), list):
            pieces = [{key: [delta]} for one in message[key] for delta in detail_deltas(one, rng)]
            deltas += pieces or [{key: []}]
    for key in IN_PIECES:
        if isinstance(message.get(key), str):
            deltas += [{key: word} for word in words_of(message[key], rng) or [""]]
    for key, value in message.items():
        taken = isinstance(value, str) and key in IN_PIECES
        listed = isinstance(value, list) and key in ("reasoning_details", "thinking_blocks", "tool_calls")
        if key != "role" and not taken and not listed:
            deltas.append({key: value})
    lines = [call_deltas(i, call, rng) for i, call in enumerate(message.get("tool_calls") or [])]
    if message.get("tool_calls") == []:
        deltas.append({"tool_calls": []})
    while any(lines):
        line = (
            rng.choice([line for line in lines if line]) if rng.random() < 0.2 else next(line for line in lines if line)
        )
        first = next(i for i, one in enumerate(lines) if one and (one is line or "id" in one[0]))
        deltas.append({"tool_calls": [lines[first].pop(0)]})
    head = {key: value for key, value in answer.items() if key not in ("choices", "usage")}
    head["object"] = "chat.completion.chunk"
    made: list[Any] = [
        {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]} for delta in deltas
    ]
    made.append({"choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]})
    if rng.random() < 0.5:
        made = [{**one, "usage": None, "obfuscation": "xyz"} for one in made]
    return [*({**head, **one} for one in made), {**head, "choices": [], "usage": answer["usage"]}, "[DONE]"]
