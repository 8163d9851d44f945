"""Stand-ins for OpenRouter, for APIs with ``reasoning_content``, and for Ollama's own chat."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..interop.test_ollama import problems as ollama_problems
from ..interop.test_openrouter import problems as router_problems
from ..interop.test_reasoning_content import problems as reasoning_problems
from .openai_stand_in import ChatStandIn
from .stand_in import JSON, Cut, Fault, GiveUp, Hang, Refusal, Said, StandIn, pieces


class OpenRouterStandIn(ChatStandIn):
    """Details of reasoning are bound to the model and the key. It says what an answer costs."""

    path = "/api/v1/chat/completions"

    def check(self, body: JSON, key: str) -> None:
        found = router_problems(body)
        if found:
            raise Refusal(400, found[0])
        for message in body["messages"]:
            for detail in message.get("reasoning_details", []):
                if detail["type"] == "reasoning.encrypted":
                    bound = self.reads(detail["data"])
                    if bound is None or bound[:3] != ["reasoning", body["model"], key]:
                        raise Refusal(400, "Corrupted thought signature.")

    def answer(self, body: JSON, key: str, said: Said) -> JSON:
        made = super().answer(body, key, Said(said.text, "", said.calls))
        if said.thinking:
            data = self.sign("reasoning", body["model"], key, said.thinking)
            detail = {"type": "reasoning.encrypted", "data": data, "id": "r1", "format": "unknown", "index": 0}
            made["choices"][0]["message"]["reasoning_details"] = [detail]
        if body.get("usage") == {"include": True}:
            made["usage"]["cost"] = 0.00014
        return made

    def events(self, answer: JSON) -> Iterator[tuple[str | None, JSON]]:
        details = answer["choices"][0]["message"].get("reasoning_details")
        for n, (name, event) in enumerate(super().events(answer)):
            if n == 1 and details:
                choice = {"index": 0, "delta": {"reasoning_details": details}, "finish_reason": None}
                yield None, {**event, "choices": [choice]}
            yield name, event


class ReasoningStandIn(ChatStandIn):
    """Messages with calls bring their reasoning back."""

    path = "/chat/completions"

    def check(self, body: JSON, key: str) -> None:
        found = reasoning_problems(body)
        if found:
            raise Refusal(400, found[0])

    def answer(self, body: JSON, key: str, said: Said) -> JSON:
        made = super().answer(body, key, Said(said.text, "", said.calls))
        made["choices"][0]["message"]["reasoning_content"] = said.thinking
        return made

    def events(self, answer: JSON) -> Iterator[tuple[str | None, JSON]]:
        thinking = answer["choices"][0]["message"]["reasoning_content"]
        for n, (name, event) in enumerate(super().events(answer)):
            if n == 1:
                for piece in pieces(thinking):
                    choice = {"index": 0, "delta": {"reasoning_content": piece}, "finish_reason": None}
                    yield None, {**event, "choices": [choice]}
            yield name, event


class OllamaStandIn(StandIn):
    """Ollama's own chat: a JSON text a line. It wants no key."""

    path = "/api/chat"

    def key(self, headers: Any) -> str:
        return "key-1"

    def check(self, body: JSON, key: str) -> None:
        found = ollama_problems(body)
        if found:
            raise Refusal(400, found[0])

    def answer(self, body: JSON, key: str, said: Said) -> JSON:
        message: JSON = {"role": "assistant", "content": said.text}
        message |= {"thinking": said.thinking} if said.thinking else {}
        calls = [{"function": {"name": name, "arguments": json.loads(given)}} for name, given in said.calls]
        message |= {"tool_calls": calls} if calls else {}
        counts = {"prompt_eval_count": 10, "eval_count": 5}
        return {"model": body["model"], "message": message, "done": True, "done_reason": "stop", **counts}

    def stream(self, answer: JSON, fault: Fault | None) -> Iterator[bytes]:
        at = fault.after if isinstance(fault, Cut | GiveUp | Hang) else None
        for n, event in enumerate(self._lines(answer)):
            if n == at:
                if isinstance(fault, GiveUp):
                    yield json.dumps({"error": fault.message}).encode() + b"\n"
                return
            yield json.dumps(event).encode() + b"\n"

    def _lines(self, answer: JSON) -> Iterator[JSON]:
        message = answer["message"]
        for key in ("thinking", "content"):
            for piece in pieces(message.get(key, "")):
                yield {"model": answer["model"], "message": {"role": "assistant", "content": "", key: piece}}
        for call in message.get("tool_calls", []):
            yield {"model": answer["model"], "message": {"role": "assistant", "content": "", "tool_calls": [call]}}
        yield {**answer, "message": {"role": "assistant", "content": ""}}

    def error(self, refusal: Refusal) -> JSON:
        return {"error": refusal.message}
