"""Streamed answers of ``ai-sdk`` keep the contract of streams."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from llmcrdt.document.canonical import exact_json
from llmcrdt.interop.json_input import parse
from llmcrdt.testing.stream_suite import pieces_of, words_of

sys.path.insert(0, str(Path(__file__).parent))
import ui_messages
from recorded import RecordedStreams

VECTORS = Path(__file__).parents[1] / "vectors" / "interop" / "ai-sdk"
PEERS = Path(__file__).parents[1] / "peers"
NODE = shutil.which("node")
PLAIN = ("file", "source-url", "source-document")
ENDS = {
    "input-available": (), "output-available": ("output", "preliminary"), "output-error": ("errorText",),
    "approval-requested": (), "output-denied": (),
}  # fmt: skip


def streamable(part: Any, index: int) -> Any:
    """A part as a stream can say it. Raises LookupError where it can say nothing like it."""
    kind = part["type"]
    if kind in ("text", "reasoning"):
        if not part.keys() <= {"type", "text", "state", "providerMetadata", "id"}:
            raise LookupError
        return {**part, "state": "done", **({"id": f"r{index}"} if kind == "reasoning" else {})}
    if kind in PLAIN or kind.startswith("data-") or kind == "step-start":
        return part
    known = ui_messages.TOOL_KEYS if hasattr(ui_messages, "TOOL_KEYS") else {
        "type", "toolName", "toolCallId", "state", "input", "output", "errorText", "title", "providerExecuted",
        "callProviderMetadata", "resultProviderMetadata", "preliminary", "approval",
    }  # fmt: skip
    tool = kind == "dynamic-tool" or kind.startswith("tool-")
    if not tool or not part.keys() <= known or part["state"] not in ENDS or "input" not in part:
        raise LookupError
    if "approved" in part.get("approval", {}) or (part["state"] == "approval-requested") != ("approval" in part):
        raise LookupError
    return part


def messages() -> list[Any]:
    made: list[Any] = []
    for path in sorted(VECTORS.glob("*.json")):
        value = parse(path.read_text("utf-8"))
        for message in value if isinstance(value, list) else value["messages"]:
            if message["role"] == "assistant":
                try:
                    parts = [streamable(part, i) for i, part in enumerate(message["parts"])]
                except LookupError:
                    continue
                fields = {key: message[key] for key in ("id", "metadata") if key in message}
                made.append({**fields, "role": "assistant", "parts": parts})
    return made


def part_chunks(part: Any, index: int, rng: random.Random) -> list[Any]:
    kind = part["type"]
    if kind == "step-start":
        return [{"type": "start-step"}]
    if kind in ("text", "reasoning"):
        id_ = part.get("id", f"t{index}")
        chunks = [{"type": f"{kind}-start", "id": id_}]
        chunks += [{"type": f"{kind}-delta", "id": id_, "delta": word} for word in words_of(part["text"], rng)]
        chunks.append({"type": f"{kind}-end", "id": id_})
        if "providerMetadata" in part:
            at = rng.choice(range(len(chunks))) if kind == "text" else -1
            chunks[at]["providerMetadata"] = part["providerMetadata"]
        return chunks
    if kind in PLAIN or kind.startswith("data-"):
        return [part]
    named = {"toolCallId": part["toolCallId"]}
    name = {"toolName": part["toolName"], "dynamic": True} if kind == "dynamic-tool" else {"toolName": kind[5:]}
    rest = {key: part[key] for key in ("title", "providerExecuted") if key in part}
    chunks = []
    if rng.random() < 0.7:
        chunks.append({"type": "tool-input-start", **named, **name, **rest})
        text = exact_json(part["input"])
        chunks += [{"type": "tool-input-delta", **named, "inputTextDelta": word} for word in words_of(text, rng)]
    metadata = {"providerMetadata": part["callProviderMetadata"]} if "callProviderMetadata" in part else {}
    chunks.append({"type": "tool-input-available", **named, **name, "input": part["input"], **rest, **metadata})
    state = part["state"]
    if state.startswith("output"):
        told = {key: part[key] for key in ENDS[state] if key in part}
        more = {"providerMetadata": part["resultProviderMetadata"]} if "resultProviderMetadata" in part else {}
        name_of = {"output-available": "tool-output-available", "output-error": "tool-output-error"}
        chunks.append({"type": name_of.get(state, "tool-output-denied"), **named, **told, **more})
    elif state == "approval-requested":
        approval = {"id": "approvalId"}
        told = {approval.get(key, key): value for key, value in part["approval"].items()}
        chunks.append({"type": "tool-approval-request", **named, **told})
    return chunks


def chunks_of(answer: Any, rng: random.Random) -> list[Any]:
    start: dict[str, Any] = {"type": "start"}
    start |= {"messageId": answer["id"]} if "id" in answer else {}
    end: dict[str, Any] = {"type": "finish"}
    if "metadata" in answer:
        rng.choice((start, end))["messageMetadata"] = answer["metadata"]
    out: list[Any] = [start]
    for index, part in enumerate(answer["parts"]):
        out += part_chunks(part, index, rng)
    return [*out, {"type": "data-note", "data": 1, "transient": True}, {"type": "finish-step"}, end, "[DONE]"]


class TestUIMessageStream(RecordedStreams):
    api = "ai-sdk"

    @property
    def answers(self) -> Sequence[Any]:
        """Those that are one answer; with results of tools in it a message is several."""
        return [message for message in messages() if self.draft(message) is not None]

    def events(self, answer: Any, rng: random.Random) -> list[Any]:
        return chunks_of(answer, rng)

    def problems(self, body: Any) -> list[str]:
        return ui_messages.problems(body)

    def only_grows(self, event: Any) -> bool:
        return event["type"] in ("text-delta", "reasoning-delta", "tool-input-delta")

    def test_messages_of_several_steps_are_put_together_too(self) -> None:
        several = [message for message in messages() if self.draft(message) is None]
        assert len(several) >= 3
        for seed in range(4 * len(several)):
            rng, message = random.Random(seed), several[seed % len(several)]
            stream, _ = self.read(pieces_of(self.encoded(chunks_of(message, rng), rng), rng))
            assert exact_json(stream.response()) == exact_json(message)


@pytest.mark.skipif(
    NODE is None or not (PEERS / "node_modules" / "ai").is_dir(),
    reason="Node or the AI SDK is missing: run make peers",
)
def test_the_ai_sdk_itself_makes_the_same_messages() -> None:
    assert NODE
    suite = TestUIMessageStream()
    streams = [chunks_of(message, random.Random(seed)) for seed in range(4) for message in messages()]
    for path in sorted(suite.recorded.glob("*.sse")):
        parts = path.read_text("utf-8").split("\n\n")
        streams.append([json.loads(part[6:]) for part in parts if part.startswith("data: {")])
    given = [[chunk for chunk in stream if isinstance(chunk, dict)] for stream in streams]
    command, text = [NODE, "ui_stream.mjs"], exact_json(given).replace("1e400", "1e40")  # JavaScript has no such number
    done = subprocess.run(command, input=text, cwd=PEERS, capture_output=True, text=True, check=True, timeout=120)
    compared = 0
    for stream, theirs in zip(json.loads(text), json.loads(done.stdout, parse_int=float), strict=True):
        ours, _ = suite.read(stream)
        if ours.ended:
            assert {"id": "", **json.loads(exact_json(ours.response()), parse_int=float)} == theirs
            compared += 1
    assert compared > 30
