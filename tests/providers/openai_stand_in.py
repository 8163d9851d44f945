"""Stand-ins for OpenAI's chat completions and Responses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..interop.chat_request import problems as chat_problems
from ..interop.responses_request import problems as responses_problems
from .stand_in import JSON, Refusal, Said, StandIn, pieces


class ChatStandIn(StandIn):
    """All that is opaque in a message (``reasoning_opaque``) is bound to the model and the key."""

    path = "/v1/chat/completions"
    done = "[DONE]"

    def check(self, body: JSON, key: str) -> None:
        if not isinstance(body.get("model"), str):
            raise Refusal(400, "you must provide a model parameter")
        found = chat_problems(body)
        if found:
            raise Refusal(400, found[0])
        for message in body["messages"]:
            if "reasoning_opaque" in message:
                bound = self.reads(message["reasoning_opaque"])
                if bound is None or bound[:3] != ["reasoning", body["model"], key]:
                    raise Refusal(400, "The reasoning_opaque of a message could not be verified.")

    def answer(self, body: JSON, key: str, said: Said) -> JSON:
        n = self.number()
        message: JSON = {"role": "assistant", "content": said.text or None, "refusal": None}
        if said.thinking:
            message["reasoning_opaque"] = self.sign("reasoning", body["model"], key, said.thinking)
        if said.calls:
            message["tool_calls"] = [
                {"id": f"call_{n}_{k}", "type": "function", "function": {"name": name, "arguments": arguments}}
                for k, (name, arguments) in enumerate(said.calls)
            ]
        return {
            "id": f"chatcmpl-{n}", "object": "chat.completion", "created": 1, "model": body["model"],
            "choices": [{"index": 0, "message": message, "logprobs": None,
                         "finish_reason": "tool_calls" if said.calls else "stop"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15,
                      "prompt_tokens_details": {"cached_tokens": 4}},
        }  # fmt: skip

    def events(self, answer: JSON) -> Iterator[tuple[str | None, JSON]]:
        (choice,) = answer["choices"]
        message = choice["message"]

        def chunk(delta: JSON, finish: str | None = None, **more: Any) -> tuple[None, JSON]:
            head = {key: answer[key] for key in ("id", "created", "model")}
            choices = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
            return None, {**head, "object": "chat.completion.chunk", "choices": choices, **more}

        yield chunk({"role": "assistant", "content": "", "refusal": None})
        if "reasoning_opaque" in message:
            yield chunk({"reasoning_opaque": message["reasoning_opaque"]})
        for piece in pieces(message["content"] or ""):
            yield chunk({"content": piece})
        for k, call in enumerate(message.get("tool_calls", [])):
            first = {"index": k, "id": call["id"], "type": "function"}
            yield chunk({"tool_calls": [{**first, "function": {"name": call["function"]["name"], "arguments": ""}}]})
            for piece in pieces(call["function"]["arguments"]):
                yield chunk({"tool_calls": [{"index": k, "function": {"arguments": piece}}]})
        yield chunk({}, choice["finish_reason"])
        _, last = chunk({})
        yield None, {**last, "choices": [], "usage": answer["usage"]}


class ResponsesStandIn(StandIn):
    """Encrypted reasoning is bound to the model and the key, and goes with the items made with it (their ids say so).
    It keeps responses until ``forget``, for requests with ``previous_response_id``."""

    path = "/v1/responses"

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self._kept: dict[str, list[JSON]] = {}

    def forget(self) -> None:
        """As after its retention time."""
        self._kept.clear()

    def whole(self, body: JSON) -> JSON:
        return {**body, "input": [*self._kept.get(body.get("previous_response_id"), []), *_items(body["input"])]}

    def check(self, body: JSON, key: str) -> None:
        if not isinstance(body.get("model"), str):
            raise Refusal(400, "Missing required parameter: 'model'.")
        before = body.get("previous_response_id")
        if before is not None and before not in self._kept:
            text = f"Previous response with id '{before}' not found."
            raise Refusal(400, text, code="previous_response_not_found")
        items = self.whole(body)["input"]
        found = responses_problems({**body, "input": items})
        if found:
            raise Refusal(400, found[0])
        for item in items:
            if item.get("type") == "reasoning" and item.get("encrypted_content") is not None:
                bound = self.reads(item["encrypted_content"])
                if bound is None or bound[:3] != ["reasoning", body["model"], key] or bound[3] != item.get("id"):
                    text = f"The encrypted content {item['encrypted_content'][:4]}... could not be verified."
                    raise Refusal(400, text, code="invalid_encrypted_content")

    def answer(self, body: JSON, key: str, said: Said) -> JSON:
        n = self.number()
        output: list[JSON] = []
        of = ""
        if said.thinking:
            id_, of = f"rs_{n}", f"_of_rs_{n}"
            summary = [{"type": "summary_text", "text": said.thinking}]
            sealed = self.sign("reasoning", body["model"], key, id_)
            output.append({"id": id_, "type": "reasoning", "summary": summary, "encrypted_content": sealed})
        if said.text or not said.calls:
            text = {"type": "output_text", "text": said.text, "annotations": [], "logprobs": []}
            message = {"id": f"msg_{n}{of}", "type": "message", "role": "assistant", "status": "completed"}
            output.append({**message, "content": [text]})
        for k, (name, arguments) in enumerate(said.calls):
            call = {"id": f"fc_{n}_{k}{of}", "type": "function_call", "status": "completed"}
            output.append({**call, "call_id": f"call_{n}_{k}", "name": name, "arguments": arguments})
        id_ = f"resp_{n}"
        if body.get("store", True):
            before = self._kept.get(body.get("previous_response_id"), [])
            self._kept[id_] = [*before, *_items(body["input"]), *output]
        return {
            "id": id_, "object": "response", "created_at": 1, "status": "completed", "error": None,
            "incomplete_details": None, "model": body["model"], "output": output, "parallel_tool_calls": True,
            "tool_choice": "auto", "tools": body.get("tools", []),
            "usage": {"input_tokens": 10, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 5,
                      "output_tokens_details": {"reasoning_tokens": 1}, "total_tokens": 15},
        }  # fmt: skip

    def events(self, answer: JSON) -> Iterator[tuple[str | None, JSON]]:
        n = 0

        def event(kind: str, **more: Any) -> tuple[str, JSON]:
            nonlocal n
            n += 1
            return kind, {"type": kind, "sequence_number": n - 1, **more}

        begun = {**answer, "status": "in_progress", "output": [], "usage": None}
        yield event("response.created", response=begun)
        yield event("response.in_progress", response=begun)
        for i, item in enumerate(answer["output"]):
            at: dict[str, Any] = {"item_id": item["id"], "output_index": i}
            kind = item["type"]
            empty = {"message": {"content": [], "status": "in_progress"}, "function_call": {"arguments": ""},
                     "reasoning": {"summary": [], "encrypted_content": "incomplete"}}  # fmt: skip
            yield event("response.output_item.added", output_index=i, item={**item, **empty[kind]})
            if kind == "reasoning":
                for s, part in enumerate(item["summary"]):
                    yield event(
                        "response.reasoning_summary_part.added", summary_index=s, part={**part, "text": ""}, **at
                    )
                    for piece in pieces(part["text"]):
                        yield event("response.reasoning_summary_text.delta", summary_index=s, delta=piece, **at)
                    yield event("response.reasoning_summary_text.done", summary_index=s, text=part["text"], **at)
                    yield event("response.reasoning_summary_part.done", summary_index=s, part=part, **at)
            elif kind == "message":
                for c, part in enumerate(item["content"]):
                    yield event("response.content_part.added", content_index=c, part={**part, "text": ""}, **at)
                    for piece in pieces(part["text"]):
                        yield event("response.output_text.delta", content_index=c, delta=piece, logprobs=[], **at)
                    yield event("response.output_text.done", content_index=c, text=part["text"], logprobs=[], **at)
                    yield event("response.content_part.done", content_index=c, part=part, **at)
            else:
                for piece in pieces(item["arguments"]):
                    yield event("response.function_call_arguments.delta", delta=piece, **at)
                yield event("response.function_call_arguments.done", arguments=item["arguments"], **at)
            yield event("response.output_item.done", output_index=i, item=item)
        yield event("response.completed", response=answer)

    def given_up(self, message: str) -> tuple[str | None, JSON]:
        return "error", {"type": "error", "code": "server_error", "message": message, "param": None}


def _items(value: JSON) -> list[JSON]:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value
