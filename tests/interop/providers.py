"""The validator of each format, and a response of its API."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import anthropic_request
import chat_request
import gemini_request
import interactions_request
import responses_request
import test_ollama
import test_openrouter
import test_reasoning_content
import ui_messages

VALIDATORS: dict[str, Callable[[Any], list[str]]] = {
    "openai-chat": chat_request.problems,
    "anthropic": anthropic_request.problems,
    "openai-responses": responses_request.problems,
    "gemini": gemini_request.problems,
    "openrouter": test_openrouter.problems,
    "reasoning-content": test_reasoning_content.problems,
    "ollama": test_ollama.problems,
    "ai-sdk": ui_messages.problems,
    "gemini-interactions": interactions_request.problems,
}


def _chat(model: str, reasoning: dict[str, Any], **more: Any) -> dict[str, Any]:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1.10}'}}
    message = {"role": "assistant", "content": "Let me see.", "refusal": None, **reasoning, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "tool_calls"}
    return {"id": "r", "object": "chat.completion", "model": model, "choices": [choice], "usage": {"total_tokens": 9}}


DETAILS = [{"type": "reasoning.encrypted", "data": "OPAQUE"}]
RESPONSES: dict[str, dict[str, Any]] = {
    "openai-chat": _chat("m-1-2026", {"reasoning_opaque": "OPAQUE"}),
    "openrouter": _chat("m-1-2026", {"reasoning_details": DETAILS}),
    "reasoning-content": _chat("m-1-2026", {"reasoning_content": "Hm.", "reasoning_opaque": "OPAQUE"}),
    "anthropic": {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m-1-2026", "stop_reason": "tool_use",
        "stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 5},
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "OPAQUE"},
            {"type": "text", "text": "Let me see.", "citations": None},
            {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": None}},
        ],
    },
    "openai-responses": {
        "id": "resp_1", "object": "response", "status": "completed", "model": "m-1-2026", "error": None,
        "incomplete_details": None, "usage": {"input_tokens": 3},
        "output": [
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "OPAQUE", "status": None},
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
             "content": [{"type": "output_text", "text": "Let me see.", "annotations": [], "logprobs": None}]},
            {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "look", "arguments": '{"at": 1.10}'},
        ],
    },
    "gemini": {
        "responseId": "r", "modelVersion": "m-1-2026", "usageMetadata": {"totalTokenCount": 9},
        "candidates": [{"index": 0, "finishReason": "STOP", "content": {"role": "model", "parts": [
            {"text": "Let me see."},
            {"functionCall": {"name": "look", "args": {"at": 1}}, "thoughtSignature": "OPAQUE"},
        ]}}],
    },
    "gemini-interactions": {
        "id": "i_1", "status": "requires_action", "model": "m-1-2026", "usage": {"total_tokens": 9}, "outputs": None,
        "steps": [
            {"type": "user_input", "content": [{"type": "text", "text": "What is there?"}]},
            {"type": "thought", "signature": "OPAQUE", "summary": None},
            {"type": "model_output", "content": [{"type": "text", "text": "Let me see.", "annotations": None}]},
            {"type": "function_call", "id": "c1", "name": "look", "arguments": {"at": 1}},
        ],
    },
    "ollama": {
        "model": "m-1-2026", "done": True, "done_reason": "stop", "eval_count": 5, "prompt_eval_count": 3,
        "message": {"role": "assistant", "content": "Let me see.",
                    "tool_calls": [{"function": {"name": "look", "arguments": {"at": 1}}}]},
    },
    "ai-sdk": {
        "id": "a1", "role": "assistant", "parts": [
            {"type": "step-start"},
            {"type": "text", "text": "Let me see.", "state": "done"},
            {"type": "tool-look", "toolCallId": "c1", "state": "input-available", "input": {"at": 1},
             "callProviderMetadata": {"google": {"thoughtSignature": "OPAQUE"}}},
        ],
    },
}  # fmt: skip
"""A response of each API, with a call; opaque values have the letters OPAQUE in them."""
