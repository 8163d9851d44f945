"""A stand-in for Anthropic's Messages, which checks what thinking is bound to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..interop.anthropic_request import problems
from .stand_in import JSON, Refusal, Said, StandIn, digest, pieces

MISMATCH = "Invalid `signature` in `thinking` block"
OTHER_CONVERSATION = f"{MISMATCH}. The block is bound to a different conversation"


class AnthropicStandIn(StandIn):
    """A signature is bound to the model, to the organization (the key), and to all that stands before its block:
    instructions, tools, earlier messages, and the blocks before it in its message. Cache points don't count."""

    path = "/v1/messages"

    def check(self, body: JSON, key: str) -> None:
        if not isinstance(body.get("model"), str):
            raise Refusal(400, "model: Field required")
        found = problems(body)
        if found:
            raise Refusal(400, found[0])
        for i, message in enumerate(body["messages"]):
            for j, block in enumerate(_blocks(message["content"])):
                if block.get("type") == "thinking":
                    self._check_thinking(body, key, i, j, block)

    def _check_thinking(self, body: JSON, key: str, i: int, j: int, block: JSON) -> None:
        bound = self.reads(block["signature"])
        at = f"messages.{i}.content.{j}"
        if bound is None or bound[:3] != ["thinking", body["model"], key]:
            raise Refusal(400, f"{at}: {MISMATCH}")
        if bound[3] != _prefix(body, i, j) or bound[4] != block["thinking"]:
            raise Refusal(400, f"{at}: {OTHER_CONVERSATION}")

    def answer(self, body: JSON, key: str, said: Said) -> JSON:
        n = self.number()
        content: list[JSON] = []
        if said.thinking or body.get("thinking", {}).get("type") == "enabled":
            place = len(body["messages"])
            bound = ("thinking", body["model"], key, _prefix(body, place, 0), said.thinking)
            content.append({"type": "thinking", "thinking": said.thinking, "signature": self.sign(*bound)})
        if said.text:
            content.append({"type": "text", "text": said.text})
        for k, (name, arguments) in enumerate(said.calls):
            content.append({"type": "tool_use", "id": f"toolu_{n}_{k}", "name": name, "input": json.loads(arguments)})
        return {
            "id": f"msg_{n}", "type": "message", "role": "assistant", "model": body["model"], "content": content,
            "stop_reason": "tool_use" if said.calls else "end_turn", "stop_sequence": None,
            "usage": {"input_tokens": 10, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 4,
                      "output_tokens": 5},
        }  # fmt: skip

    def events(self, answer: JSON) -> Iterator[tuple[str | None, JSON]]:
        def event(kind: str, **more: Any) -> tuple[str, JSON]:
            return kind, {"type": kind, **more}

        start = {**answer, "content": [], "stop_reason": None, "usage": {**answer["usage"], "output_tokens": 1}}
        yield event("message_start", message=start)
        yield event("ping")
        for i, block in enumerate(answer["content"]):
            kind = block["type"]
            empty = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}, "tool_use": {"input": {}}}
            yield event("content_block_start", index=i, content_block={**block, **empty[kind]})
            deltas: list[JSON] = []
            if kind == "text":
                deltas = [{"type": "text_delta", "text": piece} for piece in pieces(block["text"])]
            elif kind == "thinking":
                deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(block["thinking"])]
                deltas.append({"type": "signature_delta", "signature": block["signature"]})
            else:
                arguments = json.dumps(block["input"])
                deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces(arguments)]
            for delta in deltas:
                yield event("content_block_delta", index=i, delta=delta)
            yield event("content_block_stop", index=i)
        delta = {"stop_reason": answer["stop_reason"], "stop_sequence": None}
        yield event("message_delta", delta=delta, usage={"output_tokens": answer["usage"]["output_tokens"]})
        yield event("message_stop")

    def error(self, refusal: Refusal) -> JSON:
        return {"type": "error", "error": {"type": refusal.kind, "message": refusal.message}}

    def given_up(self, message: str) -> tuple[str | None, JSON]:
        kind = "overloaded_error" if message == "Overloaded" else "api_error"
        return "error", {"type": "error", "error": {"type": kind, "message": message}}


def _blocks(content: JSON) -> list[JSON]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _prefix(body: JSON, i: int, j: int) -> str:
    """The digest of all before block ``j`` of message ``i``."""
    messages = [[message["role"], _blocks(message["content"])] for message in body["messages"][:i]]
    begun = _blocks(body["messages"][i]["content"])[:j] if i < len(body["messages"]) else []
    system = body.get("system")
    whole = [_blocks(system) if system is not None else [], body.get("tools") or [], messages, begun]
    return digest(_without_cache_points(whole))


def _without_cache_points(value: JSON) -> JSON:
    if isinstance(value, dict):
        return {key: _without_cache_points(inner) for key, inner in value.items() if key != "cache_control"}
    return [_without_cache_points(inner) for inner in value] if isinstance(value, list) else value
