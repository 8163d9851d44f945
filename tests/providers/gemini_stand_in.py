"""Stand-ins for Google's generateContent and Interactions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..interop.gemini_request import problems
from ..interop.interactions_request import problems as step_problems
from .stand_in import JSON, Refusal, Said, StandIn, digest, pieces

SKIP = "skip_thought_signature_validator"
CORRUPTED = "Corrupted thought signature."


class GeminiStandIn(StandIn):
    """A signature is bound to the model, to the project (the key), and to the part that it came on: it is refused on
    another one. The first call of a step has one; else an empty text at the end has it."""

    path = "/v1/models"

    def asked(self, path: str, body: JSON) -> JSON | None:
        found = re.fullmatch(r"/v1(?:beta)?/models/([^:]+):(generateContent|streamGenerateContent)", path)
        return {**body, "model": found[1], "stream": found[2] == "streamGenerateContent"} if found else None

    def key(self, headers: Mapping[str, str]) -> str:
        return headers.get("x-goog-api-key") or ""

    def check(self, body: JSON, key: str) -> None:
        found = problems(body)
        if found:
            raise refusal(400, "INVALID_ARGUMENT", found[0])
        for content in body["contents"]:
            for part in content["parts"]:
                signature = part.get("thoughtSignature")
                if signature not in (None, SKIP):
                    bound = self.reads(signature)
                    if bound is None or bound[:4] != ["thought", body["model"], key, _payload(part)]:
                        raise refusal(400, "INVALID_ARGUMENT", CORRUPTED)

    def answer(self, body: JSON, key: str, said: Said) -> JSON:
        n = self.number()
        parts: list[JSON] = [{"text": said.thinking, "thought": True}] if said.thinking else []
        parts += [{"text": said.text}] if said.text else []
        for k, (name, arguments) in enumerate(said.calls):
            named = {"id": f"c{n}-{k}"} if n % 2 else {}
            parts.append({"functionCall": {**named, "name": name, "args": json.loads(arguments)}})
        if said.thinking and not said.calls:
            parts.append({"text": ""})
        if said.thinking or (said.calls and "gemini-3" in body["model"]):
            at = next((i for i, part in enumerate(parts) if "functionCall" in part), len(parts) - 1)
            signature = self.sign("thought", body["model"], key, _payload(parts[at]), n)
            parts[at] = {**parts[at], "thoughtSignature": signature}
        return {
            "candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP", "index": 0}],
            "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 4, "thoughtsTokenCount": 1,
                              "cachedContentTokenCount": 4, "totalTokenCount": 15},
            "modelVersion": body["model"], "responseId": f"r{n}",
        }  # fmt: skip

    def events(self, answer: JSON) -> Iterator[tuple[str | None, JSON]]:
        (candidate,) = answer["candidates"]
        head = {"modelVersion": answer["modelVersion"], "responseId": answer["responseId"]}

        def event(part: JSON | None, **more: Any) -> tuple[None, JSON]:
            content = {"content": {"role": "model", "parts": [part]}} if part is not None else {}
            return None, {"candidates": [{**content, "index": 0, **more}], **head}

        for part in candidate["content"]["parts"]:
            for text in pieces(part["text"]) if part.get("text") else ():
                yield event({**part, "text": text})
            if not part.get("text"):
                yield event(part)
        _, last = event(None, finishReason=candidate["finishReason"])
        yield None, {**last, "usageMetadata": answer["usageMetadata"]}

    def error(self, refusal: Refusal) -> JSON:
        return _error(refusal)

    def headers(self, refusal: Refusal) -> Iterator[tuple[str, str]]:
        return iter(())  # Google says in the body when to come again

    def given_up(self, message: str) -> tuple[str | None, JSON]:
        return None, {"error": {"code": 503, "message": message, "status": "UNAVAILABLE"}}


class InteractionsStandIn(StandIn):
    """The signature of a thought is bound to the model, the key and the thought's summary. It keeps interactions until
    ``forget``, for requests with ``previous_interaction_id``."""

    path = "/v1/interactions"

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self._kept: dict[str, list[JSON]] = {}

    def key(self, headers: Mapping[str, str]) -> str:
        return headers.get("x-goog-api-key") or ""

    def forget(self) -> None:
        """As after its retention time."""
        self._kept.clear()

    def whole(self, body: JSON) -> JSON:
        return {**body, "input": [*self._kept.get(body.get("previous_interaction_id"), []), *body["input"]]}

    def check(self, body: JSON, key: str) -> None:
        before = body.get("previous_interaction_id")
        if before is not None and before not in self._kept:
            raise refusal(404, "NOT_FOUND", f"Interaction {before} not found.")
        whole = self.whole(body)
        found = step_problems(whole)
        if found:
            raise refusal(400, "INVALID_ARGUMENT", found[0])
        for step in whole["input"]:
            if step["type"] == "thought":
                bound = self.reads(step["signature"])
                if bound is None or bound[:4] != ["thought", body["model"], key, digest(step.get("summary"))]:
                    raise refusal(400, "INVALID_ARGUMENT", CORRUPTED)

    def answer(self, body: JSON, key: str, said: Said) -> JSON:
        n = self.number()
        steps: list[JSON] = []
        if said.thinking:
            summary = [{"type": "text", "text": said.thinking}]
            signature = self.sign("thought", body["model"], key, digest(summary), n)
            steps.append({"type": "thought", "summary": summary, "signature": signature})
        if said.text:
            steps.append({"type": "model_output", "content": [{"type": "text", "text": said.text}]})
        for k, (name, arguments) in enumerate(said.calls):
            steps.append(
                {"type": "function_call", "id": f"call_{n}_{k}", "name": name, "arguments": json.loads(arguments)}
            )
        id_ = f"int_{n}"
        if body.get("store", True):
            self._kept[id_] = [*self.whole(body)["input"], *steps]
        return {
            "id": id_, "object": "interaction", "status": "requires_action" if said.calls else "completed",
            "model": body["model"], "steps": steps,
            "usage": {"total_input_tokens": 10, "total_output_tokens": 4, "total_thought_tokens": 1,
                      "total_cached_tokens": 4, "total_tokens": 15},
        }  # fmt: skip

    def events(self, answer: JSON) -> Iterator[tuple[str | None, JSON]]:
        n = 0

        def event(kind: str, **more: Any) -> tuple[str, JSON]:
            nonlocal n
            n += 1
            return kind, {"event_type": kind, **more, "event_id": f"e{n}"}

        begun = {key: answer[key] for key in ("id", "object", "model")}
        yield event("interaction.created", interaction={**begun, "status": "in_progress"})
        for i, step in enumerate(answer["steps"]):
            kind = step["type"]
            start = {key: step[key] for key in ("type", "id", "name") if key in step}
            yield event("step.start", index=i, step=start)
            deltas: list[JSON] = []
            if kind == "thought":
                texts = [{"type": "text", "text": text} for text in pieces(step["summary"][0]["text"])]
                deltas = [{"type": "thought_summary", "content": text} for text in texts]
                deltas.append({"type": "thought_signature", "signature": step["signature"]})
            elif kind == "model_output":
                deltas = [{"type": "text", "text": text} for text in pieces(step["content"][0]["text"])]
            else:
                arguments = json.dumps(step["arguments"])
                deltas = [{"type": "arguments_delta", "arguments": piece} for piece in pieces(arguments)]
            for delta in deltas:
                yield event("step.delta", index=i, delta=delta)
            yield event("step.stop", index=i)
        told = {key: answer[key] for key in ("id", "status", "usage")}
        yield event("interaction.completed", interaction=told)

    def error(self, refusal: Refusal) -> JSON:
        return _error(refusal)

    def headers(self, refusal: Refusal) -> Iterator[tuple[str, str]]:
        return iter(())  # Google says in the body when to come again

    def given_up(self, message: str) -> tuple[str | None, JSON]:
        return "error", {"event_type": "error", "error": {"code": "internal", "message": message}}


def refusal(status: int, name: str, message: str) -> Refusal:
    return Refusal(status, message, kind=name)


def _error(refusal: Refusal) -> JSON:
    """An error of Google's; the time to wait stands in its details."""
    wait = [text for name, text in refusal.headers if name == "retry-after"]
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{text}s"} for text in wait]
    told = {"code": refusal.status, "message": refusal.message, "status": refusal.code or refusal.kind}
    return {"error": {**told, **({"details": details} if details else {})}}


def _payload(part: JSON) -> str:
    return digest({key: value for key, value in part.items() if key != "thoughtSignature"})
